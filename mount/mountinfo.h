/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The mounts of a mount namespace, read from mountinfo (proc_pid_mountinfo(5)) by libmount: no path
 * is looked up and no file system is asked, so dead and hung mounts do no harm.
 */

#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"

struct mount_entry {
	uint64_t id, parent;
	dev_t dev;
	/* unescaped; owned by the table. Of a Holdfast mount the root's name, should it be gone too */
	const char *root, *target, *fstype, *source;
	const char *super_options;		     /* of the superblock; owned by the table */
	uint64_t attr;	 /* MOUNT_ATTR_* of this mount, not of its superblock */
	uint32_t shared; /* its peer group, 0: none */
	uint32_t master; /* the peer group that it receives from, 0: none */
	bool idmapped;
};

struct mount_table;

/* mount_table_load - this process's mounts; *ret is owned by the caller. Returns 0 or -errno with
 * *err set. */
int __must_check mount_table_load(struct mount_table **ret, struct error *err);

/* mount_table_parse - those of a mountinfo file that was read before. As mount_table_load. */
int __must_check mount_table_parse(const char *text, size_t size, struct mount_table **ret,
				   struct error *err);
void mount_table_free(struct mount_table *table);
DEFINE_CLEANUP(struct mount_table *, mount_table_free);
#define _cleanup_mount_table_ _cleanup_(mount_table_free_cleanup)

/* mount_table_size, mount_table_get - the entries in the kernel's order: later ones may lie on top
 * of earlier ones. */
size_t mount_table_size(const struct mount_table *table);
const struct mount_entry *mount_table_get(const struct mount_table *table, size_t i);

/* mount_table_top - the topmost mount whose mount point is `target`, NULL if nothing is mounted
 * there. */
const struct mount_entry *mount_table_top(const struct mount_table *table, const char *target);

/* mount_table_find_dev - the first mount of the superblock `dev`, NULL if there is none. */
const struct mount_entry *mount_table_find_dev(const struct mount_table *table, dev_t dev);
