/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/reexec.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/program.h"

#define CHECK_LIMIT_NS (30 * NSEC_PER_SEC)
#define RETRY_NS (20 * NSEC_PER_MSEC)
#define RETRY_LIMIT_NS (20 * NSEC_PER_SEC)
#define EXIT_NOT_STARTED 126

static void give_up(struct reexec *x, const char *why)
{
	log_error("the keeper goes on as it is: %s", why);
	close_fd(&x->fd);
}

/* In the child: the program, with one more argument. */
static void exec_check(const void *context)
{
	const struct reexec *x = context;
	char option[] = "--check-handover";
	size_t n = 0;
	char **argv;
	int fd;

	while (x->argv[n])
		n++;
	argv = calloc(n + 2, sizeof(*argv));
	fd = fcntl(CHILD_FD_FIRST, F_DUPFD_CLOEXEC, CHILD_FD_FIRST + 2);
	if (!argv || fd < 0)
		_exit(EXIT_NOT_STARTED);
	memcpy(argv, x->argv, n * sizeof(*argv));
	argv[n] = option;
	(void)execveat(fd, "", argv, environ, AT_EMPTY_PATH);
	(void)log_error_errno(-errno, "exec %s", x->path);
	_exit(EXIT_NOT_STARTED);
}

/* Executes what was checked, unless somebody waits for an answer: then again in a moment. */
static void execute(void *context)
{
	struct reexec *x = context;
	struct handover h = HANDOVER_NONE;
	struct error err = ERROR_INIT;
	int r = keeper_collect(x->keeper, &h, &err);

	if (r < 0 && err.kind == ERROR_BUSY && clock_now_ns() < x->due_ns) {
		loop_arm(x->loop, &x->retry, clock_now_ns() + RETRY_NS);
		return;
	}
	if (r >= 0) {
		log_notice("executing %s anew", x->path);
		(void)handover_exec(&h, x->fd, x->argv, &err);
		handover_forget(&h);
	}
	give_up(x, err.text);
}

static void on_check_exit(void *context, uint32_t events)
{
	struct reexec *x = context;
	siginfo_t info;
	char how[108];

	if (child_reap(&x->check, &info) < 0)
		return;
	loop_disarm(&x->limit);
	loop_drop(x->loop, &x->exit);
	child_close(&x->check);
	if (info.si_code == CLD_EXITED && info.si_status == 0) {
		x->due_ns = clock_now_ns() + RETRY_LIMIT_NS;
		execute(x);
		return;
	}
	child_describe_exit(&info, how, sizeof(how));
	log_error("%s can't take over: %s", x->path, how);
	give_up(x, "its program file was refused");
}

static void on_limit(void *context)
{
	struct reexec *x = context;

	child_kill(&x->check);
}

static int start_check(struct reexec *x, struct error *err)
{
	int r;

	x->fd = open(x->path, O_PATH | O_CLOEXEC);
	if (x->fd < 0)
		return error_errno(err, -errno, "open %s", x->path);
	r = child_start(&x->fd, 1, exec_check, x, &x->check, err);
	if (r < 0)
		return r;
	r = loop_add(x->loop, &x->exit, x->check.pidfd, EPOLLIN, err);
	if (r < 0) {
		child_kill(&x->check);
		child_close(&x->check);
		return r;
	}
	loop_arm(x->loop, &x->limit, clock_now_ns() + CHECK_LIMIT_NS);
	return 0;
}

void reexec_begin(struct reexec *x)
{
	struct error err = ERROR_INIT;

	if (x->fd >= 0) {
		log_info("the program file is being checked already");
		return;
	}
	log_info("asking %s whether it can take over", x->path);
	if (start_check(x, &err) < 0)
		give_up(x, err.text);
}

void reexec_init(struct reexec *x, struct loop *loop, struct keeper *keeper, char *const argv[])
{
	*x = (struct reexec){
		.loop = loop,
		.keeper = keeper,
		.argv = argv,
		.fd = -EBADF,
		.check = CHILD_NONE,
		.exit = { .fd = -EBADF, .ready = on_check_exit, .context = x },
		.limit = { .fire = on_limit, .context = x },
		.retry = { .fire = execute, .context = x },
	};
	program_path(x->path, sizeof(x->path));
}

void reexec_done(struct reexec *x)
{
	loop_disarm(&x->limit);
	loop_disarm(&x->retry);
	loop_drop(x->loop, &x->exit);
	child_kill(&x->check);
	child_close(&x->check);
	close_fd(&x->fd);
}
