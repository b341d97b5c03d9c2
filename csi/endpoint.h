/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The unix sockets that the plugin listens on. */

#include "base/error.h"
#include "base/macros.h"

/*
 * endpoint_path - the path in "unix:///PATH", "unix:/PATH" or "/PATH"; `what` names the flag in
 * errors. *ret points into `text`. Returns 0 or -EINVAL with *err set (ERROR_INVALID): another
 * scheme, a path that is not absolute and normalized, or one that is too long for a socket.
 */
int __must_check endpoint_path(const char *what, const char *text, const char **ret,
			       struct error *err);

/*
 * endpoint_listen - listen on the socket `path`, mode 0600, non-blocking; a stale socket is
 * replaced. *ret_fd is owned by the caller. Returns 0 or -errno with *err set: -ENOENT when the
 * directory is missing, -EADDRINUSE when somebody serves there.
 */
int __must_check endpoint_listen(const char *path, int *ret_fd, struct error *err);
