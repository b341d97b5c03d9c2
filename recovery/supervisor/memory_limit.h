/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How much memory the workers of a volume may take: a cgroup of the volume's own below the
 * keeper's, in version 2 or version 1 of cgroups, whichever has the memory controller and can be
 * written; else RLIMIT_DATA. What can't be had is done without, and the log says what is in force
 * and why: a limit never keeps a volume from being served.
 *
 * A cgroup counts all that its processes touch first: their own memory, the ledger's pages (which
 * stay charged when the worker dies, see VOLUME_MEMORY_MIN) and pages of the source's files that
 * the worker reads itself, which are given back under pressure. At the limit the kernel kills the
 * worker, and the supervisor starts the next one. Swap is left to the node's own rules.
 *
 * RLIMIT_DATA counts what a process maps privately beyond what it had when it began to serve. The
 * worker is not killed then: it is refused memory, and requests that need some fail with ENOMEM.
 *
 * The cgroup's name is made of hashes, of the run directory and of the volume's id.
 */

#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"
#include "recovery/control.h"

struct memory_limits; /* of one keeper */
struct memory_limit;  /* of one volume */

/*
 * memory_limits_open - look for the keeper's own cgroups and remove volumes' cgroups that an
 * earlier keeper of the same run directory left behind. Nothing is changed for a keeper whose
 * volumes have no limits. Returns 0 or -errno with *err set (no memory); *ret is owned by the
 * caller and outlives all limits.
 */
int __must_check memory_limits_open(const char *run_dir, struct memory_limits **ret,
				    struct error *err);
void memory_limits_free(struct memory_limits *limits); /* NULL is fine */

/* memory_limits_leave - the cgroups are another keeper's from now on: change none any more. */
void memory_limits_leave(struct memory_limits *limits);

/*
 * memory_limit_new - set up the limit of a volume and log what kind it is. Owned by the caller;
 * NULL if `bytes` is 0, and if memory is short (which is logged): every call below takes NULL, as a
 * volume without a limit.
 */
struct memory_limit *memory_limit_new(struct memory_limits *limits, const char *id, uint64_t bytes);

/* memory_limit_join - put a process that was just started under the limit. */
void memory_limit_join(struct memory_limit *limit, pid_t pid);

/* memory_limit_serves - the process has done its preparations and begins to serve. */
void memory_limit_serves(const struct memory_limit *limit, pid_t pid);

/*
 * memory_limit_explain - whether the out-of-memory killer struck in the volume's cgroup since it
 * was asked last: to be asked when a process was killed. If so, it is counted and `buf` says it.
 */
bool memory_limit_explain(struct memory_limit *limit, char *buf, size_t size);

/* memory_limit_status - set the counters in *ret. */
void memory_limit_status(const struct memory_limit *limit, struct volume_status *ret);

/*
 * memory_limit_free - remove the cgroup. If it holds a process that does not die, it is left, and
 * tried again whenever another one is made or removed, and by the next keeper.
 */
void memory_limit_free(struct memory_limit *limit);
