/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The mount tables of all namespaces, for the process of one thread that may enter them. */

#include "base/error.h"
#include "base/macros.h"
#include "mount/mountinfo.h"
#include "mount/namespace.h"
#include "recovery/plan.h"

struct scan {
	struct mount_namespace *namespaces;
	struct mount_table **parsed; /* NULL where no Holdfast mount is */
	struct plan_table *tables;   /* of each namespace; may be empty */
	size_t n;
};

/*
 * scan_all - read them; this process's own namespace is left out, and it is there again afterwards.
 * `proc_fd` is a directory of procfs. One that can't be read (it ends just now) is empty. *ret is
 * freed by scan_free. Returns 0 or -errno with *err set.
 */
int __must_check scan_all(int proc_fd, struct scan *ret, struct error *err);

/*
 * scan_parent - what the mount lies on at the moment, in the namespace that this process is in. Returns
 * 0 or -errno, -ENOENT when it is not there any more.
 */
int __must_check scan_parent(int proc_fd, uint64_t mount_id, uint64_t *ret_parent);
void scan_free(struct scan *scan);
