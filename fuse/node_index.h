/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Finds nodes by (device, inode number): a hash table of node indexes that is filled anew by each
 * worker, so filling it is what it is made for: no allocation, no second look at a node, and it
 * grows one bucket at a time (linear hashing), so that no request waits for a big rehash. Nodes of
 * different files may share a hash; the caller compares. Not locked.
 */

#include "base/macros.h"

struct node_index;

/* node_index_new - for node indexes below `max`. Returns 0 or -ENOMEM. */
int __must_check node_index_new(uint32_t max, struct node_index **ret);
void node_index_free(struct node_index *index);

/* node_index_reserve - set up for about n nodes; the index is still empty. */
void node_index_reserve(struct node_index *index, uint32_t n);

uint32_t node_index_hash(uint32_t dev, uint64_t ino);

/* node_index_add, node_index_remove - the node is not in it, is in it. */
void node_index_add(struct node_index *index, uint32_t hash, uint32_t node);
void node_index_remove(struct node_index *index, uint32_t hash, uint32_t node);

/* node_index_first, node_index_next - the nodes of that hash, 0 at the end. */
uint32_t node_index_first(const struct node_index *index, uint32_t hash);
uint32_t node_index_next(const struct node_index *index, uint32_t node);

/* node_index_count - how many nodes are in it. */
uint32_t node_index_count(const struct node_index *index);
