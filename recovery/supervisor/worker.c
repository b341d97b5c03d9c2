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

_Static_assert(WORKER_FD_DEV == CHILD_FD_FIRST && WORKER_FD_LEDGER == CHILD_FD_FIRST + 1 &&
		       WORKER_FD_SOURCE == CHILD_FD_FIRST + 2 &&
		       WORKER_FD_STATUS == CHILD_FD_FIRST + 3,
	       "a worker's descriptors are in the order of child_start");

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
};

/* In the child. A missing binary reads like any other worker that could not start. */
static void exec_worker(const void *context)
{
	const struct start *start = context;
	struct worker_report report = { .version = WORKER_REPORT_VERSION };
	char name[] = WORKER_NAME;
	char *const argv[] = { name, NULL };

	reset_oom_score(start->program->oom_score_adj);
	(void)setenv("HOLDFAST_LOG_LEVEL", start->program->log_level, 1);
	(void)unsetenv("NOTIFY_SOCKET"); /* the keeper's own */
	(void)unsetenv("WATCHDOG_USEC");
	(void)unsetenv("WATCHDOG_PID");
	(void)execv(start->path, argv);
	report.code = -errno;
	(void)snprintf(report.text, sizeof(report.text), "exec %.180s: %s", start->path,
		       strerrordesc_np(-report.code) ?: "unknown error");
	if (socket_send(WORKER_FD_STATUS, &report, sizeof(report), NULL, 0, MSG_DONTWAIT) < 0)
		_exit(WORKER_EXIT_USAGE);
	_exit(WORKER_EXIT_FAILED);
}

int worker_start(const struct worker_program *program, int dev_fd, int ledger_fd, int source_fd,
		 struct child *ret, struct error *err)
{
	const int fds[] = { dev_fd, ledger_fd, source_fd };
	struct start start = { .program = program, .path = program->path };
	char found[PATH_MAX];

	if (!start.path)
		start.path = program_find(WORKER_NAME, found, sizeof(found));
	if (child_start(fds, ARRAY_SIZE(fds), exec_worker, &start, ret, err) < 0)
		return error_prefix(err, "start a worker");
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
