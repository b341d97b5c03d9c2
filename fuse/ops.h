/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The file system that a worker serves: what each FUSE request does to the source. One operation is
 * decode, do, reply exactly once. What libfuse 3.14 does not know comes here in a form that it does
 * (request.h); request_current() tells the rest.
 */

#include "base/error.h"
#include "base/macros.h"
#include "fuse/ledger.h"

struct fuse_lowlevel_ops;
struct ops;

struct ops_params {
	struct ledger *ledger; /* from ledger_map */
	int dev_fd;	       /* /dev/fuse, initialised */
	int source_fd;	       /* the source directory, O_PATH will do */
};

/*
 * ops_new - attach to what the ledger holds: devices, nodes and open handles of the workers before.
 * Everything in *params is borrowed until ops_free. *ret is owned by the caller and is the userdata
 * of the session. Call creds_process_init and raise RLIMIT_NOFILE before. Returns 0 or -errno with
 * *err set.
 */
int __must_check ops_new(const struct ops_params *params, struct ops **ret, struct error *err);
void ops_free(struct ops *ops);
DEFINE_CLEANUP(struct ops *, ops_free);
#define _cleanup_ops_ _cleanup_(ops_free_cleanup)

/* ops_table - libfuse's table; its userdata is a struct ops. */
extern const struct fuse_lowlevel_ops ops_table;

/*
 * ops_trim - close descriptors that were not used for a while: they hold the space of files that
 * were deleted on the source. Call it every few seconds.
 */
void ops_trim(struct ops *ops);

/*
 * ops_undo - a request that an earlier worker did not answer runs again, or is given up: take back
 * what its answer would have handed out. An open file is kept for the request that runs again.
 */
void ops_undo(struct ops *ops, uint64_t unique, bool given_up);

/*
 * ops_raise_fd_limit - raise RLIMIT_NOFILE as far as this process may. Returns the limit that holds
 * now.
 */
uint64_t ops_raise_fd_limit(void);
