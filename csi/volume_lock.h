/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One call at a time on one volume or path, in the order of their coming. The CSI specification
 * allows for ABORTED, and has the orchestrator repeat such a call; whoever can afford to wait
 * does.
 */

#include "base/error.h"
#include "base/macros.h"

struct volume_locks; /* all of them; safe in several threads */
struct volume_lock;  /* one that is held */

/* volume_locks_new - NULL when out of memory. */
struct volume_locks *volume_locks_new(void);
/* volume_locks_free - no lock may be held. NULL is fine. */
void volume_locks_free(struct volume_locks *locks);

/*
 * volume_lock_queue - line up for the lock called `name`. Whether the caller has it is told by
 * volume_lock_wait; either way *ret is given back by volume_lock_release, from any thread. Returns 0
 * or -ENOMEM with *err set.
 */
int __must_check volume_lock_queue(struct volume_locks *locks, const char *name,
				   struct volume_lock **ret, struct error *err);
/* volume_lock_wait - until it is the caller's turn. Returns false if it was not within the time. */
bool volume_lock_wait(struct volume_lock *lock, unsigned int timeout_ms);
/* volume_lock_release - leave it, or the queue. NULL is fine. */
void volume_lock_release(struct volume_lock *lock);
DEFINE_CLEANUP(struct volume_lock *, volume_lock_release);
#define _cleanup_volume_lock_ _cleanup_(volume_lock_release_cleanup)
