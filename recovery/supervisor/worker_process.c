/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/worker_process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/program.h"
#include "base/socket.h"

#define WORKER_NAME "holdfast-fuse"
#define WORKER_FD_END (WORKER_FD_STATUS + 1)

/*
 * From here to the exec: the child. Its error path is the report, so that a missing binary reads
 * like any other worker that could not start.
 */

static _noreturn_ void child_fail(int status_fd, const char *what)
{
	struct worker_report report = { .version = WORKER_REPORT_VERSION, .code = -errno };

	(void)snprintf(report.text, sizeof(report.text), "%s: %s", what,
		       strerrordesc_np(-report.code) ?: "unknown error");
	if (socket_send(status_fd, &report, sizeof(report), NULL, 0, MSG_DONTWAIT) < 0)
		_exit(WORKER_EXIT_USAGE);
	_exit(WORKER_EXIT_FAILED);
}

/* The parent's death is noticed by the kernel from prctl on; whether it came before, by getppid. */
static void child_die_with_parent(pid_t parent, int status_fd)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		child_fail(status_fd, "prctl PR_SET_PDEATHSIG");
	if (getppid() != parent)
		_exit(WORKER_EXIT_FAILED);
}

/* Puts fds[i] at WORKER_FD_DEV + i and closes all beyond; first those in the way are moved. */
static void child_place_fds(int fds[4])
{
	int status_fd = fds[3];

	for (size_t i = 0; i < 4; i++)
		if (fds[i] < WORKER_FD_END) {
			fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, WORKER_FD_END);
			if (fds[i] < 0)
				child_fail(status_fd, "duplicate descriptors for the worker");
		}
	for (size_t i = 0; i < 4; i++)
		if (dup2(fds[i], WORKER_FD_DEV + (int)i) < 0)
			child_fail(fds[3], "dup2 for the worker");
	if (close_range(WORKER_FD_END, ~0U, 0) < 0)
		child_fail(WORKER_FD_STATUS, "close_range for the worker");
}

/* The worker is as good a victim for the OOM killer as any process: only the keeper is spared. */
static void child_reset_oom_score(int oom_score_adj)
{
	_cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", oom_score_adj);

	if (fd < 0 || fd_write_all(fd, text, (size_t)n) < 0)
		return; /* spared it is no worse */
}

static _noreturn_ void child_run(const struct worker_program *program, const char *path,
				 pid_t parent, int fds[4])
{
	char name[] = WORKER_NAME;
	char *const argv[] = { name, NULL };
	char what[PATH_MAX + 16];
	sigset_t none;

	child_die_with_parent(parent, fds[3]);
	child_reset_oom_score(program->oom_score_adj);
	child_place_fds(fds);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)setenv("HOLDFAST_LOG_LEVEL", program->log_level, 1);
	(void)unsetenv("NOTIFY_SOCKET"); /* the keeper's own */
	(void)unsetenv("WATCHDOG_USEC");
	(void)unsetenv("WATCHDOG_PID");
	(void)execv(path, argv);
	(void)snprintf(what, sizeof(what), "exec %s", path);
	child_fail(WORKER_FD_STATUS, what);
}

static int open_pidfd(pid_t pid, struct error *err)
{
	int fd = pidfd_open(pid, 0);
	int code = -errno;

	if (fd >= 0)
		return fd;
	(void)kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return error_errno(err, code, "pidfd_open for a worker");
}

int worker_process_start(const struct worker_program *program, int dev_fd, int ledger_fd,
			 int source_fd, struct worker_process *ret, struct error *err)
{
	_cleanup_close_ int ours = -EBADF, theirs = -EBADF;
	char found[PATH_MAX];
	const char *path = program->path ?: program_find(WORKER_NAME, found, sizeof(found));
	pid_t parent = getpid(), pid;
	int pair[2], pidfd;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, -errno, "socketpair for a worker");
	ours = pair[0];
	theirs = pair[1];
	pid = fork();
	if (pid < 0)
		return error_errno(err, -errno, "fork a worker");
	if (pid == 0)
		child_run(program, path, parent, (int[]){ dev_fd, ledger_fd, source_fd, theirs });
	pidfd = open_pidfd(pid, err);
	if (pidfd < 0)
		return pidfd;
	*ret = (struct worker_process){ .pid = pid, .pidfd = pidfd, .status_fd = TAKE_FD(ours) };
	return 0;
}

int worker_process_report(const struct worker_process *worker, struct worker_report *ret)
{
	int fds[SOCKET_FDS_MAX];
	struct worker_report report;
	ssize_t n = socket_recv(worker->status_fd, &report, sizeof(report), fds, MSG_DONTWAIT);

	for (size_t i = 0; i < SOCKET_FDS_MAX; i++)
		close_fd(&fds[i]);
	if (n == 0 || n == -ECONNRESET)
		return -ENODATA;
	if (n == -EAGAIN)
		return -EAGAIN;
	if (n != sizeof(report) || report.version != WORKER_REPORT_VERSION)
		return -EBADMSG;
	report.text[sizeof(report.text) - 1] = '\0';
	*ret = report;
	return 0;
}

void worker_process_kill(const struct worker_process *worker)
{
	if (worker->pidfd >= 0)
		(void)pidfd_send_signal(worker->pidfd, SIGKILL, NULL, 0);
}

int worker_process_reap(struct worker_process *worker, siginfo_t *ret)
{
	siginfo_t info = { 0 };
	int r;

	do
		r = waitid(P_PIDFD, (id_t)worker->pidfd, &info, WEXITED | WNOHANG);
	while (r < 0 && errno == EINTR);
	if (r == 0 && info.si_pid == 0)
		return -EAGAIN;
	close_fd(&worker->pidfd);
	close_fd(&worker->status_fd);
	worker->pid = 0;
	*ret = info;
	return 0;
}

void worker_exit_describe(const siginfo_t *info, char *buf, size_t size)
{
	if (info->si_code == CLD_EXITED)
		(void)snprintf(buf, size, "exit code %d", info->si_status);
	else if (info->si_code == CLD_KILLED || info->si_code == CLD_DUMPED)
		(void)snprintf(buf, size, "killed by signal %d (%s)", info->si_status,
			       sigdescr_np(info->si_status) ?: "unknown");
	else
		(void)snprintf(buf, size, "gone");
}
