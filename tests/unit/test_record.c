/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "recovery/record.h"

static char run_dir[] = "/tmp/test-record-XXXXXX";

static const char *in_volumes(const char *name)
{
	static char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/volumes/%s", run_dir, name);
	return path;
}

static size_t count_files(const char *part)
{
	DIR *dir = opendir(in_volumes(""));
	struct dirent *d;
	size_t n = 0;

	assert_non_null(dir);
	while ((d = readdir(dir)))
		n += d->d_name[0] != '.' ? strstr(d->d_name, part) != NULL
					 : strncmp(d->d_name, ".new", 4) == 0;
	(void)closedir(dir);
	return n;
}

static int make_dir(void **state)
{
	(void)snprintf(run_dir, sizeof(run_dir), "/tmp/test-record-XXXXXX");
	return mkdtemp(run_dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[PATH_MAX];

	(void)snprintf(command, sizeof(command), "rm -rf %s", run_dir);
	return system(command);
}

static struct record *make_record(const char *id)
{
	struct record *record = record_new(id);
	struct record_target *target;

	assert_non_null(record);
	record->config.flags = VOLUME_READ_ONLY | VOLUME_HAS_GROUP | VOLUME_HAS_ATTR_TIMEOUT;
	record->config.mode = VOLUME_MODE_PASSTHROUGH;
	record->config.consistency = VOLUME_IMMUTABLE;
	record->config.group = 4000000000U;
	record->config.max_read = 131072;
	record->config.attr_timeout_ns = 0;
	record->config.memory_limit = 64ULL << 20;
	record->state = RECORD_UNSTAGING;
	record->source = strdup("/data/\xc3\xa9\n\"quoted\"");
	record->staging_path = strdup("/staging");
	record->fingerprint = strdup("f");
	record->dev = 0x2a;
	target = record_add_target(record, "/pods/1", "f1");
	assert_non_null(target);
	target->published = target->created = true;
	target = record_add_target(record, "/pods/2", "f2");
	assert_non_null(target);
	target->read_only = true;
	return record;
}

static void assert_same(const struct record *a, const struct record *b)
{
	assert_memory_equal(&a->config, &b->config, sizeof(a->config));
	assert_int_equal(a->state, b->state);
	assert_string_equal(a->source, b->source);
	assert_string_equal(a->staging_path ?: "", b->staging_path ?: "");
	assert_string_equal(a->fingerprint, b->fingerprint);
	assert_int_equal(a->ephemeral, b->ephemeral);
	assert_true(a->dev == b->dev);
	assert_int_equal(a->n_targets, b->n_targets);
	for (size_t i = 0; i < a->n_targets; i++) {
		assert_string_equal(a->targets[i].path, b->targets[i].path);
		assert_string_equal(a->targets[i].fingerprint, b->targets[i].fingerprint);
		assert_int_equal(a->targets[i].read_only, b->targets[i].read_only);
		assert_int_equal(a->targets[i].published, b->targets[i].published);
		assert_int_equal(a->targets[i].created, b->targets[i].created);
	}
}

static void a_record_comes_back_as_it_was(void **state)
{
	_cleanup_record_ struct record *record = make_record("pv-1"), *copy = NULL;
	_cleanup_free_ char *text = NULL;
	size_t size;

	assert_int_equal(record_encode(record, &text, &size, NULL), 0);
	assert_int_equal(record_decode(text, size, &copy, NULL), 0);
	assert_same(record, copy);
}

static void an_ephemeral_record_comes_back_as_it_was(void **state)
{
	_cleanup_record_ struct record *record = record_new("csi-1"), *copy = NULL;
	_cleanup_free_ char *text = NULL;
	size_t size;

	record->ephemeral = true;
	record->source = strdup("/data");
	record->fingerprint = strdup("");
	assert_int_equal(record_encode(record, &text, &size, NULL), 0);
	assert_int_equal(record_decode(text, size, &copy, NULL), 0);
	assert_same(record, copy);
	assert_null(copy->staging_path);
}

static void targets_are_found_and_dropped(void **state)
{
	_cleanup_record_ struct record *record = make_record("pv-1");

	assert_non_null(record_find_target(record, "/pods/2"));
	assert_null(record_find_target(record, "/pods"));
	record_drop_target(record, "/pods/1");
	record_drop_target(record, "/pods/1");
	assert_int_equal(record->n_targets, 1);
	assert_string_equal(record->targets[0].path, "/pods/2");
	record_drop_target(record, "/pods/2");
	assert_int_equal(record->n_targets, 0);
}

static void what_can_not_be_written_is_refused(void **state)
{
	_cleanup_record_ struct record *record = make_record("pv-1");
	_cleanup_free_ char *text = NULL;
	struct error err = ERROR_INIT;
	size_t size;

	free(record->source);
	record->source = strdup("/data/\xff");
	assert_int_equal(record_encode(record, &text, &size, &err), -EINVAL);
	assert_non_null(strstr(err.text, "source"));
	assert_int_equal(err.kind, ERROR_INVALID);
}

/* A good record with one place changed. */
static int decode_changed(const char *from, const char *to, struct error *err)
{
	_cleanup_record_ struct record *record = make_record("pv-1"), *decoded = NULL;
	_cleanup_free_ char *text = NULL, *changed = NULL;
	size_t size;
	char *at;

	assert_int_equal(record_encode(record, &text, &size, NULL), 0);
	at = strstr(text, from);
	assert_non_null(at);
	assert_true(asprintf(&changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) >
		    0);
	return record_decode(changed, strlen(changed), &decoded, err);
}

static void every_field_is_checked(void **state)
{
	static const char *const changes[][2] = {
		{ "\"id\": \"pv-1\"", "\"id\": \"\"" },
		{ "\"id\": \"pv-1\"", "\"id\": 7" },
		{ "\"id\": \"pv-1\"", "\"id\": \"a\\u0000b\"" },
		{ "\"unstaging\"", "\"other\"" },
		{ "\"source\": \"/", "\"source\": \"" },
		{ "\"stagingPath\": \"/", "\"stagingPath\": \"" },
		{ "\"fingerprint\": \"f\"", "\"fingerprint\": null" },
		{ "\"ephemeral\": false", "\"ephemeral\": 0" },
		{ "\"dev\": 42", "\"dev\": -1" },
		{ "\"dev\": 42", "\"dev\": 99999999999999999999" },
		{ "\"dev\": 42", "\"dev\": 1.5" },
		{ "\"maxRead\": 131072", "\"maxRead\": 4294967296" },
		{ "\"group\": 4000000000", "\"group\": \"root\"" },
		{ "\"passthrough\"", "\"fast\"" },
		{ "\"immutable\"", "\"sometimes\"" },
		{ "\"readOnly\": true", "\"readOnly\": false" }, /* immutable needs it */
		{ "\"attrTimeoutNs\": 0", "\"attrTimeoutNs\": \"1s\"" },
		{ "\"memoryLimit\": 67108864", "\"memoryLimit\": \"64Mi\"" },
		{ "\"memoryLimit\": 67108864", "\"memoryLimit\": 1" },
		{ "\"targets\": [", "\"targets\": [ 7," },
		{ "\"/pods/2\"", "\"/pods/1\"" },
		{ "\"/pods/2\"", "\"pods/2\"" },
		{ "\"published\": true", "\"published\": \"yes\"" },
		{ "\"version\": 1", "\"version\": \"1\"" },
		{ "\"version\": 1", "\"version\": 1, \"version\": 1" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		struct error err = ERROR_INIT;

		if (decode_changed(changes[i][0], changes[i][1], &err) != -EBADMSG)
			fail_msg("accepted: %s", changes[i][1]);
		assert_true(err.text[0] != '\0');
	}
}

static void another_version_is_told_from_garbage(void **state)
{
	struct error err = ERROR_INIT;

	assert_int_equal(decode_changed("\"version\": 1", "\"version\": 2", &err),
			 -EPROTONOSUPPORT);
}

static void a_saved_record_is_found_by_its_id(void **state)
{
	_cleanup_record_store_ struct record_store *store = NULL;
	_cleanup_record_ struct record *record = make_record("../pv/1"), *loaded = NULL;
	struct error err = ERROR_INIT;
	struct stat st;

	assert_int_equal(record_store_open(run_dir, &store, NULL), 0);
	assert_int_equal(stat(in_volumes(""), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(record_store_load(store, "../pv/1", &loaded, &err), -ENOENT);
	assert_int_equal(err.kind, ERROR_NOT_FOUND);
	assert_int_equal(record_store_save(store, record, NULL), 0);
	assert_int_equal(record_store_load(store, "../pv/1", &loaded, NULL), 0);
	assert_same(record, loaded);
	assert_int_equal(count_files(".json"), 1);
	assert_int_equal(record_store_remove(store, "../pv/1", NULL), 0);
	assert_int_equal(record_store_remove(store, "../pv/1", NULL), 0);
	assert_int_equal(count_files(""), 0);
}

static void the_file_is_named_by_sha256(void **state)
{
	_cleanup_record_store_ struct record_store *store = NULL;
	_cleanup_record_ struct record *record = make_record("abc");
	struct stat st;

	assert_int_equal(record_store_open(run_dir, &store, NULL), 0);
	assert_int_equal(record_store_save(store, record, NULL), 0);
	/* the example of FIPS 180-2, appendix B.1 */
	assert_int_equal(stat(in_volumes("ba7816bf8f01cfea414140de5dae2223"
					 "b00361a396177a9cb410ff61f20015ad.json"),
			      &st),
			 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void write_file(const char *name, const char *text, size_t size)
{
	_cleanup_close_ int fd =
		open(in_volumes(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, text, size), 0);
}

#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad.json"
#define NO_ID "0000000000000000000000000000000000000000000000000000000000000000.json"

static void broken_files_are_set_aside_and_the_rest_is_listed(void **state)
{
	_cleanup_record_store_ struct record_store *store = NULL, *look = NULL;
	_cleanup_record_ struct record *good = make_record("pv-1"), *other = make_record("abc");
	_cleanup_free_ char *text = NULL;
	struct record **records;
	size_t n, size;

	assert_int_equal(record_store_open(run_dir, &store, NULL), 0);
	assert_int_equal(record_store_open_readonly(run_dir, &look, NULL), 0);
	assert_int_equal(record_store_save(store, good, NULL), 0);
	assert_int_equal(record_encode(other, &text, &size, NULL), 0);
	for (size_t cut = 0; cut < size; cut += 37) {
		write_file(ABC, text, cut);
		assert_int_equal(record_store_list(look, &records, &n, NULL), 0);
		record_list_free(records, n);
		assert_int_equal(n, 1);
		assert_int_equal(count_files("broken"), 0);
	}
	write_file(NO_ID, text, size); /* a good record in the file of another */
	write_file("notes.txt", "hello", 5);
	assert_int_equal(record_store_list(store, &records, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_same(records[0], good);
	record_list_free(records, n);
	assert_int_equal(count_files("broken"), 2);
	assert_int_equal(count_files("notes.txt"), 1);
	assert_int_equal(record_store_list(store, &records, &n, NULL), 0);
	record_list_free(records, n);
	assert_int_equal(n, 1);
}

static void a_link_and_a_directory_are_not_read(void **state)
{
	_cleanup_record_store_ struct record_store *store = NULL;
	struct record **records;
	size_t n;

	assert_int_equal(record_store_open(run_dir, &store, NULL), 0);
	assert_int_equal(symlink("/etc/passwd", in_volumes(ABC)), 0);
	assert_int_equal(mkdir(in_volumes(NO_ID), 0700), 0);
	assert_int_equal(record_store_list(store, &records, &n, NULL), 0);
	record_list_free(records, n);
	assert_int_equal(n, 0);
	assert_int_equal(count_files("broken"), 2);
}

static void what_a_killed_process_left_half_written_goes(void **state)
{
	_cleanup_record_store_ struct record_store *store = NULL, *look = NULL;

	assert_int_equal(record_store_open(run_dir, &store, NULL), 0);
	write_file(".new.12.3", "{", 1);
	assert_int_equal(record_store_open_readonly(run_dir, &look, NULL), 0);
	assert_int_equal(count_files(".new"), 1);
	record_store_close(TAKE_PTR(store));
	assert_int_equal(record_store_open(run_dir, &store, NULL), 0);
	assert_int_equal(count_files(".new"), 0);
}

static void a_store_to_look_at_does_not_write(void **state)
{
	_cleanup_record_store_ struct record_store *look = NULL, *store = NULL;
	_cleanup_record_ struct record *record = make_record("pv-1");
	struct error err = ERROR_INIT;

	assert_int_equal(record_store_open_readonly(run_dir, &look, &err), -ENOENT);
	assert_int_equal(err.kind, ERROR_NOT_FOUND);
	assert_int_equal(access(in_volumes(""), F_OK), -1);
	assert_int_equal(record_store_open(run_dir, &store, NULL), 0);
	assert_int_equal(record_store_open_readonly(run_dir, &look, NULL), 0);
	assert_int_equal(record_store_save(look, record, NULL), -EROFS);
	assert_int_equal(record_store_remove(look, "pv-1", NULL), -EROFS);
}

/* A write that fails after some bytes, as on a full disk. */
static void a_failed_write_leaves_the_old_record_and_nothing_else(void **state)
{
	_cleanup_record_store_ struct record_store *store = NULL;
	_cleanup_record_ struct record *record = make_record("pv-1"), *loaded = NULL;
	struct rlimit old, small;
	struct error err = ERROR_INIT;
	int r;

	assert_int_equal(record_store_open(run_dir, &store, NULL), 0);
	assert_int_equal(record_store_save(store, record, NULL), 0);
	record->state = RECORD_STAGED;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = (struct rlimit){ .rlim_cur = 100, .rlim_max = old.rlim_max };
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	r = record_store_save(store, record, &err);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(r, -EFBIG);
	assert_non_null(strstr(err.text, "pv-1"));
	assert_int_equal(count_files(""), 1);
	assert_int_equal(record_store_load(store, "pv-1", &loaded, NULL), 0);
	assert_int_equal(loaded->state, RECORD_UNSTAGING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_record_comes_back_as_it_was),
		cmocka_unit_test(an_ephemeral_record_comes_back_as_it_was),
		cmocka_unit_test(targets_are_found_and_dropped),
		cmocka_unit_test(what_can_not_be_written_is_refused),
		cmocka_unit_test(every_field_is_checked),
		cmocka_unit_test(another_version_is_told_from_garbage),
		cmocka_unit_test_setup_teardown(a_saved_record_is_found_by_its_id, make_dir,
						remove_dir),
		cmocka_unit_test_setup_teardown(the_file_is_named_by_sha256, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(broken_files_are_set_aside_and_the_rest_is_listed,
						make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(a_link_and_a_directory_are_not_read, make_dir,
						remove_dir),
		cmocka_unit_test_setup_teardown(what_a_killed_process_left_half_written_goes,
						make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(a_store_to_look_at_does_not_write, make_dir,
						remove_dir),
		cmocka_unit_test_setup_teardown(
			a_failed_write_leaves_the_old_record_and_nothing_else, make_dir,
			remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
