/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What applications have open. The records lie in the ledger, so a worker that takes over goes on
 * with every open file and directory: their descriptors, private to a worker, are opened again when
 * a request needs them. A file in passthrough needs none unless it is synced, allocated or the
 * like.
 *
 * An inode is open in one mode at a time (policy.h), which is in its node's record together with
 * the backing id that all its passthrough opens share: registered at the first open, forgotten
 * after the last.
 *
 * Locks: `inode`, sharded by node, covers the open state of a node (opens, open_mode, backing_id,
 * seen) and is held over the ioctls that register and forget backing files, which ask nothing of
 * the source. `table` covers free slots, records and descriptors. Order: inode, then either table's
 * or the node table's; no other two at once.
 */

#include "base/error.h"
#include "base/macros.h"
#include "fuse/ledger.h"
#include "fuse/node.h"
#include "fuse/policy.h"

struct handle_table;

struct handle_table_params {
	struct ledger *ledger;	  /* from ledger_map; borrowed */
	struct node_table *nodes; /* borrowed */
	int dev_fd;		  /* /dev/fuse; borrowed. Negative: there is none (tests) */
};

/*
 * handle_table_new - read the handles of a ledger, which may hold anything, and count anew how
 * often each node is open. Returns 0 or -errno with *err set.
 */
int __must_check handle_table_new(const struct handle_table_params *params,
				  struct handle_table **ret, struct error *err);
void handle_table_free(struct handle_table *table);
DEFINE_CLEANUP(struct handle_table *, handle_table_free);
#define _cleanup_handle_table_ _cleanup_(handle_table_free_cleanup)

/* A file or directory that is about to be open, and what to tell the kernel about it. */
struct handle_open {
	uint64_t node;
	uint64_t unique; /* of the request */
	int flags;	 /* open(2), of the request */
	bool directory;
	/* answers */
	uint64_t fh;
	uint32_t fopen_flags;
	int32_t backing_id;
};

/*
 * handle_new - decide how the file is opened, register it for passthrough if that is how, and
 * record the handle. `fd` is the file or directory, open with `flags`, or negative if it is to be
 * opened here where it is needed; consumed in any case. Returns 0 or -errno; -ENFILE when all
 * handles are in use.
 */
int __must_check handle_new(struct handle_table *table, struct handle_open *open, int fd);

/*
 * handle_find - the handle that a worker before us made for the request `unique`, which came again:
 * fills node, fh and the other answers. Returns whether there is one.
 */
bool handle_find(struct handle_table *table, uint64_t unique, struct handle_open *ret);

/*
 * handle_note_attr - the kernel is about to be told these attributes of a node. An open that finds
 * others on the source has the kernel drop what it holds; one that finds the same keeps it.
 */
void handle_note_attr(struct handle_table *table, uint64_t node, const struct stat *st);

/* handle_release - the kernel is done with `fh`. Unknown ones are ignored. */
void handle_release(struct handle_table *table, uint64_t fh);

/* A handle's descriptor, kept open for as long as the reference is held. */
struct handle_ref {
	int fd; /* borrowed from the reference */
	uint32_t index;
	struct handle_table *table;
};
#define HANDLE_REF_INIT  \
	{                \
		.fd = -1 \
	}

/*
 * handle_get - the descriptor of an open file, opened again if this worker has none. Returns 0 or
 * -errno: -EBADF for a handle that is not known, -ESTALE when the file is gone.
 */
int __must_check handle_get(struct handle_table *table, uint64_t fh, struct handle_ref *ret);
void handle_put(struct handle_ref *ref);
#define _cleanup_handle_ref_ _cleanup_(handle_put)

/*
 * handle_anchor - the file open as `fd`, which has a node, is about to lose its last name: if it is
 * open by a handle whose descriptor only this worker has, register it with the connection, where
 * that is possible, so that the kernel keeps the file for the next worker.
 */
void handle_anchor(struct handle_table *table, uint64_t node, int fd);

/* handle_wants_anchors - whether there is any handle that handle_anchor could matter to. */
bool handle_wants_anchors(struct handle_table *table);

/* handle_count - how many handles are open. */
uint32_t handle_count(struct handle_table *table);
