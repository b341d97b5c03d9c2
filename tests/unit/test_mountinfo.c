/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

#include "base/clock.h"
#include "mount/forest.h"
#include "mount/mountinfo.h"

#define MANY 65536

static struct mount_table *parse(const char *text)
{
	struct mount_table *table = NULL;
	struct error err = ERROR_INIT;

	assert_int_equal(mount_table_parse(text, strlen(text), &table, &err), 0);
	assert_non_null(table);
	return table;
}

/* A line with one field as given. */
#define LINE(root, target, options, optional, type, source) \
	"29 1 0:25 " root " " target " " options " " optional "- " type " " source " rw\n"

#define ASSERT_FIELD(text, field, expected)                                       \
	do {                                                                      \
		_cleanup_mount_table_ struct mount_table *table_ = parse(text);   \
		assert_int_equal(mount_table_size(table_), 1);                    \
		assert_string_equal(mount_table_get(table_, 0)->field, expected); \
	} while (0)

#define ASSERT_NUMBER(text, field, expected)                                    \
	do {                                                                    \
		_cleanup_mount_table_ struct mount_table *table_ = parse(text); \
		assert_int_equal(mount_table_size(table_), 1);                  \
		assert_int_equal(mount_table_get(table_, 0)->field, expected);  \
	} while (0)

static void every_field_is_read(void **state)
{
	_cleanup_mount_table_ struct mount_table *table =
		parse("30 36 259:1048575 /sub /m rw,nosuid,noexec shared:7 master:3 - "
		      "fuse.holdfast holdfast:pv-1 ro,user_id=0,max_read=4096\n");
	const struct mount_entry *e = mount_table_get(table, 0);

	assert_int_equal(mount_table_size(table), 1);
	assert_int_equal(e->id, 30);
	assert_int_equal(e->parent, 36);
	assert_true(e->dev == makedev(259, 1048575));
	assert_string_equal(e->root, "/sub");
	assert_string_equal(e->target, "/m");
	assert_string_equal(e->fstype, "fuse.holdfast");
	assert_string_equal(e->source, "holdfast:pv-1");
	assert_string_equal(e->super_options, "ro,user_id=0,max_read=4096");
	assert_int_equal(e->shared, 7);
	assert_int_equal(e->master, 3);
	assert_false(e->idmapped);
}

static void ids_are_those_of_the_kernel(void **state)
{
	ASSERT_NUMBER("2147483647 1 0:25 / /m rw - tmpfs tmpfs rw\n", id, 2147483647);
	ASSERT_NUMBER("29 2147483647 0:25 / /m rw - tmpfs tmpfs rw\n", parent, 2147483647);
}

static void escapes_are_undone(void **state)
{
	ASSERT_FIELD(LINE("/", "/a\\040b\\011c\\012d\\134e", "rw", "", "tmpfs", "t"), target,
		     "/a b\tc\nd\\e");
	ASSERT_FIELD(LINE("/r\\040s", "/m", "rw", "", "tmpfs", "t"), root, "/r s");
	ASSERT_FIELD(LINE("/", "/m", "rw", "", "fuse.holdfast", "holdfast:a\\040b\\043"), source,
		     "holdfast:a b#");
	/* no escape, and what is one after it was undone */
	ASSERT_FIELD(LINE("/", "/m\\1340a\\134040", "rw", "", "tmpfs", "t"), target, "/m\\0a\\040");
	ASSERT_FIELD(LINE("/", "/\xc3\xa9\xff", "rw", "", "tmpfs", "t"), target, "/\xc3\xa9\xff");
}

/* The directory or file of a bind mount that is gone: its mount is still there. */
static void what_is_deleted_keeps_its_name(void **state)
{
	ASSERT_FIELD(LINE("/sub//deleted", "/m", "rw", "", "tmpfs", "t"), root, "/sub//deleted");
	/* a volume may have it again */
	ASSERT_FIELD(LINE("/sub//deleted", "/m", "rw", "", "fuse.holdfast", "holdfast:v"), root,
		     "/sub");
	ASSERT_FIELD(LINE("//deleted", "/m", "rw", "", "fuse.holdfast", "holdfast:v"), root, "/");
	ASSERT_FIELD(LINE("/", "/m\\040(deleted)x", "rw", "", "tmpfs", "t"), target,
		     "/m (deleted)x");
	ASSERT_FIELD(LINE("/", "/m\\040(deleted)", "rw", "", "tmpfs", "t"), target, "/m (deleted)");
}

static void optional_fields_may_be_any(void **state)
{
	ASSERT_NUMBER(LINE("/", "/m", "rw", "", "tmpfs", "t"), shared, 0);
	ASSERT_NUMBER(LINE("/", "/m", "rw", "", "tmpfs", "t"), master, 0);
	ASSERT_NUMBER(LINE("/", "/m", "rw", "shared:12 ", "tmpfs", "t"), shared, 12);
	ASSERT_NUMBER(LINE("/", "/m", "rw", "master:12 ", "tmpfs", "t"), master, 12);
	ASSERT_NUMBER(LINE("/", "/m", "rw", "master:12 ", "tmpfs", "t"), shared, 0);
	ASSERT_NUMBER(LINE("/", "/m", "rw", "master:3 propagate_from:2 ", "tmpfs", "t"), master, 3);
	ASSERT_NUMBER(LINE("/", "/m", "rw", "shared:1 master:3 propagate_from:2 ", "tmpfs", "t"),
		      shared, 1);
	ASSERT_NUMBER(LINE("/", "/m", "rw", "unbindable ", "tmpfs", "t"), shared, 0);
	ASSERT_NUMBER(LINE("/", "/m", "rw", "new:1 tag shared:4 ", "tmpfs", "t"), shared, 4);
	ASSERT_FIELD(LINE("/", "/m", "rw", "new:1 tag shared:4 ", "tmpfs", "t"), fstype, "tmpfs");
	/* a tag is a whole word */
	ASSERT_NUMBER(LINE("/", "/m", "rw", "unshared:7 ", "tmpfs", "t"), shared, 0);
	ASSERT_NUMBER(LINE("/", "/m", "rw", "unshared:7 shared:8 ", "tmpfs", "t"), shared, 8);
}

static void flags_are_those_of_the_mount(void **state)
{
	static const struct {
		const char *options;
		uint64_t attr;
	} cases[] = {
		{ "rw", MOUNT_ATTR_STRICTATIME },
		{ "ro", MOUNT_ATTR_RDONLY | MOUNT_ATTR_STRICTATIME },
		{ "rw,relatime", MOUNT_ATTR_RELATIME },
		{ "rw,noatime", MOUNT_ATTR_NOATIME },
		{ "rw,nodiratime", MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_STRICTATIME },
		{ "rw,nodiratime,relatime", MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_RELATIME },
		{ "rw,noatime,nodiratime", MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOATIME },
		{ "rw,nosuid,relatime", MOUNT_ATTR_NOSUID | MOUNT_ATTR_RELATIME },
		{ "rw,nodev,relatime", MOUNT_ATTR_NODEV | MOUNT_ATTR_RELATIME },
		{ "rw,noexec,relatime", MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RELATIME },
		{ "rw,relatime,nosymfollow", MOUNT_ATTR_NOSYMFOLLOW | MOUNT_ATTR_RELATIME },
		{ "ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow",
		  MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
			  MOUNT_ATTR_NOATIME | MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW },
		{ "rw,relatime,idmapped", MOUNT_ATTR_RELATIME },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *text = NULL;

		/* of the superblock, and so no concern */
		assert_true(asprintf(&text, "29 1 0:25 / /m %s - tmpfs t ro,noatime,nosymfollow\n",
				     cases[i].options) > 0);
		ASSERT_NUMBER(text, attr, cases[i].attr);
		ASSERT_NUMBER(text, idmapped, strstr(cases[i].options, "idmapped") != NULL);
	}
}

static void an_empty_source_is_one(void **state)
{
	/* mount("", ...): two spaces */
	ASSERT_FIELD("29 1 0:25 / /m rw - tmpfs  rw\n", target, "/m");
	ASSERT_FIELD("29 1 0:25 / /m rw - tmpfs  rw\n", fstype, "tmpfs");
	ASSERT_FIELD("29 1 0:25 / /m rw - tmpfs none rw\n", source, "none");
}

static void order_is_the_kernels(void **state)
{
	_cleanup_mount_table_ struct mount_table *table =
		parse("9 1 0:25 / /m rw - tmpfs t rw\n"
		      "5 9 0:26 / /m rw - tmpfs t rw\n"
		      "7 5 0:25 / /m/x rw - tmpfs t rw\n");

	assert_int_equal(mount_table_size(table), 3);
	assert_int_equal(mount_table_get(table, 0)->id, 9);
	assert_int_equal(mount_table_get(table, 1)->id, 5);
	assert_int_equal(mount_table_get(table, 2)->id, 7);
	assert_int_equal(mount_table_top(table, "/m")->id, 5);
	assert_null(mount_table_top(table, "/m/"));
	assert_int_equal(mount_table_find_dev(table, makedev(0, 25))->id, 9);
	assert_null(mount_table_find_dev(table, makedev(0, 27)));
}

/* Whatever is cut off, what is before is right. */
static void a_text_may_end_anywhere(void **state)
{
	static const char text[] =
		"20 1 0:25 / /a\\040b rw shared:1 - fuse.holdfast holdfast:a rw\n"
		"21 1 0:26 / /c rw - tmpfs t rw,size=4k\n";

	for (size_t size = 0; size <= strlen(text); size++) {
		_cleanup_mount_table_ struct mount_table *table = NULL;
		_cleanup_free_ char *copy = malloc(size + 1);
		struct error err = ERROR_INIT;
		int r;

		assert_non_null(copy);
		memcpy(copy, text, size);
		r = mount_table_parse(copy, size, &table, &err);
		if (r < 0) {
			assert_true(err.text[0] != '\0');
			continue;
		}
		assert_true(mount_table_size(table) <= 2);
		if (size > 63) {
			assert_true(mount_table_size(table) >= 1);
			assert_string_equal(mount_table_get(table, 0)->target, "/a b");
		}
	}
}

static void an_empty_text_is_an_empty_table(void **state)
{
	_cleanup_mount_table_ struct mount_table *table = NULL;

	assert_int_equal(mount_table_parse("", 0, &table, NULL), 0);
	assert_int_equal(mount_table_size(table), 0);
	assert_null(mount_table_top(table, "/"));
}

static void a_large_table_takes_a_moment(void **state)
{
	static const char line[] = "%d %d 0:25 / /m/%d rw,relatime shared:%d - fuse.holdfast "
				   "holdfast:pv rw\n";
	_cleanup_mount_table_ struct mount_table *table = NULL;
	_cleanup_free_ char *text = NULL;
	uint64_t begin;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	for (int i = 0; i < MANY; i++)
		assert_true(fprintf(f, line, i + 2, i + 1, i, i) > 0);
	assert_int_equal(fclose(f), 0);
	begin = clock_now_ns();
	assert_int_equal(mount_table_parse(text, size, &table, NULL), 0);
	assert_true(clock_now_ns() - begin < 10 * NSEC_PER_SEC); /* 0.2 s; with sanitizers 1 s */
	assert_int_equal(mount_table_size(table), MANY);
	assert_int_equal(mount_table_get(table, MANY - 1)->shared, MANY - 1);
}

static void our_own_table_is_a_tree(void **state)
{
	_cleanup_mount_table_ struct mount_table *table = NULL;
	struct mount_forest forest;

	assert_int_equal(mount_table_load(&table, NULL), 0);
	assert_true(mount_table_size(table) > 0);
	assert_non_null(mount_table_top(table, "/"));
	assert_int_equal(
		mount_forest_make(mount_table_get(table, 0), mount_table_size(table), &forest), 0);
	for (size_t i = 0; i < forest.n; i++)
		assert_true(forest.nodes[i].in_tree);
	mount_forest_free(&forest);
}

static void a_forest_is_walked_from_the_outside_in(void **state)
{
	static const struct mount_entry entries[] = {
		{ .id = 4, .parent = 2, .target = "/m/x" },
		{ .id = 1, .parent = 1, .target = "/" },
		{ .id = 2, .parent = 1, .target = "/m" },
		{ .id = 3, .parent = 2, .target = "/m" },
		{ .id = 5, .parent = 2, .target = "/m/y" },
		{ .id = 6, .parent = 3, .target = "/m/x" },
		{ .id = 7, .parent = 8, .target = "/c" },
		{ .id = 8, .parent = 7, .target = "/c" },
	};
	static const ssize_t expected[] = { 2, 0, 4, 3, 5, -1 };
	struct mount_forest f;
	ssize_t i = 1;

	assert_int_equal(mount_forest_make(entries, ARRAY_SIZE(entries), &f), 0);
	for (size_t k = 0; k < ARRAY_SIZE(expected); k++) {
		i = mount_forest_next(&f, 1, i, true);
		assert_int_equal(i, expected[k]);
	}
	assert_int_equal(mount_forest_next(&f, 1, 2, false), -1);
	assert_int_equal(mount_forest_next(&f, 2, 5, true), -1);
	assert_int_equal(f.nodes[2].cover, 3);
	assert_int_equal(f.nodes[3].cover, -1);
	assert_int_equal(f.nodes[1].parent, -1);
	assert_false(f.nodes[6].in_tree || f.nodes[7].in_tree);
	mount_forest_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_field_is_read),
		cmocka_unit_test(ids_are_those_of_the_kernel),
		cmocka_unit_test(escapes_are_undone),
		cmocka_unit_test(what_is_deleted_keeps_its_name),
		cmocka_unit_test(optional_fields_may_be_any),
		cmocka_unit_test(flags_are_those_of_the_mount),
		cmocka_unit_test(an_empty_source_is_one),
		cmocka_unit_test(order_is_the_kernels),
		cmocka_unit_test(a_text_may_end_anywhere),
		cmocka_unit_test(an_empty_text_is_an_empty_table),
		cmocka_unit_test(a_large_table_takes_a_moment),
		cmocka_unit_test(our_own_table_is_a_tree),
		cmocka_unit_test(a_forest_is_walked_from_the_outside_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
