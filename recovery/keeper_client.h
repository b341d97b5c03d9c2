/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The other end of the keeper's control socket, for holdfast-csi and holdfastctl. Each call makes a
 * connection of its own, so a keeper that was restarted is found again and threads do not wait for
 * each other.
 */

#include "base/error.h"
#include "base/macros.h"
#include "base/socket.h"
#include "recovery/control.h"

/*
 * All calls: `run_dir` is where the keeper's socket is; `timeout_ms` bounds the whole call. Returns
 * 0 or -errno with *err set: ERROR_UNAVAILABLE when no keeper answers there, ERROR_TIMEOUT, or what
 * the keeper said, with its kind.
 */

/*
 * keeper_add - start to serve `config` from the directory `source_fd` (borrowed, O_PATH, the root
 * of a detached clone of its mount tree). *ret_mount_fd, owned by the caller, is a mount to attach,
 * *ret_escrow, owned too, what an escrow holds. -EEXIST (ERROR_EXISTS) if the volume is there. With
 * -EMFILE the volume may be there all the same: the reply found no room for its descriptors.
 */
int __must_check keeper_add(const char *run_dir, int timeout_ms, const struct volume_config *config,
			    int source_fd, int *ret_mount_fd, int ret_escrow[ESCROW_FDS],
			    struct volume_status *ret, struct error *err);

/*
 * keeper_swap - serve the volume `config` from another source from now on; the rest as keeper_add.
 * After a failure it is served as before. The connection it had goes on under another name.
 */
int __must_check keeper_swap(const char *run_dir, int timeout_ms,
			     const struct volume_config *config, int source_fd, int *ret_mount_fd,
			     struct volume_status *ret, struct error *err);

/* keeper_mount - the mount of a volume that is there, again. -ENOENT (ERROR_NOT_FOUND) if it is
 * not. */
int __must_check keeper_mount(const char *run_dir, int timeout_ms, const char *id,
			      int *ret_mount_fd, struct volume_status *ret, struct error *err);

/* keeper_remove - end a volume. One that is not there is fine. */
int __must_check keeper_remove(const char *run_dir, int timeout_ms, const char *id,
			       struct error *err);

/* keeper_replace - kill a volume's worker, so that another takes over; `planned`: one of the
 * program file as it is now. ERROR_BUSY when no worker serves right now. */
int __must_check keeper_replace(const char *run_dir, int timeout_ms, const char *id, bool planned,
				struct error *err);
/*
 * keeper_escrow - what an escrow of the volume holds; *ret_fds is owned by the caller. -ENOENT
 * (ERROR_NOT_FOUND) if the volume is not there, ERROR_BUSY while it comes or goes.
 */
int __must_check keeper_escrow(const char *run_dir, int timeout_ms, const char *id,
			       int ret_fds[ESCROW_FDS], struct volume_status *ret,
			       struct error *err);

/*
 * keeper_adopt - give a volume back to a keeper that came after the one which made it; `fds` are
 * borrowed. -EEXIST (ERROR_EXISTS) if it is there, -ENOTCONN if its connection has ended,
 * -EPROTONOSUPPORT (ERROR_PRECONDITION) for a ledger that this keeper can't read, ERROR_EXHAUSTED,
 * or ERROR_INVALID for descriptors that are something else.
 */
int __must_check keeper_adopt(const char *run_dir, int timeout_ms, const char *id,
			      const int fds[ESCROW_FDS], struct error *err);

/*
 * keeper_watch - a connection to the keeper for those who want to notice its end (a hang-up) and
 * that of its volumes: then the descriptor is readable. Returns an owned descriptor, or -errno with
 * *err set.
 */
int __must_check keeper_watch(const char *run_dir, int timeout_ms, struct error *err);

/*
 * keeper_watch_read - which volume's connection has ended. Returns 0, -EAGAIN when there is nothing
 * to read, or -errno when the keeper is gone.
 */
int __must_check keeper_watch_read(int watch_fd, struct volume_status *ret);

/*
 * plugin_heal - have holdfast-csi look at a volume, all with an empty id, and heal what is dead.
 * ERROR_UNAVAILABLE when no plugin answers.
 */
int __must_check plugin_heal(const char *run_dir, int timeout_ms, const char *id,
			     struct error *err);

/* plugin_swap - have holdfast-csi mount the volume everywhere from the directory `source` instead.
 */
int __must_check plugin_swap(const char *run_dir, int timeout_ms, const char *id,
			     const char *source, struct error *err);

/*
 * keeper_handover - ask for all volumes, to go on with them in the keeper's place. take(context) is
 * called for each with its status and what an escrow of it holds, then for each other client with
 * no id and its connection; it may take the descriptors (TAKE_FD), and returns 0 or -errno with
 * *err set. *ret_fd is the connection, owned by the caller, for keeper_handover_commit; closing it
 * before that gives up, and nothing has happened. ERROR_BUSY while others wait for an answer.
 */
int __must_check keeper_handover(const char *run_dir, int timeout_ms,
				 int (*take)(void *context, const struct volume_status *status,
					     int fds[SOCKET_FDS_MAX], struct error *err),
				 void *context, int *ret_fd, struct error *err);

/*
 * keeper_handover_commit - on the connection `fd` (borrowed): the keeper lets go of all. It ends
 * its workers as soon as `fd` is closed. *ret_fds is owned by the caller. With a failure the
 * connection is of no more use.
 */
int __must_check keeper_handover_commit(int fd, int timeout_ms, int ret_fds[HANDOVER_FDS],
					struct error *err);

/* keeper_list - *ret is an array of *ret_n, owned by the caller (free(3)). */
int __must_check keeper_list(const char *run_dir, int timeout_ms, struct volume_status **ret,
			     size_t *ret_n, struct error *err);
