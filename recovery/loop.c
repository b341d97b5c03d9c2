/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/loop.h"

#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>

#include "base/clock.h"
#include "base/fd.h"

int loop_init(struct loop *ret, struct error *err)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0)
		return error_errno(err, -errno, "epoll_create1");
	*ret = (struct loop){ .epoll_fd = fd };
	return 0;
}

void loop_done(struct loop *loop)
{
	close_fd(&loop->epoll_fd);
}

int loop_add(struct loop *loop, struct loop_source *source, int fd, uint32_t events,
	     struct error *err)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return error_errno(err, -errno, "epoll_ctl");
	source->fd = fd;
	return 0;
}

void loop_change(struct loop *loop, struct loop_source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	/* a change of what is there allocates nothing and can't fail */
	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
}

void loop_drop(struct loop *loop, struct loop_source *source)
{
	if (source->fd < 0)
		return;
	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	source->fd = -EBADF;
}

void loop_arm(struct loop *loop, struct loop_timer *timer, uint64_t due_ns)
{
	loop_disarm(timer);
	timer->due_ns = due_ns;
	timer->next = loop->timers;
	timer->link = &loop->timers;
	if (timer->next)
		timer->next->link = &timer->next;
	loop->timers = timer;
}

void loop_disarm(struct loop_timer *timer)
{
	if (!timer->link)
		return;
	*timer->link = timer->next;
	if (timer->next)
		timer->next->link = timer->link;
	timer->next = NULL;
	timer->link = NULL;
}

static struct loop_timer *earliest(const struct loop *loop)
{
	struct loop_timer *first = loop->timers;

	for (struct loop_timer *t = first; t; t = t->next)
		if (t->due_ns < first->due_ns)
			first = t;
	return first;
}

/* Milliseconds until `timer` is due, rounded up; -1 without one. */
static int wait_ms(const struct loop_timer *timer)
{
	uint64_t now = clock_now_ns();

	if (!timer)
		return -1;
	if (timer->due_ns <= now)
		return 0;
	return (int)MIN_OF((timer->due_ns - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC,
			   (uint64_t)INT_MAX);
}

static int run_once(struct loop *loop, struct error *err)
{
	struct loop_timer *timer = earliest(loop);
	struct epoll_event event;
	int n;

	if (timer && timer->due_ns <= clock_now_ns()) {
		loop_disarm(timer);
		timer->fire(timer->context);
		return 0;
	}
	n = epoll_wait(loop->epoll_fd, &event, 1, wait_ms(timer));
	if (n < 0 && errno != EINTR)
		return error_errno(err, -errno, "epoll_wait");
	if (n > 0) {
		struct loop_source *source = event.data.ptr;

		source->ready(source->context, event.events);
	}
	return 0;
}

int loop_run(struct loop *loop, struct error *err)
{
	while (!loop->ended) {
		int r = run_once(loop, err);

		if (r < 0)
			return r;
	}
	return 0;
}

void loop_end(struct loop *loop)
{
	loop->ended = true;
}
