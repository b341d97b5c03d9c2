/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "recovery/supervisor/cgroup.h"

static void expect_path(const char *text, const char *controller, const char *path)
{
	char own[CGROUP_PATH_MAX] = "untouched";
	int r = cgroup_own_path(text, controller, own);

	assert_int_equal(r, path ? 0 : -ENOENT);
	assert_string_equal(own, path ?: "untouched");
}

static void the_own_path_is_that_of_the_hierarchy(void **state)
{
	static const char hybrid[] = "12:cpu,memory:/a:b/c\n"
				     "4:hugetlb:/h\n"
				     "1:name=systemd:/init.scope\n"
				     "0::/user.slice/x y\n";

	expect_path(hybrid, NULL, "/user.slice/x y");
	expect_path(hybrid, "memory", "/a:b/c");
	expect_path(hybrid, "hugetlb", "/h");
	expect_path(hybrid, "mem", NULL);
	expect_path(hybrid, "systemd", NULL);
	expect_path("0::/", NULL, "/");
	expect_path("0::/", "memory", NULL);
	expect_path("3:memory:/only", NULL, NULL);
	expect_path("0::/../other\n", NULL, "/../other");
}

static void garbage_has_no_path(void **state)
{
	static const char *const bad[] = { "",	      "\n\n", "0",	"0:",
					   "0\n::/x", ":::",  "10::/x", "memory" };
	_cleanup_free_ char *text = calloc(1, 2 * CGROUP_PATH_MAX);
	char own[CGROUP_PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		expect_path(bad[i], NULL, NULL);
	assert_non_null(text);
	(void)snprintf(text, 2 * CGROUP_PATH_MAX, "0::/%0*d\n", CGROUP_PATH_MAX, 0);
	assert_int_equal(cgroup_own_path(text, NULL, own), -ENAMETOOLONG);
}

static void expect_below(const char *root, const char *own, const char *below)
{
	const struct mount_entry mount = { .root = root };
	const char *found = cgroup_below_mount(&mount, own);

	if (!below)
		assert_null(found);
	else
		assert_string_equal(found, below);
}

static void a_mount_may_show_a_part(void **state)
{
	expect_below("/", "/", "");
	expect_below("/", "/kubepods/pod1", "kubepods/pod1");
	expect_below("/kubepods/pod1", "/kubepods/pod1", "");
	expect_below("/kubepods", "/kubepods/pod1/c", "pod1/c");
	expect_below("/kubepods/pod1", "/kubepods/pod12", NULL);
	expect_below("/kubepods/pod1", "/kubepods", NULL);
	expect_below("/kubepods/pod1", "/", NULL);
	expect_below("/..", "/", NULL);
	expect_below("/../..", "/../../x", NULL);
	expect_below("/", "/../x", NULL);
	expect_below("/", "/..x/y", "..x/y");
	expect_below("/", "relative", NULL);
}

static void hierarchies_are_told_apart(void **state)
{
	struct mount_entry mount = { .fstype = "cgroup2",
				     .super_options = "rw,memory_recursiveprot" };

	assert_true(cgroup_is_hierarchy(&mount, NULL));
	assert_false(cgroup_is_hierarchy(&mount, "memory"));
	mount.fstype = "cgroup";
	assert_false(cgroup_is_hierarchy(&mount, "memory"));
	mount.super_options = "rw,cpu,memory";
	assert_true(cgroup_is_hierarchy(&mount, "memory"));
	assert_false(cgroup_is_hierarchy(&mount, NULL));
	mount.fstype = "tmpfs";
	assert_false(cgroup_is_hierarchy(&mount, "memory") || cgroup_is_hierarchy(&mount, NULL));
}

static void words_are_whole(void **state)
{
	assert_true(cgroup_has_word("cpu io memory\n", "memory"));
	assert_true(cgroup_has_word("memory", "memory"));
	assert_false(cgroup_has_word("", "memory"));
	assert_false(cgroup_has_word("cpu memoryx\n", "memory"));
	assert_false(cgroup_has_word("cpu,,\n", "memory"));
}

static void counters_are_found_by_their_key(void **state)
{
	static const char events[] =
		"low 0\nhigh 0\nmax 812\noom 3\noom_kill 2\noom_group_kill 7\n";
	static const char control[] =
		"oom_kill_disable 1\nunder_oom 0\noom_kill 18446744073709551615";
	uint64_t n = 0;

	assert_int_equal(cgroup_parse_counter(events, "oom_kill", &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(cgroup_parse_counter(events, "oom", &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(cgroup_parse_counter(control, "oom_kill", &n), 0);
	assert_true(n == UINT64_MAX);
	assert_int_equal(cgroup_parse_counter("17\n", NULL, &n), 0);
	assert_int_equal(n, 17);
}

static void what_is_no_counter_is_refused(void **state)
{
	static const char *const bad[] = { "",
					   "oom_kill",
					   "oom_kill \n",
					   "oom_kill -1\n",
					   "oom_kill 1 2",
					   "xoom_kill 1",
					   "oom_kill\t1",
					   "oom_kill 99999999999999999999999999" };
	uint64_t n = 4711;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(cgroup_parse_counter(bad[i], "oom_kill", &n), -EBADMSG);
	assert_int_equal(cgroup_parse_counter("", NULL, &n), -EBADMSG);
	assert_int_equal(cgroup_parse_counter("x", NULL, &n), -EBADMSG);
	assert_int_equal(cgroup_parse_counter("000000000000000000000000001", NULL, &n), -EBADMSG);
	assert_true(n == 4711);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_own_path_is_that_of_the_hierarchy),
		cmocka_unit_test(garbage_has_no_path),
		cmocka_unit_test(a_mount_may_show_a_part),
		cmocka_unit_test(hierarchies_are_told_apart),
		cmocka_unit_test(words_are_whole),
		cmocka_unit_test(counters_are_found_by_their_key),
		cmocka_unit_test(what_is_no_counter_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
