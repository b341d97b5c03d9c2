/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A worker that is ready before it is needed: started, prepared, waiting for its order
 * (fuse/worker.h). One serves all volumes of a keeper, as it belongs to none; the next is started
 * as soon as it is taken. Where several workers die at once, the others are started on the spot.
 *
 * All are of the program file that was there when the keeper started: it is pinned by a descriptor,
 * so that an upgrade of the files on disk changes nothing before somebody asks for it. Who does has
 * one worker try the new file, and pins that once it serves.
 */

#include "base/error.h"
#include "base/macros.h"
#include "recovery/loop.h"
#include "recovery/supervisor/reaper.h"
#include "recovery/supervisor/worker.h"

struct standby {
	struct loop *loop;
	struct reaper *reaper;
	const struct worker_program *program;
	struct child child;
	struct loop_source exit;
	struct loop_timer refill;
	int binary_fd; /* the pinned program file; -EBADF while none could be opened */
};

/* standby_init - `loop`, `reaper` and `program` are borrowed until standby_done. The first worker
 * is started by the loop. */
void standby_init(struct standby *standby, struct loop *loop, struct reaper *reaper,
		  const struct worker_program *program);
void standby_done(struct standby *standby);

/*
 * standby_take - a worker that waits for its order: the one in store, or a new one where there is
 * none. Returns 0 or -errno with *err set; *ret is owned by the caller.
 */
int __must_check standby_take(struct standby *standby, struct child *ret, struct error *err);

/*
 * standby_open_fresh - the program file as it is now, for standby_try; *ret is owned by the caller,
 * -EBADF where that is the pinned one. Returns 0 or -errno with *err set.
 */
int __must_check standby_open_fresh(const struct standby *standby, int *ret, struct error *err);

/* standby_try - a new worker of the program file `fd` (borrowed). Returns as standby_take does. */
int __must_check standby_try(struct standby *standby, int fd, struct child *ret, struct error *err);

/* standby_pin - all further workers are of the program file `fd`, which is consumed. */
void standby_pin(struct standby *standby, int fd);
