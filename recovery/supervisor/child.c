/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/socket.h"

#define EXIT_UNPREPARED 127 /* the child did not come as far as run() */

/* From the fork on the kernel ends the child with its parent; before, getppid tells. */
static bool die_with_parent(pid_t parent)
{
	return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent;
}

/* Puts fds[i] at CHILD_FD_FIRST + i and closes all beyond; first those in the way are moved. */
static bool place_fds(int *fds, size_t n)
{
	int end = CHILD_FD_FIRST + (int)n;

	for (size_t i = 0; i < n; i++) {
		if (fds[i] < end)
			fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, end);
		if (fds[i] < 0)
			return false;
	}
	for (size_t i = 0; i < n; i++)
		if (dup2(fds[i], CHILD_FD_FIRST + (int)i) < 0)
			return false;
	return close_range((unsigned int)end, ~0U, 0) == 0;
}

static _noreturn_ void run_child(pid_t parent, int *fds, size_t n, void (*run)(const void *context),
				 const void *context)
{
	sigset_t none;

	if (!die_with_parent(parent) || !place_fds(fds, n))
		_exit(EXIT_UNPREPARED);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	run(context);
	_exit(0);
}

/* Returns an owned pidfd of our child, or -errno, with the child gone. */
static int open_pidfd(pid_t pid)
{
	int fd = pidfd_open(pid, 0);
	int code = -errno;

	if (fd >= 0)
		return fd;
	(void)kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return code;
}

int child_start(const int *fds, size_t n, void (*run)(const void *context), const void *context,
		struct child *ret, struct error *err)
{
	_cleanup_close_ int ours = -EBADF, theirs = -EBADF;
	int child_fds[CHILD_FDS_MAX], pair[2], pidfd;
	pid_t parent = getpid(), pid;

	if (n >= CHILD_FDS_MAX)
		return error_errno(err, -EINVAL, "start a process with %zu descriptors", n);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, -errno, "socketpair");
	ours = pair[0];
	theirs = pair[1];
	if (n > 0) /* memcpy(3) takes no NULL even then */
		memcpy(child_fds, fds, n * sizeof(*fds));
	child_fds[n] = theirs;
	pid = fork();
	if (pid < 0)
		return error_errno(err, -errno, "fork");
	if (pid == 0)
		run_child(parent, child_fds, n + 1, run, context);
	pidfd = open_pidfd(pid);
	if (pidfd < 0)
		return error_errno(err, pidfd, "pidfd_open");
	*ret = (struct child){ .pid = pid, .pidfd = pidfd, .report_fd = TAKE_FD(ours) };
	return 0;
}

int child_receive(const struct child *child, void *ret, size_t size)
{
	int fds[SOCKET_FDS_MAX];
	ssize_t n = socket_recv(child->report_fd, ret, size, fds, MSG_DONTWAIT);

	/* it ended without reading what it was sent; what it had said comes behind this error */
	if (n == -ECONNRESET)
		n = socket_recv(child->report_fd, ret, size, fds, MSG_DONTWAIT);
	for (size_t i = 0; i < SOCKET_FDS_MAX; i++)
		close_fd(&fds[i]);
	if (n == 0 || n == -ECONNRESET)
		return -ENODATA;
	if (n < 0)
		return (int)n;
	return n == (ssize_t)size ? 0 : -EBADMSG;
}

void child_kill(const struct child *child)
{
	if (child->pidfd >= 0)
		(void)pidfd_send_signal(child->pidfd, SIGKILL, NULL, 0);
}

int child_reap(const struct child *child, siginfo_t *ret)
{
	siginfo_t info = { 0 };
	int r;

	do
		r = waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG);
	while (r < 0 && errno == EINTR);
	if (r == 0 && info.si_pid == 0)
		return -EAGAIN;
	*ret = info;
	return 0;
}

void child_close(struct child *child)
{
	close_fd(&child->pidfd);
	close_fd(&child->report_fd);
	child->pid = 0;
}

void child_describe_exit(const siginfo_t *info, char *buf, size_t size)
{
	if (info->si_code == CLD_EXITED)
		(void)snprintf(buf, size, "exit code %d", info->si_status);
	else if (info->si_code == CLD_KILLED || info->si_code == CLD_DUMPED)
		(void)snprintf(buf, size, "killed by signal %d (%s)", info->si_status,
			       sigdescr_np(info->si_status) ?: "unknown");
	else
		(void)snprintf(buf, size, "gone");
}
