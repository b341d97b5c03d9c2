/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "mount/options.h"
#include "mount/path.h"

static char root[] = "/tmp/test-path-XXXXXX";
static char outside[] = "/tmp/test-outside-XXXXXX";

static const char *below(const char *rest)
{
	static char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", root, rest);
	return path;
}

static int make_tree(void **state)
{
	if (!mkdtemp(root) || !mkdtemp(outside) || mkdir(below("dir"), 0755) < 0)
		return -1;
	return symlink(outside, below("link"));
}

static int remove_tree(void **state)
{
	return rmdir(below("dir")) | unlink(below("link")) | rmdir(root) | rmdir(outside);
}

static void only_normalized_absolute_paths_pass(void **state)
{
	static const char *const good[] = { "/", "/a", "/a/b.c/..d", "/a b/\xc3\xa9" };
	static const char *const bad[] = { "",	      "a",   "./a",  "/a/",   "//a",   "/a//b",
					   "/a/../b", "/..", "/a/.", "/a\nb", "/a\x7f" };
	struct error err = ERROR_INIT;
	static char longest[PATH_MAX + 10];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(path_check("path", good[i], &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(path_check("path", bad[i], &err), -EINVAL);
		assert_int_equal(err.kind, ERROR_INVALID);
		assert_non_null(strstr(err.text, "path"));
	}
	for (size_t i = 0; i < sizeof(longest) - 1; i++)
		longest[i] = i % 200 ? 'a' : '/';
	assert_int_equal(path_check("path", longest, &err), -EINVAL);
}

static void beneath_is_by_component(void **state)
{
	assert_true(path_is_beneath("/a", "/a"));
	assert_true(path_is_beneath("/a", "/a/b"));
	assert_true(path_is_beneath("/", "/a"));
	assert_false(path_is_beneath("/a", "/ab"));
	assert_false(path_is_beneath("/a/b", "/a"));
}

static void a_link_on_the_way_is_refused(void **state)
{
	struct error err = ERROR_INIT;
	int fd = -EBADF;

	assert_int_equal(path_open_beneath(root, below("dir"), O_PATH, &fd, &err), 0);
	close_fd(&fd);
	assert_true(path_open_beneath(root, below("link"), O_PATH, &fd, &err) < 0);
	assert_int_equal(err.kind, ERROR_INVALID);
	assert_true(path_open_beneath(root, below("link/x"), O_PATH, &fd, &err) < 0);
	assert_int_equal(path_open_beneath(root, below("missing"), O_PATH, &fd, &err), -ENOENT);
	assert_int_equal(err.kind, ERROR_NOT_FOUND);
	assert_true(path_open_beneath(root, outside, O_PATH, &fd, &err) < 0);
	assert_int_equal(fd, -EBADF);
}

static void a_directory_is_made_and_removed_without_following(void **state)
{
	struct error err = ERROR_INIT;
	int fd = -EBADF;
	bool created;

	assert_int_equal(path_make_dir(root, below("dir/new"), &created, &fd, &err), 0);
	assert_true(created);
	close_fd(&fd);
	assert_int_equal(path_make_dir(root, below("dir/new"), &created, &fd, &err), 0);
	assert_false(created);
	close_fd(&fd);
	assert_int_equal(path_remove_dir(root, below("dir/new"), &err), 0);
	assert_int_equal(path_remove_dir(root, below("dir/new"), &err), 0);
	assert_int_equal(path_remove_dir(root, below("gone/new"), &err), 0);
	/* through the link nothing is made and nothing is removed */
	assert_true(path_make_dir(root, below("link"), &created, &fd, &err) < 0);
	assert_true(path_make_dir(root, below("link/new"), &created, &fd, &err) < 0);
	assert_true(path_remove_dir(root, below("link"), &err) < 0);
	assert_int_equal(access(outside, F_OK), 0);
}

static void mount_flags_are_known_or_refused(void **state)
{
	struct mount_options o;
	struct error err = ERROR_INIT;

	mount_options_init(&o);
	assert_int_equal(mount_options_add(&o, "ro,noexec", &err), 0);
	assert_int_equal(mount_options_add(&o, "noatime", &err), 0);
	assert_int_equal(mount_options_add(&o, "max_read=131072", &err), 0);
	assert_true(o.read_only);
	assert_int_equal(o.max_read, 131072);
	assert_int_equal(mount_options_add(&o, "suid", &err), -EINVAL);
	assert_int_equal(mount_options_add(&o, "max_read=1", &err), -EINVAL);
	assert_int_equal(mount_options_add(&o, "context=x", &err), -EINVAL);
	assert_non_null(strstr(err.text, "context=x"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_normalized_absolute_paths_pass),
		cmocka_unit_test(beneath_is_by_component),
		cmocka_unit_test(a_link_on_the_way_is_refused),
		cmocka_unit_test(a_directory_is_made_and_removed_without_following),
		cmocka_unit_test(mount_flags_are_known_or_refused),
	};

	return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
