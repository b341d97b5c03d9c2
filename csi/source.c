/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fd.h"
#include "mount/path.h"
#include "mount/tree.h"

/* The longest prefix wins: a prefix may itself be a symbolic link, and lie below another prefix. */
static const char *find_prefix(const struct strv *allowed, const char *path)
{
	const char *best = NULL;

	for (size_t i = 0; i < allowed->n; i++)
		if (path_is_beneath(allowed->items[i], path) &&
		    (!best || strlen(allowed->items[i]) > strlen(best)))
			best = allowed->items[i];
	return best;
}

static int clone_private(int dir_fd, int *ret_fd, struct error *err)
{
	_cleanup_close_ int fd = -EBADF;
	int r = mount_clone(dir_fd, "", true, &fd, err);

	if (r >= 0)
		r = mount_make_private(fd, err);
	if (r == -EPERM)
		return error_set(err, ERROR_PRECONDITION, r,
				 "holdfast-csi may not mount: run it as root with CAP_SYS_ADMIN");
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int source_open(const struct strv *allowed, const char *path, int *ret_fd, struct error *err)
{
	_cleanup_close_ int dir_fd = -EBADF;
	const char *prefix = find_prefix(allowed, path);
	int r;

	if (!prefix)
		return error_set(err, ERROR_INVALID, -EACCES,
				 "source %s is not below an allowed prefix%s: start holdfast-csi "
				 "with --allow-source %s or a directory above it",
				 path, allowed->n == 0 ? ", because none is allowed" : "", path);
	r = path_open_beneath(prefix, path, O_PATH | O_DIRECTORY, &dir_fd, err);
	if (r >= 0)
		r = clone_private(dir_fd, ret_fd, err);
	return r < 0 ? error_prefix(err, "source") : 0;
}
