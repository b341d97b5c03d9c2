/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The table of volumes, and what the requests of the control socket do to it. */

#include "base/error.h"
#include "base/macros.h"
#include "recovery/handover.h"
#include "recovery/loop.h"
#include "recovery/supervisor/worker.h"

struct keeper_limits {
	size_t clients;
	size_t volumes;
};

/*
 * keeper_limits_for - how many clients and volumes `nofile` open files are enough for, so that a
 * volume that was added never lacks the descriptors for its next worker.
 */
struct keeper_limits keeper_limits_for(uint64_t nofile);

struct keeper_params {
	const char *run_dir;
	int lock_fd; /* its lock, which goes to the next keeper with the volumes */
	struct worker_program program;
	struct keeper_limits limits;
	uint64_t hang_limit_ns; /* 0: a worker that does not get on is not killed (progress.h) */
};

struct keeper;

/*
 * keeper_open - serve RUN_DIR/keeper.sock, and go on with what *from brings of the keeper before,
 * which is taken. `loop` and what `params` points at are borrowed. *ret is owned by the caller.
 * Returns 0 or -errno with *err set.
 */
int __must_check keeper_open(struct loop *loop, const struct keeper_params *params,
			     struct handover *from, struct keeper **ret, struct error *err);

/*
 * keeper_end - take no more requests, let go of all volumes, then end the loop. It takes seconds at
 * most. Volumes whose descriptors somebody else holds, as an escrow, live on without a worker.
 */
void keeper_end(struct keeper *keeper);

/* keeper_volumes - how many there are. */
size_t keeper_volumes(const struct keeper *keeper);

/* keeper_has_successor - whether the loop ended because another keeper goes on with the volumes. */
bool keeper_has_successor(const struct keeper *keeper);

/*
 * keeper_collect - all that the next image of this process needs, borrowed: handover_forget it.
 * Returns 0, or -errno with *err set: ERROR_BUSY while somebody waits for an answer.
 */
int __must_check keeper_collect(struct keeper *keeper, struct handover *ret, struct error *err);

/* keeper_free - NULL is fine. */
void keeper_free(struct keeper *keeper);
