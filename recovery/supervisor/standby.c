/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/standby.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>

#include "base/clock.h"
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

/* The program file as it is now; zeros where it is not there. */
static struct stat look_at_binary(const struct standby *s)
{
	struct stat st;

	if (worker_stat(s->program, &st) < 0)
		return (struct stat){ .st_ino = 0 };
	return st;
}

static bool is_replaced(const struct standby *s)
{
	struct stat now = look_at_binary(s);

	return now.st_ino != s->binary.st_ino || now.st_dev != s->binary.st_dev ||
	       now.st_mtim.tv_sec != s->binary.st_mtim.tv_sec ||
	       now.st_mtim.tv_nsec != s->binary.st_mtim.tv_nsec;
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
	s->binary = look_at_binary(s);
	if (worker_start(s->program, &s->child, &err) < 0 ||
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
}

int standby_take(struct standby *s, struct child *ret, struct error *err)
{
	refill_at(s, clock_now_ns());
	if (is_alive(&s->child) && !is_replaced(s)) {
		loop_drop(s->loop, &s->exit);
		*ret = s->child;
		s->child = CHILD_NONE;
		return 0;
	}
	discard(s);
	return worker_start(s->program, ret, err);
}
