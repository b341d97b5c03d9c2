/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/reaper.h"

#include <errno.h>
#include <sys/epoll.h>

#include "base/fd.h"
#include "base/log.h"

struct orphan {
	struct loop *loop;
	struct loop_source exit;
	struct worker_process worker;
};

static void on_exit_of_orphan(void *context, uint32_t events)
{
	struct orphan *orphan = context;
	pid_t pid = orphan->worker.pid;
	siginfo_t info;

	loop_drop(orphan->loop, &orphan->exit);
	if (worker_process_reap(&orphan->worker, &info) == 0)
		log_info("worker %d, which hung in the kernel, has ended", (int)pid);
	free(orphan);
}

void reaper_adopt(struct loop *loop, struct worker_process *worker)
{
	struct orphan *orphan = malloc(sizeof(*orphan));
	struct error err = ERROR_INIT;

	close_fd(&worker->status_fd);
	if (orphan) {
		*orphan = (struct orphan){
			.loop = loop,
			.exit = { .fd = -EBADF, .ready = on_exit_of_orphan, .context = orphan },
			.worker = *worker,
		};
		if (loop_add(loop, &orphan->exit, worker->pidfd, EPOLLIN, &err) == 0) {
			*worker = WORKER_PROCESS_NONE;
			return;
		}
	}
	/* it stays a zombie until the keeper ends; nothing else depends on it */
	log_warning("worker %d can't be waited for: %s", (int)worker->pid,
		    orphan ? err.text : "out of memory");
	free(orphan);
	close_fd(&worker->pidfd);
	*worker = WORKER_PROCESS_NONE;
}
