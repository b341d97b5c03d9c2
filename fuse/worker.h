/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How the keeper and `holdfast-fuse` meet. A worker is started ahead of need, with nothing but one
 * end of a SOCK_SEQPACKET socketpair, makes itself ready and waits: a volume whose worker died does
 * not wait for an exec then. Its order is one struct worker_order that brings three descriptors,
 * which it puts at fixed numbers. Everything else that it has to know lies in the ledger, so the
 * first worker of a volume and its successors start alike.
 *
 * The worker answers with one struct worker_report when it serves, or before it gives up. When the
 * keeper dies the worker dies too (PR_SET_PDEATHSIG, set by the worker itself, which then checks
 * that its parent is still there); one that waits for its order also ends with the socket.
 */

#include "base/macros.h"

#define WORKER_FD_START 3  /* the socket, as the worker finds it */
#define WORKER_FD_DEV 3	   /* /dev/fuse, initialised, blocking */
#define WORKER_FD_LEDGER 4 /* the ledger's memfd */
#define WORKER_FD_SOURCE 5 /* the source directory, O_PATH, the root of a detached mount tree */
#define WORKER_FD_STATUS 6 /* the socket, from the order on */

#define WORKER_ORDER_VERSION 1
#define WORKER_ORDER_FDS 3 /* device, ledger, source */

struct worker_order {
	uint32_t version;
	uint32_t reserved;
};

#define WORKER_REPORT_VERSION 1

struct worker_report {
	uint32_t version;
	int32_t code;	/* 0: it serves; else -errno, and the worker exits */
	char text[240]; /* why, NUL-terminated */
};

/* Exit codes of holdfast-fuse. */
#define WORKER_EXIT_GONE 0   /* the connection has ended (ENODEV), or no order came */
#define WORKER_EXIT_FAILED 1 /* it could not start; the report says why */
#define WORKER_EXIT_USAGE 2
