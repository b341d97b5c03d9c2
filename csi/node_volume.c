/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/node_volume.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>

#include "base/fd.h"
#include "base/log.h"
#include "csi/node_heal.h"
#include "csi/node_keeper.h"
#include "csi/node_places.h"
#include "csi/source.h"
#include "mount/path.h"
#include "mount/tree.h"

static int keeper_ms(const struct call *call, int max)
{
	return call ? call_remaining_ms(call, max) : max;
}

/* The keeper's volume goes; one that can't be reached may come back with it, so that is noted. */
static int end_in_keeper(struct node_service *s, const char *id, struct error *err)
{
	struct error why = ERROR_INIT;
	int r = node_keeper_remove(s, id, &why);

	if (r >= 0)
		return 0;
	if (why.kind == ERROR_UNAVAILABLE) {
		s->leftovers = true;
		return 0;
	}
	return error_set(err, why.kind, r, "%s", why.text);
}

static int add(struct node_service *s, const struct call *call, struct record *record,
	       int source_fd, int *ret_mount_fd, struct error *err)
{
	struct volume_status status;
	int r = node_keeper_add(s, keeper_ms(call, NODE_KEEPER_START_MS), &record->config,
				source_fd, ret_mount_fd, &status, err);

	if (r < 0)
		return r;
	record_set_dev(record, (dev_t)status.dev);
	return 0;
}

int node_volume_start(struct node_service *s, const struct call *call, struct record *record,
		      int *ret_mount_fd, struct error *err)
{
	_cleanup_close_ int source_fd = -EBADF;
	int r;

	r = source_open(s->config.allow_source, record->source, &source_fd, err);
	if (r >= 0 && call)
		r = call_check(call, err);
	if (r >= 0)
		r = record_store_save(s->records, record, err);
	if (r < 0)
		return r;
	r = add(s, call, record, source_fd, ret_mount_fd, err);
	if (r != -EEXIST)
		return r;
	log_warning("the keeper has volume %s already, and no record tells of it: it is replaced",
		    record->config.id);
	r = node_keeper_remove(s, record->config.id, err);
	return r < 0 ? r : add(s, call, record, source_fd, ret_mount_fd, err);
}

int node_volume_ask(struct node_service *s, int timeout_ms, const char *id, int *ret_mount_fd,
		    struct volume_status *ret, struct error *err)
{
	struct error why = ERROR_INIT;
	int r = node_keeper_mount(s, timeout_ms, id, ret_mount_fd, ret, &why);
	bool is_lost = why.kind == ERROR_NOT_FOUND, is_dead = why.kind == ERROR_PRECONDITION;

	if (r < 0 && !is_lost && !is_dead)
		return error_set(err, why.kind, r, "%s", why.text);
	if (r < 0) {
		*ret = (struct volume_status){ .state = VOLUME_DEAD };
		*ret_mount_fd = -EBADF;
	}
	return 0;
}

/* The keeper's view of the volume; one that is dead or lost there is healed. */
static int look_once(struct node_service *s, const struct call *call, struct record *record,
		int *ret_mount_fd, struct error *err)
{
	_cleanup_close_ int fd = -EBADF;
	struct volume_status status;
	int ms = keeper_ms(call, NODE_KEEPER_LOOK_MS);
	int r = node_volume_ask(s, ms, record->config.id, &fd, &status, err);

	if (r >= 0 && status.state == VOLUME_DEAD) {
		r = node_heal(s, call, &record, 1, err);
		if (r >= 0)
			r = node_keeper_mount(s, ms, record->config.id, &fd, &status, err);
	}
	if (r >= 0 && record->dev != (dev_t)status.dev) { /* a healing that did not end */
		record_set_dev(record, (dev_t)status.dev);
		r = record_store_save(s->records, record, err);
	}
	if (r < 0)
		return r;
	*ret_mount_fd = TAKE_FD(fd);
	return 0;
}

static int look(struct node_service *s, const struct call *call, struct record *record,
		int *ret_mount_fd, struct error *err)
{
	struct error why = ERROR_INIT;
	int r = look_once(s, call, record, ret_mount_fd, &why);

	if (r == -ENOTCONN) /* whoever calls again finds it healed */
		return error_set(err, ERROR_UNAVAILABLE, -EAGAIN,
				 "its connection ended again while it was being healed");
	return r < 0 ? error_set(err, why.kind, r, "%s", why.text) : 0;
}

/*
 * Before Linux 6.15 the keeper has but one mount to give, which moves when it is attached a second
 * time: so its mount is only taken while the volume is mounted nowhere.
 */
int node_volume_mount(struct node_service *s, const struct call *call, struct record *record,
		      int *ret_mount_fd, struct error *err)
{
	_cleanup_close_ int fd = -EBADF;
	int r = look(s, call, record, &fd, err);

	if (r < 0)
		return r;
	if (node_places_clone(s, record, ret_mount_fd) < 0)
		*ret_mount_fd = TAKE_FD(fd);
	return 0;
}

int node_volume_check(struct node_service *s, const struct call *call, struct record *record,
		      struct error *err)
{
	_cleanup_close_ int fd = -EBADF;
	int r = look(s, call, record, &fd, err);

	if (r < 0 || node_places_missing(s, record) == 0)
		return r;
	return node_places_mount(s, record, &fd, err);
}

const char *node_volume_find_target(struct node_service *s, const struct record *record)
{
	for (size_t i = 0; i < record->n_targets; i++) {
		const struct record_target *target = &record->targets[i];
		struct mountpoint m = node_place(s, record, target->path);
		int state =
			target->published ? mountpoint_look(&m, NULL, NULL) : MOUNTPOINT_MISSING;

		if (state == MOUNTPOINT_OURS || state == MOUNTPOINT_STALE)
			return target->path;
	}
	return NULL;
}

struct places {
	const struct record *record;
	size_t root_length; /* of kubelet's root, which all paths begin with */
};

static bool is_known_place(const void *context, const char *path)
{
	const struct places *places = context;
	const struct record *record = places->record;

	for (size_t i = 0; i < record->n_targets; i++)
		if (strcmp(record->targets[i].path + places->root_length, path) == 0)
			return true;
	return record->staging_path &&
	       strcmp(record->staging_path + places->root_length, path) == 0;
}

/*
 * A target's path leads elsewhere now. Its directory may have been renamed together with the mount
 * on it, which the kernel lets happen when it is mounted at that very moment (fs/namei.c,
 * vfs_rename looks before it moves): what is mounted where no record says so is that.
 */
static void clear_strays(struct node_service *s, const struct record *record)
{
	const struct places places = { record, strlen(s->config.kubelet_root) };
	struct mountpoint anywhere = node_place(s, record, NULL);
	struct error err = ERROR_INIT;

	if (mountpoint_clear_all(&anywhere, is_known_place, &places, &err) < 0)
		log_warning("volume %s, at a place that it was renamed to: %s", record->config.id,
			    err.text);
}

int node_volume_clear_target(struct node_service *s, const struct record *record, const char *path,
			     struct error *err)
{
	struct mountpoint m = node_place(s, record, path);
	int r = mountpoint_clear(&m, err);

	if (r < 0) {
		clear_strays(s, record);
		return r;
	}
	if (r == MOUNTPOINT_FOREIGN)
		return error_set(err, ERROR_PRECONDITION, -EBUSY,
				 "%s has something else mounted on it: unmount that first", path);
	r = path_remove_dir(s->config.kubelet_root, path, err);
	if (r == -ENOTEMPTY)
		return error_set(err, ERROR_PRECONDITION, r,
				 "%s holds files that were written there while the volume was not "
				 "mounted: move them away",
				 path);
	if (r == -ENOTDIR)
		return error_set(err, ERROR_INVALID, r,
				 "%s was replaced by something that is no directory: remove that",
				 path);
	return r;
}

int node_volume_clear_unknown(struct node_service *s, const char *id, const char *path,
			      struct error *err)
{
	struct mountpoint m = { .root = s->config.kubelet_root, .path = path, .volume_id = id };

	if (mountpoint_look(&m, NULL, NULL) == MOUNTPOINT_STALE)
		s->leftovers = true;
	return mountpoint_clear(&m, err);
}

static int clear_place(struct node_service *s, const struct record *record, const char *path)
{
	struct mountpoint m = node_place(s, record, path);
	struct error err = ERROR_INIT;
	int r = strcmp(path, record->staging_path ?: "") == 0
			? mountpoint_clear(&m, &err)
			: node_volume_clear_target(s, record, path, &err);

	if (r < 0)
		log_warning("volume %s, while it is taken away: %s", record->config.id, err.text);
	return r;
}

/*
 * Every place, whatever happens at others. Where a path can't be cleared by its name, because it
 * was swapped for another one, the volume's mounts are found by their superblock.
 */
static int clear_places(struct node_service *s, const struct record *record, struct error *err)
{
	struct mountpoint anywhere = node_place(s, record, NULL);
	bool failed = false;

	for (size_t i = 0; i < record->n_targets; i++)
		failed = clear_place(s, record, record->targets[i].path) < 0 || failed;
	if (record->staging_path)
		failed = clear_place(s, record, record->staging_path) < 0 || failed;
	return failed ? mountpoint_clear_all(&anywhere, NULL, NULL, err) : 0;
}

int node_volume_end(struct node_service *s, struct record *record, struct error *err)
{
	int r = clear_places(s, record, err);

	if (r >= 0)
		r = end_in_keeper(s, record->config.id, err);
	if (r >= 0)
		r = record_store_remove(s->records, record->config.id, err);
	return r;
}

int node_volume_load(struct node_service *s, const char *id, struct record **ret, struct error *err)
{
	struct error load_err = ERROR_INIT;
	int r = record_store_load(s->records, id, ret, &load_err);

	if (r == -ENOENT) {
		*ret = NULL;
		return 0;
	}
	return r < 0 ? error_set(err, load_err.kind, r, "%s", load_err.text) : 0;
}
