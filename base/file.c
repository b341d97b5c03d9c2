/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/fd.h"

static int write_and_sync(int dir_fd, const char *name, const void *data, size_t size)
{
	_cleanup_close_ int fd =
		openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, data, size);
	if (r < 0)
		return r;
	return fsync(fd) < 0 ? -errno : 0;
}

int file_replace(int dir_fd, const char *name, const void *data, size_t size, struct error *err)
{
	static atomic_uint serial;
	char temporary[64];
	int r;

	(void)snprintf(temporary, sizeof(temporary), ".new.%d.%u", (int)getpid(),
		       atomic_fetch_add(&serial, 1));
	(void)unlinkat(dir_fd, temporary, 0); /* of an earlier process with our pid */
	r = write_and_sync(dir_fd, temporary, data, size);
	if (r >= 0 && renameat(dir_fd, temporary, dir_fd, name) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlinkat(dir_fd, temporary, 0);
		return error_errno(err, r, "write %s", name);
	}
	return 0;
}

int file_load(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_size,
	      struct error *err)
{
	_cleanup_close_ int fd =
		openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	_cleanup_free_ char *data = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return error_errno(err, -errno, "open %s", name);
	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "fstat %s", name);
	if (!S_ISREG(st.st_mode))
		return error_errno(err, -EINVAL, "%s is not a regular file", name);
	if ((uint64_t)st.st_size > max)
		return error_errno(err, -EFBIG, "%s is larger than %zu bytes", name, max);
	data = malloc((size_t)st.st_size + 1);
	if (!data)
		return error_errno(err, -ENOMEM, "read %s", name);
	n = fd_read_all(fd, data, (size_t)st.st_size);
	if (n < 0)
		return error_errno(err, (int)n, "read %s", name);
	data[n] = '\0';
	*ret = TAKE_PTR(data);
	*ret_size = (size_t)n;
	return 0;
}
