/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A child process of the keeper, with a socket that it reports on. The keeper has one thread, so a
 * plain fork(2) is safe. Nothing of the keeper is left open in a child: one that hangs in the
 * kernel must not hold another volume's connection or the lock of the run directory.
 */

#include <signal.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"

#define CHILD_FD_FIRST                                                            \
	3 /* where the descriptors of a child begin, behind stdin, stdout, stderr \
	   */
#define CHILD_FDS_MAX 4

struct child {
	pid_t pid;     /* 0: there is none */
	int pidfd;     /* readable once the process has ended */
	int report_fd; /* SOCK_SEQPACKET: what the child sends, and its end */
};

#define CHILD_NONE ((struct child){ .pid = 0, .pidfd = -EBADF, .report_fd = -EBADF })

/*
 * child_start - fork a child that runs run(context) and then exits 0, with duplicates of the `n`
 * descriptors `fds` (borrowed) from CHILD_FD_FIRST on, its end of the report socket behind them, no
 * signal blocked, and death as soon as the keeper dies. Returns 0 or -errno with *err set; *ret is
 * owned by the caller: reap and close it, or leave it to the reaper.
 */
int __must_check child_start(const int *fds, size_t n, void (*run)(const void *context),
			     const void *context, struct child *ret, struct error *err);

/*
 * child_receive - take a report of exactly `size` bytes. Returns 0, -EAGAIN while there is none,
 * -ENODATA when the process ended without one, -EBADMSG for a report of another size, or -errno.
 */
int __must_check child_receive(const struct child *child, void *ret, size_t size);

/* child_kill - SIGKILL. */
void child_kill(const struct child *child);

/* child_reap - take the exit status of a process that has ended. Returns 0, or -EAGAIN if it still
 * runs. */
int __must_check child_reap(const struct child *child, siginfo_t *ret);

/*
 * child_close - close the descriptors of a child that was reaped; *child is CHILD_NONE afterwards.
 * Drop them from the loop first: other children may for a moment hold copies, and epoll would go
 * on.
 */
void child_close(struct child *child);

/* child_describe_exit - "killed by signal 9 (Killed)", "exit code 1". */
void child_describe_exit(const siginfo_t *info, char *buf, size_t size);
