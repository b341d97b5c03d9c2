/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* File descriptors: closed at the end of a scope, handed over explicitly, -EBADF when there is
 * none. */

#include <errno.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/macros.h"

/* Closes *fd if it is valid and sets it to -EBADF; keeps errno. For _cleanup_close_. */
static inline void close_fd(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;

		(void)close(*fd);
		errno = saved;
	}
	*fd = -EBADF;
}
#define _cleanup_close_ _cleanup_(close_fd)

#define TAKE_FD(fd)                 \
	({                          \
		int *_fdp = &(fd);  \
		int _taken = *_fdp; \
		*_fdp = -EBADF;     \
		_taken;             \
	})

/*
 * fd_raise_limit - as many open files as this process may have (RLIMIT_NOFILE). *ret_code is 0, or
 * -errno where the limit stays as it was. Returns how many that is now.
 */
uint64_t fd_raise_limit(int *ret_code);

/* fd_fill_stdio - open closed ones of 0, 1 and 2 on /dev/null, lest a descriptor that matters gets
 * such a number and is written to as standard error. */
void fd_fill_stdio(void);

/* fd_pipe - pipe2(2) with close-on-exec set; both ends are owned by the caller. Returns 0 or -errno.
 */
int __must_check fd_pipe(int *ret_read, int *ret_write);

/*
 * fd_dup - duplicate `fd` with close-on-exec set; the lowest number is 3, so that a closed stdio is
 * never filled. Returns the new descriptor, owned by the caller, or -errno.
 */
int __must_check fd_dup(int fd);

/*
 * fd_read_all - read up to `size` bytes from the current position, until end of file. Restarts on
 * EINTR. Returns the number of bytes read, or -errno.
 */
ssize_t __must_check fd_read_all(int fd, void *buf, size_t size);

/* fd_write_all - write all of `size` bytes, restarting short writes and EINTR. Returns 0 or -errno.
 */
int __must_check fd_write_all(int fd, const void *buf, size_t size);

/*
 * fd_write_at - write `size` bytes at `offset`, or as many as go; `flags` as for pwritev2(2): with
 * RWF_APPEND they go to the end of the file. Restarts short writes and EINTR. Returns how many were
 * written, or -errno when none was.
 */
ssize_t __must_check fd_write_at(int fd, const void *buf, size_t size, off_t offset, int flags);

/* fd_path - format "/proc/self/fd/N" into `buf`, for system calls that know only paths. Returns
 * buf. */
#define FD_PATH_MAX 32
const char *fd_path(int fd, char buf[FD_PATH_MAX]);
