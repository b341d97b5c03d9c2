/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The planner of mount exchanges, whose tables come from containers: "T" and mountinfo texts that a
 * NUL separates, or "S" and tables of six bytes a mount. Whatever is in them, each mount is dealt
 * with once, and none that can be seen is forgotten.
 */

#include <string.h>

#include "mount/mountinfo.h"
#include "mount/tree.h"
#include "recovery/plan.h"

#define TABLES_MAX 8
#define SLOW_MAX 128 /* mounts: the naive checks take the third power of it */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* c's live number was an earlier one's; its old ones are as 0:90 in mountinfo */
static const struct plan_volume volumes[] = {
	{ "a", 100, { 90, 91 } },
	{ "b", 101, { 92, 100 } },
	{ "c", 102, { 102, 93 } },
};

#define VOLUMES ARRAY_SIZE(volumes)

struct input {
	struct plan_table tables[TABLES_MAX];
	struct mount_table *parsed[TABLES_MAX];
	struct mount_entry *made[TABLES_MAX];
	size_t n;
};

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

static void parse_tables(struct input *in, const char *text, size_t size)
{
	while (size > 0 && in->n < TABLES_MAX) {
		const char *end = memchr(text, '\0', size);
		size_t len = end ? (size_t)(end - text) : size;
		struct plan_table *t = &in->tables[in->n];

		if (mount_table_parse(text, len, &in->parsed[in->n], NULL) >= 0) {
			t->n = mount_table_size(in->parsed[in->n]);
			t->entries = t->n ? mount_table_get(in->parsed[in->n], 0) : NULL;
			in->n++;
		}
		text += MIN_OF(len + 1, size);
		size -= MIN_OF(len + 1, size);
	}
}

static struct mount_entry make_entry(const uint8_t *b)
{
	static const char *const targets[] = { "/",	 "/m",	 "/m",	"/m",	"/m/x", "/m/x",
					       "/m/x/y", "/m/y", "/mm", "/n",	"/n/x", "",
					       "m",	 "//",	 "/m/", "/m//x" };
	static const char *const roots[] = { "/", "/", "/sub", "" };
	static const char *const sources[] = { "holdfast:a", "holdfast:b", "holdfast:c", "tmpfs",
					       "holdfast:a", "holdfast:b", "holdfast:",	 "" };

	return (struct mount_entry){
		.id = b[0],
		.parent = b[1],
		.target = targets[b[2] % 16],
		.root = roots[b[2] / 16 % 4],
		.source = sources[b[3] % 8],
		.fstype = b[3] % 8 == 3 ? "tmpfs" : "fuse.holdfast",
		.super_options = "",
		.dev = 88 + b[4] % 16,
		.idmapped = b[3] & 0x80,
		.shared = b[5] % 8,
		.master = b[5] / 8 % 8,
	};
}

/* The highest bit of a mount's last byte ends the table. */
static void make_tables(struct input *in, const uint8_t *data, size_t size)
{
	while (size >= 6 && in->n < TABLES_MAX) {
		size_t room = size / 6, n = 0;
		struct mount_entry *entries = calloc(room, sizeof(*entries));
		bool last = false;

		REQUIRE(entries);
		for (; n < room && !last; n++, data += 6, size -= 6) {
			entries[n] = make_entry(data);
			last = data[5] & 0x80;
		}
		in->tables[in->n] = (struct plan_table){ entries, n };
		in->made[in->n++] = entries;
	}
}

static int old_of(const struct mount_entry *e, size_t *ret_volume)
{
	const char *id = mount_fuse_volume(e->fstype, e->source);

	for (size_t v = 0; id && v < VOLUMES; v++)
		for (int i = 0; strcmp(volumes[v].id, id) == 0 && i < PLAN_OLD_MAX; i++)
			if (volumes[v].old[i] != 0 && volumes[v].old[i] == e->dev &&
			    e->dev != volumes[v].dev) {
				*ret_volume = v;
				return i;
			}
	return -1;
}

static const struct mount_entry *parent_of(const struct plan_table *t, const struct mount_entry *e)
{
	for (size_t i = 0; e->parent != e->id && i < t->n; i++)
		if (t->entries[i].id == e->parent)
			return &t->entries[i];
	return NULL;
}

static const struct mount_entry *cover_of(const struct plan_table *t, const struct mount_entry *e)
{
	for (size_t i = 0; i < t->n; i++)
		if (parent_of(t, &t->entries[i]) == e &&
		    strcmp(t->entries[i].target, e->target) == 0)
			return &t->entries[i];
	return NULL;
}

static bool is_done(const struct plan_table *t, const struct mount_entry *e, size_t volume)
{
	const struct mount_entry *cover = cover_of(t, e);
	const char *id = cover ? mount_fuse_volume(cover->fstype, cover->source) : NULL;

	return id && strcmp(id, volumes[volume].id) == 0 && cover->dev == volumes[volume].dev &&
	       strcmp(cover->root, e->root) == 0;
}

/* By the words of plan.h: stale, not covered by its successor, and not on what is stale itself. */
static bool wants_step(const struct plan_table *t, const struct mount_entry *e)
{
	const struct mount_entry *on = e, *parent;
	size_t volume;

	if (old_of(e, &volume) < 0 || is_done(t, e, volume))
		return false;
	for (size_t i = 0; i <= t->n; i++) {
		parent = parent_of(t, on);
		if (!parent)
			return true;
		if (old_of(parent, &volume) >= 0 &&
		    (!is_done(t, parent, volume) || cover_of(t, parent) != on))
			return false;
		on = parent;
	}
	return false; /* a circle */
}

static bool is_below(const struct plan_table *t, const struct mount_entry *e,
		     const struct mount_entry *old)
{
	for (size_t i = 0; e && e != old && i < t->n; i++)
		e = parent_of(t, e);
	return e == old;
}

static void check_carry(const struct plan *plan, const struct plan_table *t,
			const struct plan_step *s, size_t k)
{
	const struct plan_carry *carries = &plan->carries[s->first_carry], *c = &carries[k];
	size_t len = strlen(s->old->target);
	const char *rest = c->entry->target + len;

	REQUIRE(strncmp(c->entry->target, s->old->target, len) == 0);
	if (*c->where)
		REQUIRE(strcmp(s->old->target, "/") == 0 ? c->where == rest : c->where == rest + 1);
	else
		REQUIRE(!*rest);
	REQUIRE(c->volume >= -1 && c->volume < (ssize_t)VOLUMES);
	REQUIRE(*c->where != '/' && (!*c->where || !c->drop));
	REQUIRE(c->within >= -1 && c->within < (ssize_t)k);
	if (t->n <= SLOW_MAX) {
		REQUIRE(is_below(t, c->entry, s->old));
		REQUIRE(c->within < 0 || is_below(t, c->entry, carries[c->within].entry));
	}
}

static void check_leader(const struct plan *plan, size_t i)
{
	const struct plan_step *s = &plan->steps[i], *leader;

	if (s->leader < 0)
		return;
	REQUIRE(s->leader < (ssize_t)i);
	leader = &plan->steps[s->leader];
	REQUIRE(leader->volume == s->volume && leader->old->shared != 0);
	REQUIRE(strncmp(leader->old->root, s->old->root, strlen(leader->old->root)) == 0);
	REQUIRE(leader->old->shared == (s->is_peer ? s->old->shared : s->old->master));
}

/* Marks the mount as dealt with. */
static void mark(const struct plan_table *t, uint8_t *marks, const struct mount_entry *e,
		 uint8_t value)
{
	REQUIRE(e >= t->entries && e < t->entries + t->n);
	REQUIRE(marks[e - t->entries] == 0);
	marks[e - t->entries] = value;
}

static void check_steps(const struct input *in, const struct plan *plan)
{
	uint8_t *marks[TABLES_MAX];
	size_t n_carries = 0, volume;

	for (size_t t = 0; t < in->n; t++) {
		marks[t] = calloc(in->tables[t].n + 1, 1);
		REQUIRE(marks[t]);
	}
	for (size_t i = 0; i < plan->n_steps; i++) {
		const struct plan_step *s = &plan->steps[i];
		const struct plan_table *t = &in->tables[s->table];

		REQUIRE(s->table < in->n);
		mark(t, marks[s->table], s->old, 1);
		REQUIRE(old_of(s->old, &volume) >= 0 && volume == s->volume);
		for (size_t k = 0; k < s->n_carries; k++) {
			mark(t, marks[s->table], plan->carries[s->first_carry + k].entry, 2);
			check_carry(plan, t, s, k);
		}
		n_carries += s->n_carries;
		check_leader(plan, i);
	}
	REQUIRE(n_carries == plan->n_carries);
	for (size_t t = 0; t < in->n; t++) {
		for (size_t i = 0; in->tables[t].n <= SLOW_MAX && i < in->tables[t].n; i++)
			REQUIRE(wants_step(&in->tables[t], &in->tables[t].entries[i]) ==
				(marks[t][i] == 1));
		free(marks[t]);
	}
}

static void check_counts(const struct input *in)
{
	struct plan_counts counts[VOLUMES], expected[VOLUMES] = { 0 };
	struct error err = ERROR_INIT;
	size_t volume;

	for (size_t t = 0; t < in->n; t++)
		for (size_t i = 0; i < in->tables[t].n; i++) {
			int old = old_of(&in->tables[t].entries[i], &volume);

			if (old < 0)
				continue;
			expected[volume].stale++;
			expected[volume].seen |= 1U << old;
		}
	REQUIRE(plan_count(in->tables, in->n, volumes, VOLUMES, counts, &err) == 0);
	for (size_t v = 0; v < VOLUMES; v++) {
		REQUIRE(counts[v].stale == expected[v].stale && counts[v].seen == expected[v].seen);
		REQUIRE(counts[v].hidden <= counts[v].stale);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error err = ERROR_INIT;
	struct input in = { 0 };
	struct plan plan;

	if (size > 0 && data[0] == 'S')
		make_tables(&in, data + 1, size - 1);
	else if (size > 0)
		parse_tables(&in, (const char *)data + 1, size - 1);
	REQUIRE(plan_make(in.tables, in.n, volumes, VOLUMES, &plan, &err) == 0);
	check_steps(&in, &plan);
	check_counts(&in);
	plan_free(&plan);
	for (size_t i = 0; i < in.n; i++) {
		mount_table_free(in.parsed[i]);
		free(in.made[i]);
	}
	return 0;
}
