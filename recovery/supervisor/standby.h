/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A worker that is ready before it is needed: started, prepared, waiting for its order
 * (fuse/worker.h). One serves all volumes of a keeper, as it belongs to none; the next is started
 * as soon as it is taken. Where several workers die at once, the others are started on the spot.
 */

#include <sys/stat.h>

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
	struct stat binary; /* what `child` was started from */
};

/* standby_init - `loop`, `reaper` and `program` are borrowed until standby_done. The first worker
 * is started by the loop. */
void standby_init(struct standby *standby, struct loop *loop, struct reaper *reaper,
		  const struct worker_program *program);
void standby_done(struct standby *standby);

/*
 * standby_take - a worker that waits for its order: the one in store, or a new one where there is
 * none or the program file has been replaced since. Returns 0 or -errno with *err set; *ret is
 * owned by the caller.
 */
int __must_check standby_take(struct standby *standby, struct child *ret, struct error *err);
