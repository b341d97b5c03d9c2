/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which mounts of a table lie on which. Tables come from containers, and may be large, and change
 * while they are read: all here takes a walk over the table, whatever is in it.
 */

#include <sys/types.h>

#include "base/macros.h"
#include "mount/mountinfo.h"

struct mount_node { /* of the entry with the same index; others by their index, -1: none */
	ssize_t parent;
	ssize_t cover; /* what lies on its root */
	ssize_t child; /* the first that lies on it, the cover last, else in the table's order */
	ssize_t next;  /* on the same parent */
	bool in_tree;  /* false: its parents go in a circle */
};

struct mount_forest {
	const struct mount_entry *entries; /* borrowed */
	struct mount_node *nodes;
	size_t n;
};

/* mount_forest_make - *ret is freed by mount_forest_free. Returns 0 or -ENOMEM. */
int __must_check mount_forest_make(const struct mount_entry *entries, size_t n,
				   struct mount_forest *ret);
void mount_forest_free(struct mount_forest *forest);

/*
 * mount_forest_next - the mount after `i` of those that lie on `top`, outer ones before what lies
 * on them; begin with i = top. With `in` false without those that lie on `i`. -1: there are no
 * more.
 */
ssize_t mount_forest_next(const struct mount_forest *forest, ssize_t top, ssize_t i, bool in);
