/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The main loop of holdfast-csi: accepts connections for the server, turns signals into an orderly
 * end, and tells the service manager that all is well.
 */

#include "base/error.h"
#include "base/macros.h"
#include "csi/server.h"

#define DAEMON_SOCKETS_MAX 2

struct daemon;

/*
 * daemon_new - block SIGTERM and SIGINT, ignore SIGPIPE; to be called before any thread starts.
 * *ret is owned by the caller. Returns 0 or -errno with *err set.
 */
int __must_check daemon_new(struct daemon **ret, struct error *err);

/*
 * daemon_listen - listen on the socket `path` (borrowed for the daemon's life). Connections wait
 * until daemon_run. Returns 0 or -errno with *err set.
 */
int __must_check daemon_listen(struct daemon *daemon, const char *path, struct error *err);

/* daemon_quit_fd - an eventfd: writing to it ends the daemon as SIGTERM does, but with exit code 1.
 * Borrowed from the daemon. */
int daemon_quit_fd(const struct daemon *daemon);

/*
 * daemon_run - serve until a signal or the eventfd says so; then close and remove the sockets.
 * Returns the exit code. server_stop is the caller's.
 */
int daemon_run(struct daemon *daemon, struct server *server);

/* daemon_free - close and remove the sockets, if that was not done yet. NULL is fine. */
void daemon_free(struct daemon *daemon);
DEFINE_CLEANUP(struct daemon *, daemon_free);
#define _cleanup_daemon_ _cleanup_(daemon_free_cleanup)
