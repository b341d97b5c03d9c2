/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/plan.h"

#include <errno.h>
#include <string.h>

#include "mount/path.h"
#include "mount/tree.h"

#define DEPTH_MAX 256 /* of mounts on mounts; a table that is no tree ends there */

struct planner {
	const struct plan_table *tables;
	const struct plan_volume *volumes;
	size_t n_volumes;
	struct plan *plan;
	size_t room_steps, room_carries;
};

/* Which of the volumes the mount is of, live or stale; -1: none. */
static ssize_t volume_of(const struct planner *p, const struct mount_entry *e)
{
	const char *id = mount_fuse_volume(e->fstype, e->source);

	for (size_t i = 0; id && i < p->n_volumes; i++)
		if (strcmp(p->volumes[i].id, id) == 0)
			return (ssize_t)i;
	return -1;
}

/* Which of the volume's earlier superblocks the mount shows; -1: none. */
static int old_index(const struct plan_volume *volume, const struct mount_entry *e)
{
	for (int i = 0; e->dev != volume->dev && i < PLAN_OLD_MAX; i++)
		if (volume->old[i] != 0 && volume->old[i] == e->dev)
			return i;
	return -1;
}

static bool is_stale(const struct planner *p, const struct mount_entry *e)
{
	ssize_t v = volume_of(p, e);

	return v >= 0 && old_index(&p->volumes[v], e) >= 0;
}

static const struct mount_entry *find(const struct plan_table *t, uint64_t id)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->entries[i].id == id)
			return &t->entries[i];
	return NULL;
}

static const struct mount_entry *parent_of(const struct plan_table *t, const struct mount_entry *e)
{
	return e->parent == e->id ? NULL : find(t, e->parent);
}

static bool is_cover(const struct mount_entry *e, const struct mount_entry *below)
{
	return e != below && e->parent == below->id && strcmp(e->target, below->target) == 0;
}

/* What is mounted on the root of `e`, NULL if nothing is. */
static const struct mount_entry *cover_of(const struct plan_table *t, const struct mount_entry *e)
{
	for (size_t i = 0; i < t->n; i++)
		if (is_cover(&t->entries[i], e))
			return &t->entries[i];
	return NULL;
}

/* Whether `live` shows what the stale `e` should show. */
static bool is_successor(const struct planner *p, const struct mount_entry *live,
			 const struct mount_entry *e)
{
	ssize_t v = volume_of(p, e);

	return volume_of(p, live) == v && live->dev == p->volumes[v].dev &&
	       strcmp(live->root, e->root) == 0;
}

/* A live mount of the same volume and directory lies on it. */
static bool is_done(const struct planner *p, const struct plan_table *t,
		    const struct mount_entry *e)
{
	const struct mount_entry *cover = cover_of(t, e);

	return cover && is_successor(p, cover, e);
}

/* Its helper was killed between mounting beneath and unmounting. */
static const struct mount_entry *successor_below(const struct planner *p,
						 const struct plan_table *t,
						 const struct mount_entry *e)
{
	const struct mount_entry *parent = parent_of(t, e);

	return parent && is_cover(e, parent) && is_successor(p, parent, e) ? parent : NULL;
}

/* Whether the step of a mount below takes care of this one, or nobody can see it. */
static bool is_under_another(const struct planner *p, const struct plan_table *t,
			     const struct mount_entry *e)
{
	const struct mount_entry *parent = parent_of(t, e);

	for (int depth = 0; parent && depth < DEPTH_MAX; depth++) {
		if (is_stale(p, parent) &&
		    (!is_done(p, t, parent) || !is_cover(e, parent)))
			return true;
		e = parent;
		parent = parent_of(t, e);
	}
	return parent != NULL;
}

/* Where `e` lies below `base`, "" on it; NULL if elsewhere. */
static const char *below(const struct mount_entry *e, const struct mount_entry *base)
{
	size_t len = strcmp(base->target, "/") == 0 ? 0 : strlen(base->target);

	if (strcmp(e->target, base->target) == 0)
		return "";
	if (strncmp(e->target, base->target, len) != 0 || e->target[len] != '/')
		return NULL;
	return e->target + len + 1;
}

static int add_carry(struct planner *p, const struct plan_carry *carry)
{
	struct plan *plan = p->plan;

	if (plan->n_carries == p->room_carries) {
		size_t room = MAX_OF(p->room_carries * 2, 16U);
		void *carries = reallocarray(plan->carries, room, sizeof(*plan->carries));

		if (!carries)
			return -ENOMEM;
		plan->carries = carries;
		p->room_carries = room;
	}
	plan->carries[plan->n_carries++] = *carry;
	return 0;
}

/*
 * All that is mounted on `on`, which is the step's old mount or carried by it; outer ones first. A
 * copy brings what lies below it along, but what covers it has to be taken off before.
 */
static int carry_all(struct planner *p, const struct plan_step *step, const struct mount_entry *on,
		     bool covers_only, int depth)
{
	const struct plan_table *t = &p->tables[step->table];
	int r = 0;

	for (size_t i = 0; r >= 0 && i < t->n && depth < DEPTH_MAX; i++) {
		const struct mount_entry *e = &t->entries[i];
		struct plan_carry carry = { .entry = e, .where = below(e, step->old) };

		if (e == on || e == step->old || e->parent != on->id || !carry.where ||
		    (covers_only && *carry.where))
			continue;
		carry.volume = volume_of(p, e);
		carry.drop = !*carry.where && carry.volume == (ssize_t)step->volume;
		r = add_carry(p, &carry);
		if (r >= 0)
			r = carry_all(p, step, e, carry.volume < 0, depth + 1);
	}
	return r;
}

/*
 * The mount that the new one has to be a peer or a slave of, if that one is made before and shows
 * what this one shows: a bind of a sub-directory is a peer of the whole. A copy would keep an id
 * mapping for good.
 */
static ssize_t find_leader(const struct planner *p, const struct plan_step *step)
{
	uint32_t group = step->old->master ?: step->old->shared;

	for (size_t i = 0; group && i < p->plan->n_steps; i++) {
		const struct plan_step *s = &p->plan->steps[i];

		if (s->old->shared == group && s->volume == step->volume && !s->old->idmapped &&
		    path_is_beneath(s->old->root, step->old->root))
			return (ssize_t)i;
	}
	return -1;
}

static int add_step(struct planner *p, struct plan_step *step)
{
	struct plan *plan = p->plan;
	int r;

	if (plan->n_steps == p->room_steps) {
		size_t room = MAX_OF(p->room_steps * 2, 16U);
		void *steps = reallocarray(plan->steps, room, sizeof(*plan->steps));

		if (!steps)
			return -ENOMEM;
		plan->steps = steps;
		p->room_steps = room;
	}
	step->first_carry = plan->n_carries;
	step->leader = find_leader(p, step);
	r = carry_all(p, step, step->old, false, 0);
	if (r < 0)
		return r;
	step->n_carries = plan->n_carries - step->first_carry;
	if (step->leader >= 0)
		plan->steps[step->leader].copies++;
	plan->steps[plan->n_steps++] = *step;
	return 0;
}

static int plan_table(struct planner *p, size_t table, bool idmapped)
{
	const struct plan_table *t = &p->tables[table];
	int r = 0;

	for (size_t i = 0; r >= 0 && i < t->n; i++) {
		const struct mount_entry *e = &t->entries[i];
		struct plan_step step = { .table = table, .old = e };

		if (e->idmapped != idmapped || !is_stale(p, e) || is_done(p, t, e) ||
		    is_under_another(p, t, e))
			continue;
		step.volume = (size_t)volume_of(p, e);
		step.below = successor_below(p, t, e);
		r = add_step(p, &step);
	}
	return r;
}

/* Such a mount has peers or slaves, maybe, and follows nobody. */
static bool has_origin(const struct planner *p, const struct plan_table *t)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->entries[i].shared && !t->entries[i].master && is_stale(p, &t->entries[i]))
			return true;
	return false;
}

int plan_make(const struct plan_table *tables, size_t n_tables, const struct plan_volume *volumes,
	      size_t n_volumes, struct plan *ret, struct error *err)
{
	struct planner p = { tables, volumes, n_volumes, ret, 0, 0 };
	int r = 0;

	*ret = (struct plan){ 0 };
	for (int pass = 0; pass < 4; pass++) /* leaders first */
		for (size_t i = 0; r >= 0 && i < n_tables; i++)
			if (has_origin(&p, &tables[i]) == (pass % 2 == 0))
				r = plan_table(&p, i, pass >= 2);
	if (r < 0)
		plan_free(ret);
	return r < 0 ? error_errno(err, r, "plan the exchange of mounts") : 0;
}

void plan_count(const struct plan_table *tables, size_t n_tables, const struct plan_volume *volumes,
		size_t n_volumes, size_t which, struct plan_counts *ret)
{
	struct planner p = { tables, volumes, n_volumes, NULL, 0, 0 };

	*ret = (struct plan_counts){ 0 };
	for (size_t t = 0; t < n_tables; t++) {
		for (size_t i = 0; i < tables[t].n; i++) {
			const struct mount_entry *e = &tables[t].entries[i];
			const char *id = mount_fuse_volume(e->fstype, e->source);
			int old = id ? old_index(&volumes[which], e) : -1;

			if (old < 0)
				continue;
			if (strcmp(id, volumes[which].id) != 0) {
				ret->reused |= 1U << old;
				continue;
			}
			ret->stale++;
			ret->hidden += is_done(&p, &tables[t], e);
			ret->seen |= 1U << old;
		}
	}
}

void plan_free(struct plan *plan)
{
	free(plan->steps);
	free(plan->carries);
	*plan = (struct plan){ 0 };
}
