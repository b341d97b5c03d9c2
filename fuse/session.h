/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The loop of a worker: libfuse's low-level session on a connection that somebody else has
 * initialised, served by a fixed number of threads.
 */

#include "base/error.h"
#include "base/macros.h"
#include "fuse/connection.h"
#include "fuse/ledger.h"

struct fuse_lowlevel_ops;

struct session_params {
	int dev_fd;  /* /dev/fuse, initialised; borrowed */
	int lock_fd; /* see takeover_wait_for_end; borrowed */
	const struct fuse_lowlevel_ops *ops;
	void *userdata;		      /* fuse_req_userdata() */
	struct ledger *ledger;	      /* from ledger_map; borrowed */
	unsigned int n_threads;	      /* 1 to SESSION_THREADS_MAX */
	void (*tick)(void *userdata); /* called every 10 s by session_wait, if not NULL */

	/*
	 * undo - a request that an earlier worker did not answer is about to run again, or, with
	 * `given_up`, will be answered EIO: what its answer would have handed out is taken back.
	 */
	void (*undo)(void *userdata, uint64_t unique, bool given_up);
};
#define SESSION_THREADS_MAX LEDGER_MAX_INBOXES
#define SESSION_THREADS 8

struct session;

/*
 * session_new - attach to the connection: libfuse is shown an INIT request made of what the ledger
 * says was negotiated, and its answer is swallowed. Nothing is read from dev_fd yet. Returns 0 or
 * -errno with *err set; *ret is owned by the caller.
 */
int __must_check session_new(const struct session_params *params, struct session **ret,
			     struct error *err);
void session_free(struct session *session);
DEFINE_CLEANUP(struct session *, session_free);
#define _cleanup_session_ _cleanup_(session_free_cleanup)

/*
 * session_start - start the threads; they serve when this returns, the requests first that the last
 * worker left (takeover.h). Returns 0 or -errno with *err set.
 */
int __must_check session_start(struct session *session, struct error *err);

/*
 * session_wait - wait until the connection has ended (ENODEV) or a thread has met an error that
 * does not go away. Returns 0 for the end of the connection, else -errno.
 */
int __must_check session_wait(struct session *session);
