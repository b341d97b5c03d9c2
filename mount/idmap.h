/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The mapping of an idmapped mount (mount_setattr(2), MOUNT_ATTR_IDMAP), to be given to another. */

#include "base/error.h"
#include "base/macros.h"

/*
 * mount_idmap_of - a user namespace with the mapping of the mount that `fd` (O_PATH) lies on. The
 * kernel shows the mapping from Linux 6.15 on (statmount(2)); before, it is taken to be that of the
 * user namespace which owns the mount namespace `ns_fd`, as kubelet has it made for pods with
 * hostUsers: false. `proc_fd` is a directory of procfs. For a process of one thread, whose mount
 * namespace the mount is in. *ret_fd is owned by the caller. Returns 0 or -errno with *err set.
 */
int __must_check mount_idmap_of(int fd, int ns_fd, int proc_fd, int *ret_fd, struct error *err);

/* mount_idmap_set - give the mapping to a detached mount. Returns 0 or -errno with *err set. */
int __must_check mount_idmap_set(int mount_fd, int userns_fd, struct error *err);
