/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The credentials of one thread, switched for one step and restored at the end of the scope by raw
 * system calls: glibc's own wrappers change all threads.
 *
 * Only requests that make a new inode are run as the caller, so that it gets the caller's ids and
 * umask and loses set-group-id where it has to. The kernel has checked permissions before it asked
 * (default_permissions); the source's own bits shall not refuse again, so CAP_DAC_OVERRIDE,
 * CAP_DAC_READ_SEARCH and CAP_MKNOD stay.
 *
 * Threads that use this have called creds_thread_init: from then on they have a umask of their own.
 */

#include <sys/types.h>

#include "base/macros.h"
#include "fuse/request.h"

/* creds_process_init - once, before threads start: remembers the capabilities to come back to.
 * Returns 0 or -errno. */
int __must_check creds_process_init(void);

/* creds_thread_init - once in each thread that serves: unshare(CLONE_FS), umask 0. Returns 0 or
 * -errno. */
int __must_check creds_thread_init(void);

struct creds {
	uint8_t changed; /* what there is to restore; 0: nothing */
};
#define CREDS_INIT           \
	{                    \
		.changed = 0 \
	}

/*
 * creds_enter_caller - go on as the caller of `request`: its fsuid, fsgid, supplementary groups,
 * and `umask` (fuse_req_ctx(req)->umask, 0 for a symlink). With `group` not NULL new inodes belong
 * to that group. Callers whose ids the kernel does not tell (REQUEST_NO_ID) are not followed, only
 * the umask and the group are. Returns 0 or -errno with nothing changed.
 */
int __must_check creds_enter_caller(struct creds *creds, const struct request *request,
				    mode_t umask, const gid_t *group);

/*
 * creds_enter_writer - go on without CAP_FSETID and CAP_SYS_RESOURCE if `unprivileged`: a write or
 * truncation then drops set-id bits and file capabilities and keeps to quota and reserved blocks,
 * as a plain user's does. For WRITE, SETATTR and O_TRUNC `unprivileged` is request->kill_suidgid;
 * backing_open does it by itself. Returns 0 or -errno with nothing changed.
 */
int __must_check creds_enter_writer(struct creds *creds, bool unprivileged);

/*
 * creds_caller_is_admin - whether the caller of `request` has CAP_SYS_ADMIN, as far as can be told:
 * by /proc where the kernel says which process it is. False where it can't.
 */
bool creds_caller_is_admin(const struct request *request);

/*
 * creds_leave - be the worker again; once, or by _cleanup_creds_. Ends the process when that fails:
 * a thread with a caller's credentials must not serve another.
 */
void creds_leave(struct creds *creds);
#define _cleanup_creds_ _cleanup_(creds_leave)
