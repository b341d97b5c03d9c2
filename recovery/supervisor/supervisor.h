/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One volume in the keeper: its connection, its ledger, its source, and a worker that is kept
 * running on them. It never blocks: all that lasts is an event of the loop.
 *
 *   starting ── report ──▶ serving ── worker dies ──▶ restarting ── report ──▶ serving
 *      │ report of failure,     │                         │ ▲
 *      │ death, time limit      │ connection has ended    │ └─ back-off
 *      ▼                        ▼                         ▼
 *   on_started with an error    dead, until it is stopped
 *
 * A new one first has a child look at the source (source_probe.h), then makes the connection and
 * starts the worker. One that is adopted from another keeper begins as restarting.
 *
 * What a worker had in hand when it died is in the ledger, and the next one goes on with it
 * (fuse/inbox.h); the keeper writes there how the worker ended.
 *
 * Whether the connection has ended is asked of poll(2) when a worker dies, and not watched with
 * epoll: the kernel wakes every waiter of the descriptor for every request, so that a keeper which
 * watches would be woken by each upcall of each volume. A worker notices anyhow (ENODEV).
 */

#include "base/error.h"
#include "base/macros.h"
#include "recovery/control.h"
#include "recovery/loop.h"
#include "recovery/supervisor/adopted.h"
#include "recovery/supervisor/memory_limit.h"
#include "recovery/supervisor/reaper.h"
#include "recovery/supervisor/standby.h"

struct supervisor;

/* What all supervisors share; outlives them. */
struct supervisor_context {
	struct loop *loop;
	struct reaper *reaper;
	struct standby *standby;
	struct memory_limits *memory;
	int fusectl_fd;		 /* -EBADF where it could not be opened */
	uint64_t request_max_ns; /* fs.fuse.max_request_timeout; 0: not set */

	/*
	 * on_started - the first worker serves, or (`failure` not NULL) source, connection or
	 * worker failed: then no process is left and the owner frees the supervisor.
	 */
	void (*on_started)(void *owner, struct supervisor *supervisor, const struct error *failure);

	/* on_dead - the connection has ended, and nobody asked for it. */
	void (*on_dead)(void *owner, struct supervisor *supervisor);

	/* on_stopped - what supervisor_stop began is done: the owner frees the supervisor. */
	void (*on_stopped)(void *owner, struct supervisor *supervisor);
};

/*
 * supervisor_new - begin to serve: on_started is called later, within a time limit. `source_fd` is
 * consumed, also by failures; `owner` is what the callbacks get. Returns 0 or -errno with *err set,
 * and then nothing is left.
 */
int __must_check supervisor_new(const struct supervisor_context *context,
				const struct volume_config *config, int source_fd, void *owner,
				struct supervisor **ret, struct error *err);

/*
 * supervisor_adopt - go on with a connection that outlived its keeper: a worker is started at once,
 * and again until one serves; on_started is not called. `planned`: that keeper handed it over, and
 * its worker may still serve. *adopted is consumed, and ADOPTED_NONE afterwards, unless this fails.
 * Returns 0 or -ENOMEM with *err set.
 */
int __must_check supervisor_adopt(const struct supervisor_context *context, struct adopted *adopted,
				  bool planned, void *owner, struct supervisor **ret,
				  struct error *err);

/*
 * supervisor_announce - another keeper is about to go on with a volume that has started, so the end
 * of the worker that there is will be no request's fault. Nothing else changes. Returns the worker
 * (pid 0: there is none), borrowed.
 */
const struct child *supervisor_announce(struct supervisor *supervisor);

/*
 * supervisor_yield - as supervisor_announce, but no worker is started any more, and when this one
 * has ended on_stopped follows, before this returns where there is none. supervisor_stop then kills
 * it and leaves the connection alone, which goes on if anybody else holds it.
 */
void supervisor_yield(struct supervisor *supervisor);

/*
 * supervisor_stop - kill the worker and end the connection; on_stopped follows, maybe before this
 * returns. A worker that the kernel does not let go of (an uninterruptible call on a hung source)
 * is left to a reaper after a few seconds, with its connection aborted. To be called once.
 */
void supervisor_stop(struct supervisor *supervisor);

/*
 * supervisor_replace - kill the worker, so that another takes over. `planned`: the next one is of
 * the program file as it is now, and no request is blamed. If that one serves, the keeper's next
 * workers are of that file too; if it does not, which is logged, all goes on with the file that
 * there was. Returns 0 or -errno with *err set (ERROR_BUSY) when no worker serves.
 */
int __must_check supervisor_replace(struct supervisor *supervisor, bool planned, struct error *err);

/*
 * supervisor_check - whether the connection has been aborted below a worker that does not notice,
 * and whether the worker gets on (progress.h): one that hangs for `limit_ns` is killed, 0: none is.
 * To be called a few times in that time.
 */
void supervisor_check(struct supervisor *supervisor, uint64_t limit_ns);

/*
 * supervisor_retire - another connection has the volume's name from now on: this one goes on as
 * `name`, for those who have files open, and ends by itself with the last of them and the last
 * mount.
 */
void supervisor_retire(struct supervisor *supervisor, const char *name);

/* supervisor_free - close all descriptors of a supervisor whose worker is gone. NULL is fine. */
void supervisor_free(struct supervisor *supervisor);

/* supervisor_status - what CONTROL_LIST tells. */
void supervisor_status(const struct supervisor *supervisor, struct volume_status *ret);

/*
 * supervisor_mount - a mount to hand out, owned by the caller: see control.h. Returns 0 or -errno
 * with *err set.
 */
int __must_check supervisor_mount(const struct supervisor *supervisor, int *ret_fd,
				  struct error *err);

/* supervisor_escrow - what an escrow holds, borrowed; of a volume that has started. */
void supervisor_escrow(const struct supervisor *supervisor, int ret_fds[ESCROW_FDS]);

const char *supervisor_id(const struct supervisor *supervisor);
