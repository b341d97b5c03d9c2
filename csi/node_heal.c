/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/node_heal.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "csi/node_keeper.h"
#include "csi/node_places.h"
#include "csi/node_volume.h"
#include "recovery/keeper_client.h"
#include "recovery/nsmount_client.h"

_Static_assert(RECORD_OLD_DEVS == PLAN_OLD_MAX, "a record knows as many as can be exchanged");

#define REMEMBER_NS (60 * NSEC_PER_SEC) /* an earlier connection, at least */

/* One volume on the table. */
struct patient {
	struct record *record;
	uint64_t since_ns;
	int mount_fd;
	bool was_dead;
	int code; /* 0 or -errno: what keeps it from being healed */
};

struct ward {
	struct node_service *service;
	const struct call *call;
	struct patient *patients;
	size_t n;
	struct nsmount_job job;	      /* of those that live */
	struct volume_status *served; /* the keeper's volumes, those that were swapped among them */
	size_t n_served;
	struct error *err;
};

bool node_heal_is_due(const struct record *record)
{
	return record->old_devs[0] != 0;
}

static void note_failure(struct ward *w, struct patient *p, int code, const struct error *why)
{
	p->code = code;
	log_error("volume %s is not healed: %s", p->record->config.id, why->text);
	if (w->err)
		*w->err = *why;
}

/* A dead connection does not come back: the volume gets a new one under its old name. */
static int start_afresh(struct ward *w, struct patient *p, struct error *err)
{
	struct record *record = p->record;
	int r;

	log_warning("volume %s lost its FUSE connection and is mounted afresh", record->config.id);
	p->was_dead = true;
	record->healing.deaths += record->dev != 0;
	record_set_dev(record, 0);
	r = node_keeper_remove(w->service, record->config.id, err);
	if (r >= 0)
		r = node_volume_start(w->service, w->call, record, &p->mount_fd, err);
	return r < 0 ? r : record_store_save(w->service->records, record, err);
}

/* Sees to it that there is a mount that copies can be made of. */
static int seed(struct ward *w, struct patient *p, struct error *err)
{
	int r = node_places_seed(w->service, p->record, &p->mount_fd, err);

	if (r != -ENOTCONN)
		return r;
	close_fd(&p->mount_fd);
	r = start_afresh(w, p, err);
	return r < 0 ? r : node_places_seed(w->service, p->record, &p->mount_fd, err);
}

/* Finds out whether it lives, sees to it that it does, and fetches a mount of it. */
static int revive(struct ward *w, struct patient *p, struct error *err)
{
	struct volume_status status;
	int r = node_volume_ask(w->service, NODE_KEEPER_LOOK_MS, p->record->config.id, &p->mount_fd,
				&status, err);

	if (r < 0)
		return r;
	if (status.state == VOLUME_DEAD)
		r = start_afresh(w, p, err);
	else
		record_set_dev(p->record, (dev_t)status.dev); /* a start that did not end */
	if (r < 0)
		return r;
	node_places_note_stale(w->service, p->record);
	return seed(w, p, err);
}

/* The mounts that the last process had are gone with it. */
static int fetch_mounts(struct ward *w, struct error *err)
{
	for (size_t i = 0; i < w->n; i++) {
		struct patient *p = &w->patients[i];
		struct volume_status status;
		int r;

		if (p->code < 0)
			continue;
		close_fd(&p->mount_fd);
		r = node_keeper_mount(w->service, NODE_KEEPER_LOOK_MS, p->record->config.id,
				      &p->mount_fd, &status, err);
		if (r >= 0)
			r = seed(w, p, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Which of the earlier connections are still served, for those who have files open. */
static uint32_t living_of(const struct ward *w, const struct record *record)
{
	uint32_t bits = 0;

	for (size_t i = 0; i < RECORD_OLD_DEVS; i++)
		for (size_t k = 0; k < w->n_served; k++)
			if (record->old_devs[i] != 0 &&
			    (dev_t)w->served[k].dev == record->old_devs[i] &&
			    w->served[k].config.flags & VOLUME_RETIRED)
				bits |= 1U << i;
	return bits;
}

static void fill_job(struct ward *w)
{
	size_t n = 0;

	for (size_t i = 0; i < w->n; i++) {
		const struct patient *p = &w->patients[i];
		struct nsmount_volume *v = &w->job.volumes[n];

		if (p->code < 0)
			continue;
		memcpy(v->is.id, p->record->config.id, sizeof(v->is.id) - 1);
		v->is.dev = p->record->dev;
		memcpy(v->is.old, p->record->old_devs, sizeof(v->is.old));
		v->is.living = living_of(w, p->record);
		v->mount_fd = p->mount_fd;
		n++;
	}
	w->job.n = n;
}

static bool has_earlier_connections(const struct ward *w)
{
	for (size_t i = 0; i < w->n; i++)
		if (w->patients[i].code >= 0 && node_heal_is_due(w->patients[i].record))
			return true;
	return false;
}

/* Where it hung or died is told by then, and the rest is begun anew. */
static int exchange(struct ward *w, struct error *err)
{
	int r;

	if (!has_earlier_connections(w))
		return 0;
	r = keeper_list(w->service->config.run_dir, NODE_KEEPER_LOOK_MS, &w->served, &w->n_served,
			err);
	while (r >= 0) {
		fill_job(w);
		r = nsmount_exchange(w->service->nsmount, &w->job, err);
		if (r <= 0)
			return r;
		r = fetch_mounts(w, err);
	}
	return r;
}

static void tell(const struct patient *p, const struct nsmount_volume *v, uint64_t pause_ms)
{
	const char *id = p->record->config.id;

	if (p->was_dead || v->exchanged > 0)
		log_notice("volume %s%s in %llu ms: %u mounts exchanged", id,
			   p->was_dead ? " was healed" : " shows its connection",
			   (unsigned long long)pause_ms, v->exchanged);
	if (v->counts.stale > v->counts.hidden)
		log_error("volume %s: %u stale mounts stay: %s", id,
			  v->counts.stale - v->counts.hidden,
			  *v->failure ? v->failure
				      : "they have come just now, or an earlier "
					"holdfast-nsmount hangs there");
	if (v->files > p->record->healing.stale_files)
		log_warning(
			"volume %s: %u open files and directories stay on an earlier connection "
			"until they are closed; where that has ended they give ENOTCONN",
			id, v->files);
}

/*
 * What the operation found goes into the record. An earlier superblock is not forgotten at once: a
 * mount namespace that was being copied during the operation shows up after it, with the mounts of
 * before (fs/namespace.c, copy_mnt_ns), and so does a container that is being made.
 */
static void take_counts(struct patient *p, const struct nsmount_volume *v)
{
	struct record_healing *healing = &p->record->healing;
	uint64_t pause_ms = (clock_now_ns() - p->since_ns) / NSEC_PER_MSEC;

	tell(p, v, pause_ms);
	healing->stale_mounts = v->counts.stale - v->counts.hidden;
	if (!v->uncounted)
		healing->stale_files = v->files;
	if (p->was_dead) {
		healing->healings++;
		healing->last_pause_ms = pause_ms;
	}
	if (v->uncounted || clock_now_ns() - p->record->dev_since_ns < REMEMBER_NS)
		return;
	for (size_t i = 0; i < PLAN_OLD_MAX; i++)
		if (v->is.old[i] != 0 && !(v->counts.seen & (1U << i)))
			record_drop_old_dev(p->record, v->is.old[i]);
}

/* After the exchange: what it did not find is mounted. */
static int discharge(struct ward *w, struct patient *p, const struct nsmount_volume *v,
		     struct error *err)
{
	int r;

	take_counts(p, v);
	if (node_places_missing(w->service, p->record) > 0) {
		_cleanup_close_ int fd = -EBADF;
		struct volume_status status;

		r = node_keeper_mount(w->service, NODE_KEEPER_LOOK_MS, p->record->config.id, &fd,
				      &status, err);
		if (r >= 0)
			r = node_places_mount(w->service, p->record, &fd, err);
		if (r < 0)
			return r;
	}
	return record_store_save(w->service->records, p->record, err);
}

static int treat(struct ward *w)
{
	struct error why = ERROR_INIT;
	int r, last = 0;

	for (size_t i = 0; i < w->n; i++) {
		r = revive(w, &w->patients[i], &why);
		if (r < 0)
			note_failure(w, &w->patients[i], last = r, &why);
	}
	r = exchange(w, &why);
	for (size_t i = 0, k = 0; i < w->n; i++) {
		struct patient *p = &w->patients[i];
		int code = r;

		if (p->code < 0)
			continue;
		if (code >= 0)
			code = discharge(w, p, &w->job.volumes[k], &why);
		if (code < 0)
			note_failure(w, p, last = code, &why);
		k++;
	}
	return last;
}

int node_heal(struct node_service *s, const struct call *call, struct record *const *records,
	      size_t n, struct error *err)
{
	_cleanup_free_ struct patient *patients = calloc(n + 1, sizeof(*patients));
	_cleanup_free_ struct nsmount_volume *volumes = calloc(n + 1, sizeof(*volumes));
	struct ward w = { .service = s,
			  .call = call,
			  .patients = patients,
			  .n = n,
			  .job = { .volumes = volumes },
			  .err = err };
	int r;

	if (!patients || !volumes)
		return error_errno(err, -ENOMEM, "heal volumes");
	for (size_t i = 0; i < n; i++)
		patients[i] = (struct patient){ .record = records[i],
						.since_ns = clock_now_ns(),
						.mount_fd = -EBADF };
	s->healing++;
	r = treat(&w);
	s->healing--;
	for (size_t i = 0; i < n; i++)
		close_fd(&patients[i].mount_fd);
	free(w.served);
	return r;
}
