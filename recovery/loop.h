/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The keeper's event loop: epoll for descriptors, one list of timers, one thread.
 *
 * It handles one event a round, so a handler may drop and free any source or timer, its own too:
 * no event of a freed one is left over. Sources and timers are embedded in what they belong to and
 * have to stay where they are while they are known to the loop.
 */

#include "base/error.h"
#include "base/macros.h"

struct loop_source {
	int fd; /* borrowed; -EBADF while the loop does not know the source */
	void (*ready)(void *context, uint32_t events);
	void *context;
};

struct loop_timer {
	void (*fire)(void *context);
	void *context;
	uint64_t due_ns;
	struct loop_timer *next;
	struct loop_timer **link; /* what points at this one, NULL while it is not armed */
};

struct loop {
	int epoll_fd;
	struct loop_timer *timers; /* unsorted: a keeper has few that are armed */
	bool ended;
};

int __must_check loop_init(struct loop *ret, struct error *err);
void loop_done(struct loop *loop);

/*
 * loop_add - have `source` called when `fd` shows one of `events` (EPOLLIN, ...; errors and
 * hang-ups always). The source's ready and context are filled in by the caller. Returns 0 or -errno
 * with *err set.
 */
int __must_check loop_add(struct loop *loop, struct loop_source *source, int fd, uint32_t events,
			  struct error *err);

/* loop_change - wait for other events on a source that was added. */
void loop_change(struct loop *loop, struct loop_source *source, uint32_t events);

/*
 * loop_drop - forget a source; one that was not added is fine. To be called before its descriptor
 * is closed, because epoll goes on as long as any copy of it is open, a forked child's too.
 */
void loop_drop(struct loop *loop, struct loop_source *source);

/* loop_arm - fire once when the monotonic clock shows due_ns; an armed timer is set anew. */
void loop_arm(struct loop *loop, struct loop_timer *timer, uint64_t due_ns);
void loop_disarm(struct loop_timer *timer);

/* loop_run - handle events until loop_end. Returns 0 or -errno with *err set. */
int __must_check loop_run(struct loop *loop, struct error *err);
void loop_end(struct loop *loop);
