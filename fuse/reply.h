/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What libfuse 3.14 can't say to the kernel: answers with a backing id, registration
 * of backing files, and notifications outside of libfuse's session. FUSE_OPEN's and FUSE_CREATE's
 * answers always go through here.
 */

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include "base/macros.h"

/*
 * reply_open, reply_create - answer FUSE_OPEN (FUSE_OPENDIR), FUSE_CREATE and FUSE_TMPFILE.
 * `fopen_flags` is FOPEN_* (policy.h); `backing_id` counts with FOPEN_PASSTHROUGH only. The request
 * is gone afterwards in any case. Returns 0 or -errno: -ENOENT when the caller was killed
 * meanwhile; then no RELEASE and no FORGET will come, and what was made for them has to be undone.
 */
int __must_check reply_open(fuse_req_t req, uint64_t fh, uint32_t fopen_flags, int32_t backing_id);
int __must_check reply_create(fuse_req_t req, const struct fuse_entry_param *entry, uint64_t fh,
			      uint32_t fopen_flags, int32_t backing_id);

/*
 * backing_open - register `fd` (borrowed; open for all that the inode will be used for, since all
 * opens of an inode share one id) as a file to pass through to. Writes through it run with the
 * credentials of this call: without CAP_FSETID and CAP_SYS_RESOURCE, so that set-id bits are
 * dropped as for a plain user. Returns the id, above 0, which belongs to the connection, not to the
 * process; or -errno: -ELOOP (file systems stacked too deep), -EOPNOTSUPP, -EPERM mean that this
 * device can't be passed through.
 */
int __must_check backing_open(int dev_fd, int fd);

/* backing_close - forget an id; files that are open with it stay open. -ENOENT: there is none. */
int backing_close(int dev_fd, int32_t id);

/*
 * notify_inval_attr - the kernel's copy of an inode's attributes is stale; its data stays
 * (AUTO_INVAL_DATA compares them with the next attributes). Safe inside an operation: takes no page
 * lock. Returns 0 or -errno; -ENOENT when the kernel does not know the inode.
 */
int notify_inval_attr(int dev_fd, uint64_t nodeid);
