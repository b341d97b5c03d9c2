/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The kernel's view of FUSE connections (Documentation/filesystems/fuse.rst, "Control filesystem"):
 * files that answer even when the server hangs. The file system is mounted detached, for this
 * process only, so nothing depends on the node's /sys/fs/fuse/connections. A connection's number is
 * the minor of its mount's st_dev.
 */

#include "base/error.h"
#include "base/macros.h"

/* fusectl_open - *ret_fd, owned by the caller, is the root directory. Returns 0 or -errno with *err
 * set. */
int __must_check fusectl_open(int *ret_fd, struct error *err);

/* fusectl_has - whether there is connection `number`; an aborted one is, until it is unmounted. */
bool fusectl_has(int fusectl_fd, uint32_t number);

/*
 * fusectl_waiting - how many requests of connection `number` wait for an answer, queued or read by
 * the server. Returns 0 or -errno; -ENOENT when there is no such connection.
 */
int __must_check fusectl_waiting(int fusectl_fd, uint32_t number, uint64_t *ret);

/* fusectl_abort - end connection `number` for good: every caller gets ECONNABORTED. Returns 0 or
 * -errno. */
int __must_check fusectl_abort(int fusectl_fd, uint32_t number);
