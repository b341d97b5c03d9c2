/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/watchdog.h"

#include <errno.h>
#include <libmount/libmount.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "csi/node_heal.h"
#include "csi/node_places.h"
#include "csi/node_swap.h"
#include "csi/node_turn.h"
#include "csi/node_volume.h"
#include "recovery/control_server.h"
#include "recovery/keeper_client.h"
#include "recovery/loop.h"

#define CLIENTS_MAX 16
#define BATCH_MAX 256		       /* volumes healed in one go */
#define INTERVAL_NS (30 * NSEC_PER_SEC) /* the safety net */
#define BUSY_NS (100 * NSEC_PER_MSEC)  /* somebody else has the volume just now */
#define SOON_NS (1 * NSEC_PER_SEC)     /* containers may have been on their way; grows to INTERVAL */
#define CALM_NS (10 * NSEC_PER_SEC)    /* mounts come and go: not more often than that */

struct watchdog {
	struct node_service *service;
	pthread_t thread;
	struct loop loop;
	struct loop_source news, mounts, quit;
	struct loop_timer scan;
	int quit_fd;
	struct libmnt_monitor *monitor;
	struct control_handler handler;
	struct control_server *server;
	uint64_t pause_ns; /* until the next look after something was left to do */
	uint64_t mounts_from_ns;
};

/* What one look is about. */
struct look {
	struct watchdog *watchdog;
	const char *only_id; /* NULL: all volumes */
	bool forced;	     /* whatever the records say */
	struct volume_status *volumes;
	size_t n_volumes;
	struct node_turn turns[BATCH_MAX];
	struct record *records[BATCH_MAX]; /* owned, with their turns */
	size_t n;
	size_t n_busy, n_failed, n_left;
	struct error last; /* failure */
};

/* Whether a healing would find something to do, as far as one can see without a lock. */
static bool needs_healing(const struct look *look, const struct record *record)
{
	const struct volume_status *volume = volume_status_find(look->volumes, look->n_volumes, record->config.id);

	if (record->state != RECORD_STAGED)
		return false;
	return look->forced || !volume || volume->state == VOLUME_DEAD ||
	       (dev_t)volume->dev != record->dev || node_heal_is_due(record) ||
	       node_places_missing(look->watchdog->service, record) > 0;
}

/* With the volume's lock its record is read again. */
static void admit(struct look *look, const char *id)
{
	struct node_service *s = look->watchdog->service;
	struct node_turn *turn = &look->turns[look->n];
	_cleanup_record_ struct record *record = NULL;
	struct error err = ERROR_INIT;
	int r = node_turn_take(s, NULL, id, NULL, turn, &err);

	if (r >= 0)
		r = node_volume_load(s, id, &record, &err);
	if (r >= 0 && record && needs_healing(look, record)) {
		look->records[look->n++] = TAKE_PTR(record);
		return;
	}
	node_turn_end(turn);
	if (r == -EBUSY) {
		look->n_busy++;
	} else if (r < 0) {
		look->n_failed++;
		look->last = err;
	}
}

static void discharge_all(struct look *look)
{
	for (size_t i = 0; i < look->n; i++) {
		look->n_left += node_heal_is_due(look->records[i]);
		record_free(look->records[i]);
		node_turn_end(&look->turns[i]);
	}
	look->n = 0;
}

static void heal_batch(struct look *look)
{
	struct node_service *s = look->watchdog->service;
	struct error err = ERROR_INIT;

	if (look->n > 0 && node_heal(s, NULL, look->records, look->n, &err) < 0) {
		look->n_failed++;
		look->last = err;
	}
	discharge_all(look);
}

static void look_at_records(struct look *look, struct record **records, size_t n)
{
	struct node_service *s = look->watchdog->service;

	s->healing++;
	for (size_t i = 0; i < n; i++) {
		const char *id = records[i]->config.id;

		if (look->only_id && strcmp(look->only_id, id) != 0)
			continue;
		if (needs_healing(look, records[i]))
			admit(look, id);
		if (look->n == BATCH_MAX)
			heal_batch(look);
	}
	heal_batch(look);
	s->healing--;
}

/* Without a keeper nothing can be healed; the escrow tells when there is one. */
static int look_around(struct watchdog *w, const char *only_id, bool forced, struct error *err)
{
	_cleanup_free_ struct look *look = calloc(1, sizeof(*look));
	struct node_service *s = w->service;
	struct record **records = NULL;
	size_t n = 0;
	int r;

	if (!look)
		return error_errno(err, -ENOMEM, "look after the volumes");
	look->watchdog = w;
	look->only_id = only_id;
	look->forced = forced;
	escrow_settle(s->escrow, NODE_KEEPER_LOOK_MS);
	r = keeper_list(s->config.run_dir, NODE_KEEPER_LOOK_MS, &look->volumes, &look->n_volumes,
			err);
	if (r >= 0)
		r = record_store_list(s->records, &records, &n, err);
	if (r < 0) {
		free(look->volumes);
		return r;
	}
	look_at_records(look, records, n);
	record_list_free(records, n);
	free(look->volumes);
	if (look->n_busy > 0)
		loop_arm(&w->loop, &w->scan, clock_now_ns() + BUSY_NS);
	else if (look->n_failed + look->n_left > 0)
		loop_arm(&w->loop, &w->scan, clock_now_ns() + w->pause_ns);
	if (look->n_failed == 0)
		return 0;
	return error_set(err, look->last.kind, look->last.code, "%s", look->last.text);
}

/* The next look is due, at the latest, when the interval is over. */
static void look_at_all(struct watchdog *w)
{
	struct error err = ERROR_INIT;

	loop_arm(&w->loop, &w->scan, clock_now_ns() + INTERVAL_NS);
	if (look_around(w, NULL, false, &err) < 0)
		log_debug("not all volumes are well: %s", err.text);
}

static void on_scan(void *context)
{
	struct watchdog *w = context;

	w->pause_ns = MIN_OF(w->pause_ns * 2, INTERVAL_NS);
	look_at_all(w);
}

static void on_news(void *context, uint32_t events)
{
	struct watchdog *w = context;
	eventfd_t n;

	(void)eventfd_read(w->service->news_fd, &n);
	w->pause_ns = SOON_NS;
	look_at_all(w);
}

/* Somebody may have unmounted a volume; most often it is something else. */
static void on_mounts(void *context, uint32_t events)
{
	struct watchdog *w = context;
	uint64_t due_ns = MAX_OF(clock_now_ns() + SOON_NS, w->mounts_from_ns);

	(void)mnt_monitor_event_cleanup(w->monitor);
	if (w->scan.link && w->scan.due_ns <= due_ns)
		return;
	w->mounts_from_ns = due_ns + CALM_NS;
	loop_arm(&w->loop, &w->scan, due_ns);
}

static void on_quit(void *context, uint32_t events)
{
	struct watchdog *w = context;

	loop_end(&w->loop);
}

static int heal(struct watchdog *w, const char *id, struct error *err)
{
	_cleanup_record_ struct record *record = NULL;
	int r = *id ? record_store_load(w->service->records, id, &record, err) : 0;

	return r < 0 ? r : look_around(w, *id ? id : NULL, true, err);
}

/* holdfastctl heal and swap: done while it waits. */
static void on_request(void *context, struct control_client *client,
		       const struct control_request *request, int fds[SOCKET_FDS_MAX])
{
	struct watchdog *w = context;
	const char *id = request->config.id;
	struct error err = ERROR_INIT;
	int r = 0;

	if (request->header.type == CONTROL_SWAP)
		r = node_swap(w->service, id, request->source, &err);
	else if (request->header.type == CONTROL_HEAL)
		r = heal(w, id, &err);
	else
		r = error_set(&err, ERROR_UNIMPLEMENTED, -EOPNOTSUPP,
			      "that is for holdfast-keeper");
	if (r < 0)
		control_client_fail(client, &err);
	else if (control_client_reply(client, NULL, NULL, 0) < 0)
		log_debug("whoever asked for a healing did not wait for it");
}

static void on_gone(void *context, struct control_client *client)
{
}

static bool next_volume(void *context, uint64_t *cursor, struct volume_status *ret,
			int ret_fds[ESCROW_FDS])
{
	return false;
}

static void *run(void *context)
{
	struct watchdog *w = context;
	struct error err = ERROR_INIT;

	look_at_all(w);
	if (loop_run(&w->loop, &err) < 0)
		log_error("the watchdog ends, and volumes are healed by kubelet's calls only: %s",
			  err.text);
	return NULL;
}

/* Without it volumes that somebody unmounts are found by the scan. */
static void watch_mounts(struct watchdog *w)
{
	struct error err = ERROR_INIT;
	int fd = -1;

	w->monitor = mnt_new_monitor();
	if (w->monitor && mnt_monitor_enable_kernel(w->monitor, 1) == 0)
		fd = mnt_monitor_get_fd(w->monitor);
	if (fd < 0 || loop_add(&w->loop, &w->mounts, fd, EPOLLIN, &err) < 0)
		log_warning("changes of mounts are not noticed at once");
}

static int open_socket(struct watchdog *w, struct error *err)
{
	char path[PATH_MAX];

	if ((size_t)snprintf(path, sizeof(path), "%s/" PLUGIN_SOCKET_NAME,
			     w->service->config.run_dir) >= sizeof(path))
		return error_errno(err, -ENAMETOOLONG, "open the plugin's control socket");
	return control_server_open(&w->loop, path, -EBADF, CLIENTS_MAX, &w->handler, &w->server,
				   err);
}

static int open_all(struct watchdog *w, struct error *err)
{
	int r = loop_init(&w->loop, err);

	if (r < 0)
		return r;
	w->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->quit_fd < 0)
		return error_errno(err, -errno, "eventfd");
	r = loop_add(&w->loop, &w->quit, w->quit_fd, EPOLLIN, err);
	if (r >= 0)
		r = loop_add(&w->loop, &w->news, w->service->news_fd, EPOLLIN, err);
	if (r >= 0)
		r = open_socket(w, err);
	if (r >= 0)
		watch_mounts(w);
	return r;
}

static void watchdog_close(struct watchdog *w)
{
	control_server_close(w->server);
	loop_disarm(&w->scan);
	loop_drop(&w->loop, &w->mounts);
	loop_drop(&w->loop, &w->news);
	loop_drop(&w->loop, &w->quit);
	mnt_unref_monitor(w->monitor);
	close_fd(&w->quit_fd);
	loop_done(&w->loop);
	free(w);
}

int watchdog_new(struct node_service *service, struct watchdog **ret, struct error *err)
{
	struct watchdog *w = malloc(sizeof(*w));
	int r;

	if (!w)
		return error_errno(err, -ENOMEM, "start the watchdog");
	*w = (struct watchdog){
		.service = service,
		.loop = { .epoll_fd = -EBADF },
		.news = { .fd = -EBADF, .ready = on_news, .context = w },
		.mounts = { .fd = -EBADF, .ready = on_mounts, .context = w },
		.quit = { .fd = -EBADF, .ready = on_quit, .context = w },
		.scan = { .fire = on_scan, .context = w },
		.quit_fd = -EBADF,
		.handler = { .request = on_request,
			     .gone = on_gone,
			     .next_volume = next_volume,
			     .context = w },
		.pause_ns = SOON_NS,
	};
	r = open_all(w, err);
	if (r >= 0) {
		r = thread_start(&w->thread, run, w);
		if (r < 0)
			(void)error_errno(err, r, "start the watchdog");
	}
	if (r < 0) {
		watchdog_close(w);
		return r;
	}
	*ret = w;
	return 0;
}

void watchdog_free(struct watchdog *w)
{
	if (!w)
		return;
	(void)eventfd_write(w->quit_fd, 1);
	(void)pthread_join(w->thread, NULL);
	watchdog_close(w);
}
