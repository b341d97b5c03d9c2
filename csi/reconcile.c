/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/reconcile.h"

#include <errno.h>
#include <string.h>

struct plan {
	struct reconcile_step *steps; /* with room for all that there may be */
	size_t n;
};

static void add(struct plan *plan, struct reconcile_step step)
{
	plan->steps[plan->n++] = step;
}

static const struct record *find_record(const struct reconcile_input *in, const char *id)
{
	for (size_t i = 0; i < in->n_records; i++)
		if (strcmp(in->records[i]->config.id, id) == 0)
			return in->records[i];
	return NULL;
}

/* Whether `dev` is mounted at `path`; anywhere with path NULL. */
static bool is_mounted(const struct reconcile_input *in, dev_t dev, const char *path)
{
	for (size_t i = 0; i < in->n_mounts; i++)
		if (in->mounts[i].dev == dev && (!path || strcmp(in->mounts[i].target, path) == 0))
			return true;
	return false;
}

static bool is_gone(const struct reconcile_input *in, const char *path)
{
	return in->is_gone && in->is_gone(in->context, path);
}

static void plan_targets(const struct reconcile_input *in, struct record *record, struct plan *plan)
{
	for (size_t i = 0; i < record->n_targets; i++) {
		const struct record_target *target = &record->targets[i];
		struct reconcile_step step = { .record = record,
					       .id = record->config.id,
					       .path = target->path };

		if (!target->published) {
			step.kind = RECONCILE_DROP_TARGET;
			step.why = "its publish did not end and is undone";
			add(plan, step);
		} else if (is_gone(in, target->path)) {
			step.kind = RECONCILE_DROP_TARGET;
			step.why = "its pod's directory is gone";
			add(plan, step);
		} else if (!is_mounted(in, record->dev, target->path)) {
			step.kind = RECONCILE_KEEP;
			step.why = "it is not mounted there any more; it is mounted again";
			add(plan, step);
		}
	}
}

static bool has_unfinished(const struct record *record)
{
	for (size_t i = 0; i < record->n_targets; i++)
		if (!record->targets[i].published)
			return true;
	return false;
}

static bool has_use(const struct reconcile_input *in, const struct record *record)
{
	for (size_t i = 0; i < record->n_targets; i++)
		if (record->targets[i].published && !is_gone(in, record->targets[i].path))
			return true;
	return false;
}

/* Why all of the volume is to go; NULL if it stays. */
static const char *why_end(const struct reconcile_input *in, const struct record *record)
{
	if (record->state == RECORD_UNSTAGING)
		return "its unstage is brought to its end";
	if (record->state == RECORD_STAGING || (record->ephemeral && record->n_targets == 0))
		return "its stage did not end and is undone";
	if (record->ephemeral && !has_use(in, record))
		return has_unfinished(record) ? "its publish did not end and is undone"
					      : "its pod's directory is gone";
	if (record->staging_path && is_gone(in, record->staging_path) && !has_use(in, record))
		return "its staging directory is gone";
	return NULL;
}

static void plan_record(const struct reconcile_input *in, struct record *record, struct plan *plan)
{
	const struct volume_status *volume = volume_status_find(in->volumes, in->n_volumes, record->config.id);
	struct reconcile_step step = { .record = record, .id = record->config.id };

	step.why = why_end(in, record);
	if (step.why) {
		step.kind = RECONCILE_END_VOLUME;
		add(plan, step);
		return;
	}
	if (!volume || volume->state == VOLUME_DEAD) {
		step.kind = RECONCILE_KEEP;
		step.why = "its FUSE connection has ended; it is healed";
		add(plan, step);
	} else if (record->staging_path && !is_mounted(in, record->dev, record->staging_path)) {
		step.kind = RECONCILE_KEEP;
		step.path = record->staging_path;
		step.why = "it is not mounted there any more; it is mounted again";
		add(plan, step);
	}
	plan_targets(in, record, plan);
}

static void plan_volume(const struct reconcile_input *in, const struct volume_status *volume,
			struct plan *plan)
{
	bool used = is_mounted(in, (dev_t)volume->dev, NULL);

	if (find_record(in, volume->config.id) || volume->config.flags & VOLUME_RETIRED)
		return;
	add(plan, (struct reconcile_step){
			  .kind = used ? RECONCILE_KEEP : RECONCILE_END_STRAY,
			  .id = volume->config.id,
			  .why = used ? "no record tells of it, but it is mounted and may be in use"
				      : "no record tells of it, and it is mounted nowhere: it is "
					"ended",
		  });
}

/* A mount of ours that neither a record nor the keeper know. */
static void plan_mount(const struct reconcile_input *in, const struct reconcile_mount *mount,
		       struct plan *plan)
{
	if (!mount->volume || !mount->below_root || find_record(in, mount->volume))
		return;
	for (size_t i = 0; i < in->n_volumes; i++)
		if ((dev_t)in->volumes[i].dev == mount->dev)
			return;
	add(plan, (struct reconcile_step){
			  .kind = RECONCILE_UNMOUNT,
			  .id = mount->volume,
			  .path = mount->target,
			  .why = "no record tells of it, and nobody serves it: it is unmounted",
		  });
}

int reconcile_plan(const struct reconcile_input *in, struct reconcile_step **ret, size_t *ret_n,
		   struct error *err)
{
	size_t room = in->n_records + in->n_volumes + in->n_mounts;
	struct plan plan = { 0 };

	for (size_t i = 0; i < in->n_records; i++)
		room += in->records[i]->n_targets;
	plan.steps = calloc(room + 1, sizeof(*plan.steps));
	if (!plan.steps)
		return error_errno(err, -ENOMEM, "look for leftovers");
	for (size_t i = 0; i < in->n_records; i++)
		plan_record(in, in->records[i], &plan);
	for (size_t i = 0; i < in->n_volumes; i++)
		plan_volume(in, &in->volumes[i], &plan);
	for (size_t i = in->n_mounts; i > 0; i--) /* upper layers first */
		plan_mount(in, &in->mounts[i - 1], &plan);
	*ret = plan.steps;
	*ret_n = plan.n;
	return 0;
}
