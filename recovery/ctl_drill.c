/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/ctl_drill.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/fd.h"
#include "recovery/keeper_client.h"

#define TIMEOUT_MS 10000
#define SETTLE_NS (10ULL * NSEC_PER_SEC)
#define BETWEEN_KILLS_NS (50 * NSEC_PER_MSEC)
#define SAMPLES_MAX (1U << 20)

static void sleep_ns(uint64_t ns)
{
	struct timespec ts = clock_timespec(ns);

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

static int find_status(const char *run_dir, const char *id, struct volume_status *ret,
		       struct error *err)
{
	_cleanup_free_ struct volume_status *list = NULL;
	const struct volume_status *found;
	size_t n = 0;
	int r = keeper_list(run_dir, TIMEOUT_MS, &list, &n, err);

	if (r < 0)
		return r;
	found = volume_status_find(list, n, id);
	if (!found)
		return error_set(err, ERROR_NOT_FOUND, -ENOENT,
				 "there is no volume '%s': holdfastctl status lists them", id);
	*ret = *found;
	return 0;
}

/* Until a worker other than the one of `before` serves. */
static int wait_for_next(const char *run_dir, const struct volume_status *before,
			 struct volume_status *ret, struct error *err)
{
	uint64_t end = clock_now_ns() + SETTLE_NS;

	for (;;) {
		int r = find_status(run_dir, before->config.id, ret, err);

		if (r < 0)
			return r;
		if (ret->state == VOLUME_DEAD)
			return error_set(err, ERROR_PRECONDITION, -ENOTCONN, "volume '%s' is dead",
					 before->config.id);
		if (ret->state == VOLUME_SERVING && ret->restarts > before->restarts)
			return 0;
		if (clock_now_ns() > end)
			return error_set(err, ERROR_TIMEOUT, -ETIMEDOUT,
					 "no new worker serves volume '%s' after 10 s: %s",
					 before->config.id, ret->reason);
		sleep_ns(NSEC_PER_MSEC);
	}
}

static int replace(const char *run_dir, const char *id, bool planned, struct volume_status *before,
		   struct volume_status *after, struct error *err)
{
	int r = find_status(run_dir, id, before, err);

	if (r >= 0)
		r = keeper_replace(run_dir, TIMEOUT_MS, id, planned, err);
	return r < 0 ? r : wait_for_next(run_dir, before, after, err);
}

int ctl_replace(const char *run_dir, const char *id, bool planned, FILE *out, struct error *err)
{
	struct volume_status before, after;
	uint64_t begin = clock_now_ns();
	int r = replace(run_dir, id, planned, &before, &after, err);

	if (r < 0)
		return r;
	if (planned && after.restarts > before.restarts + 1)
		return error_set(err, ERROR_PRECONDITION, -EAGAIN,
				 "volume '%s' is served, but not every new worker lived: %s", id,
				 after.reason);
	(void)fprintf(out, "volume %s: worker %d took over from %d within %.1f ms\n", id,
		      after.worker_pid, before.worker_pid,
		      (double)(clock_now_ns() - begin) / (double)NSEC_PER_MSEC);
	return 0;
}

/* Looks at the volume all the time, in a thread of its own. */
struct canary {
	int root;		 /* a mount of the volume */
	char name[NAME_MAX + 1]; /* a file in it, or "" */
	atomic_bool ended;
	uint64_t *samples_ns; /* SAMPLES_MAX of them; the canary stops then */
	size_t n;
	uint64_t failed;
	int code; /* of the last failure */
};

static int read_canary(const struct canary *c)
{
	_cleanup_close_ int fd = openat(c->root, c->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char buf[4096];

	if (fd < 0)
		return -errno;
	return pread(fd, buf, sizeof(buf), 0) < 0 ? -errno : 0;
}

static int look_once(const struct canary *c)
{
	struct statx stx;

	if (statx(c->root, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx) < 0)
		return -errno;
	return c->name[0] ? read_canary(c) : 0;
}

static void *run_canary(void *arg)
{
	struct canary *c = arg;

	while (!atomic_load(&c->ended) && c->n < SAMPLES_MAX) {
		uint64_t begin = clock_now_ns();
		int r = look_once(c);

		c->samples_ns[c->n++] = clock_now_ns() - begin;
		if (r < 0) {
			c->failed++;
			c->code = r;
		}
		sleep_ns(NSEC_PER_MSEC / 5);
	}
	return NULL;
}

/* A regular file in the root directory, if there is one among the first entries. */
static void choose_file(struct canary *c)
{
	int fd = openat(c->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;

	c->name[0] = '\0';
	if (!dir) {
		close_fd(&fd);
		return;
	}
	for (int i = 0; i < 1000 && (e = readdir(dir)); i++) {
		if (e->d_type != DT_REG)
			continue;
		(void)snprintf(c->name, sizeof(c->name), "%s", e->d_name);
		break;
	}
	(void)closedir(dir);
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static double percentile_ms(const struct canary *c, double p)
{
	size_t i = MIN_OF((size_t)((double)c->n * p), c->n - 1);

	return (double)c->samples_ns[i] / (double)NSEC_PER_MSEC;
}

static int report(struct canary *c, const char *id, uint32_t kills, FILE *out, struct error *err)
{
	if (c->n == 0)
		return error_set(err, ERROR_INTERNAL, -EIO, "the canary did not come to look once");
	qsort(c->samples_ns, c->n, sizeof(*c->samples_ns), compare);
	(void)fprintf(out,
		      "volume %s: %u kills, %zu looks at %s%s, %llu failed\n"
		      "a look took: p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms, max %.2f ms\n",
		      id, kills, c->n, c->name[0] ? "the root and " : "the root", c->name,
		      (unsigned long long)c->failed, percentile_ms(c, 0.5), percentile_ms(c, 0.99),
		      percentile_ms(c, 0.999), percentile_ms(c, 1));
	if (c->failed)
		return error_errno(err, c->code, "%llu looks failed, the last one with",
				   (unsigned long long)c->failed);
	return 0;
}

static int kill_repeatedly(const char *run_dir, const char *id, uint32_t kills, struct error *err)
{
	struct volume_status before, after;
	int r = 0;

	for (uint32_t i = 0; r >= 0 && i < kills; i++) {
		sleep_ns(BETWEEN_KILLS_NS);
		r = replace(run_dir, id, false, &before, &after, err);
	}
	if (r >= 0)
		sleep_ns(BETWEEN_KILLS_NS);
	return r;
}

static int drill(const char *run_dir, const char *id, uint32_t kills, struct canary *c,
		 struct error *err)
{
	pthread_t thread;
	int r;

	choose_file(c);
	r = -pthread_create(&thread, NULL, run_canary, c);
	if (r < 0)
		return error_errno(err, r, "start the canary");
	r = kill_repeatedly(run_dir, id, kills, err);
	atomic_store(&c->ended, true);
	(void)pthread_join(thread, NULL);
	return r;
}

int ctl_drill(const char *run_dir, const char *id, uint32_t kills, FILE *out, struct error *err)
{
	_cleanup_free_ uint64_t *samples = malloc(SAMPLES_MAX * sizeof(*samples));
	_cleanup_close_ int root = -EBADF;
	struct canary canary = { .samples_ns = samples };
	struct volume_status status;
	int r;

	if (!samples)
		return error_errno(err, -ENOMEM, "drill");
	r = keeper_mount(run_dir, TIMEOUT_MS, id, &root, &status, err);
	if (r < 0)
		return r;
	canary.root = root;
	r = drill(run_dir, id, kills, &canary, err);
	return r < 0 ? r : report(&canary, id, kills, out, err);
}
