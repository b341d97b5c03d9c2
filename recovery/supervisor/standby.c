/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/standby.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#define RETRY_NS NSEC_PER_SEC

static void refill_at(struct standby *s, uint64_t due_ns)
{
	loop_arm(s->loop, &s->refill, due_ns);
}

static bool is_alive(const struct child *child)
{
	struct pollfd p = { .fd = child->pidfd, .events = POLLIN };

	return child->pid != 0 && poll(&p, 1, 0) == 0;
}

static bool is_same_file(int a, int b)
{
	struct stat one, two;

	return a >= 0 && fstat(a, &one) == 0 && fstat(b, &two) == 0 && one.st_ino == two.st_ino &&
	       one.st_dev == two.st_dev && one.st_mtim.tv_sec == two.st_mtim.tv_sec &&
	       one.st_mtim.tv_nsec == two.st_mtim.tv_nsec;
}

static int start(struct standby *s, struct child *ret, struct error *err)
{
	/* where there is still no file, the worker that can't be executed says so */
	if (s->binary_fd < 0)
		s->binary_fd = worker_open(s->program, NULL);
	return worker_start(s->program, s->binary_fd, ret, err);
}

static void on_exit_event(void *context, uint32_t events)
{
	struct standby *s = context;
	siginfo_t info;

	if (child_reap(&s->child, &info) < 0)
		return;
	loop_drop(s->loop, &s->exit);
	child_close(&s->child);
	refill_at(s, clock_now_ns() + RETRY_NS);
}

static void on_refill(void *context)
{
	struct standby *s = context;
	struct error err = ERROR_INIT;

	if (s->child.pid != 0)
		return;
	if (start(s, &s->child, &err) < 0 ||
	    loop_add(s->loop, &s->exit, s->child.pidfd, EPOLLIN, &err) < 0) {
		log_warning("no worker in store: %s", err.text);
		if (s->child.pid != 0) {
			child_kill(&s->child);
			reaper_adopt(s->reaper, &s->child);
		}
		refill_at(s, clock_now_ns() + RETRY_NS);
	}
}

void standby_init(struct standby *s, struct loop *loop, struct reaper *reaper,
		  const struct worker_program *program)
{
	*s = (struct standby){
		.loop = loop,
		.reaper = reaper,
		.program = program,
		.binary_fd = worker_open(program, NULL),
		.child = CHILD_NONE,
		.exit = { .fd = -EBADF, .ready = on_exit_event, .context = s },
		.refill = { .fire = on_refill, .context = s },
	};
	refill_at(s, clock_now_ns());
}

/* Nobody needs the one in store any more. */
static void discard(struct standby *s)
{
	loop_drop(s->loop, &s->exit);
	if (s->child.pid == 0)
		return;
	child_kill(&s->child);
	reaper_adopt(s->reaper, &s->child);
}

void standby_done(struct standby *s)
{
	loop_disarm(&s->refill);
	discard(s);
	close_fd(&s->binary_fd);
}

int standby_take(struct standby *s, struct child *ret, struct error *err)
{
	refill_at(s, clock_now_ns());
	if (is_alive(&s->child)) {
		loop_drop(s->loop, &s->exit);
		*ret = s->child;
		s->child = CHILD_NONE;
		return 0;
	}
	discard(s);
	return start(s, ret, err);
}

int standby_open_fresh(const struct standby *s, int *ret, struct error *err)
{
	_cleanup_close_ int fd = worker_open(s->program, err);

	if (fd < 0)
		return fd;
	*ret = is_same_file(s->binary_fd, fd) ? -EBADF : TAKE_FD(fd);
	return 0;
}

int standby_try(struct standby *s, int fd, struct child *ret, struct error *err)
{
	return worker_start(s->program, fd, ret, err);
}

void standby_pin(struct standby *s, int fd)
{
	close_fd(&s->binary_fd);
	s->binary_fd = fd;
	discard(s);
	refill_at(s, clock_now_ns());
}
