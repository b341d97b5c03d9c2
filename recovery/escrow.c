/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/escrow.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <time.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "recovery/keeper_client.h"

#define RESERVED_FDS 24	  /* for calls, and the watchdog's helper */
#define CALL_MS 5000	  /* for one call of the thread */
#define RETRY_MS 200	  /* after a keeper could not take a volume */
#define PAUSE_FIRST_MS 1  /* between two looks for a keeper: grows, */
#define PAUSE_MAX_MS 1000 /* where inotify tells of the socket, */
#define PAUSE_BLIND_MS 50 /* or where it does not */

struct deposit {
	struct deposit *next;
	char id[VOLUME_ID_MAX + 1];
	dev_t dev;
	int fds[ESCROW_FDS]; /* ESCROW_NONE: on their way */
	uint64_t generation; /* of the keeper that has the volume for sure */
	uint64_t retry_ns;   /* not given back before */
	bool busy, withdrawn;
};

struct escrow {
	char *run_dir;
	int wake_fd;  /* eventfd: the thread has something to do */
	int news_fd;  /* eventfd, borrowed: somebody else has */
	int watch_fd; /* inotify, or -errno */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* whatever is below */
	struct deposit *deposits;
	uint64_t generation; /* of the last keeper that was found */
	bool connected, settled, looked, stopping;
	bool lost; /* the keeper it was settled with, and none has been found since */
};

static void lock(struct escrow *e)
{
	(void)pthread_mutex_lock(&e->lock);
}

static void unlock(struct escrow *e)
{
	(void)pthread_mutex_unlock(&e->lock);
}

static void wake(struct escrow *e)
{
	(void)eventfd_write(e->wake_fd, 1);
}

static struct timespec deadline_after(int ms)
{
	return clock_timespec(clock_now_ns() + (uint64_t)MAX_OF(ms, 0) * NSEC_PER_MSEC);
}

/* Waits for a change. Returns false once the deadline has passed. */
static bool wait_until(struct escrow *e, const struct timespec *deadline)
{
	return pthread_cond_clockwait(&e->changed, &e->lock, CLOCK_MONOTONIC, deadline) == 0;
}

/* The table. All with the lock held. */

static struct deposit *find(struct escrow *e, const char *id)
{
	struct deposit *d = e->deposits;

	while (d && strcmp(d->id, id) != 0)
		d = d->next;
	return d;
}

/* The deposit, while nobody talks to the keeper about it; NULL if there is none. */
static struct deposit *find_idle(struct escrow *e, const char *id)
{
	struct deposit *d;

	while ((d = find(e, id)) && d->busy)
		(void)pthread_cond_wait(&e->changed, &e->lock);
	return d;
}

static struct deposit *make(struct escrow *e, const char *id)
{
	struct deposit *d = malloc(sizeof(*d));

	if (!d)
		return NULL;
	*d = (struct deposit){ .next = e->deposits, .fds = ESCROW_NONE };
	(void)snprintf(d->id, sizeof(d->id), "%s", id);
	e->deposits = d;
	return d;
}

static void unlink_deposit(struct escrow *e, struct deposit *d)
{
	struct deposit **link = &e->deposits;

	while (*link != d)
		link = &(*link)->next;
	*link = d->next;
	(void)pthread_cond_broadcast(&e->changed);
}

static bool is_held(const struct deposit *d)
{
	return d->fds[ESCROW_DEVICE] >= 0 && !d->withdrawn;
}

static void set_busy(struct escrow *e, struct deposit *d, bool busy)
{
	d->busy = busy;
	(void)pthread_cond_broadcast(&e->changed);
}

/* The lowest free number is given out first, so numbers tell how many are left. */
static bool are_the_last(const int fds[ESCROW_FDS])
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return false;
	for (size_t i = 0; i < ESCROW_FDS; i++)
		if (fds[i] >= 0 && (rlim_t)fds[i] + RESERVED_FDS >= limit.rlim_cur)
			return true;
	return false;
}

/* Without the lock: the last descriptor of a mount unmounts it. The source goes first. */
static void close_fds(int fds[ESCROW_FDS])
{
	for (size_t i = ESCROW_FDS; i > 0; i--)
		close_fd(&fds[i - 1]);
}

static void deposit_free(struct deposit *d)
{
	if (d)
		close_fds(d->fds);
	free(d);
}

/* The thread. */

/* A new deposit for what the keeper has; busy. NULL where that is not needed, or not now. */
static struct deposit *begin_fetch(struct escrow *e, const struct volume_status *status)
{
	struct deposit *d = find(e, status->config.id);

	if (d && (d->withdrawn || d->dev == (dev_t)status->dev)) {
		d->generation = e->generation;
		return NULL;
	}
	if (!d)
		d = make(e, status->config.id);
	if (d)
		set_busy(e, d, true);
	return d;
}

static void end_fetch(struct escrow *e, struct deposit *d, int r, const int fds[ESCROW_FDS],
		      dev_t dev, const struct error *err)
{
	int old[ESCROW_FDS];

	lock(e);
	memcpy(old, d->fds, sizeof(old));
	memcpy(d->fds, fds, sizeof(d->fds));
	d->dev = dev;
	d->generation = e->generation;
	set_busy(e, d, false);
	if (r < 0)
		unlink_deposit(e, d);
	unlock(e);
	close_fds(old);
	if (r >= 0)
		return;
	free(d);
	if (r != -ENOENT && r != -EBUSY) /* removed meanwhile, or somebody is at it */
		log_warning("volume has no escrow and ends with its keeper: %s", err->text);
}

/* What the keeper has is fetched unless it is here. Returns -ETIMEDOUT if the keeper hangs, else 0.
 */
static int fetch(struct escrow *e, const struct volume_status *listed)
{
	int fds[ESCROW_FDS] = ESCROW_NONE;
	struct volume_status status = *listed;
	struct error err = ERROR_INIT;
	struct deposit *d;
	int r;

	LOG_FIELD("VOLUME_ID", listed->config.id);
	lock(e);
	d = begin_fetch(e, listed);
	unlock(e);
	if (!d)
		return 0;
	r = keeper_escrow(e->run_dir, CALL_MS, d->id, fds, &status, &err);
	if (r >= 0 && are_the_last(fds)) {
		close_fds(fds);
		r = error_errno(&err, -EMFILE, "raise LimitNOFILE= (ulimit -Hn)");
	}
	end_fetch(e, d, r, fds, (dev_t)status.dev, &err);
	return r == -ETIMEDOUT ? r : 0;
}

/* A connection that has ended is of no use. */
static void drop_ended(struct escrow *e, const struct volume_status *listed)
{
	struct deposit *d;

	lock(e);
	d = find(e, listed->config.id);
	if (d && is_held(d) && d->dev == (dev_t)listed->dev)
		unlink_deposit(e, d);
	else
		d = NULL;
	unlock(e);
	deposit_free(d);
}

/* The next deposit that the keeper lacks, busy; NULL if there is none now. */
static struct deposit *begin_return(struct escrow *e)
{
	uint64_t now = clock_now_ns();
	struct deposit *d;

	lock(e);
	for (d = e->deposits; d; d = d->next)
		if (is_held(d) && d->generation != e->generation && d->retry_ns <= now)
			break;
	if (d)
		set_busy(e, d, true);
	unlock(e);
	return d;
}

static bool may_succeed_later(const struct error *err)
{
	return err->kind == ERROR_UNAVAILABLE || err->kind == ERROR_TIMEOUT ||
	       err->kind == ERROR_EXHAUSTED || err->kind == ERROR_BUSY || err->code == -ENOMEM;
}

static void end_return(struct escrow *e, struct deposit *d, int r, const struct error *err)
{
	bool keep = r >= 0 || r == -EEXIST || may_succeed_later(err);

	lock(e);
	if (r >= 0 || r == -EEXIST)
		d->generation = e->generation;
	else
		d->retry_ns = clock_now_ns() + RETRY_MS * NSEC_PER_MSEC;
	set_busy(e, d, false);
	if (!keep)
		unlink_deposit(e, d);
	unlock(e);
	if (r >= 0)
		log_info("volume given back to holdfast-keeper");
	else if (keep && r != -EEXIST)
		log_warning("volume not given back yet: %s", err->text);
	else if (!keep)
		log_error("volume not given back, its connection ends: %s", err->text);
	if (!keep)
		deposit_free(d);
}

/* Gives the keeper all that it lacks. */
static void give_back(struct escrow *e)
{
	struct deposit *d;

	while ((d = begin_return(e))) {
		struct error err = ERROR_INIT;
		int r;

		LOG_FIELD("VOLUME_ID", d->id);
		r = keeper_adopt(e->run_dir, CALL_MS, d->id, d->fds, &err);
		end_return(e, d, r, &err);
		if (r < 0 && err.kind == ERROR_UNAVAILABLE) /* the next keeper gets it */
			return;
	}
}

static void set_connected(struct escrow *e, bool connected)
{
	lock(e);
	e->connected = connected;
	e->generation += connected;
	e->lost |= e->settled;
	e->settled = false;
	e->looked = true;
	for (struct deposit *d = e->deposits; d; d = d->next)
		d->retry_ns = 0;
	(void)pthread_cond_broadcast(&e->changed);
	unlock(e);
}

/* A successor that took over from it would be there at once. */
static void note_no_keeper(struct escrow *e)
{
	bool lost;
	size_t n = 0;

	lock(e);
	e->looked = true;
	lost = e->lost;
	e->lost = false;
	for (const struct deposit *d = e->deposits; d; d = d->next)
		n += is_held(d);
	(void)pthread_cond_broadcast(&e->changed);
	unlock(e);
	if (lost)
		log_warning("holdfast-keeper is gone; %zu of its volumes are in escrow for the "
			    "next one",
			    n);
}

static int compare(struct escrow *e)
{
	_cleanup_free_ struct volume_status *list = NULL;
	struct error err = ERROR_INIT;
	size_t n;

	if (keeper_list(e->run_dir, CALL_MS, &list, &n, &err) < 0) {
		if (err.kind != ERROR_UNAVAILABLE)
			log_warning("volumes are not given back yet: %s", err.text);
		return err.code;
	}
	for (size_t i = 0; i < n; i++)
		if (list[i].state == VOLUME_DEAD)
			drop_ended(e, &list[i]);
		else if (list[i].state != VOLUME_STARTING && /* who adds it puts it here */
			 fetch(e, &list[i]) < 0)
			return -ETIMEDOUT;
	give_back(e);
	lock(e);
	e->settled = true;
	e->lost = false;
	(void)pthread_cond_broadcast(&e->changed);
	unlock(e);
	(void)eventfd_write(e->news_fd, 1);
	return 0;
}

static bool is_stopping(struct escrow *e)
{
	bool stopping;

	lock(e);
	stopping = e->stopping;
	unlock(e);
	return stopping;
}

/* Until a deposit that the keeper could not take is due again; -1: there is none. */
static int retry_in_ms(struct escrow *e)
{
	uint64_t now = clock_now_ns(), due = UINT64_MAX;

	lock(e);
	for (const struct deposit *d = e->deposits; d; d = d->next)
		if (is_held(d) && d->generation != e->generation)
			due = MIN_OF(due, MAX_OF(d->retry_ns, now));
	unlock(e);
	return due == UINT64_MAX ? -1 : (int)((due - now) / NSEC_PER_MSEC) + 1;
}

static bool needs_refresh(struct escrow *e)
{
	bool settled;

	lock(e);
	settled = e->settled;
	unlock(e);
	return !settled;
}

/* What the keeper says of volumes that have ended. Returns false once it is gone. */
static bool hear(struct escrow *e, int keeper_fd)
{
	struct volume_status status;
	int r = keeper_watch_read(keeper_fd, &status);

	if (r >= 0) {
		drop_ended(e, &status);
		(void)eventfd_write(e->news_fd, 1);
	}
	return r >= 0 || r == -EAGAIN;
}

/* A keeper is there: serves those who wake the thread until it hangs up. */
static void stay_with(struct escrow *e, int keeper_fd)
{
	struct pollfd p[] = { { .fd = keeper_fd, .events = POLLIN },
			      { .fd = e->wake_fd, .events = POLLIN } };
	eventfd_t n;

	while (!is_stopping(e)) {
		if (poll(p, ARRAY_SIZE(p), retry_in_ms(e)) < 0)
			continue;
		if (p[0].revents && !hear(e, keeper_fd))
			return;
		if (p[1].revents)
			(void)eventfd_read(e->wake_fd, &n);
		if (needs_refresh(e) && compare(e) < 0)
			return;
		give_back(e);
	}
}

/* There is no keeper, or one that does not answer: waits for a moment, or for its socket. */
static void pause_for(struct escrow *e, int *pause_ms)
{
	struct pollfd p[] = { { .fd = e->watch_fd, .events = POLLIN },
			      { .fd = e->wake_fd, .events = POLLIN } };
	char events[4096];
	eventfd_t n;

	if (poll(p, ARRAY_SIZE(p), *pause_ms) < 0)
		return;
	*pause_ms = MIN_OF(*pause_ms * 2, e->watch_fd < 0 ? PAUSE_BLIND_MS : PAUSE_MAX_MS);
	if (p[0].revents && read(e->watch_fd, events, sizeof(events)) > 0)
		*pause_ms = PAUSE_FIRST_MS;
	if (p[1].revents)
		(void)eventfd_read(e->wake_fd, &n);
}

static void *run(void *context)
{
	struct escrow *e = context;
	int pause_ms = PAUSE_FIRST_MS;

	while (!is_stopping(e)) {
		_cleanup_close_ int fd = keeper_watch(e->run_dir, CALL_MS, NULL);

		if (fd < 0) {
			note_no_keeper(e);
			pause_for(e, &pause_ms);
			continue;
		}
		set_connected(e, true);
		if (compare(e) >= 0) {
			pause_ms = PAUSE_FIRST_MS;
			stay_with(e, fd);
		} else {
			pause_for(e, &pause_ms);
		}
		if (!is_stopping(e))
			set_connected(e, false);
	}
	return NULL;
}

/* To learn of the keeper's socket at once; without it the thread looks more often. */
static int watch_run_dir(const char *run_dir)
{
	_cleanup_close_ int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	if (fd < 0 || inotify_add_watch(fd, run_dir, IN_CREATE | IN_MOVED_TO) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static void escrow_destroy(struct escrow *e)
{
	for (struct deposit *d = e->deposits, *next; d; d = next) {
		next = d->next;
		deposit_free(d);
	}
	close_fd(&e->wake_fd);
	close_fd(&e->watch_fd);
	(void)pthread_cond_destroy(&e->changed);
	(void)pthread_mutex_destroy(&e->lock);
	free(e->run_dir);
	free(e);
}

int escrow_new(const char *run_dir, int news_fd, struct escrow **ret, struct error *err)
{
	struct escrow *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return error_errno(err, -ENOMEM, "start the escrow");
	(void)pthread_mutex_init(&e->lock, NULL);
	(void)pthread_cond_init(&e->changed, NULL);
	e->news_fd = news_fd;
	e->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	e->watch_fd = watch_run_dir(run_dir);
	e->run_dir = strdup(run_dir);
	if (e->wake_fd < 0)
		r = -errno;
	else
		r = e->run_dir ? thread_start(&e->thread, run, e) : -ENOMEM;
	if (r < 0) {
		escrow_destroy(e);
		return error_errno(err, r, "start the escrow");
	}
	*ret = e;
	return 0;
}

void escrow_free(struct escrow *e)
{
	if (!e)
		return;
	lock(e);
	e->stopping = true;
	unlock(e);
	wake(e);
	(void)pthread_join(e->thread, NULL);
	escrow_destroy(e);
}

void escrow_settle(struct escrow *e, int timeout_ms)
{
	const struct timespec deadline = deadline_after(timeout_ms);
	bool in_time = true;

	lock(e);
	while (in_time && (!e->looked || (e->connected && !e->settled)))
		in_time = wait_until(e, &deadline);
	unlock(e);
}

void escrow_refresh(struct escrow *e, int timeout_ms)
{
	lock(e);
	if (e->connected)
		e->settled = false;
	unlock(e);
	wake(e);
	escrow_settle(e, timeout_ms);
}

uint64_t escrow_generation(struct escrow *e)
{
	uint64_t generation;

	lock(e);
	generation = e->generation;
	unlock(e);
	return generation;
}

void escrow_put(struct escrow *e, const char *id, dev_t dev, uint64_t generation,
		const int fds[ESCROW_FDS])
{
	int old[ESCROW_FDS] = ESCROW_NONE;
	struct deposit *d;

	if (are_the_last(fds)) {
		memcpy(old, fds, sizeof(old));
		close_fds(old);
		log_warning("volume has no escrow and ends with its keeper: too many open files, "
			    "raise LimitNOFILE= (ulimit -Hn)");
		return;
	}
	lock(e);
	d = find_idle(e, id) ?: make(e, id);
	memcpy(old, d ? d->fds : fds, sizeof(old));
	if (d) {
		memcpy(d->fds, fds, sizeof(d->fds));
		d->dev = dev;
		d->generation = generation;
		d->retry_ns = 0;
		d->withdrawn = false;
	}
	unlock(e);
	close_fds(old);
	if (!d)
		log_warning("volume has no escrow and ends with its keeper: out of memory");
	wake(e);
}

void escrow_withdraw(struct escrow *e, const char *id)
{
	int source_fd = -EBADF;
	struct deposit *d;

	lock(e);
	d = find_idle(e, id) ?: make(e, id);
	if (d) {
		d->withdrawn = true;
		source_fd = TAKE_FD(d->fds[ESCROW_SOURCE]);
	}
	unlock(e);
	close_fd(&source_fd);
}

void escrow_forget(struct escrow *e, const char *id)
{
	struct deposit *d;

	lock(e);
	d = find_idle(e, id);
	if (d)
		unlink_deposit(e, d);
	unlock(e);
	deposit_free(d);
}

/* With the lock held: whether the keeper that is there has the volume. */
static bool is_given(const struct escrow *e, const struct deposit *d)
{
	return e->connected && !d->busy && d->generation == e->generation;
}

enum escrow_claim escrow_reclaim(struct escrow *e, const char *id, int timeout_ms)
{
	const struct timespec deadline = deadline_after(timeout_ms);
	enum escrow_claim claim = ESCROW_PENDING;
	struct deposit *d;

	lock(e);
	d = find(e, id);
	if (d)
		d->generation = 0;
	unlock(e);
	wake(e);
	lock(e);
	do {
		d = find(e, id);
		if (!d || (!d->busy && !is_held(d)))
			claim = ESCROW_NOT_HELD;
		else if (is_given(e, d))
			claim = ESCROW_GIVEN;
	} while (claim == ESCROW_PENDING && wait_until(e, &deadline));
	unlock(e);
	return claim;
}
