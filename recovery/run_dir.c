/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/run_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/fd.h"

static int prepare(const char *path, int *ret_fd, struct error *err)
{
	_cleanup_close_ int fd = -EBADF;
	struct stat st;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return error_errno(err, -errno, "make the run directory %s", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, -errno, "open the run directory %s", path);
	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "fstat %s", path);
	if (st.st_uid != geteuid())
		return error_set(err, ERROR_PRECONDITION, -EPERM,
				 "the run directory %s belongs to uid %u, not to us", path,
				 st.st_uid);
	if ((st.st_mode & 07777) != 0700 && fchmod(fd, 0700) < 0)
		return error_errno(err, -errno, "chmod 0700 %s", path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* A process that was killed holds its lock until its last thread and last fork have ended. */
static int lock_patiently(int fd, int patience_ms)
{
	for (int ms = 0;; ms++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK || ms >= patience_ms)
			return -errno;
		(void)usleep(1000);
	}
}

int run_dir_lock(const char *path, const char *role, int patience_ms, int *ret_fd,
		 struct error *err)
{
	_cleanup_close_ int dir_fd = -EBADF, fd = -EBADF;
	char name[NAME_MAX];
	int r = prepare(path, &dir_fd, err);

	if (r < 0)
		return r;
	(void)snprintf(name, sizeof(name), "%s.lock", role);
	fd = openat(dir_fd, name, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno(err, -errno, "open %s/%s", path, name);
	r = lock_patiently(fd, patience_ms);
	if (r == -EWOULDBLOCK)
		return error_set(
			err, ERROR_PRECONDITION, -EADDRINUSE,
			"another %s serves %s; stop it first, or give this one a --run-dir "
			"of its own",
			role, path);
	if (r < 0)
		return error_errno(err, r, "lock %s/%s", path, name);
	*ret_fd = TAKE_FD(fd);
	return 0;
}
