/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which records of a ledger's table are in use: a high-water mark, which lies in the ledger, and
 * below it a stack of free indexes, private to the process and filled anew by each worker that
 * attaches. Not locked: the table's lock covers it.
 */

#include <stdatomic.h>

#include "base/macros.h"

struct slots {
	_Atomic uint32_t *used; /* the highest index that was ever taken; borrowed */
	uint32_t max;		/* indexes are below this; 0 is never taken */
	uint32_t *free;		/* a mapping of `max` entries, touched as far as n_free went */
	uint32_t n_free;
};

/* slots_init - `used` is borrowed and clamped to what is possible. Returns 0 or -ENOMEM. */
int __must_check slots_init(struct slots *slots, _Atomic uint32_t *used, uint32_t max);
void slots_destroy(struct slots *slots);

/* slots_take - an index that is not in use; 0 when all are. */
uint32_t slots_take(struct slots *slots);

/* slots_give - the index, which is below the high-water mark and in use, is free again. */
void slots_give(struct slots *slots, uint32_t index);

/*
 * slots_table - a private array of `n` entries of `size` bytes, all zero, that costs memory only
 * where it is touched. NULL without memory. Freed by slots_table_free, which takes NULL.
 */
void *slots_table(size_t n, size_t size);
void slots_table_free(void *table, size_t n, size_t size);
