/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/helper.h"

#define PROGRAM "holdfast-statfs"

/* A child that did not answer in time. */
struct stuck {
	struct stuck *next;
	pid_t pid;
	char volume_id[];
};

struct stats {
	pthread_mutex_t mutex; /* over `stuck`; innermost */
	struct stuck *stuck;
};

struct stats *stats_new(void)
{
	struct stats *stats = calloc(1, sizeof(*stats));

	if (stats && pthread_mutex_init(&stats->mutex, NULL) != 0) {
		free(stats);
		return NULL;
	}
	return stats;
}

void stats_free(struct stats *stats)
{
	if (!stats)
		return;
	while (stats->stuck) {
		struct stuck *s = stats->stuck;

		stats->stuck = s->next;
		(void)waitpid(s->pid, NULL, WNOHANG);
		free(s);
	}
	(void)pthread_mutex_destroy(&stats->mutex);
	free(stats);
}

/* Reaps those that have ended, of all volumes, and says whether one of `volume_id` is still there.
 */
static bool sweep(struct stats *stats, const char *volume_id)
{
	struct stuck **p;
	bool found = false;

	(void)pthread_mutex_lock(&stats->mutex);
	for (p = &stats->stuck; *p;) {
		struct stuck *s = *p;

		if (waitpid(s->pid, NULL, WNOHANG) != 0) {
			*p = s->next;
			free(s);
			continue;
		}
		found = found || strcmp(s->volume_id, volume_id) == 0;
		p = &s->next;
	}
	(void)pthread_mutex_unlock(&stats->mutex);
	return found;
}

/* From the start of the child until it is reaped: prepared first, so that nothing can fail after.
 */
static struct stuck *prepare_stuck(const char *volume_id)
{
	size_t size = strlen(volume_id) + 1;
	struct stuck *s = malloc(sizeof(*s) + size);

	if (s)
		memcpy(s->volume_id, volume_id, size);
	return s;
}

static void remember(struct stats *stats, struct stuck *s)
{
	(void)pthread_mutex_lock(&stats->mutex);
	s->next = stats->stuck;
	stats->stuck = s;
	(void)pthread_mutex_unlock(&stats->mutex);
}

/* Runs one child; *pending is taken over by *stats if the child does not end in time. */
static int run(struct stats *stats, struct stuck **pending, int mount_fd, int timeout_ms,
	       struct statfs_report *ret)
{
	_cleanup_close_ int in = -EBADF, out = -EBADF;
	int r = fd_pipe(&in, &out);
	pid_t pid;

	if (r < 0)
		return r;
	r = spawn_helper(&(struct spawn){ .program = PROGRAM,
					  .fds = &mount_fd,
					  .n_fds = 1,
					  .out_fd = out },
			 &pid);
	if (r < 0)
		return r;
	close_fd(&out);
	r = helper_receive(in, timeout_ms, ret, sizeof(*ret));
	if (r >= 0 && ret->version != STATFS_REPORT_VERSION)
		r = -EPIPE;
	if (r != -ETIMEDOUT) {
		helper_wait(pid);
		return r < 0 ? r : ret->code;
	}
	(void)kill(pid, SIGKILL);
	(*pending)->pid = pid;
	remember(stats, TAKE_PTR(*pending));
	return r;
}

int stats_read(struct stats *stats, const char *volume_id, int mount_fd, int timeout_ms,
	       struct statfs_report *ret, struct error *err)
{
	_cleanup_free_ struct stuck *pending = NULL;
	struct statfs_report report;
	int r;

	if (sweep(stats, volume_id))
		return error_set(err, ERROR_BUSY, -EBUSY,
				 "the volume has not answered an earlier statfs yet");
	pending = prepare_stuck(volume_id);
	if (!pending)
		return error_errno(err, -ENOMEM, "statfs");
	r = run(stats, &pending, mount_fd, timeout_ms, &report);
	if (r == -ETIMEDOUT)
		return error_set(err, ERROR_TIMEOUT, r, "the volume did not answer statfs in %d ms",
				 timeout_ms);
	if (r < 0)
		return error_errno(err, r, "statfs (" PROGRAM ")");
	*ret = report;
	return 0;
}
