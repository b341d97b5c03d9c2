/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The files that the kernel knows by a node id. Their records lie in the ledger; the index by
 * (device, inode number), which is private to the worker, is rebuilt from them in one pass when a
 * worker attaches.
 *
 * Nodes do not hold descriptors: a file is opened again by its handle when a request needs it, and
 * the descriptor is kept for a while (fdcache.h). Only on sources without file handles a node's
 * descriptor is kept for as long as the limit on open files allows, and the node is else found by
 * walking from its parent by name.
 *
 * Locks: the table's covers the index, the free slots and every field of a record but the open
 * state (handle.h). No system call is made under it.
 */

#include "base/error.h"
#include "base/macros.h"
#include "fuse/ledger.h"
#include "fuse/source.h"

struct node_table;

struct node_table_params {
	struct ledger *ledger; /* from ledger_map; borrowed */
	struct source *source; /* borrowed */
	uint32_t max_fds;      /* descriptors to keep open; 0: as RLIMIT_NOFILE allows */
};

/*
 * node_table_new - read the nodes of a ledger, which may hold anything; a new ledger gets its root
 * (FUSE_ROOT_ID). Returns 0 or -errno with *err set.
 */
int __must_check node_table_new(const struct node_table_params *params, struct node_table **ret,
				struct error *err);
/*
 * node_table_sweep - the end of attaching: once the handles were counted (handle.h), before there
 * are threads. `settle` is called for each node that a worker before us had open, and may have left
 * half closed; then those that nothing refers to are freed: a worker died while it made or freed
 * them.
 */
void node_table_sweep(struct node_table *table,
		      void (*settle)(void *context, struct ledger_node *record), void *context);
void node_table_free(struct node_table *table);
DEFINE_CLEANUP(struct node_table *, node_table_free);
#define _cleanup_node_table_ _cleanup_(node_table_free_cleanup)

/*
 * node_remember - the node of a file, made if it has none yet, with one more reference by the
 * kernel. `parent` and `name` say where it was found; name may be NULL (it has none: O_TMPFILE).
 * `fd`, O_PATH, open on the file, is consumed in any case; negative if there is none to keep.
 * Returns 0 or -errno; -ENFILE when all nodes are in use, -ENOBUFS when the current request has
 * handed out as many as it can.
 */
int __must_check node_remember(struct node_table *table, const struct source_identity *identity,
			       uint64_t parent, const char *name, int fd, uint64_t *ret_id);

/*
 * node_refer - one more reference by the kernel to a node that is there. Returns 0, -ESTALE when
 * the id is not known, or -ENOBUFS.
 */
int __must_check node_refer(struct node_table *table, uint64_t id);

/* node_forget - the kernel dropped `n` references; without any, and not open, the node is gone. */
void node_forget(struct node_table *table, uint64_t id, uint64_t n);

/* node_take_back - what node_remember and node_refer handed out for the current request (refs.h)
 * does not go to the kernel after all. */
void node_take_back(struct node_table *table);

/* A node's descriptor, kept open for as long as the reference is held. */
struct node_ref {
	int fd; /* borrowed from the reference; O_PATH or open for reading */
	uint32_t entry;
	struct node_table *table;
};
#define NODE_REF_INIT    \
	{                \
		.fd = -1 \
	}

/*
 * node_get - open the node's file. With `readable` the descriptor is one that can be read from,
 * else O_PATH has to do. Returns 0 or -errno: -ESTALE when the id is not known or the file is gone.
 */
int __must_check node_get(struct node_table *table, uint64_t id, bool readable,
			  struct node_ref *ret);
void node_put(struct node_ref *ref);
#define _cleanup_node_ref_ _cleanup_(node_put)

/*
 * node_openat - openat(2) with O_CLOEXEC; when there is no descriptor left (EMFILE), some that are
 * kept are closed and it is tried again. Returns an owned descriptor or -errno.
 */
int __must_check node_openat(struct node_table *table, int dir_fd, const char *name, int flags,
			     mode_t mode);

/*
 * node_named - a file, if it has a node, is now `name` in `parent`.
 * node_unnamed - it is that no more; `fd`, O_PATH, is consumed in any case and kept if the file can
 * be reached by nothing else from now on.
 * Both are for sources without file handles; nothing happens on others.
 */
void node_named(struct node_table *table, const struct source_identity *identity, uint64_t parent,
		const char *name);
void node_unnamed(struct node_table *table, const struct source_identity *identity, uint64_t parent,
		  const char *name, int fd);

/* node_find - the id of the node of a file, 0 if the kernel does not know it. */
uint64_t node_find(struct node_table *table, const struct source_identity *identity);

/* node_record - the ledger's record of a node that is alive, NULL if the id is not known. */
struct ledger_node *node_record(struct node_table *table, uint64_t id);

/* node_has_handle - whether the node's file has a file handle; true for an id that is not known. */
bool node_has_handle(struct node_table *table, uint64_t id);

/* node_opened, node_closed - one more or less open handle refers to the node; keeps it alive. */
void node_opened(struct node_table *table, uint64_t id);
void node_closed(struct node_table *table, uint64_t id);

/*
 * node_fds_trim - close kept descriptors: all that were not used for `idle_ns`, and half of them if
 * `pressed` (EMFILE).
 */
void node_fds_trim(struct node_table *table, uint64_t idle_ns, bool pressed);

/* node_count - how many nodes are alive. */
uint32_t node_count(struct node_table *table);
