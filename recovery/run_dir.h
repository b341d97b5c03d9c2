/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The run directory, where keeper and plugin of one node find each other and keep their state. */

#include "base/error.h"
#include "base/macros.h"

/*
 * run_dir_lock - make `path` if it is missing, see to it that it is ours alone (who can write to it
 * can have volumes served), and be the one process that works there as `role`: "keeper", "plugin".
 * *ret_fd, owned by the caller, is the lock on PATH/ROLE.lock; it goes with the last copy of the
 * descriptor, however the process ends. Returns 0 or -errno with *err set: -EADDRINUSE
 * (ERROR_PRECONDITION) when another process holds it and does not end within `patience_ms`, -EPERM
 * (ERROR_PRECONDITION) when the directory is another user's.
 */
int __must_check run_dir_lock(const char *path, const char *role, int patience_ms, int *ret_fd,
			      struct error *err);
