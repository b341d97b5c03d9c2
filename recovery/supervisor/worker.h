/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How holdfast-fuse is started, and what it reports: the keeper's side of fuse/worker.h. */

#include <sys/stat.h>

#include "base/error.h"
#include "base/macros.h"
#include "fuse/worker.h"
#include "recovery/supervisor/child.h"

/* How workers of this keeper are started. */
struct worker_program {
	const char *path;      /* --worker, or NULL: holdfast-fuse, found anew at each start */
	const char *log_level; /* passed on as HOLDFAST_LOG_LEVEL */
	int oom_score_adj;     /* what the keeper itself was started with */
};

/*
 * worker_start - start a worker, which then waits for its order. An exec that fails is reported as
 * if by the worker itself. Returns 0 or -errno with *err set.
 */
int __must_check worker_start(const struct worker_program *program, struct child *ret,
			      struct error *err);

/* worker_stat - stat(2) of the program file that worker_start would start now. Returns 0 or -errno.
 */
int __must_check worker_stat(const struct worker_program *program, struct stat *ret);

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
