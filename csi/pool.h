/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A fixed number of threads that work off one queue, first come, first served. */

#include "base/error.h"
#include "base/macros.h"

/* What waits in the queue; embedded in the owner's own struct. */
struct pool_job {
	struct pool_job *next;
};

struct pool;

/*
 * pool_new - start `n_threads` threads that call run(context, job). *ret is owned by the caller.
 * Returns 0 or -errno with *err set.
 */
int __must_check pool_new(size_t n_threads, void (*run)(void *context, struct pool_job *job),
			  void *context, struct pool **ret, struct error *err);

/* pool_submit - queue a job. It belongs to the pool until run() is called with it, and is not
 * touched afterwards. Any thread. */
void pool_submit(struct pool *pool, struct pool_job *job);

/* pool_free - wait until every queued job has run, and end the threads. NULL is fine. */
void pool_free(struct pool *pool);
DEFINE_CLEANUP(struct pool *, pool_free);
#define _cleanup_pool_ _cleanup_(pool_free_cleanup)
