/* SPDX-License-Identifier: Apache-2.0 */
#include "base/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/program.h"

/* dup2 onto a number that a later one still has would lose that: all go above first. */
static int lift(const int *fds, size_t n, int *ret)
{
	int lowest = SPAWN_FIRST_FD + (int)n;

	for (size_t i = 0; i < n; i++) {
		ret[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, lowest);
		if (ret[i] < 0)
			return -errno;
	}
	return 0;
}

static int set_up(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attr,
		  const struct spawn *s, const int *lifted)
{
	sigset_t none, all;
	int r;

	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	r = posix_spawn_file_actions_adddup2(actions, s->out_fd, STDOUT_FILENO);
	for (size_t i = 0; r == 0 && i < s->n_fds; i++)
		r = posix_spawn_file_actions_adddup2(actions, lifted[i], SPAWN_FIRST_FD + (int)i);
	if (r == 0)
		r = posix_spawn_file_actions_addclosefrom_np(actions,
							     SPAWN_FIRST_FD + (int)s->n_fds);
	if (r == 0)
		r = posix_spawnattr_setsigmask(attr, &none);
	if (r == 0)
		r = posix_spawnattr_setsigdefault(attr, &all);
	if (r == 0)
		r = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	return -r;
}

static int start(const struct spawn *s, const int *lifted, pid_t *ret_pid)
{
	char path[PATH_MAX], *envp[] = { NULL };
	char *argv[] = { (char *)s->program, (char *)s->argument, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r = posix_spawn_file_actions_init(&actions);

	if (r != 0)
		return -r;
	r = posix_spawnattr_init(&attr);
	if (r != 0) {
		(void)posix_spawn_file_actions_destroy(&actions);
		return -r;
	}
	r = set_up(&actions, &attr, s, lifted);
	if (r == 0)
		r = -posix_spawn(ret_pid, program_find(s->program, path, sizeof(path)), &actions,
				 &attr, argv, envp);
	(void)posix_spawnattr_destroy(&attr);
	(void)posix_spawn_file_actions_destroy(&actions);
	return r;
}

int spawn_helper(const struct spawn *s, pid_t *ret_pid)
{
	int *lifted = calloc(s->n_fds + 1, sizeof(*lifted));
	int r;

	if (!lifted)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_fds; i++)
		lifted[i] = -EBADF;
	r = lift(s->fds, s->n_fds, lifted);
	if (r >= 0)
		r = start(s, lifted, ret_pid);
	for (size_t i = 0; i < s->n_fds; i++)
		close_fd(&lifted[i]);
	free(lifted);
	return r;
}

void helper_wait(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

int helper_receive(int fd, int timeout_ms, void *report, size_t size)
{
	uint64_t due = clock_now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
	struct pollfd p = { .fd = fd, .events = POLLIN };

	for (;;) {
		int left = clock_left_ms(due);
		int r = poll(&p, 1, left);

		if (r > 0)
			break;
		if (r == 0 && left == 0)
			return -ETIMEDOUT;
		if (r < 0 && errno != EINTR)
			return -errno;
	}
	return read(fd, report, size) == (ssize_t)size ? 0 : -EPIPE;
}
