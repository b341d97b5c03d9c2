/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The mount namespaces of the node, those of containers among them. setns(CLONE_NEWNS) wants a
 * process of one thread (setns(2)), so all that enters one is for holdfast-nsmount.
 */

#include "base/error.h"
#include "base/macros.h"
#include "mount/mountinfo.h"

struct mount_namespace {
	int fd;	     /* of nsfs, for setns(2); owned */
	uint64_t id; /* the namespace's inode number */
	bool own;    /* it is this process's */
};

/*
 * mount_namespaces_list - all of them, this process's own first. Where the kernel lists namespaces (Linux 6.12, NS_MNT_GET_NEXT of ioctl_nsfs(2)) those
 * without processes are among them, else it is those of /proc. `proc_fd` is a
 * directory of procfs. *ret is an array of *ret_n, to be
 * freed by mount_namespaces_free. Returns 0 or -errno with *err set.
 */
int __must_check mount_namespaces_list(int proc_fd, struct mount_namespace **ret, size_t *ret_n,
				       struct error *err);
void mount_namespaces_free(struct mount_namespace *list, size_t n);

/*
 * mount_namespace_enter - move this process, which has one thread, to the root of the namespace.
 * Returns 0 or -errno; -EPERM and -EINVAL also for one that ended.
 */
int __must_check mount_namespace_enter(int ns_fd);

/*
 * mount_namespace_private - leave for a new namespace with copies of this one's mounts, of which
 * nothing is propagated. Returns 0 or -errno.
 */
int __must_check mount_namespace_private(void);
