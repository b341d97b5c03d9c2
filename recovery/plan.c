/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/plan.h"

#include <errno.h>
#include <string.h>

#include "base/array.h"
#include "mount/forest.h"
#include "mount/tree.h"

struct verdict {	/* on one mount */
	ssize_t volume; /* whose it is, live or stale; -1: none, or one of that name that is not
			   known */
	int old;	/* which of the volume's earlier superblocks it shows; -1: none */
	bool done;	/* stale, and a live mount of the same directory lies on it */
	bool buried;	/* below one that is done: nobody can see it */
	bool under;	/* the step of a mount below takes care of it */
	bool dropped;
	ssize_t carry; /* which of the step's at hand it is, below; -1: none */
};

/* The table at hand, with a verdict on each mount. */
struct view {
	struct mount_forest forest;
	struct verdict *verdicts;
};

struct planner {
	const struct plan_table *tables;
	size_t n_tables;
	const struct plan_volume *volumes;
	size_t n_volumes;
	size_t *by_name; /* the volumes, sorted */
	struct plan *plan;
	size_t room_steps, room_carries;
};

/* The numbers below `n`, sorted. NULL when out of memory. */
static size_t *sort_numbers(size_t n, int (*compare)(const void *a, const void *b, void *of),
			    const void *of)
{
	size_t *sorted = calloc(n + 1, sizeof(*sorted));

	for (size_t i = 0; sorted && i < n; i++)
		sorted[i] = i;
	if (sorted)
		qsort_r(sorted, n, sizeof(*sorted), compare, (void *)of);
	return sorted;
}

static int compare_names(const void *a, const void *b, void *of)
{
	size_t i = *(const size_t *)a, k = *(const size_t *)b;
	const struct plan_volume *volumes = of;
	int r = strcmp(volumes[i].id, volumes[k].id);

	return r ? r : i < k ? -1 : i > k;
}

static ssize_t volume_of(const struct planner *p, const struct mount_entry *e)
{
	const char *id = mount_fuse_volume(e->fstype, e->source);
	size_t low = 0, high = p->n_volumes;

	while (id && low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(p->volumes[p->by_name[middle]].id, id) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (!id || low == p->n_volumes || strcmp(p->volumes[p->by_name[low]].id, id) != 0)
		return -1;
	return (ssize_t)p->by_name[low];
}

int plan_old_index(const struct plan_volume *volume, dev_t dev)
{
	for (int i = 0; dev != 0 && dev != volume->dev && i < PLAN_OLD_MAX; i++)
		if (volume->old[i] == dev)
			return i;
	return -1;
}

/* Whether `live` shows what the stale `i` should show. */
static bool is_successor(const struct planner *p, const struct view *view, ssize_t live, size_t i)
{
	const struct mount_entry *entries = view->forest.entries;
	const struct verdict *v = &view->verdicts[i];

	return v->old >= 0 && live >= 0 && view->verdicts[live].volume == v->volume &&
	       entries[live].dev == p->volumes[v->volume].dev &&
	       strcmp(entries[live].root, entries[i].root) == 0;
}

/* Its helper was killed between mounting beneath and unmounting. */
static const struct mount_entry *successor_below(const struct planner *p, const struct view *view,
						 size_t i)
{
	ssize_t parent = view->forest.nodes[i].parent;

	if (parent < 0 || view->forest.nodes[parent].cover != (ssize_t)i ||
	    !is_successor(p, view, parent, i))
		return NULL;
	return &view->forest.entries[parent];
}

/* What a mount has from the one that it lies on. */
static void inherit(struct view *view, ssize_t i)
{
	ssize_t parent = view->forest.nodes[i].parent;
	const struct verdict *from = &view->verdicts[parent];
	struct verdict *v = &view->verdicts[i];

	v->under = from->under || (from->old >= 0 && !from->done);
	v->buried = from->buried || (from->done && view->forest.nodes[parent].cover != i);
}

/* The mount that `live` covers is done, and what lay hidden below that one already. */
static void mark_done(const struct planner *p, struct view *view, ssize_t live)
{
	const struct mount_forest *f = &view->forest;

	for (ssize_t on = live, i = f->nodes[live].parent;
	     i >= 0 && f->nodes[i].cover == on && !view->verdicts[i].done &&
	     is_successor(p, view, live, (size_t)i);
	     on = i, i = f->nodes[i].parent)
		view->verdicts[i].done = true;
}

static void judge(const struct planner *p, struct view *view)
{
	const struct mount_forest *f = &view->forest;

	for (size_t i = 0; i < f->n; i++) {
		struct verdict *v = &view->verdicts[i];

		v->volume = volume_of(p, &f->entries[i]);
		v->old = v->volume < 0 ? -1
				       : plan_old_index(&p->volumes[v->volume], f->entries[i].dev);
		/* anybody can give a mount that name */
		if (v->old < 0 && v->volume >= 0 && p->volumes[v->volume].dev != f->entries[i].dev)
			v->volume = -1;
		v->carry = -1;
	}
	for (size_t i = 0; i < f->n; i++)
		mark_done(p, view, (ssize_t)i);
	for (size_t top = 0; top < f->n; top++) {
		ssize_t i = (ssize_t)top;

		if (f->nodes[top].parent >= 0)
			continue;
		while ((i = mount_forest_next(f, (ssize_t)top, i, true)) >= 0)
			inherit(view, i);
	}
}

static void view_free(struct view *view)
{
	mount_forest_free(&view->forest);
	free(view->verdicts);
}

static int view_make(const struct planner *p, const struct plan_table *table, struct view *ret)
{
	struct view view = { .verdicts = calloc(table->n + 1, sizeof(*view.verdicts)) };
	int r = view.verdicts ? mount_forest_make(table->entries, table->n, &view.forest) : -ENOMEM;

	if (r < 0) {
		free(view.verdicts);
		return r;
	}
	judge(p, &view);
	*ret = view;
	return 0;
}

/* Where `e` lies below `base`, "" on it; NULL if elsewhere. */
static const char *below(const struct mount_entry *e, const struct mount_entry *base)
{
	size_t len = strcmp(base->target, "/") == 0 ? 0 : strlen(base->target);

	if (strcmp(e->target, base->target) == 0)
		return "";
	if (strncmp(e->target, base->target, len) != 0 || e->target[len] != '/' ||
	    e->target[len + 1] == '/' || e->target[len + 1] == '\0')
		return NULL;
	return e->target + len + 1;
}

static int add_carry(struct planner *p, const struct plan_carry *carry)
{
	struct plan *plan = p->plan;
	void *carries =
		array_grow(plan->carries, plan->n_carries, &p->room_carries, sizeof(*carry));

	if (!carries)
		return -ENOMEM;
	plan->carries = carries;
	plan->carries[plan->n_carries++] = *carry;
	return 0;
}

/* Of the layers on the old mount those go that show the same, up to the first that does not. */
static bool is_dropped(const struct view *view, ssize_t old, ssize_t i)
{
	ssize_t on = view->forest.nodes[i].parent;

	return (on == old || view->verdicts[on].dropped) &&
	       view->verdicts[i].volume == view->verdicts[old].volume &&
	       strcmp(view->forest.entries[i].root, view->forest.entries[old].root) == 0;
}

/*
 * A layer on the old mount's root. Its copy brings along what lies below it, but what covers it has
 * to be taken off before. Returns the mount to go on with, -1 after the last.
 */
static ssize_t carry_cover(struct view *view, ssize_t old, ssize_t i, struct plan_carry *carry)
{
	ssize_t cover = view->forest.nodes[i].cover;

	carry->drop = view->verdicts[i].dropped = is_dropped(view, old, i);
	if (!carry->drop && cover >= 0)
		return cover;
	return mount_forest_next(&view->forest, old, i, carry->drop);
}

/* A mount below, the topmost one in its place. */
static ssize_t carry_nested(const struct view *view, ssize_t old, ssize_t i,
			    struct plan_carry *carry)
{
	ssize_t on = view->forest.nodes[i].parent;

	while (on != old && view->verdicts[on].carry < 0)
		on = view->forest.nodes[on].parent;
	carry->volume = view->verdicts[i].volume;
	carry->within = on == old ? -1 : view->verdicts[on].carry;
	return mount_forest_next(&view->forest, old, i, true);
}

/* Of the mounts in one place below, the one that is seen. */
static ssize_t top_of(const struct mount_forest *f, ssize_t i)
{
	while (f->nodes[i].cover >= 0)
		i = f->nodes[i].cover;
	return i;
}

static int carry_all(struct planner *p, struct view *view, ssize_t old)
{
	const struct mount_forest *f = &view->forest;
	ssize_t i = mount_forest_next(f, old, old, true);
	size_t first = p->plan->n_carries;
	int r = 0;

	while (r >= 0 && i >= 0) {
		const char *where = below(&f->entries[i], &f->entries[old]);
		struct plan_carry carry = { .volume = -1, .within = -1 };

		if (!where) {
			i = mount_forest_next(f, old, i, false);
			continue;
		}
		if (*where)
			i = top_of(f, i);
		carry.entry = &f->entries[i];
		carry.where = below(carry.entry, &f->entries[old]);
		if (*where)
			view->verdicts[i].carry = (ssize_t)(p->plan->n_carries - first);
		i = *where ? carry_nested(view, old, i, &carry) : carry_cover(view, old, i, &carry);
		r = add_carry(p, &carry);
	}
	return r;
}

static int add_step(struct planner *p, const struct plan_step *step)
{
	struct plan *plan = p->plan;
	void *steps = array_grow(plan->steps, plan->n_steps, &p->room_steps, sizeof(*step));

	if (!steps)
		return -ENOMEM;
	plan->steps = steps;
	plan->steps[plan->n_steps++] = *step;
	return 0;
}

static int plan_table(struct planner *p, size_t table)
{
	struct view view;
	int r = view_make(p, &p->tables[table], &view);

	if (r < 0)
		return r;
	for (size_t i = 0; r >= 0 && i < view.forest.n; i++) {
		const struct verdict *v = &view.verdicts[i];
		struct plan_step step = {
			.table = table,
			.volume = (size_t)v->volume,
			.old = &view.forest.entries[i],
			.below = successor_below(p, &view, i),
			.first_carry = p->plan->n_carries,
			.leader = -1,
		};

		if (v->old < 0 || v->done || v->under || v->buried || !view.forest.nodes[i].in_tree)
			continue;
		r = carry_all(p, &view, (ssize_t)i);
		step.n_carries = p->plan->n_carries - step.first_carry;
		if (r >= 0)
			r = add_step(p, &step);
	}
	view_free(&view);
	return r;
}

/* By volume and peer group, then by what they show. Only the first `len` of the root counts. */
static int compare_groups(size_t volume, uint32_t group, const char *root, size_t len,
			  const struct plan_step *step)
{
	int r;

	if (group != step->old->shared)
		return group < step->old->shared ? -1 : 1;
	if (volume != step->volume)
		return volume < step->volume ? -1 : 1;
	r = strncmp(root, step->old->root, len);
	return r ? r : step->old->root[len] ? -1 : 0;
}

static int compare_steps(const void *a, const void *b, void *of)
{
	size_t i = *(const size_t *)a, k = *(const size_t *)b;
	const struct plan_step *steps = of, *s = &steps[i];
	int r = compare_groups(s->volume, s->old->shared, s->old->root, strlen(s->old->root),
			       &steps[k]);

	return r ? r : i < k ? -1 : i > k;
}

/* The first step of the group that shows the first `len` of the root; -1: none. */
static ssize_t find_in_group(const struct plan *plan, const size_t *by_group,
			     const struct plan_step *s, uint32_t group, size_t len)
{
	size_t low = 0, high = plan->n_steps;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare_groups(s->volume, group, s->old->root, len,
				   &plan->steps[by_group[middle]]) > 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == plan->n_steps ||
	    compare_groups(s->volume, group, s->old->root, len, &plan->steps[by_group[low]]) != 0)
		return -1;
	return (ssize_t)by_group[low];
}

/* The first step of the group that shows what `s` shows: a bind of a sub-directory is a peer of the
 * whole. -1: none. */
static ssize_t find_widest(const struct plan *plan, const size_t *by_group,
			   const struct plan_step *s, uint32_t group)
{
	const char *root = s->old->root;
	size_t len = MIN_OF(strlen(root), 1U);

	while (group) {
		ssize_t found = find_in_group(plan, by_group, s, group, len);

		if (found >= 0)
			return found;
		if (!root[len])
			return -1;
		len += (root[len] == '/') + strcspn(root + len + (root[len] == '/'), "/");
	}
	return -1;
}

/* The step whose new mount has to be there before that of `step`: a peer, or else one of its
 * masters; -1: none. */
static ssize_t find_leader(const struct plan *plan, const size_t *by_group, size_t step)
{
	const struct mount_entry *old = plan->steps[step].old;
	ssize_t found = find_widest(plan, by_group, &plan->steps[step], old->shared);

	if (found >= 0 && found != (ssize_t)step)
		return found;
	found = find_widest(plan, by_group, &plan->steps[step], old->master);
	return found == (ssize_t)step ? -1 : found;
}

struct order {
	const struct plan_step *steps; /* as they were found */
	ssize_t *leaders;
	ssize_t *places; /* of each step in `ret`; -1: not yet, -2: its followers wait for it */
	size_t *waiting;
	struct plan_step *ret;
	size_t n;
};

/* The step, and before it its leader, and that one's. Those that lead each other end there. */
static void put_in_order(struct order *o, size_t step)
{
	size_t n = 0;

	while (o->places[step] == -1) {
		o->places[step] = -2;
		o->waiting[n++] = step;
		if (o->leaders[step] >= 0)
			step = (size_t)o->leaders[step];
	}
	while (n > 0) {
		struct plan_step *put = &o->ret[o->n];

		step = o->waiting[--n];
		*put = o->steps[step];
		if (o->leaders[step] >= 0 && o->places[o->leaders[step]] >= 0) {
			put->leader = o->places[o->leaders[step]];
			put->is_peer = put->old->shared != 0 &&
				       put->old->shared == o->ret[put->leader].old->shared;
		}
		o->places[step] = (ssize_t)o->n++;
	}
}

/* Those that follow nobody come first, then what they pass on. */
static void order_steps(struct order *o, size_t n)
{
	for (size_t i = 0; i < n; i++)
		o->places[i] = -1;
	for (size_t i = 0; i < n; i++)
		if (o->steps[i].old->shared && !o->steps[i].old->master)
			put_in_order(o, i);
	for (size_t i = 0; i < n; i++)
		put_in_order(o, i);
}

static int find_leaders(struct plan *plan)
{
	size_t n = plan->n_steps;
	_cleanup_free_ size_t *by_group = sort_numbers(n, compare_steps, plan->steps);
	_cleanup_free_ ssize_t *leaders = calloc(n + 1, sizeof(*leaders));
	_cleanup_free_ ssize_t *places = calloc(n + 1, sizeof(*places));
	_cleanup_free_ size_t *waiting = calloc(n + 1, sizeof(*waiting));
	struct order o = {
		.steps = plan->steps,
		.leaders = leaders,
		.places = places,
		.waiting = waiting,
		.ret = calloc(n + 1, sizeof(*o.ret)),
	};

	if (!by_group || !leaders || !places || !waiting || !o.ret) {
		free(o.ret);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		leaders[i] = find_leader(plan, by_group, i);
	order_steps(&o, n);
	free(plan->steps);
	plan->steps = o.ret;
	return 0;
}

int plan_make(const struct plan_table *tables, size_t n_tables, const struct plan_volume *volumes,
	      size_t n_volumes, struct plan *ret, struct error *err)
{
	_cleanup_free_ size_t *by_name = sort_numbers(n_volumes, compare_names, volumes);
	struct planner p = { tables, n_tables, volumes, n_volumes, by_name, ret, 0, 0 };
	int r = by_name ? 0 : -ENOMEM;

	*ret = (struct plan){ 0 };
	for (size_t i = 0; r >= 0 && i < n_tables; i++)
		r = plan_table(&p, i);
	if (r >= 0)
		r = find_leaders(ret);
	if (r < 0)
		plan_free(ret);
	return r < 0 ? error_errno(err, r, "plan the exchange of mounts") : 0;
}

/* The kernel gives the number of a superblock that is gone to the next one. */
static void note_reuse(const struct planner *p, const struct mount_entry *e, ssize_t volume,
		       struct plan_counts *ret)
{
	if (!mount_fuse_volume(e->fstype, e->source))
		return;
	for (size_t i = 0; i < p->n_volumes; i++) {
		int old = (ssize_t)i == volume ? -1 : plan_old_index(&p->volumes[i], e->dev);

		if (old >= 0)
			ret[i].reused |= 1U << old;
	}
}

static int count_table(const struct planner *p, size_t table, struct plan_counts *ret)
{
	struct view view;
	int r = view_make(p, &p->tables[table], &view);

	if (r < 0)
		return r;
	for (size_t i = 0; i < view.forest.n; i++) {
		const struct verdict *v = &view.verdicts[i];

		note_reuse(p, &view.forest.entries[i], v->volume, ret);
		if (v->old < 0)
			continue;
		ret[v->volume].stale++;
		ret[v->volume].hidden += v->done || v->buried;
		ret[v->volume].seen |= 1U << v->old;
	}
	view_free(&view);
	return 0;
}

int plan_count(const struct plan_table *tables, size_t n_tables, const struct plan_volume *volumes,
	       size_t n_volumes, struct plan_counts *ret, struct error *err)
{
	_cleanup_free_ size_t *by_name = sort_numbers(n_volumes, compare_names, volumes);
	struct planner p = { tables, n_tables, volumes, n_volumes, by_name, NULL, 0, 0 };
	int r = by_name ? 0 : -ENOMEM;

	for (size_t i = 0; i < n_volumes; i++)
		ret[i] = (struct plan_counts){ 0 };
	for (size_t i = 0; r >= 0 && i < n_tables; i++)
		r = count_table(&p, i, ret);
	return r < 0 ? error_errno(err, r, "count stale mounts") : 0;
}

void plan_free(struct plan *plan)
{
	free(plan->steps);
	free(plan->carries);
	*plan = (struct plan){ 0 };
}
