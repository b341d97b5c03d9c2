/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which mounts are to be exchanged, and how: decided from the mount tables of all namespaces,
 * without touching anything. A mount is stale when it is a Holdfast mount of one of the volumes and
 * shows a superblock that this volume had before.
 *
 * Of mounts of one volume and directory that lie on each other the lowest is exchanged and the
 * others go; what else lies on it, and the topmost mount of each place below it, is carried along.
 * A name alone does not make a mount a volume's: who has FUSE can give it any.
 * What is stale among that is found by the next look. Mounts that a live one of their volume and
 * directory covers are done: they were locked (mount_namespaces(7)), and can't be taken away.
 */

#include "base/error.h"
#include "base/macros.h"
#include "fuse/volume.h"
#include "mount/mountinfo.h"

#define PLAN_OLD_MAX 16

struct plan_volume {
	char id[VOLUME_ID_MAX + 1];
	dev_t dev;		 /* its live superblock */
	dev_t old[PLAN_OLD_MAX]; /* those that it had before; 0: none */
	uint32_t living;	 /* bits: which of them are still served, after a swap */
};

struct plan_table { /* of one namespace; borrowed */
	const struct mount_entry *entries;
	size_t n;
};

struct plan_carry {
	const struct mount_entry *entry;
	const char *where; /* struct exchange_carry; points into the entry */
	ssize_t volume;	   /* below: it is a mount of that volume, which is mounted anew; else -1:
			      the one that is there is copied */
	ssize_t within;	   /* below: the carry of this step, before it, that it lies on; -1: none */
	bool drop;
};

struct plan_step {
	size_t table, volume;
	const struct mount_entry *old;
	const struct mount_entry *below; /* the new mount, where an exchange that did not come to
					    its end has put it beneath the old one; else NULL */
	size_t first_carry, n_carries;
	/*
	 * The step before this one whose new mount this one's is to be a peer of, or, if is_peer
	 * is not set, a slave, as their old ones were; -1: none.
	 */
	ssize_t leader;
	bool is_peer;
};

struct plan {
	struct plan_step *steps; /* a leader before those that follow it */
	size_t n_steps;
	struct plan_carry *carries;
	size_t n_carries;
};

/*
 * plan_make - *ret borrows from the tables and is freed by plan_free. Returns 0 or -ENOMEM with
 * *err set.
 */
int __must_check plan_make(const struct plan_table *tables, size_t n_tables,
			   const struct plan_volume *volumes, size_t n_volumes, struct plan *ret,
			   struct error *err);
void plan_free(struct plan *plan);

struct plan_counts {
	uint32_t stale;	 /* mounts that show an earlier superblock of the volume */
	uint32_t hidden; /* of them, those that a live one covers, with what lies below it */
	uint32_t seen;	 /* bits: which of its earlier device numbers they have, or (users.h) open
			    files do */
	uint32_t reused; /* bits: which of them are of another volume's mount now */
};

/* plan_old_index - which of the volume's earlier superblocks has the number; -1: none. */
int plan_old_index(const struct plan_volume *volume, dev_t dev);

/* plan_count - what is stale: ret[i] of volumes[i]. Returns 0 or -ENOMEM with *err set. */
int __must_check plan_count(const struct plan_table *tables, size_t n_tables,
			    const struct plan_volume *volumes, size_t n_volumes,
			    struct plan_counts *ret, struct error *err);
