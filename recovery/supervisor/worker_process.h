/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One holdfast-fuse process: started with its descriptors where fuse/worker.h says, its report, its
 * end. The keeper has one thread, so plain fork(2) and exec are safe here.
 */

#include <signal.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"
#include "fuse/worker.h"

/* How workers of this keeper are started. */
struct worker_program {
	const char *path;      /* --worker, or NULL: holdfast-fuse, looked for at each start
				  (program_find) */
	const char *log_level; /* passed on as HOLDFAST_LOG_LEVEL */
	int oom_score_adj;     /* what the keeper itself was started with */
};

struct worker_process {
	pid_t pid;     /* 0: there is none */
	int pidfd;     /* readable once the process has ended */
	int status_fd; /* the keeper's end of WORKER_FD_STATUS, non-blocking */
};

#define WORKER_PROCESS_NONE \
	((struct worker_process){ .pid = 0, .pidfd = -EBADF, .status_fd = -EBADF })

/*
 * worker_process_start - start a worker. The descriptors are borrowed; the process gets duplicates
 * of them and of stdin, stdout and stderr, and nothing else. It dies with the keeper. An exec that
 * fails is reported as if by the worker itself. Returns 0 or -errno with *err set; *ret is owned by
 * the caller: reap it.
 */
int __must_check worker_process_start(const struct worker_program *program, int dev_fd,
				      int ledger_fd, int source_fd, struct worker_process *ret,
				      struct error *err);

/*
 * worker_process_report - take the report, whose text is then terminated. Returns 0, -EAGAIN while
 * there is none, -ENODATA when the process ended without one, -EBADMSG for garbage.
 */
int __must_check worker_process_report(const struct worker_process *worker,
				       struct worker_report *ret);

/* worker_process_kill - SIGKILL. */
void worker_process_kill(const struct worker_process *worker);

/*
 * worker_process_reap - take the exit status of a process that has ended, and close the
 * descriptors: *worker is WORKER_PROCESS_NONE afterwards. Returns 0, or -EAGAIN if it still runs.
 */
int __must_check worker_process_reap(struct worker_process *worker, siginfo_t *ret);

/* worker_exit_describe - "killed by signal 9 (Killed)", "exit code 1". */
void worker_exit_describe(const siginfo_t *info, char *buf, size_t size);
