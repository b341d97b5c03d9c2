/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Descriptors of nodes, kept for a while after their last use: a fixed number of entries, reused by
 * the second-chance rule. An entry that is in use (pinned) or sticky stays.
 *
 * Threads: one mutex covers all; descriptors are closed outside of it.
 */

#include "base/macros.h"

struct fdcache;

/*
 * fdcache_new - `max` is how many descriptors to keep, `max_index` bounds the lower half of the ids
 * (ledger_id_index). Returns 0 or -ENOMEM.
 */
int __must_check fdcache_new(uint32_t max, uint32_t max_index, struct fdcache **ret);
void fdcache_free(struct fdcache *cache);

/* What is pinned: the entry's number to give back, its descriptor, whether it is open for reading
 * (else O_PATH). */
struct fdcache_pin {
	int fd;
	uint32_t entry;
	bool readable;
};

/* fdcache_get - pin the descriptor of `id`. Returns whether there is one. */
bool fdcache_get(struct fdcache *cache, uint64_t id, struct fdcache_pin *ret);

/*
 * fdcache_add - keep `fd` (consumed in any case) for `id` and pin it. If there is one already that
 * is as good, that one is pinned. Returns 0, or -EMFILE when every entry is pinned or sticky.
 */
int __must_check fdcache_add(struct fdcache *cache, uint64_t id, int fd, bool readable,
			     struct fdcache_pin *ret);

/* fdcache_put - the end of a pin. */
void fdcache_put(struct fdcache *cache, uint32_t entry);

/* fdcache_drop - the node is gone; its descriptor is closed with the last pin. */
void fdcache_drop(struct fdcache *cache, uint64_t id);

/* fdcache_stick - whether the descriptor of `id` has to be kept, because the file could not be
 * opened again. Nothing happens without an entry. */
void fdcache_stick(struct fdcache *cache, uint64_t id, bool sticky);

/* fdcache_trim - close what was not used for idle_ns; with `pressed`, half of the rest as well. */
void fdcache_trim(struct fdcache *cache, uint64_t idle_ns, bool pressed);
