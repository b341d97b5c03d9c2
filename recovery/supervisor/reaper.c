/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/reaper.h"

#include <errno.h>
#include <sys/epoll.h>

#include "base/fd.h"
#include "base/log.h"

struct orphan {
	struct reaper *reaper;
	struct orphan *next;
	struct loop_source exit;
	struct child child;
};

static void orphan_free(struct orphan *orphan)
{
	struct orphan **link = &orphan->reaper->orphans;

	while (*link != orphan)
		link = &(*link)->next;
	*link = orphan->next;
	loop_drop(orphan->reaper->loop, &orphan->exit);
	child_close(&orphan->child);
	free(orphan);
}

static void on_exit_of_orphan(void *context, uint32_t events)
{
	struct orphan *orphan = context;
	pid_t pid = orphan->child.pid;
	siginfo_t info;

	if (child_reap(&orphan->child, &info) < 0)
		return;
	log_info("process %d, which was left to itself, has ended", (int)pid);
	orphan_free(orphan);
}

void reaper_adopt(struct reaper *reaper, struct child *child)
{
	struct orphan *orphan = malloc(sizeof(*orphan));
	struct error err = ERROR_INIT;

	close_fd(&child->report_fd);
	if (!orphan) {
		/* it stays a zombie until the keeper ends; nothing else depends on it */
		log_warning("process %d can't be waited for: out of memory", (int)child->pid);
		child_close(child);
		return;
	}
	*orphan = (struct orphan){
		.reaper = reaper,
		.next = reaper->orphans,
		.exit = { .fd = -EBADF, .ready = on_exit_of_orphan, .context = orphan },
		.child = *child,
	};
	*child = CHILD_NONE;
	reaper->orphans = orphan;
	if (loop_add(reaper->loop, &orphan->exit, orphan->child.pidfd, EPOLLIN, &err) < 0) {
		log_warning("process %d can't be waited for: %s", (int)orphan->child.pid, err.text);
		orphan_free(orphan);
	}
}

void reaper_each(const struct reaper *reaper, void (*see)(void *context, const struct child *child),
		 void *context)
{
	for (const struct orphan *o = reaper->orphans; o; o = o->next)
		see(context, &o->child);
}

void reaper_done(struct reaper *reaper)
{
	while (reaper->orphans)
		orphan_free(reaper->orphans);
}
