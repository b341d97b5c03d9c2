/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Holdfast's own helper programs, started from a process with threads. */

#include <sys/types.h>

#include "base/macros.h"

#define SPAWN_FIRST_FD 3

struct spawn {
	const char *program; /* found as program_find does */
	const char *argument; /* its only one, or NULL */
	const int *fds;	     /* get the numbers from SPAWN_FIRST_FD on; borrowed */
	size_t n_fds;
	int out_fd; /* its standard output; borrowed */
};

/*
 * spawn_helper - start it (posix_spawn(3)) with exactly these descriptors, standard input and error
 * aside, without environment and with the default signals. *ret_pid is the caller's child. Returns
 * 0 or -errno.
 */
int __must_check spawn_helper(const struct spawn *spawn, pid_t *ret_pid);

/* helper_wait - until the child, which is about to end, has. */
void helper_wait(pid_t pid);

/*
 * helper_receive - one report of `size` bytes, which the helper writes at once, from the other end
 * of its standard output. Returns 0, -ETIMEDOUT, -EPIPE when it ended without one or sent another
 * size, or another -errno.
 */
int __must_check helper_receive(int fd, int timeout_ms, void *report, size_t size);
