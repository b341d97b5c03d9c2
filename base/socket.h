/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * SOCK_SEQPACKET unix sockets that carry one message and up to SOCKET_FDS_MAX descriptors at a time
 * (unix(7), SCM_RIGHTS). Every descriptor that arrives is close-on-exec from birth; those that the
 * caller did not ask for are closed.
 */

#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"

#define SOCKET_FDS_MAX 4

/*
 * socket_listen - listen on `path`, mode 0600, non-blocking; a stale socket file at the path is
 * replaced, a socket on which somebody still answers is an error (EADDRINUSE). Returns an owned
 * descriptor or -errno with *err set.
 */
int __must_check socket_listen(const char *path, struct error *err);

/* socket_listen_stream - the same for a SOCK_STREAM socket. */
int __must_check socket_listen_stream(const char *path, struct error *err);

/* socket_connect - connect to a listening `path`, blocking. Returns an owned descriptor or -errno.
 */
int __must_check socket_connect(const char *path);

/*
 * socket_connect_timeout - as socket_connect, but a listener whose queue is full is waited for at
 * most `timeout_ms` (more than 0). Returns an owned descriptor or -errno; -ETIMEDOUT.
 */
int __must_check socket_connect_timeout(const char *path, int timeout_ms);

/*
 * socket_send - send one message; `fds` are borrowed. Never raises SIGPIPE. flags as for
 * sendmsg(2). Returns 0 or -errno; -EMSGSIZE where the message does not fit the socket.
 */
int __must_check socket_send(int fd, const void *buf, size_t size, const int *fds, size_t n_fds,
			     int flags);

/*
 * socket_recv - receive one message of at most `size` bytes. *ret_fds gets the descriptors that
 * came along (owned by the caller), the rest of the array is set to -EBADF. Returns the number of
 * bytes, 0 when the peer has closed, -EMSGSIZE when the message was longer than size or carried too
 * many descriptors (all of which are then closed), or -errno.
 */
ssize_t __must_check socket_recv(int fd, void *buf, size_t size, int ret_fds[SOCKET_FDS_MAX],
				 int flags);

/* socket_peer_uid - the uid that the peer had when it connected (SO_PEERCRED). Returns 0 or -errno.
 */
int __must_check socket_peer_uid(int fd, uid_t *ret_uid);
