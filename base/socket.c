/* SPDX-License-Identifier: Apache-2.0 */
#include "base/socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"

#define PATIENCE_MS 1000 /* for a predecessor to be gone */
#define PATIENCE_STEP_MS 20

static int make_address(const char *path, struct sockaddr_un *ret)
{
	size_t len = strlen(path);

	if (len == 0)
		return -EINVAL;
	if (len >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	memcpy(ret->sun_path, path, len);
	return 0;
}

/* `patience` zero: for ever. */
static int connect_to(const char *path, int type, struct timeval patience)
{
	_cleanup_close_ int fd = -EBADF;
	struct sockaddr_un address;
	int r = make_address(path, &address);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return TAKE_FD(fd);
}

int socket_connect(const char *path)
{
	return connect_to(path, SOCK_SEQPACKET, (struct timeval){ 0 });
}

int socket_connect_timeout(const char *path, int timeout_ms)
{
	return connect_to(path, SOCK_SEQPACKET,
			  (struct timeval){ .tv_sec = timeout_ms / 1000,
					    .tv_usec = timeout_ms % 1000 * 1000 });
}

/* A process that was killed listens until its last fork has ended, as it holds its lock. */
static int connect_patiently(const char *path, int type)
{
	for (int ms = 0;; ms += PATIENCE_STEP_MS) {
		int fd = connect_to(path, type, (struct timeval){ .tv_sec = 1 });

		if (fd < 0 || ms >= PATIENCE_MS)
			return fd;
		(void)close(fd);
		(void)usleep(PATIENCE_STEP_MS * 1000);
	}
}

/* Removes a socket file that nobody listens on. */
static int remove_stale(const char *path, int type, struct error *err)
{
	_cleanup_close_ int probe = connect_patiently(path, type);
	struct stat st;

	if (probe >= 0 || probe == -ETIMEDOUT || probe == -EPROTOTYPE)
		return error_set(err, ERROR_PRECONDITION, -EADDRINUSE,
				 "%s: another process is serving this socket; stop it first", path);
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : error_errno(err, -errno, "lstat %s", path);
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, ERROR_PRECONDITION, -EEXIST,
				 "%s is in the way and is not a socket", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return error_errno(err, -errno, "remove the stale socket %s", path);
	return 0;
}

/* The mode goes onto the socket before bind(2), which gives it to the file: there is no moment with
 * another one, and no umask(2) that other threads would share. */
static int listen_on(const char *path, int type, struct error *err)
{
	_cleanup_close_ int fd = -EBADF;
	struct sockaddr_un address;
	int r = make_address(path, &address);

	if (r < 0)
		return error_set(err, ERROR_INVALID, r,
				 "socket path '%s': 1 to %zu bytes are possible", path,
				 sizeof(address.sun_path) - 1);
	r = remove_stale(path, type, err);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_errno(err, -errno, "socket");
	if (fchmod(fd, 0600) < 0)
		return error_errno(err, -errno, "fchmod of a socket");
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return error_errno(err, -errno, "bind %s", path);
	if (listen(fd, SOMAXCONN) < 0)
		return error_errno(err, -errno, "listen on %s", path);
	return TAKE_FD(fd);
}

int socket_listen(const char *path, struct error *err)
{
	return listen_on(path, SOCK_SEQPACKET, err);
}

int socket_listen_stream(const char *path, struct error *err)
{
	return listen_on(path, SOCK_STREAM, err);
}

int socket_send(int fd, const void *buf, size_t size, const int *fds, size_t n_fds, int flags)
{
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = size };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * SOCKET_FDS_MAX)];
	} control = { .bytes = { 0 } };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (n_fds > SOCKET_FDS_MAX)
		return -EINVAL;
	if (n_fds > 0) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	do
		n = sendmsg(fd, &msg, flags | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* Takes the descriptors out of a received message; those beyond the array are closed. Returns how
 * many came. */
static size_t take_fds(struct msghdr *msg, int ret_fds[SOCKET_FDS_MAX])
{
	size_t total = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++, total++) {
			int one;

			memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (total < SOCKET_FDS_MAX)
				ret_fds[total] = one;
			else
				close_fd(&one);
		}
	}
	return total;
}

ssize_t socket_recv(int fd, void *buf, size_t size, int ret_fds[SOCKET_FDS_MAX], int flags)
{
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * SOCKET_FDS_MAX)];
	} control;
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	size_t n_fds;
	ssize_t n;

	for (size_t i = 0; i < SOCKET_FDS_MAX; i++)
		ret_fds[i] = -EBADF;
	do
		n = recvmsg(fd, &msg, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	n_fds = take_fds(&msg, ret_fds);
	if (n_fds > SOCKET_FDS_MAX || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		for (size_t i = 0; i < SOCKET_FDS_MAX; i++)
			close_fd(&ret_fds[i]);
		return -EMSGSIZE;
	}
	return n;
}

int socket_peer_uid(int fd, uid_t *ret_uid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	*ret_uid = cred.uid;
	return 0;
}
