/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/program.h"
#include "base/socket.h"

#define WORKER_NAME "holdfast-fuse"

_Static_assert(WORKER_FD_START == CHILD_FD_FIRST, "a worker starts with its socket alone");

/* The worker is as good a victim for the OOM killer as any process: only the keeper is spared. */
static void reset_oom_score(int oom_score_adj)
{
	_cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", oom_score_adj);

	if (fd < 0 || fd_write_all(fd, text, (size_t)n) < 0)
		return; /* spared it is no worse */
}

struct start {
	const struct worker_program *program;
	const char *path;
	bool pinned; /* the program file is the child's first descriptor */
};

/* In the child. A missing binary reads like any other worker that could not start. */
static void exec_worker(const void *context)
{
	const struct start *start = context;
	struct worker_report report = { .version = WORKER_REPORT_VERSION };
	char name[] = WORKER_NAME;
	char *const argv[] = { name, NULL };
	int fd = -EBADF;

	/* out of the way of the socket, which comes first for a worker */
	if (start->pinned) {
		fd = fcntl(CHILD_FD_FIRST, F_DUPFD_CLOEXEC, WORKER_FD_STATUS + 1);
		(void)dup2(CHILD_FD_FIRST + 1, WORKER_FD_START);
		(void)close(CHILD_FD_FIRST + 1);
	}

	reset_oom_score(start->program->oom_score_adj);
	(void)setenv("HOLDFAST_LOG_LEVEL", start->program->log_level, 1);
	(void)unsetenv("NOTIFY_SOCKET"); /* the keeper's own */
	(void)unsetenv("WATCHDOG_USEC");
	(void)unsetenv("WATCHDOG_PID");
	if (fd < 0 || (execveat(fd, "", argv, environ, AT_EMPTY_PATH) < 0 && errno == ENOENT))
		(void)execv(start->path, argv);
	report.code = -errno;
	(void)snprintf(report.text, sizeof(report.text), "exec %.180s: %s", start->path,
		       strerrordesc_np(-report.code) ?: "unknown error");
	if (socket_send(WORKER_FD_START, &report, sizeof(report), NULL, 0, MSG_DONTWAIT) < 0)
		_exit(WORKER_EXIT_USAGE);
	_exit(WORKER_EXIT_FAILED);
}

static const char *find_program(const struct worker_program *program, char found[PATH_MAX])
{
	return program->path ?: program_find(WORKER_NAME, found, PATH_MAX);
}

int worker_open(const struct worker_program *program, struct error *err)
{
	char found[PATH_MAX];
	const char *path = find_program(program, found);
	int fd = open(path, O_PATH | O_CLOEXEC);

	return fd < 0 ? error_errno(err, -errno, "open %s", path) : fd;
}

int worker_start(const struct worker_program *program, int fd, struct child *ret, struct error *err)
{
	char found[PATH_MAX];
	const struct start start = { .program = program,
				     .path = find_program(program, found),
				     .pinned = fd >= 0 };

	if (child_start(&fd, start.pinned, exec_worker, &start, ret, err) < 0)
		return error_prefix(err, "start a worker");
	return 0;
}

int worker_order(const struct child *worker, int dev_fd, int ledger_fd, int source_fd,
		 struct error *err)
{
	const struct worker_order order = { .version = WORKER_ORDER_VERSION };
	const int fds[WORKER_ORDER_FDS] = { dev_fd, ledger_fd, source_fd };
	int r = socket_send(worker->report_fd, &order, sizeof(order), fds, ARRAY_SIZE(fds),
			    MSG_DONTWAIT);

	/* one that has ended already has said why, or its exit tells */
	if (r < 0 && r != -EPIPE && r != -ECONNRESET)
		return error_errno(err, r, "give a worker its order");
	return 0;
}

int worker_receive(const struct child *worker, struct worker_report *ret)
{
	struct worker_report report;
	int r = child_receive(worker, &report, sizeof(report));

	if (r < 0)
		return r;
	if (report.version != WORKER_REPORT_VERSION)
		return -EBADMSG;
	report.text[sizeof(report.text) - 1] = '\0';
	*ret = report;
	return 0;
}
