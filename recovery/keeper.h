/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The table of volumes, and what the requests of the control socket do to it. */

#include "base/error.h"
#include "base/macros.h"
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

struct keeper;

/*
 * keeper_open - serve RUN_DIR/keeper.sock. A worker that does not get on for hang_limit_ns is
 * killed (progress.h); 0: never. `loop`, `program` and what they point at are borrowed. *ret is
 * owned by the caller. Returns 0 or -errno with *err set.
 */
int __must_check keeper_open(struct loop *loop, const char *run_dir,
			     const struct worker_program *program, struct keeper_limits limits,
			     uint64_t hang_limit_ns, struct keeper **ret, struct error *err);

/* keeper_end - take no more requests, end all volumes, then end the loop. It takes seconds at most.
 */
void keeper_end(struct keeper *keeper);

/* keeper_free - NULL is fine. */
void keeper_free(struct keeper *keeper);
