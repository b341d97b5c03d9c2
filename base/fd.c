/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/uio.h>
#include <sys/resource.h>

uint64_t fd_raise_limit(int *ret_code)
{
	struct rlimit limit = { .rlim_cur = 1024 };

	*ret_code = 0;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
		*ret_code = -errno;
		return limit.rlim_cur;
	}
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		*ret_code = -errno;
	(void)getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur;
}

void fd_fill_stdio(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	close_fd(&fd);
}

int fd_pipe(int *ret_read, int *ret_write)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	*ret_read = fds[0];
	*ret_write = fds[1];
	return 0;
}

int fd_dup(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return copy < 0 ? -errno : copy;
}

ssize_t fd_read_all(int fd, void *buf, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = read(fd, (char *)buf + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int fd_write_all(int fd, const void *buf, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = write(fd, (const char *)buf + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

ssize_t fd_write_at(int fd, const void *buf, size_t size, off_t offset, int flags)
{
	size_t done = 0;

	while (done < size) {
		struct iovec iov = { .iov_base = (char *)buf + done, .iov_len = size - done };
		ssize_t n = pwritev2(fd, &iov, 1, offset + (off_t)done, flags);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 && done > 0)
			break;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

const char *fd_path(int fd, char buf[FD_PATH_MAX])
{
	(void)snprintf(buf, FD_PATH_MAX, "/proc/self/fd/%d", fd);
	return buf;
}
