/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * References that the kernel holds to nodes: how many each node has (ledger_node.lookups), and
 * which of them the answer to a request hands out (ledger_inbox.refs). A worker may die between
 * changing the one and the other, so both new values are written down first (ledger_update), then
 * the update is valid, then both are changed, then it is valid no more. Its stores can be made
 * again.
 *
 * All functions are called with the node table's lock held, so there is one update at a time. They
 * work on the request of the calling thread (inbox_current); without one only the count changes.
 */

#include "base/macros.h"
#include "fuse/ledger.h"

/* refs_take - one more reference to the node, handed out by the current request. Returns 0, or
 * -ENOBUFS when its list is full. */
int __must_check refs_take(struct ledger *ledger, uint32_t node, uint64_t id);

/* refs_give_back - the last reference that the current request took, which is to this node, is not
 * handed out after all. */
void refs_give_back(struct ledger *ledger, uint32_t node);

/* refs_forget - the kernel dropped `n` references to the node, 0 for a node that is not there; one
 * more node of the current FORGET is dealt with. */
void refs_forget(struct ledger *ledger, uint32_t node, uint64_t n);

/* refs_count - how many references the current request has taken, and refs_last the node id of the
 * last one. */
uint32_t refs_count(void);
uint64_t refs_last(void);

/* refs_forgotten - how many nodes of the current FORGET an earlier worker has dealt with. */
uint32_t refs_forgotten(void);

/* refs_recover - finish the update that the last worker left. The ledger may hold anything. */
void refs_recover(struct ledger *ledger);
