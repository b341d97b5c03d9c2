/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Whether a worker gets on with its requests. One that hangs (a bug, a deadlock, SIGSTOP) is
 * killed, which is one more takeover; one that waits for its source is slow and not dead: killing
 * it would start the same wait again.
 *
 * What is looked at costs a system call or two, and only where requests wait: the requests in hand
 * and how many were served, which the worker's threads note in the ledger's header, and poll(2) of
 * the device, which tells of requests that nobody has read. If nothing moves for the time limit,
 * /proc says what the thread is in: a system call on the source, or something else.
 *
 * fs.fuse.max_request_timeout, where it is set, has the kernel end a whole connection when one
 * request is that old (fs/fuse/dev.c, fuse_check_timeout, looks every 15 s): its oldest requests
 * are then answered here, before that.
 */

#include <sys/types.h>

#include "base/macros.h"
#include "fuse/ledger.h"

struct progress {
	uint64_t served;	 /* at the last look */
	uint64_t still_since_ns; /* since when requests wait and none was served; 0: not so */
	uint64_t cpu_ns;	 /* that the worker had used then */
};

/* What there is to look at. */
struct progress_view {
	struct ledger_header *header;
	int dev_fd;
	pid_t pid; /* of the worker */
	uint64_t now_ns, limit_ns;
	uint64_t waiting;	 /* requests, as fusectl counts them; 0 where it is not there */
	uint64_t request_max_ns; /* fs.fuse.max_request_timeout; 0: not set */
};

enum progress_verdict {
	PROGRESS_FINE = 0,
	PROGRESS_SLOW = 1, /* it waits for the source */
	PROGRESS_HUNG = 2, /* it is to be killed */
	PROGRESS_LOST = 3, /* the kernel waits, and the worker has nothing */
};

struct progress_report {
	uint64_t age_ns; /* of the request below */
	uint32_t opcode;
	int32_t tid;
	char state; /* of the thread, as /proc/PID/stat has it; '?' */
};

/* progress_look - call it a few times within limit_ns. *ret is filled for SLOW and HUNG. */
enum progress_verdict progress_look(struct progress *progress, const struct progress_view *view,
				    struct progress_report *ret);

/*
 * progress_expire - answer EIO to requests in hand that the kernel would soon end the connection
 * for. Returns how many there were.
 */
unsigned int progress_expire(const struct progress_view *view);

/* What a line of /proc/PID/task/TID/syscall says (proc(5)). */
enum progress_call {
	PROGRESS_CALL_NONE, /* it is not in a system call */
	PROGRESS_CALL_OWN,  /* one that has nothing to do with the source: a lock, the device */
	PROGRESS_CALL_SOURCE,
};
enum progress_call progress_parse_call(const char *line);
