/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/node_index.h"

#include <errno.h>

#include "fuse/slots.h"

struct link {
	uint32_t next; /* in the bucket, 0: the last */
	uint32_t hash;
};

/*
 * The hash's lower bits choose among n_buckets buckets; `mask` covers the largest number below the
 * next power of two. A bucket that does not exist yet is still part of the one half a mask below.
 */
struct node_index {
	uint32_t max, count;
	uint32_t n_buckets, mask;
	uint32_t *buckets;  /* first node of each */
	struct link *links; /* by node */
};

int node_index_new(uint32_t max, struct node_index **ret)
{
	struct node_index *index = calloc(1, sizeof(*index));

	if (!index)
		return -ENOMEM;
	index->max = max;
	index->n_buckets = 1;
	index->buckets = slots_table(max, sizeof(*index->buckets));
	index->links = slots_table(max, sizeof(*index->links));
	if (!index->buckets || !index->links) {
		node_index_free(index);
		return -ENOMEM;
	}
	*ret = index;
	return 0;
}

void node_index_free(struct node_index *index)
{
	if (!index)
		return;
	slots_table_free(index->buckets, index->max, sizeof(*index->buckets));
	slots_table_free(index->links, index->max, sizeof(*index->links));
	free(index);
}

static void set_buckets(struct node_index *index, uint32_t n)
{
	index->n_buckets = n;
	while (index->mask < n - 1)
		index->mask = index->mask << 1 | 1;
}

void node_index_reserve(struct node_index *index, uint32_t n)
{
	if (n > index->n_buckets)
		set_buckets(index, MIN_OF(n, index->max));
}

uint32_t node_index_hash(uint32_t dev, uint64_t ino)
{
	uint64_t h = (ino ^ (uint64_t)dev << 48) * 0x9e3779b97f4a7c15ULL;

	h ^= h >> 32;
	return (uint32_t)(h * 0xd6e8feb86659fd93ULL >> 32);
}

static uint32_t *bucket(const struct node_index *index, uint32_t hash)
{
	uint32_t b = hash & index->mask;

	return &index->buckets[b < index->n_buckets ? b : b & index->mask >> 1];
}

/* Adds a bucket and moves into it what belongs there from the one that stood in for it. */
static void grow(struct node_index *index)
{
	uint32_t added = index->n_buckets;
	uint32_t *from;

	set_buckets(index, added + 1);
	from = &index->buckets[added & index->mask >> 1];
	while (*from) {
		uint32_t node = *from;

		if (bucket(index, index->links[node].hash) != &index->buckets[added]) {
			from = &index->links[node].next;
			continue;
		}
		*from = index->links[node].next;
		index->links[node].next = index->buckets[added];
		index->buckets[added] = node;
	}
}

void node_index_add(struct node_index *index, uint32_t hash, uint32_t node)
{
	uint32_t *first;

	if (++index->count > index->n_buckets && index->n_buckets < index->max)
		grow(index);
	first = bucket(index, hash);
	index->links[node] = (struct link){ .next = *first, .hash = hash };
	*first = node;
}

void node_index_remove(struct node_index *index, uint32_t hash, uint32_t node)
{
	for (uint32_t *at = bucket(index, hash); *at; at = &index->links[*at].next)
		if (*at == node) {
			*at = index->links[node].next;
			index->count--;
			return;
		}
}

static uint32_t skip_others(const struct node_index *index, uint32_t node, uint32_t hash)
{
	while (node && index->links[node].hash != hash)
		node = index->links[node].next;
	return node;
}

uint32_t node_index_first(const struct node_index *index, uint32_t hash)
{
	return skip_others(index, *bucket(index, hash), hash);
}

uint32_t node_index_next(const struct node_index *index, uint32_t node)
{
	return skip_others(index, index->links[node].next, index->links[node].hash);
}

uint32_t node_index_count(const struct node_index *index)
{
	return index->count;
}
