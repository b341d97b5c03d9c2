/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One call at a time on one volume or path. Nobody waits: the CSI specification has the second call
 * answered with ABORTED and repeated by the orchestrator.
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
 * volume_lock_take - take the lock called `name` unless somebody has it. *ret is given back by
 * volume_lock_release, from any thread. Returns 0, -EBUSY (ERROR_BUSY) or -ENOMEM, with *err set.
 */
int __must_check volume_lock_take(struct volume_locks *locks, const char *name,
				  struct volume_lock **ret, struct error *err);
/* volume_lock_release - NULL is fine. */
void volume_lock_release(struct volume_lock *lock);
DEFINE_CLEANUP(struct volume_lock *, volume_lock_release);
#define _cleanup_volume_lock_ _cleanup_(volume_lock_release_cleanup)
