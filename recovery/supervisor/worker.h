/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How holdfast-fuse is started, and what it reports: the keeper's side of fuse/worker.h. */

#include "base/error.h"
#include "base/macros.h"
#include "fuse/worker.h"
#include "recovery/supervisor/child.h"

/* How workers of this keeper are started. */
struct worker_program {
	const char *path;      /* --worker, or NULL: holdfast-fuse, see program_find */
	const char *log_level; /* passed on as HOLDFAST_LOG_LEVEL */
	int oom_score_adj;     /* what the keeper itself was started with */
};

/*
 * worker_open - the program file as it is now, an owned O_PATH descriptor: workers that are started
 * by way of it stay the same ones when the file is replaced. Returns -errno with *err set.
 */
int __must_check worker_open(const struct worker_program *program, struct error *err);

/*
 * worker_start - start a worker of the program file `fd` (borrowed; -EBADF: whatever is at its
 * path), which then waits for its order. An exec that fails is reported as if by the worker itself.
 * A script is always started by its path, as its interpreter could not open it otherwise. Returns 0
 * or -errno with *err set.
 */
int __must_check worker_start(const struct worker_program *program, int fd, struct child *ret,
			      struct error *err);

/*
 * worker_order - have it serve; the descriptors are borrowed. Returns 0, for one that has ended
 * meanwhile too, or -errno with *err set.
 */
int __must_check worker_order(const struct child *worker, int dev_fd, int ledger_fd, int source_fd,
			      struct error *err);

/*
 * worker_receive - take the report, whose text is then terminated. Returns what child_receive does;
 * -EBADMSG for a report of another version too.
 */
int __must_check worker_receive(const struct child *worker, struct worker_report *ret);
