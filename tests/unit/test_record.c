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
	record->old_devs[0] = 0x2b;
	record->old_devs[1] = 1U << 30;
	record->healing = (struct record_healing){ 3, 2, 40, 1, INT64_MAX };
	target = record_add_target(record, "/pods/1", "f1");
	assert_non_null(target);
	target->published = target->created = true;
	target = record_add_target(record, "/pods/2", "f2");
	assert_non_null(target);
	target->read_only = true;
	target->attr = 0x200001;
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
	assert_memory_equal(a->old_devs, b->old_devs, sizeof(a->old_devs));
	assert_memory_equal(&a->healing, &b->healing, sizeof(a->healing));
	assert_int_equal(a->n_targets, b->n_targets);
	for (size_t i = 0; i < a->n_targets; i++) {
		assert_string_equal(a->targets[i].path, b->targets[i].path);
		assert_string_equal(a->targets[i].fingerprint, b->targets[i].fingerprint);
		assert_int_equal(a->targets[i].read_only, b->targets[i].read_only);
		assert_int_equal(a->targets[i].published, b->targets[i].published);
		assert_int_equal(a->targets[i].created, b->targets[i].created);
		assert_true(a->targets[i].attr == b->targets[i].attr);
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

/* "90 91": the device and the earlier ones. */
static void assert_devs(const struct record *record, const char *expected)
{
	char text[256];
	int n = snprintf(text, sizeof(text), "%u", (unsigned int)record->dev);
	size_t i = 0;

	for (; i < RECORD_OLD_DEVS && record->old_devs[i] != 0; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " %u",
			      (unsigned int)record->old_devs[i]);
	for (; i < RECORD_OLD_DEVS; i++)
		assert_int_equal(record->old_devs[i], 0);
	assert_string_equal(text, expected);
}

static void another_device_makes_the_last_one_an_earlier_one(void **state)
{
	_cleanup_record_ struct record *record = record_new("pv-1");

	assert_devs(record, "0");
	record_set_dev(record, 10);
	assert_devs(record, "10");
	record_set_dev(record, 10);
	assert_devs(record, "10");
	record_set_dev(record, 11);
	assert_devs(record, "11 10");
	record_set_dev(record, 0);
	assert_devs(record, "0 11 10");
	record_set_dev(record, 0);
	assert_devs(record, "0 11 10");
	record_set_dev(record, 12);
	assert_devs(record, "12 11 10");
}

/* The kernel uses a number again when nothing has it any more. */
static void a_number_that_comes_again_is_the_live_one(void **state)
{
	_cleanup_record_ struct record *record = record_new("pv-1");

	for (dev_t dev = 10; dev <= 13; dev++)
		record_set_dev(record, dev);
	assert_devs(record, "13 12 11 10");
	record_set_dev(record, 11);
	assert_devs(record, "11 13 12 10");
	record_set_dev(record, 13);
	assert_devs(record, "13 11 12 10");
	record_set_dev(record, 0);
	record_set_dev(record, 13);
	assert_devs(record, "13 11 12 10");
}

static void of_many_devices_the_latest_are_known(void **state)
{
	_cleanup_record_ struct record *record = record_new("pv-1");

	for (dev_t dev = 10; dev <= 30; dev++)
		record_set_dev(record, dev);
	assert_devs(record, "30 29 28 27 26 25 24 23 22 21 20 19 18 17 16 15 14");
	record_set_dev(record, 20);
	assert_devs(record, "20 30 29 28 27 26 25 24 23 22 21 19 18 17 16 15 14");
}

static void an_earlier_device_is_dropped_and_the_order_stays(void **state)
{
	_cleanup_record_ struct record *record = record_new("pv-1");

	for (dev_t dev = 10; dev <= 13; dev++)
		record_set_dev(record, dev);
	record_drop_old_dev(record, 11);
	assert_devs(record, "13 12 10");
	record_drop_old_dev(record, 11);
	record_drop_old_dev(record, 0);
	record_drop_old_dev(record, 13);
	assert_devs(record, "13 12 10");
	record_drop_old_dev(record, 12);
	record_drop_old_dev(record, 10);
	assert_devs(record, "13");
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

#define DEVS "[\n    43,\n    1073741824\n  ]"

static void decode_devs(const char *devs, const char *expected)
{
	_cleanup_record_ struct record *record = make_record("pv-1"), *decoded = NULL;
	_cleanup_free_ char *text = NULL, *changed = NULL;
	size_t size;
	char *at;

	assert_int_equal(record_encode(record, &text, &size, NULL), 0);
	at = strstr(text, DEVS);
	assert_non_null(at);
	assert_true(asprintf(&changed, "%.*s%s%s", (int)(at - text), text, devs,
			     at + strlen(DEVS)) > 0);
	assert_int_equal(record_decode(changed, strlen(changed), &decoded, NULL), 0);
	assert_devs(decoded, expected);
}

static void earlier_devices_are_read_in_their_order(void **state)
{
	decode_devs("[]", "42");
	decode_devs("[7, 5, 6]", "42 7 5 6");
	decode_devs("[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]",
		    "42 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16");
}

/* Written by a release that knew nothing of them. */
static void members_of_healing_may_be_missing(void **state)
{
	struct error err = ERROR_INIT;

	assert_int_equal(decode_changed("\"oldDevs\"", "\"other\"", &err), 0);
	assert_int_equal(decode_changed("\"healing\"", "\"other\"", &err), 0);
	assert_int_equal(decode_changed("\"lastPauseMs\"", "\"other\"", &err), 0);
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
		{ DEVS, "7" },
		{ DEVS, "null" },
		{ DEVS, "{}" },
		{ DEVS, "[0]" },
		{ DEVS, "[-1]" },
		{ DEVS, "[1, 1.5]" },
		{ DEVS, "[1, \"2\"]" },
		{ DEVS, "[1, [2]]" },
		{ DEVS, "[99999999999999999999]" },
		{ DEVS, "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]" },
		{ "\"healing\": {", "\"healing\": 1, \"x\": {" },
		{ "\"healing\": {", "\"healing\": null, \"x\": {" },
		{ "\"healing\": {", "\"healing\": [], \"x\": {" },
		{ "\"deaths\": 3", "\"deaths\": -3" },
		{ "\"healings\": 2", "\"healings\": \"2\"" },
		{ "\"lastPauseMs\": 40", "\"lastPauseMs\": 0.5" },
		{ "\"staleMounts\": 1", "\"staleMounts\": true" },
		{ "\"staleFiles\": 9223372036854775807", "\"staleFiles\": 9223372036854775808" },
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
		cmocka_unit_test(another_device_makes_the_last_one_an_earlier_one),
		cmocka_unit_test(a_number_that_comes_again_is_the_live_one),
		cmocka_unit_test(of_many_devices_the_latest_are_known),
		cmocka_unit_test(an_earlier_device_is_dropped_and_the_order_stays),
		cmocka_unit_test(earlier_devices_are_read_in_their_order),
		cmocka_unit_test(members_of_healing_may_be_missing),
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
