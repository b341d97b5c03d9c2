/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "base/clock.h"
#include "recovery/plan.h"

#define LIVE 100 /* of volume a; its earlier ones are 90 and 91 */
#define OLD 90
#define OLDER 91
#define LIVE_B 200
#define OLD_B 190
#define NOBODYS 77 /* of the name of a volume, for all we know */
#define REUSED 110 /* of volume c: the number of an earlier one is that of the live one too */

static const struct plan_volume volumes[] = {
	{ "a", LIVE, { OLD, OLDER } },
	{ "b", LIVE_B, { [3] = OLD_B } },
	{ "c", REUSED, { REUSED, 111 } },
};

static struct mount_entry filled(struct mount_entry e)
{
	e.root = e.root ?: "/";
	e.fstype = e.fstype ?: "fuse.holdfast";
	e.super_options = "";
	return e;
}

/* Mounts of a volume, and of anybody else. */
#define MOUNT(id_, parent_, target_, volume, dev_, ...)   \
	filled((struct mount_entry){ .id = (id_),         \
				     .parent = (parent_), \
				     .target = (target_), \
				     .dev = (dev_),       \
				     .source = "holdfast:" volume __VA_OPT__(, ) __VA_ARGS__ })
#define FOREIGN(id_, parent_, target_)                    \
	filled((struct mount_entry){ .id = (id_),         \
				     .parent = (parent_), \
				     .target = (target_), \
				     .dev = 1,            \
				     .fstype = "tmpfs",   \
				     .source = "tmpfs" })
#define ROOT FOREIGN(1, 0, "/")

static void append(char *text, size_t size, const char *format, ...) _printf_(3, 4);

static void append(char *text, size_t size, const char *format, ...)
{
	size_t len = strlen(text);
	va_list args;

	va_start(args, format);
	assert_true(vsnprintf(text + len, size - len, format, args) < (int)(size - len));
	va_end(args);
}

/* "0/10 a: 11@x copy, 12@x/y copy in 0, 13@ drop ^9 <0; ...": table/mount volume, carries and those
 * they lie on, what is beneath, leader (~: its master) */
static void render(const struct plan *plan, char *text, size_t size)
{
	*text = '\0';
	for (size_t i = 0; i < plan->n_steps; i++) {
		const struct plan_step *s = &plan->steps[i];

		append(text, size, "%s%zu/%llu %s", i ? "; " : "", s->table,
		       (unsigned long long)s->old->id, volumes[s->volume].id);
		for (size_t k = 0; k < s->n_carries; k++) {
			const struct plan_carry *c = &plan->carries[s->first_carry + k];

			append(text, size, "%s%llu@%s %s", k ? ", " : ": ",
			       (unsigned long long)c->entry->id, c->where,
			       c->drop	       ? "drop"
			       : c->volume < 0 ? "copy"
					       : volumes[c->volume].id);
			if (c->within >= 0)
				append(text, size, " in %zd", c->within);
		}
		if (s->below)
			append(text, size, " ^%llu", (unsigned long long)s->below->id);
		if (s->leader >= 0)
			append(text, size, " %s%zd", s->is_peer ? "<" : "~", s->leader);
	}
}

static void assert_plan(const struct plan_table *tables, size_t n_tables, const char *expected)
{
	struct error err = ERROR_INIT;
	static char text[8192];
	struct plan plan;

	assert_int_equal(plan_make(tables, n_tables, volumes, ARRAY_SIZE(volumes), &plan, &err), 0);
	render(&plan, text, sizeof(text));
	plan_free(&plan);
	assert_string_equal(text, expected);
}

/* One namespace. */
#define ASSERT_PLAN(expected, ...)                                                                \
	do {                                                                                      \
		const struct mount_entry entries_[] = { __VA_ARGS__ };                            \
		assert_plan(&(struct plan_table){ entries_, ARRAY_SIZE(entries_) }, 1, expected); \
	} while (0)

#define ASSERT_COUNTS(which, stale_, hidden_, seen_, ...)                                        \
	do {                                                                                     \
		const struct mount_entry entries_[] = { __VA_ARGS__ };                           \
		const struct plan_table table_ = { entries_, ARRAY_SIZE(entries_) };             \
		struct plan_counts counts_[ARRAY_SIZE(volumes)];                                 \
		assert_int_equal(                                                                \
			plan_count(&table_, 1, volumes, ARRAY_SIZE(volumes), counts_, NULL), 0); \
		assert_int_equal(counts_[which].stale, stale_);                                  \
		assert_int_equal(counts_[which].hidden, hidden_);                                \
		assert_int_equal(counts_[which].seen, seen_);                                    \
	} while (0)

static void what_lives_is_left_alone(void **state)
{
	assert_plan(NULL, 0, "");
	assert_plan(&(struct plan_table){ NULL, 0 }, 1, "");
	ASSERT_PLAN("", ROOT, MOUNT(10, 1, "/m", "a", LIVE), FOREIGN(11, 10, "/m/x"));
}

static void a_stale_mount_is_exchanged(void **state)
{
	ASSERT_PLAN("0/10 a", ROOT, MOUNT(10, 1, "/m", "a", OLD));
	ASSERT_PLAN("0/10 a; 0/11 a; 0/12 b", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    MOUNT(11, 1, "/n", "a", OLDER), MOUNT(12, 1, "/o", "b", OLD_B));
	/* of a container whose root it is */
	ASSERT_PLAN("0/10 a: 11@proc copy", MOUNT(10, 1, "/", "a", OLD), FOREIGN(11, 10, "/proc"));
}

/* A number alone means nothing: the kernel uses it again. */
static void a_mount_is_known_by_volume_and_device(void **state)
{
	ASSERT_PLAN("", ROOT, MOUNT(10, 1, "/m", "b", OLD), MOUNT(11, 1, "/n", "ab", OLD),
		    MOUNT(12, 1, "/o", "", OLD), MOUNT(13, 1, "/p", "a", 77));
	ASSERT_PLAN("", ROOT, MOUNT(10, 1, "/m", "a", OLD, .fstype = "fuse.other"),
		    filled((struct mount_entry){
			    .id = 11, .parent = 1, .target = "/n", .source = "a", .dev = OLD }));
	ASSERT_PLAN("0/11 c", ROOT, MOUNT(10, 1, "/m", "c", REUSED), MOUNT(11, 1, "/n", "c", 111));
	ASSERT_PLAN("", ROOT, MOUNT(10, 1, "/m", "a", 0));
}

static void sub_directories_are_mounts_of_their_own(void **state)
{
	ASSERT_PLAN("0/10 a; 0/11 a", ROOT, MOUNT(10, 1, "/m", "a", OLD, .root = "/sub"),
		    MOUNT(11, 1, "/n", "a", OLD, .root = "/sub/file"));
	/* covered by another directory, and so not done */
	ASSERT_PLAN("0/10 a: 11@ copy", ROOT, MOUNT(10, 1, "/m", "a", OLD, .root = "/x"),
		    MOUNT(11, 10, "/m", "a", LIVE, .root = "/y"));
}

/* Ids are those of one namespace, or at least nobody promises more. */
static void namespaces_are_looked_at_one_by_one(void **state)
{
	const struct mount_entry first[] = { ROOT, MOUNT(10, 1, "/m", "a", OLD),
					     FOREIGN(11, 10, "/m/x") };
	const struct mount_entry second[] = { ROOT, MOUNT(11, 1, "/n", "a", OLD),
					      FOREIGN(10, 1, "/m"), FOREIGN(12, 10, "/m/x") };
	const struct mount_entry third[] = { ROOT };

	assert_plan((const struct plan_table[]){ { first, ARRAY_SIZE(first) },
						 { third, ARRAY_SIZE(third) },
						 { second, ARRAY_SIZE(second) } },
		    3, "0/10 a: 11@x copy; 2/11 a");
}

static void what_is_mounted_below_is_carried(void **state)
{
	/* a copy would bring along what is below itself; should there be none it is needed */
	ASSERT_PLAN("0/10 a: 11@x copy, 12@x/deep copy in 0, 13@x/deep/er copy in 1, 14@y/z copy",
		    ROOT, MOUNT(10, 1, "/m", "a", OLD), FOREIGN(11, 10, "/m/x"),
		    FOREIGN(12, 11, "/m/x/deep"), FOREIGN(13, 12, "/m/x/deep/er"),
		    FOREIGN(14, 10, "/m/y/z"), FOREIGN(15, 1, "/mm"));
	/* other volumes' are mounted anew, live or stale, and have what is below them carried too
	 */
	ASSERT_PLAN("0/10 a: 11@x b, 12@x/y copy in 0, 13@z b, 14@z/a a in 2", ROOT,
		    MOUNT(10, 1, "/m", "a", OLD), MOUNT(11, 10, "/m/x", "b", OLD_B),
		    FOREIGN(12, 11, "/m/x/y"), MOUNT(13, 10, "/m/z", "b", LIVE_B),
		    MOUNT(14, 13, "/m/z/a", "a", OLDER));
	/* stale below a foreign one: if the copy brings it, the next look finds it */
	ASSERT_PLAN("0/10 a: 11@x copy, 12@x/b b in 0", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    FOREIGN(11, 10, "/m/x"), MOUNT(12, 11, "/m/x/b", "b", OLD_B));
	/* of a volume's name, but none of its connections: somebody else's */
	ASSERT_PLAN("0/10 a: 11@x copy, 12@y copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    MOUNT(11, 10, "/m/x", "b", NOBODYS), MOUNT(12, 10, "/m/y", "a", NOBODYS));
	/* in whatever order the table has them */
	ASSERT_PLAN("0/10 a: 12@x b, 11@x/y copy in 0", FOREIGN(11, 12, "/m/x/y"),
		    MOUNT(12, 10, "/m/x", "b", LIVE_B), MOUNT(10, 1, "/m", "a", OLD), ROOT);
}

/* Nobody sees the others, and no path leads to them. */
static void of_a_stack_below_the_top_is_carried(void **state)
{
	ASSERT_PLAN("0/10 a: 13@x copy, 14@x/seen copy in 0", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    FOREIGN(11, 10, "/m/x"), FOREIGN(12, 11, "/m/x/hidden"),
		    FOREIGN(13, 11, "/m/x"), FOREIGN(14, 13, "/m/x/seen"));
	ASSERT_PLAN("0/10 a: 13@x b, 14@x/seen copy in 0", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    FOREIGN(11, 10, "/m/x"), MOUNT(12, 11, "/m/x", "b", OLD_B),
		    MOUNT(13, 12, "/m/x", "b", LIVE_B), FOREIGN(14, 13, "/m/x/seen"));
}

static void a_foreign_cover_stays_on_top(void **state)
{
	ASSERT_PLAN("0/10 a: 11@ copy", ROOT, MOUNT(10, 1, "/m", "a", OLD), FOREIGN(11, 10, "/m"));
	ASSERT_PLAN("0/10 a: 11@ copy, 12@ copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    FOREIGN(11, 10, "/m"), FOREIGN(12, 11, "/m"));
	/* its copy brings along what is below it, but not what covers it; what is below the old one
	 * can be copied once the cover is off */
	ASSERT_PLAN("0/10 a: 11@x copy, 12@ copy, 14@ copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    FOREIGN(12, 10, "/m"), FOREIGN(11, 10, "/m/x"), FOREIGN(13, 12, "/m/y"),
		    FOREIGN(14, 12, "/m"), FOREIGN(15, 14, "/m/z"));
	/* another volume's is copied as it is: what is stale of it is found by the next look */
	ASSERT_PLAN("0/10 a: 11@ copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    MOUNT(11, 10, "/m", "b", OLD_B), FOREIGN(12, 11, "/m/x"));
	ASSERT_PLAN("0/10 a: 11@ copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    MOUNT(11, 10, "/m", "b", LIVE_B));
	ASSERT_PLAN("0/10 a: 11@ copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    MOUNT(11, 10, "/m", "a", NOBODYS));
}

static void of_a_stack_of_ours_one_is_left(void **state)
{
	ASSERT_PLAN("0/10 a: 11@ drop, 12@ drop", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    MOUNT(11, 10, "/m", "a", OLDER), MOUNT(12, 11, "/m", "a", OLD));
	/* with what is mounted below each */
	ASSERT_PLAN("0/10 a: 13@x copy, 11@ drop, 14@x copy, 12@ drop, 15@z b", ROOT,
		    MOUNT(10, 1, "/m", "a", OLD), MOUNT(11, 10, "/m", "a", OLDER),
		    MOUNT(12, 11, "/m", "a", OLD), FOREIGN(13, 10, "/m/x"), FOREIGN(14, 11, "/m/x"),
		    MOUNT(15, 12, "/m/z", "b", LIVE_B));
	/* a directory of it on it: the one on top is what is seen */
	ASSERT_PLAN("0/10 a: 11@ copy, 12@ copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    MOUNT(11, 10, "/m", "a", OLD, .root = "/sub"), MOUNT(12, 11, "/m", "a", OLD));
	ASSERT_PLAN("0/10 a: 11@ drop, 12@ copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    MOUNT(11, 10, "/m", "a", OLDER), FOREIGN(12, 11, "/m"));
}

/* Else the foreign one would be seen, and the volume was before. */
static void a_foreign_layer_between_two_of_ours_stays_between(void **state)
{
	ASSERT_PLAN("0/10 a: 11@ copy, 12@ copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    FOREIGN(11, 10, "/m"), MOUNT(12, 11, "/m", "a", OLD));
	ASSERT_PLAN("0/10 a: 11@ copy, 12@ copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    FOREIGN(11, 10, "/m"), MOUNT(12, 11, "/m", "a", LIVE));
	/* the next look */
	ASSERT_PLAN("0/12 a", ROOT, MOUNT(10, 1, "/m", "a", LIVE), FOREIGN(11, 10, "/m"),
		    MOUNT(12, 11, "/m", "a", OLD));
}

/* Locked mounts stay for ever below their new ones. */
static void what_a_live_one_covers_is_done(void **state)
{
	ASSERT_PLAN("", ROOT, MOUNT(10, 1, "/m", "a", OLD), MOUNT(11, 10, "/m", "a", LIVE));
	ASSERT_PLAN("", ROOT, MOUNT(10, 1, "/m", "a", OLD), MOUNT(11, 10, "/m", "a", LIVE),
		    FOREIGN(12, 11, "/m"));
	/* locked on each other: a namespace was copied after a healing */
	ASSERT_PLAN("", ROOT, MOUNT(10, 1, "/m", "a", OLD), MOUNT(11, 10, "/m", "a", OLDER),
		    MOUNT(12, 11, "/m", "a", LIVE));
	/* what lies below the old one with it; below the live one things are as anywhere */
	ASSERT_PLAN("0/13 b: 14@z copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    MOUNT(11, 10, "/m", "a", LIVE), MOUNT(12, 10, "/m/x", "b", OLD_B),
		    MOUNT(13, 11, "/m/x", "b", OLD_B), FOREIGN(14, 13, "/m/x/z"));
	ASSERT_PLAN("0/12 a", ROOT, MOUNT(10, 1, "/m", "a", OLD), MOUNT(11, 10, "/m", "a", LIVE),
		    MOUNT(12, 11, "/m/x", "a", OLD));
	/* a live one that died, on its turn: they go together, were they not locked */
	ASSERT_PLAN("0/10 a: 11@ drop, 12@x copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    MOUNT(11, 10, "/m", "a", OLDER), FOREIGN(12, 11, "/m/x"));
	/* covers of covers: not directly, or not by the same volume */
	ASSERT_PLAN("0/10 a: 11@ copy, 12@ copy", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    MOUNT(11, 10, "/m", "b", LIVE_B), MOUNT(12, 11, "/m", "a", LIVE));
	ASSERT_PLAN("0/12 a", ROOT, MOUNT(10, 1, "/m", "b", OLD_B),
		    MOUNT(11, 10, "/m", "b", LIVE_B), MOUNT(12, 11, "/m", "a", OLD));
	/* stale on a live one of its own: an exchange that did not come to its end */
	ASSERT_PLAN("0/11 a ^10", ROOT, MOUNT(10, 1, "/m", "a", LIVE),
		    MOUNT(11, 10, "/m", "a", OLD));
	ASSERT_PLAN("0/11 a", ROOT, MOUNT(10, 1, "/m", "a", LIVE, .root = "/x"),
		    MOUNT(11, 10, "/m", "a", OLD));
}

static void what_is_stale_is_counted(void **state)
{
	ASSERT_COUNTS(0, 0, 0, 0, ROOT, MOUNT(10, 1, "/m", "a", LIVE),
		      MOUNT(11, 1, "/m", "b", OLD));
	ASSERT_COUNTS(0, 3, 0, 3, ROOT, MOUNT(10, 1, "/m", "a", OLD),
		      MOUNT(11, 10, "/m", "a", OLDER), MOUNT(12, 1, "/n", "a", OLD),
		      MOUNT(13, 1, "/o", "b", OLD_B));
	ASSERT_COUNTS(1, 1, 0, 1U << 3, ROOT, MOUNT(10, 1, "/m", "a", OLD),
		      MOUNT(13, 10, "/m/o", "b", OLD_B));
	ASSERT_COUNTS(2, 1, 0, 2, ROOT, MOUNT(10, 1, "/m", "c", REUSED),
		      MOUNT(11, 1, "/n", "c", 111));
}

static void what_nobody_can_see_is_counted_as_hidden(void **state)
{
	ASSERT_COUNTS(0, 1, 1, 1, ROOT, MOUNT(10, 1, "/m", "a", OLD),
		      MOUNT(11, 10, "/m", "a", LIVE));
	/* else a healing would never be over */
	ASSERT_COUNTS(0, 2, 2, 1, ROOT, MOUNT(10, 1, "/m", "a", OLD),
		      MOUNT(11, 10, "/m", "a", LIVE), FOREIGN(12, 10, "/m/x"),
		      MOUNT(13, 12, "/m/x/y", "a", OLD));
	ASSERT_COUNTS(0, 2, 1, 3, ROOT, MOUNT(10, 1, "/m", "a", OLD),
		      MOUNT(11, 10, "/m", "a", LIVE), MOUNT(13, 11, "/m/x", "a", OLDER));
}

static void counts_are_of_all_namespaces(void **state)
{
	const struct mount_entry first[] = { ROOT, MOUNT(10, 1, "/m", "a", OLD) };
	const struct mount_entry second[] = { ROOT, MOUNT(10, 1, "/m", "a", OLDER),
					      MOUNT(11, 10, "/m", "a", LIVE) };
	const struct plan_table tables[] = { { first, ARRAY_SIZE(first) },
					     { second, ARRAY_SIZE(second) } };
	struct plan_counts counts[ARRAY_SIZE(volumes)];

	memset(counts, 0xff, sizeof(counts));
	assert_int_equal(plan_count(tables, 2, volumes, ARRAY_SIZE(volumes), counts, NULL), 0);
	assert_int_equal(counts[0].stale, 2);
	assert_int_equal(counts[0].hidden, 1);
	assert_int_equal(counts[0].seen, 3);
	assert_int_equal(counts[1].stale, 0);
	assert_int_equal(counts[1].seen, 0);
}

static void peers_follow_the_first(void **state)
{
	ASSERT_PLAN("0/10 a; 0/11 a <0; 0/12 a <0", ROOT, MOUNT(10, 1, "/m", "a", OLD, .shared = 5),
		    MOUNT(11, 1, "/n", "a", OLD, .shared = 5),
		    MOUNT(12, 1, "/o", "a", OLD, .shared = 5));
	ASSERT_PLAN("0/10 a; 0/12 b; 0/13 a", ROOT, MOUNT(10, 1, "/m", "a", OLD, .shared = 5),
		    MOUNT(12, 1, "/o", "b", OLD_B, .shared = 5),
		    MOUNT(13, 1, "/p", "a", OLD, .shared = 6));
}

/* A bind of a sub-directory is a peer of the whole, but can't be copied to it. */
static void peers_have_to_show_what_their_leader_shows(void **state)
{
	ASSERT_PLAN("0/12 a; 0/10 a <0; 0/11 a <0", ROOT,
		    MOUNT(10, 1, "/m", "a", OLD, .shared = 5, .root = "/x/y"),
		    MOUNT(11, 1, "/n", "a", OLD, .shared = 5, .root = "/x"),
		    MOUNT(12, 1, "/o", "a", OLD, .shared = 5));
	ASSERT_PLAN("0/11 a; 0/10 a <0; 0/12 a; 0/13 a ~0", ROOT,
		    MOUNT(10, 1, "/m", "a", OLD, .shared = 5, .root = "/x/y"),
		    MOUNT(11, 1, "/n", "a", OLD, .shared = 5, .root = "/x"),
		    MOUNT(12, 1, "/o", "a", OLD, .shared = 5, .root = "/xx"),
		    MOUNT(13, 1, "/p", "a", OLD, .master = 5, .root = "/x/z"));
}

static void peers_that_are_slaves_too_follow_one_of_them(void **state)
{
	ASSERT_PLAN("0/12 a; 0/10 a ~0; 0/11 a <1; 0/13 a ~1", ROOT,
		    MOUNT(10, 1, "/m", "a", OLD, .shared = 5, .master = 6),
		    MOUNT(11, 1, "/n", "a", OLD, .shared = 5, .master = 6),
		    MOUNT(12, 1, "/o", "a", OLD, .shared = 6),
		    MOUNT(13, 1, "/p", "a", OLD, .master = 5));
}

static void slaves_follow_their_master(void **state)
{
	const struct mount_entry pod[] = { ROOT, MOUNT(20, 1, "/m", "a", OLD, .master = 5),
					   MOUNT(21, 1, "/n", "a", OLD, .master = 7) };
	const struct mount_entry host[] = { ROOT, MOUNT(10, 1, "/m", "a", OLD, .shared = 5) };
	const struct plan_table tables[] = { { pod, ARRAY_SIZE(pod) }, { host, ARRAY_SIZE(host) } };

	assert_plan(tables, 2, "1/10 a; 0/20 a ~0; 0/21 a");
	assert_plan((const struct plan_table[]){ tables[1], tables[0] }, 2,
		    "0/10 a; 1/20 a ~0; 1/21 a");
}

/* A slave may be shared, and have slaves of its own, wherever the tables have them. */
static void slaves_of_slaves_come_last(void **state)
{
	const struct mount_entry last[] = { ROOT, MOUNT(30, 1, "/m", "a", OLD, .master = 9) };
	const struct mount_entry middle[] = { ROOT, MOUNT(20, 1, "/m", "a", OLD, .shared = 9,
							  .master = 5) };
	const struct mount_entry first[] = { ROOT, FOREIGN(9, 1, "/x"),
					     MOUNT(10, 1, "/m", "a", OLD, .shared = 5) };

	assert_plan((const struct plan_table[]){ { last, ARRAY_SIZE(last) },
						 { middle, ARRAY_SIZE(middle) },
						 { first, ARRAY_SIZE(first) } },
		    3, "2/10 a; 1/20 a ~0; 0/30 a ~1");
	/* the master is not stale, or gone */
	assert_plan((const struct plan_table[]){ { last, ARRAY_SIZE(last) },
						 { middle, ARRAY_SIZE(middle) } },
		    2, "1/20 a; 0/30 a ~0");
}

static void those_that_lead_each_other_are_all_exchanged(void **state)
{
	ASSERT_PLAN("0/11 a; 0/10 a ~0", ROOT,
		    MOUNT(10, 1, "/m", "a", OLD, .shared = 5, .master = 6),
		    MOUNT(11, 1, "/n", "a", OLD, .shared = 6, .master = 5));
	ASSERT_PLAN("0/10 a", ROOT, MOUNT(10, 1, "/m", "a", OLD, .shared = 5, .master = 5));
}

/* mountinfo is not read in one step, and shows what a chroot can reach. */
static void a_table_may_be_no_tree(void **state)
{
	/* no parent, or itself */
	ASSERT_PLAN("0/10 a; 0/11 a", MOUNT(10, 99, "/m", "a", OLD), MOUNT(11, 11, "/n", "a", OLD));
	/* a circle leads nowhere, and what lies on it neither */
	ASSERT_PLAN("0/20 a", ROOT, MOUNT(10, 11, "/m", "a", OLD), MOUNT(11, 10, "/m", "a", OLD),
		    MOUNT(12, 11, "/m/x", "a", OLD), MOUNT(20, 1, "/n", "a", OLD));
	/* an id twice: what lies on it lies on the first */
	ASSERT_PLAN("0/10 a: 11@x copy; 0/10 b", ROOT, MOUNT(10, 1, "/m", "a", OLD),
		    MOUNT(10, 1, "/n", "b", OLD_B), FOREIGN(11, 10, "/m/x"));
	/* below by id, elsewhere by path */
	ASSERT_PLAN("0/10 a", ROOT, MOUNT(10, 1, "/m", "a", OLD), FOREIGN(11, 10, "/n"),
		    FOREIGN(12, 11, "/m/x"));
	ASSERT_PLAN("0/10 a", ROOT, MOUNT(10, 1, "/m", "a", OLD), FOREIGN(11, 10, "/m/"),
		    FOREIGN(12, 10, "/m//x"));
	ASSERT_COUNTS(0, 2, 0, 1, MOUNT(10, 11, "/m", "a", OLD), MOUNT(11, 10, "/n", "a", OLD));
}

static struct mount_entry *make_stack(size_t n, dev_t dev)
{
	struct mount_entry *entries = calloc(n, sizeof(*entries));

	assert_non_null(entries);
	for (size_t i = 0; i < n; i++)
		entries[i] = MOUNT(i + 1, i, "/m", "a", dev);
	return entries;
}

static void many_layers_are_all_dropped(void **state)
{
	size_t n = 1000;
	_cleanup_free_ struct mount_entry *entries = make_stack(n, OLD);
	struct plan plan;

	assert_int_equal(plan_make(&(struct plan_table){ entries, n }, 1, volumes,
				   ARRAY_SIZE(volumes), &plan, NULL),
			 0);
	assert_int_equal(plan.n_steps, 1);
	assert_ptr_equal(plan.steps[0].old, &entries[0]);
	assert_int_equal(plan.steps[0].n_carries, n - 1);
	for (size_t i = 0; i < n - 1; i++) {
		assert_ptr_equal(plan.carries[i].entry, &entries[i + 1]);
		assert_true(plan.carries[i].drop);
	}
	plan_free(&plan);
	assert_null(plan.steps);
}

/* Whatever is in a table of a container, the others are healed. */
static void large_tables_take_no_time(void **state)
{
	size_t n = 1U << 16;
	_cleanup_free_ struct mount_entry *stack = make_stack(n, OLD), *live = make_stack(n, LIVE);
	_cleanup_free_ struct mount_entry *flat = make_stack(n, OLD), *twins = make_stack(n, OLD);
	struct plan_counts counts[ARRAY_SIZE(volumes)];
	uint64_t begin = clock_now_ns();
	struct plan plan;

	for (size_t i = 0; i < n; i++) {
		live[i].dev = i % 2 ? LIVE : OLD;
		flat[i].parent = 0;
		flat[i].shared = 5;
		flat[i].master = i % 3 ? 5 : 0;
		twins[i].id = 1;
		twins[i].parent = i % 2;
	}
	for (size_t i = 0; i < 4; i++) {
		const struct mount_entry *all[] = { stack, live, flat, twins };
		const struct plan_table table = { all[i], n };

		assert_int_equal(plan_make(&table, 1, volumes, ARRAY_SIZE(volumes), &plan, NULL),
				 0);
		plan_free(&plan);
		assert_int_equal(plan_count(&table, 1, volumes, ARRAY_SIZE(volumes), counts, NULL),
				 0);
	}
	assert_true(clock_now_ns() - begin < 10 * NSEC_PER_SEC); /* 0.2 s; with sanitizers 1 s */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_lives_is_left_alone),
		cmocka_unit_test(a_stale_mount_is_exchanged),
		cmocka_unit_test(a_mount_is_known_by_volume_and_device),
		cmocka_unit_test(sub_directories_are_mounts_of_their_own),
		cmocka_unit_test(namespaces_are_looked_at_one_by_one),
		cmocka_unit_test(what_is_mounted_below_is_carried),
		cmocka_unit_test(of_a_stack_below_the_top_is_carried),
		cmocka_unit_test(a_foreign_cover_stays_on_top),
		cmocka_unit_test(of_a_stack_of_ours_one_is_left),
		cmocka_unit_test(a_foreign_layer_between_two_of_ours_stays_between),
		cmocka_unit_test(what_a_live_one_covers_is_done),
		cmocka_unit_test(what_is_stale_is_counted),
		cmocka_unit_test(what_nobody_can_see_is_counted_as_hidden),
		cmocka_unit_test(counts_are_of_all_namespaces),
		cmocka_unit_test(peers_follow_the_first),
		cmocka_unit_test(peers_have_to_show_what_their_leader_shows),
		cmocka_unit_test(peers_that_are_slaves_too_follow_one_of_them),
		cmocka_unit_test(slaves_follow_their_master),
		cmocka_unit_test(slaves_of_slaves_come_last),
		cmocka_unit_test(those_that_lead_each_other_are_all_exchanged),
		cmocka_unit_test(a_table_may_be_no_tree),
		cmocka_unit_test(many_layers_are_all_dropped),
		cmocka_unit_test(large_tables_take_no_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
