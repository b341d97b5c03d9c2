/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the keeper hands to `holdfast-fuse` at exec: four descriptors at fixed numbers. Everything
 * else that a worker has to know lies in the ledger, so the first worker of a volume and its
 * successors start alike.
 *
 * The worker writes one struct worker_report to WORKER_FD_STATUS when it serves, or before it gives
 * up. When the keeper dies the worker dies too (PR_SET_PDEATHSIG, set by the worker itself, which
 * then checks that its parent is still there).
 */

#include "base/macros.h"

#define WORKER_FD_DEV 3	   /* /dev/fuse, initialised, blocking */
#define WORKER_FD_LEDGER 4 /* the ledger's memfd */
#define WORKER_FD_SOURCE 5 /* the source directory, O_PATH, the root of a detached mount tree */
#define WORKER_FD_STATUS 6 /* one end of a SOCK_SEQPACKET socketpair */

#define WORKER_REPORT_VERSION 1

struct worker_report {
	uint32_t version;
	int32_t code;	/* 0: it serves; else -errno, and the worker exits */
	char text[240]; /* why, NUL-terminated */
};

/* Exit codes of holdfast-fuse. */
#define WORKER_EXIT_GONE \
	0 /* the connection has ended (ENODEV): the volume was unmounted or aborted */
#define WORKER_EXIT_FAILED 1 /* it could not start; the report says why */
#define WORKER_EXIT_USAGE 2
