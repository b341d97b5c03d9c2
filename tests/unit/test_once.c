/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <sys/xattr.h>

#include "fuse/once.h"
#include "tests/unit/volume_fixture.h"
#include "tests/unit/inbox_fixture.h"

/* Where a worker dies over a request: before the call, after it, or once its result is noted. */
enum death {
	BEFORE_CALL,
	AFTER_CALL,
	AFTER_RESULT,
	N_DEATHS,
};

static struct ledger_intent *intent(struct volume_fixture *v)
{
	return &inbox_record(v, 3)->intent;
}

static bool is_there(struct volume_fixture *v, const char *name)
{
	return faccessat(v->dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static ino_t ino_of(struct volume_fixture *v, const char *name)
{
	struct stat st;

	assert_return_code(fstatat(v->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW), errno);
	return st.st_ino;
}

/* The worker that had the result noted dies before it is. */
static void lose_result(struct volume_fixture *v)
{
	atomic_store(&intent(v)->state, LEDGER_INTENT_BEGUN);
	intent(v)->result = -EDOM;
}

/* making */

struct making {
	struct volume_fixture *v;
	enum death death; /* BEFORE_CALL: it never comes to make */
	int made, found;
};

static int make_directory(void *context)
{
	struct making *m = context;

	m->made++;
	if (m->made == 1 && m->death == BEFORE_CALL)
		return 0;
	return mkdirat(m->v->dir_fd, "x", 0755) < 0 ? -errno : 0;
}

static int note_found(void *context)
{
	struct making *m = context;

	m->found++;
	return 77;
}

static struct once_making making_of(struct making *m)
{
	return (struct once_making){ .dir_fd = m->v->dir_fd,
				     .name = "x",
				     .type = S_IFDIR,
				     .make = make_directory,
				     .found = note_found,
				     .context = m };
}

static void a_name_is_made_once_wherever_a_worker_dies(void **state)
{
	struct volume_fixture *v = *state;

	for (enum death death = BEFORE_CALL; death < N_DEATHS; death++) {
		struct making m = { .v = v, .death = death };
		struct once_making what = making_of(&m);

		inbox_take(v, FUSE_MKDIR);
		assert_int_equal(once_make(&what), 0);
		if (death != AFTER_RESULT)
			lose_result(v);
		inbox_take_over(v);
		assert_int_equal(once_make(&what), death == BEFORE_CALL ? 0 : 77);
		assert_true(is_there(v, "x"));
		assert_int_equal(m.found, death != BEFORE_CALL);
		assert_int_equal(atomic_load(&intent(v)->state), LEDGER_INTENT_DONE);
		inbox_clear(&test_inbox);
		assert_return_code(unlinkat(v->dir_fd, "x", AT_REMOVEDIR), errno);
	}
}

static void a_name_that_was_there_before_is_not_taken_for_ones_own(void **state)
{
	struct volume_fixture *v = *state;
	struct making m = { .v = v, .death = AFTER_CALL };
	struct once_making what = making_of(&m);

	assert_return_code(mkdirat(v->dir_fd, "x", 0755), errno);
	inbox_take(v, FUSE_MKDIR);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(once_make(&what), -EEXIST);
		assert_int_equal(atomic_load(&intent(v)->state), LEDGER_INTENT_NONE);
		inbox_take_over(v);
	}
	assert_int_equal(m.made + m.found, 0);
}

static void something_else_under_that_name_is_not_what_was_made(void **state)
{
	struct volume_fixture *v = *state;
	struct making m = { .v = v, .death = BEFORE_CALL };
	struct once_making what = making_of(&m);

	inbox_take(v, FUSE_MKDIR);
	assert_int_equal(once_make(&what), 0);
	lose_result(v);
	volume_make_file(v, "x"); /* by somebody who uses the source */
	inbox_take_over(v);
	assert_int_equal(once_make(&what), -EEXIST);
	assert_int_equal(m.found, 0);
}

static int make_link(void *context)
{
	struct making *m = context;

	m->made++;
	return linkat(m->v->dir_fd, "f", m->v->dir_fd, "x", 0) < 0 ? -errno : 0;
}

static void a_link_is_known_by_its_inode(void **state)
{
	struct volume_fixture *v = *state;
	struct making m = { .v = v, .death = AFTER_CALL };
	struct once_making what = making_of(&m);

	volume_make_file(v, "f");
	volume_make_file(v, "other");
	what.type = S_IFREG;
	what.ino = ino_of(v, "f");
	what.make = make_link;
	inbox_take(v, FUSE_LINK);
	assert_int_equal(once_make(&what), 0);
	lose_result(v);
	inbox_take_over(v);
	assert_int_equal(once_make(&what), 77);
	lose_result(v);
	assert_return_code(renameat(v->dir_fd, "other", v->dir_fd, "x"), errno);
	assert_int_equal(once_make(&what), -EEXIST);
}

static int refuse(void *context)
{
	struct making *m = context;

	m->made++;
	return -EDQUOT;
}

static void a_refusal_is_given_again(void **state)
{
	struct volume_fixture *v = *state;
	struct making m = { .v = v };
	struct once_making what = making_of(&m);

	what.make = refuse;
	inbox_take(v, FUSE_MKDIR);
	assert_int_equal(once_make(&what), -EDQUOT);
	inbox_take_over(v);
	assert_int_equal(once_make(&what), -EDQUOT);
	assert_int_equal(m.made, 1);
	lose_result(v);
	assert_int_equal(once_make(&what), -EDQUOT);
	assert_int_equal(m.made, 2);
}

static void without_a_request_calls_are_just_made(void **state)
{
	struct volume_fixture *v = *state;
	struct making m = { .v = v, .death = AFTER_CALL };
	struct once_making what = making_of(&m);

	for (int i = 0; i < 2; i++) {
		assert_int_equal(once_make(&what), 0);
		assert_int_equal(once_make(&what), -EEXIST);
		assert_int_equal(once_remove(v->dir_fd, "x", AT_REMOVEDIR), 0);
		assert_int_equal(once_remove(v->dir_fd, "x", AT_REMOVEDIR), -ENOENT);
	}
}

/* removing */

static void a_name_is_removed_once(void **state)
{
	struct volume_fixture *v = *state;

	for (enum death death = BEFORE_CALL; death < N_DEATHS; death++) {
		volume_make_file(v, "x");
		inbox_take(v, FUSE_UNLINK);
		if (death == BEFORE_CALL) /* one that has no effect stands for none */
			assert_int_equal(once_remove(v->dir_fd, "x", AT_REMOVEDIR), -ENOTDIR);
		else
			assert_int_equal(once_remove(v->dir_fd, "x", 0), 0);
		if (death != AFTER_RESULT)
			lose_result(v);
		inbox_take_over(v);
		assert_int_equal(once_remove(v->dir_fd, "x", 0), 0);
		assert_false(is_there(v, "x"));
		inbox_clear(&test_inbox);
	}
}

static void what_is_not_there_is_not_removed_however_often(void **state)
{
	struct volume_fixture *v = *state;

	inbox_take(v, FUSE_UNLINK);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(once_remove(v->dir_fd, "x", 0), -ENOENT);
		lose_result(v);
		inbox_take_over(v);
	}
	assert_int_equal(once_remove(v->dir_fd, "x", 0), -ENOENT);
	inbox_take_over(v);
	assert_int_equal(once_remove(v->dir_fd, "x", 0), -ENOENT);
}

static void a_file_that_took_the_name_meanwhile_is_spared(void **state)
{
	struct volume_fixture *v = *state;

	volume_make_file(v, "x");
	volume_make_file(v, "y");
	inbox_take(v, FUSE_UNLINK);
	assert_int_equal(once_remove(v->dir_fd, "x", 0), 0);
	lose_result(v);
	assert_return_code(renameat(v->dir_fd, "y", v->dir_fd, "x"), errno);
	inbox_take_over(v);
	assert_int_equal(once_remove(v->dir_fd, "x", 0), 0);
	assert_true(is_there(v, "x"));
	volume_make_file(v, "x"); /* the noted result is given again, whatever is there */
	assert_int_equal(once_remove(v->dir_fd, "x", 0), 0);
	assert_true(is_there(v, "x"));
}

static void a_full_directory_stays(void **state)
{
	struct volume_fixture *v = *state;

	assert_return_code(mkdirat(v->dir_fd, "d", 0755), errno);
	assert_return_code(mkdirat(v->dir_fd, "d/e", 0755), errno);
	inbox_take(v, FUSE_RMDIR);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(once_remove(v->dir_fd, "d", AT_REMOVEDIR), -ENOTEMPTY);
		lose_result(v);
		inbox_take_over(v);
	}
	assert_return_code(unlinkat(v->dir_fd, "d/e", AT_REMOVEDIR), errno);
	assert_int_equal(once_remove(v->dir_fd, "d", AT_REMOVEDIR), 0);
	assert_int_equal(once_remove(v->dir_fd, "d", AT_REMOVEDIR), 0);
}

/* renaming */

struct renaming {
	struct volume_fixture *v;
	const char *from, *to;
	unsigned int flags;
	int calls, skip; /* so many calls are not made: the worker died before */
};

static int do_rename(void *context)
{
	struct renaming *r = context;

	r->calls++;
	if (r->skip-- > 0)
		return 0;
	return renameat2(r->v->dir_fd, r->from, r->v->dir_fd, r->to, r->flags) < 0 ? -errno : 0;
}

static int rename_once(struct renaming *r)
{
	const struct once_renaming what = { .from_fd = r->v->dir_fd,
					    .to_fd = r->v->dir_fd,
					    .name = r->from,
					    .new_name = r->to,
					    .flags = r->flags,
					    .rename = do_rename,
					    .context = r };

	return once_rename(&what);
}

/* Renames, the worker dying before or after the call; the file that is `to` then was `from`. */
static void check_rename(struct volume_fixture *v, const char *to, unsigned int flags,
			 enum death death)
{
	struct renaming r = {
		.v = v, .from = "a", .to = to, .flags = flags, .skip = death == BEFORE_CALL
	};
	ino_t a;

	volume_make_file(v, "a");
	a = ino_of(v, "a");
	inbox_take(v, FUSE_RENAME2);
	assert_int_equal(rename_once(&r), 0);
	if (death != AFTER_RESULT)
		lose_result(v);
	inbox_take_over(v);
	assert_int_equal(rename_once(&r), 0);
	assert_int_equal(r.calls, death == BEFORE_CALL ? 2 : 1);
	assert_true(ino_of(v, to) == a);
	inbox_clear(&test_inbox);
}

static void a_file_is_renamed_once(void **state)
{
	struct volume_fixture *v = *state;

	for (enum death death = BEFORE_CALL; death < N_DEATHS; death++) {
		check_rename(v, "b", 0, death);
		assert_false(is_there(v, "a"));
		check_rename(v, "b", 0, death); /* over the one that is there now */
		assert_false(is_there(v, "a"));
		check_rename(v, "new", RENAME_NOREPLACE, death);
		assert_false(is_there(v, "a"));
		assert_return_code(unlinkat(v->dir_fd, "new", 0), errno);
	}
}

static void two_files_are_exchanged_once(void **state)
{
	struct volume_fixture *v = *state;

	volume_make_file(v, "b");
	for (enum death death = BEFORE_CALL; death < N_DEATHS; death++) {
		ino_t b = ino_of(v, "b");

		check_rename(v, "b", RENAME_EXCHANGE, death);
		assert_true(ino_of(v, "a") == b);
	}
}

static void two_names_of_one_file_stay(void **state)
{
	struct volume_fixture *v = *state;
	struct renaming r = { .v = v, .from = "a", .to = "b" };

	volume_make_file(v, "a");
	assert_return_code(linkat(v->dir_fd, "a", v->dir_fd, "b", 0), errno);
	inbox_take(v, FUSE_RENAME);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(rename_once(&r), 0);
		lose_result(v);
		inbox_take_over(v);
	}
	assert_true(is_there(v, "a") && is_there(v, "b"));
}

static void a_rename_that_fails_fails_again(void **state)
{
	struct volume_fixture *v = *state;
	struct renaming missing = { .v = v, .from = "a", .to = "b" };
	struct renaming taken = { .v = v, .from = "c", .to = "d", .flags = RENAME_NOREPLACE };

	inbox_take(v, FUSE_RENAME);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(rename_once(&missing), -ENOENT);
		lose_result(v);
		inbox_take_over(v);
	}
	inbox_clear(&test_inbox);
	volume_make_file(v, "c");
	volume_make_file(v, "d");
	inbox_take(v, FUSE_RENAME2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(rename_once(&taken), -EEXIST);
		lose_result(v);
		inbox_take_over(v);
	}
	assert_true(is_there(v, "c") && is_there(v, "d"));
}

/* appending */

static void assert_content(struct volume_fixture *v, const char *name, const char *content,
			   size_t size)
{
	_cleanup_close_ int fd = openat(v->dir_fd, name, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *there = calloc(1, size + 1);

	assert_non_null(there);
	assert_int_equal(pread(fd, there, size + 1, 0), size);
	assert_memory_equal(there, content, size);
}

/* The worker died when `done` bytes of 10000 were there behind the file's first one. */
static void check_append(struct volume_fixture *v, size_t done)
{
	_cleanup_close_ int fd = -EBADF;
	char text[10001];

	memset(text, 'y', sizeof(text));
	text[0] = 'x';
	volume_make_file(v, "x");
	fd = openat(v->dir_fd, "x", O_WRONLY | O_CLOEXEC);
	inbox_take(v, FUSE_WRITE);
	intent(v)->size = 1;
	atomic_store(&intent(v)->state, LEDGER_INTENT_BEGUN);
	assert_int_equal(pwrite(fd, text + 1, done, 1), done);
	inbox_take_over(v);
	assert_int_equal(once_append(fd, text + 1, sizeof(text) - 1), sizeof(text) - 1);
	assert_content(v, "x", text, sizeof(text));
	inbox_take_over(v);
	assert_int_equal(once_append(fd, text + 1, sizeof(text) - 1), sizeof(text) - 1);
	assert_content(v, "x", text, sizeof(text));
	inbox_clear(&test_inbox);
}

static void what_is_appended_already_is_not_appended_again(void **state)
{
	static const size_t done[] = { 0, 1, 4095, 4096, 4097, 9999, 10000 };

	for (size_t i = 0; i < ARRAY_SIZE(done); i++)
		check_append(*state, done[i]);
}

static void an_append_comes_behind_what_somebody_else_has_appended(void **state)
{
	struct volume_fixture *v = *state;
	_cleanup_close_ int fd = -EBADF;

	volume_make_file(v, "x");
	fd = openat(v->dir_fd, "x", O_WRONLY | O_CLOEXEC);
	inbox_take(v, FUSE_WRITE);
	intent(v)->size = 1;
	atomic_store(&intent(v)->state, LEDGER_INTENT_BEGUN);
	assert_int_equal(pwrite(fd, "other", 5, 1), 5);
	inbox_take_over(v);
	assert_int_equal(once_append(fd, "mine", 4), 4);
	assert_content(v, "x", "xothermine", 10);
}

static void an_append_that_fails_fails_again(void **state)
{
	struct volume_fixture *v = *state;
	_cleanup_close_ int fd = -EBADF;

	volume_make_file(v, "x");
	fd = openat(v->dir_fd, "x", O_RDONLY | O_CLOEXEC);
	inbox_take(v, FUSE_WRITE);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(once_append(fd, "mine", 4), -EBADF);
		lose_result(v);
		inbox_take_over(v);
	}
	assert_content(v, "x", "x", 1);
}

/* extended attributes */

static const char *path_of(struct volume_fixture *v, const char *name, char path[128])
{
	(void)snprintf(path, 128, "%s/%s", v->path, name);
	return path;
}

static void an_attribute_is_made_once(void **state)
{
	struct volume_fixture *v = *state;
	char path[128], value[8];

	volume_make_file(v, "x");
	(void)path_of(v, "x", path);
	inbox_take(v, FUSE_SETXATTR);
	assert_int_equal(once_setxattr(path, "user.a", "1", 1, XATTR_CREATE), 0);
	inbox_take_over(v);
	assert_int_equal(once_setxattr(path, "user.a", "1", 1, XATTR_CREATE), 0);
	lose_result(v);
	inbox_take_over(v);
	assert_int_equal(once_setxattr(path, "user.a", "1", 1, XATTR_CREATE), 0);
	inbox_clear(&test_inbox);
	assert_int_equal(once_setxattr(path, "user.a", "2", 1, XATTR_CREATE), -EEXIST);
	assert_int_equal(atomic_load(&intent(v)->state), LEDGER_INTENT_NONE);
	assert_int_equal(getxattr(path, "user.a", value, sizeof(value)), 1);
	assert_true(value[0] == '1');
}

static void an_attribute_is_replaced_where_there_is_one(void **state)
{
	struct volume_fixture *v = *state;
	char path[128];

	volume_make_file(v, "x");
	(void)path_of(v, "x", path);
	inbox_take(v, FUSE_SETXATTR);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(once_setxattr(path, "user.a", "1", 1, XATTR_REPLACE), -ENODATA);
		lose_result(v);
		inbox_take_over(v);
	}
	inbox_clear(&test_inbox);
	assert_return_code(setxattr(path, "user.a", "0", 1, 0), errno);
	inbox_take(v, FUSE_SETXATTR);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(once_setxattr(path, "user.a", "1", 1, XATTR_REPLACE), 0);
		lose_result(v);
		inbox_take_over(v);
	}
}

static void an_attribute_is_removed_once(void **state)
{
	struct volume_fixture *v = *state;
	char path[128];

	volume_make_file(v, "x");
	(void)path_of(v, "x", path);
	assert_return_code(setxattr(path, "user.a", "0", 1, 0), errno);
	inbox_take(v, FUSE_REMOVEXATTR);
	assert_int_equal(once_removexattr(path, "user.a"), 0);
	lose_result(v);
	inbox_take_over(v);
	assert_int_equal(once_removexattr(path, "user.a"), 0);
	inbox_take_over(v);
	assert_int_equal(once_removexattr(path, "user.a"), 0);
	inbox_clear(&test_inbox);
	assert_int_equal(once_removexattr(path, "user.a"), -ENODATA);
	inbox_take_over(v);
	assert_int_equal(once_removexattr(path, "user.a"), -ENODATA);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, volume_setup, inbox_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_name_is_made_once_wherever_a_worker_dies),
		TEST(a_name_that_was_there_before_is_not_taken_for_ones_own),
		TEST(something_else_under_that_name_is_not_what_was_made),
		TEST(a_link_is_known_by_its_inode),
		TEST(a_refusal_is_given_again),
		TEST(without_a_request_calls_are_just_made),
		TEST(a_name_is_removed_once),
		TEST(what_is_not_there_is_not_removed_however_often),
		TEST(a_file_that_took_the_name_meanwhile_is_spared),
		TEST(a_full_directory_stays),
		TEST(a_file_is_renamed_once),
		TEST(two_files_are_exchanged_once),
		TEST(two_names_of_one_file_stay),
		TEST(a_rename_that_fails_fails_again),
		TEST(what_is_appended_already_is_not_appended_again),
		TEST(an_append_comes_behind_what_somebody_else_has_appended),
		TEST(an_append_that_fails_fails_again),
		TEST(an_attribute_is_made_once),
		TEST(an_attribute_is_replaced_where_there_is_one),
		TEST(an_attribute_is_removed_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
