/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/node_recover.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "csi/node_keeper.h"
#include "csi/node_volume.h"
#include "csi/reconcile.h"
#include "mount/mountinfo.h"
#include "mount/path.h"
#include "mount/tree.h"
#include "recovery/escrow.h"
#include "recovery/keeper_client.h"

/* Everything that the plan is made from, and borrows from. */
struct situation {
	struct record **records;
	size_t n_records;
	struct volume_status *volumes;
	size_t n_volumes;
	struct mount_table *table;
	struct reconcile_mount *mounts;
	size_t n_mounts;
	struct reconcile_step *steps;
	size_t n_steps;
};

static void situation_clear(struct situation *s)
{
	free(s->steps);
	for (size_t i = 0; i < s->n_mounts; i++)
		free(s->mounts[i].target);
	free(s->mounts);
	mount_table_free(s->table);
	free(s->volumes);
	record_list_free(s->records, s->n_records);
}

/* Records know paths below `root` as kubelet gives them; mountinfo knows them without links. */
static int load_mounts(const char *root, struct situation *s, struct error *err)
{
	_cleanup_free_ char *real = realpath(root, NULL);
	int r = mount_table_load(&s->table, err);

	if (r < 0)
		return r;
	s->mounts = calloc(mount_table_size(s->table) + 1, sizeof(*s->mounts));
	if (!s->mounts)
		return error_errno(err, -ENOMEM, "look for leftovers");
	for (size_t i = 0; i < mount_table_size(s->table); i++) {
		const struct mount_entry *e = mount_table_get(s->table, i);
		bool below = real && strcmp(real, "/") != 0 && path_is_beneath(real, e->target);
		char *target;

		if (asprintf(&target, "%s%s", below ? root : "",
			     below ? e->target + strlen(real) : e->target) < 0)
			return error_errno(err, -ENOMEM, "look for leftovers");
		s->mounts[s->n_mounts++] =
			(struct reconcile_mount){
				.dev = e->dev,
				.target = target,
				.volume = mount_fuse_volume(e->fstype, e->source),
				.below_root = real && path_is_beneath(real, e->target),
			};
	}
	return 0;
}

/* Kubelet makes the directory above, and takes it away with the pod. */
static bool is_gone(const void *context, const char *path)
{
	const struct node_service *service = context;
	_cleanup_close_ int fd = -EBADF;
	const char *name;

	return path_open_parent(service->config.kubelet_root, path, &fd, &name, NULL) == -ENOENT;
}

static int load(struct node_service *service, struct situation *s, struct error *err)
{
	int r = keeper_list(service->config.run_dir, NODE_KEEPER_LOOK_MS, &s->volumes,
			    &s->n_volumes, err);

	if (r >= 0)
		r = record_store_list(service->records, &s->records, &s->n_records, err);
	if (r >= 0)
		r = load_mounts(service->config.kubelet_root, s, err);
	if (r >= 0)
		r = reconcile_plan(
			&(struct reconcile_input){
				.records = s->records,
				.n_records = s->n_records,
				.volumes = s->volumes,
				.n_volumes = s->n_volumes,
				.mounts = s->mounts,
				.n_mounts = s->n_mounts,
				.is_gone = is_gone,
				.context = service,
			},
			&s->steps, &s->n_steps, err);
	return r;
}

/* The step's strings may belong to the target: it is dropped last. */
static int drop_target(struct node_service *service, const struct reconcile_step *step,
		       struct error *err)
{
	int r = node_volume_clear_target(service, step->record, step->path, err);

	if (r < 0)
		return r;
	record_drop_target(step->record, step->path);
	return record_store_save(service->records, step->record, err);
}

static void take(struct node_service *service, const struct reconcile_step *step)
{
	struct error err = ERROR_INIT;
	int r = 0;

	LOG_FIELD("VOLUME_ID", step->id);
	log_notice("volume %s%s%s: %s", step->id, step->path ? " at " : "", step->path ?: "",
		   step->why);
	switch (step->kind) {
	case RECONCILE_END_VOLUME:
		r = node_volume_end(service, step->record, &err);
		break;
	case RECONCILE_DROP_TARGET:
		r = drop_target(service, step, &err);
		break;
	case RECONCILE_UNMOUNT:
		r = node_volume_clear_unknown(service, step->id, step->path, &err);
		break;
	case RECONCILE_END_STRAY:
		r = node_keeper_remove(service, step->id, &err);
		break;
	case RECONCILE_KEEP:
		break;
	}
	if (r < 0) {
		log_error("volume %s: %s", step->id, err.text);
		service->leftovers = true;
	}
}

int node_recover(struct node_service *service, struct error *err)
{
	_cleanup_(situation_clear) struct situation s = { 0 };
	int r;

	service->leftovers = false;
	escrow_settle(service->escrow, NODE_KEEPER_LOOK_MS);
	r = load(service, &s, err);
	if (r < 0) {
		service->leftovers = true;
		return r;
	}
	for (size_t i = 0; i < s.n_steps; i++)
		take(service, &s.steps[i]);
	return 0;
}
