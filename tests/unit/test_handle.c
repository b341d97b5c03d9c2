/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "fuse/uapi.h"
#include "tests/unit/volume_fixture.h"

#define ROOT 1

static uint64_t open_node(struct volume_fixture *v, uint64_t node, int flags, uint64_t unique)
{
	struct handle_open open = { .node = node, .flags = flags, .unique = unique };

	assert_int_equal(handle_new(v->handles, &open, -1), 0);
	assert_true(open.fh != 0);
	return open.fh;
}

static uint64_t make_and_open(struct volume_fixture *v, const char *name, int flags)
{
	volume_make_file(v, name);
	return open_node(v, volume_look_up(v, ROOT, name), flags, 2);
}

static void assert_reads(struct volume_fixture *v, uint64_t fh, const char *text)
{
	_cleanup_handle_ref_ struct handle_ref ref = HANDLE_REF_INIT;
	char buf[64] = "";

	assert_int_equal(handle_get(v->handles, fh, &ref), 0);
	assert_true(pread(ref.fd, buf, sizeof(buf) - 1, 0) >= 0);
	assert_string_equal(buf, text);
}

static void assert_unknown(struct volume_fixture *v, uint64_t fh)
{
	struct handle_ref ref = HANDLE_REF_INIT;

	assert_int_equal(handle_get(v->handles, fh, &ref), -EBADF);
}

static void an_open_file_is_read(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t fh = make_and_open(v, "f", O_RDONLY);

	assert_reads(v, fh, "f");
	assert_int_equal(handle_count(v->handles), 1);
}

static void a_released_handle_is_unknown(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t fh = make_and_open(v, "f", O_RDONLY), again;

	handle_release(v->handles, fh);
	assert_unknown(v, fh);
	again = make_and_open(v, "g", O_RDONLY);
	assert_true(again != fh);
	assert_unknown(v, fh);
	assert_reads(v, again, "g");
	handle_release(v->handles, fh); /* once more, by mistake */
	assert_reads(v, again, "g");
}

static void a_handle_that_is_in_use_outlives_its_release(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t fh = make_and_open(v, "f", O_RDONLY), other;
	struct handle_ref ref = HANDLE_REF_INIT;
	char c;

	assert_int_equal(handle_get(v->handles, fh, &ref), 0);
	handle_release(v->handles, fh);
	other = make_and_open(v, "g", O_RDONLY);
	assert_int_equal(pread(ref.fd, &c, 1, 0), 1);
	assert_true(c == 'f');
	handle_put(&ref);
	assert_reads(v, other, "g");
}

static void the_next_worker_goes_on_with_open_files(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t a = make_and_open(v, "a", O_RDONLY);
	uint64_t b = make_and_open(v, "b", O_RDWR | O_APPEND | O_TRUNC);
	struct handle_ref ref = HANDLE_REF_INIT;

	volume_take_over(v);
	assert_int_equal(handle_count(v->handles), 2);
	assert_reads(v, a, "a");
	assert_reads(v, b, "b"); /* not truncated by being opened again */
	assert_int_equal(handle_get(v->handles, b, &ref), 0);
	assert_int_equal(pwrite(ref.fd, "B", 1, 0), 1);
	handle_put(&ref);
	assert_reads(v, b, "B");
	handle_release(v->handles, a);
	assert_unknown(v, a);
}

static void the_next_worker_goes_on_with_open_directories(void **state)
{
	struct volume_fixture *v = *state;
	struct handle_open open = { .node = ROOT, .directory = true };
	_cleanup_handle_ref_ struct handle_ref ref = HANDLE_REF_INIT;
	struct stat st;

	assert_int_equal(handle_new(v->handles, &open, -1), 0);
	volume_take_over(v);
	assert_int_equal(handle_get(v->handles, open.fh, &ref), 0);
	assert_return_code(fstat(ref.fd, &st), errno);
	assert_true(S_ISDIR(st.st_mode));
}

/* O_TMPFILE has the bit of O_DIRECTORY. */
static void a_file_that_was_opened_without_a_name_is_no_directory(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t fh = make_and_open(v, "f", O_TMPFILE | O_RDWR), node;

	node = volume_look_up(v, ROOT, "f");
	volume_take_over(v);
	assert_reads(v, fh, "f");
	handle_release(v->handles, fh);
	assert_int_equal(node_record(v->nodes, node)->open_mode, OPEN_MODE_NONE);
}

static void an_open_that_comes_again_gets_its_handle(void **state)
{
	struct volume_fixture *v = *state;
	struct handle_open again = { 0 };
	uint64_t fh, id;

	volume_make_file(v, "f");
	id = volume_look_up(v, ROOT, "f");
	fh = open_node(v, id, O_RDONLY, 42);
	volume_take_over(v);
	assert_true(handle_find(v->handles, 42, &again));
	assert_true(again.fh == fh);
	assert_true(again.node == id);
	assert_false(handle_find(v->handles, 43, &again));
}

static void an_open_file_keeps_its_node_over_a_takeover(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t id, fh;

	volume_make_file(v, "f");
	id = volume_look_up(v, ROOT, "f");
	fh = open_node(v, id, O_RDONLY, 2);
	node_forget(v->nodes, id, 1);
	volume_take_over(v);
	assert_reads(v, fh, "f");
	handle_release(v->handles, fh);
	assert_null(node_record(v->nodes, id));
}

static void a_file_is_read_anew_once_it_has_changed(void **state)
{
	struct volume_fixture *v = *state;
	struct handle_open open = { .flags = O_RDONLY };
	_cleanup_close_ int fd = -EBADF;

	volume_make_file(v, "f");
	open.node = volume_look_up(v, ROOT, "f");
	assert_int_equal(handle_new(v->handles, &open, -1), 0);
	handle_release(v->handles, open.fh);
	assert_int_equal(handle_new(v->handles, &open, -1), 0);
	assert_true(open.fopen_flags & FOPEN_KEEP_CACHE);
	handle_release(v->handles, open.fh);
	fd = openat(v->dir_fd, "f", O_WRONLY | O_APPEND | O_CLOEXEC);
	assert_int_equal(write(fd, "more", 4), 4);
	assert_int_equal(handle_new(v->handles, &open, -1), 0);
	assert_false(open.fopen_flags & FOPEN_KEEP_CACHE);
}

static void handles_that_make_no_sense_are_dropped(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t good = make_and_open(v, "f", O_RDONLY);
	uint64_t bad = make_and_open(v, "g", O_RDONLY);
	struct ledger_handle *record = &ledger_handles(v->ledger)[ledger_id_index(bad)];

	record->node = 0x1234567800000009;
	volume_take_over(v);
	assert_unknown(v, bad);
	assert_reads(v, good, "f");
	assert_int_equal(handle_count(v->handles), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, volume_setup, volume_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_open_file_is_read),
		TEST(a_released_handle_is_unknown),
		TEST(a_handle_that_is_in_use_outlives_its_release),
		TEST(the_next_worker_goes_on_with_open_files),
		TEST(the_next_worker_goes_on_with_open_directories),
		TEST(a_file_that_was_opened_without_a_name_is_no_directory),
		TEST(an_open_that_comes_again_gets_its_handle),
		TEST(an_open_file_keeps_its_node_over_a_takeover),
		TEST(a_file_is_read_anew_once_it_has_changed),
		TEST(handles_that_make_no_sense_are_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
