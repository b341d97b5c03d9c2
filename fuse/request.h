/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A request as it came from the kernel: what libfuse does not tell its operations (whether it was
 * sent again, the caller's supplementary groups, whether set-id bits have to go), and the few
 * requests that libfuse 3.14 does not know, rewritten into a form that it does.
 * Source: the kernel's include/uapi/linux/fuse.h.
 */

#include <sys/types.h>

#include "base/macros.h"

#define REQUEST_GROUPS_MAX 32

/* A uid or gid that an idmapped connection does not tell (FUSE_ALLOW_IDMAP). */
#define REQUEST_NO_ID UINT32_MAX

struct request {
	uint64_t unique; /* without the resend bit: the same when the request comes again */
	bool again;	 /* a worker before us had it and did not answer */
	uint32_t opcode; /* as the kernel sent it: FUSE_TMPFILE reaches the create operation */
	uint64_t nodeid;
	uint32_t uid, gid; /* of the caller; REQUEST_NO_ID where not told */
	uint32_t pid;	   /* 0 where the caller is in no pid namespace that we see */
	/*
	 * The kernel wants set-id bits and capabilities dropped (OPEN and CREATE with O_TRUNC,
	 * WRITE, truncating SETATTR, SETXATTR of an access ACL: the set-group-id bit only).
	 */
	bool kill_suidgid;
	/*
	 * The caller's supplementary groups as far as they matter for the request, which is the
	 * parent directory's group if the caller is in it. has_groups says whether the kernel tells
	 * at all (FUSE_CREATE_SUPP_GROUP).
	 */
	bool has_groups;
	uint32_t n_groups;
	gid_t groups[REQUEST_GROUPS_MAX];
};

/*
 * request_decode - take the request of `size` bytes at `buf` apart. What libfuse 3.14 does not know
 * is rewritten in `scratch`, which has room for `size` bytes, while `buf` stays as it is for the
 * next worker: extensions are cut off, FUSE_TMPFILE becomes FUSE_CREATE, and FUSE_SETXATTR loses
 * its extended flags. `negotiated` is connection_state.negotiated. *ret_buf, either of the two, and
 * *ret_size are what to hand on. Both are aligned to 8, `size` is at least that of a header. Names
 * inside the body are checked to end in a NUL within it, as libfuse reads them without a look at
 * the size; a body that is too short for its opcode is refused. Returns 0 or -EBADMSG; what the
 * header says is in *ret in both cases.
 */
int __must_check request_decode(void *buf, size_t size, uint64_t negotiated, void *scratch,
				struct request *ret, void **ret_buf, size_t *ret_size);

/*
 * request_current - the request that this thread is serving, for the operations; only its replies
 * end it. Never NULL inside an operation.
 */
const struct request *request_current(void);

/* request_set_current - for the session's loop (and tests). `request` is borrowed. */
void request_set_current(const struct request *request);
