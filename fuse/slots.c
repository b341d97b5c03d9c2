/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/slots.h"

#include <errno.h>
#include <sys/mman.h>

void *slots_table(size_t n, size_t size)
{
	void *table = mmap(NULL, n * size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return table == MAP_FAILED ? NULL : table;
}

void slots_table_free(void *table, size_t n, size_t size)
{
	if (table)
		(void)munmap(table, n * size);
}

int slots_init(struct slots *slots, _Atomic uint32_t *used, uint32_t max)
{
	uint32_t *free_indexes = slots_table(max, sizeof(*free_indexes));

	if (!free_indexes)
		return -ENOMEM;
	if (atomic_load(used) >= max)
		atomic_store(used, max - 1);
	*slots = (struct slots){ .used = used, .max = max, .free = free_indexes };
	return 0;
}

void slots_destroy(struct slots *slots)
{
	slots_table_free(slots->free, slots->max, sizeof(*slots->free));
	slots->free = NULL;
}

uint32_t slots_take(struct slots *slots)
{
	uint32_t index;

	if (slots->n_free > 0)
		return slots->free[--slots->n_free];
	index = atomic_load_explicit(slots->used, memory_order_relaxed) + 1;
	if (index >= slots->max)
		return 0;
	atomic_store_explicit(slots->used, index, memory_order_release);
	return index;
}

void slots_give(struct slots *slots, uint32_t index)
{
	slots->free[slots->n_free++] = index;
}
