/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <jansson.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include "recovery/ctl_status.h"

static struct volume_status make_status(const char *id, enum volume_state state)
{
	struct volume_status s = {
		.config = { .mode = VOLUME_MODE_AUTO, .flags = VOLUME_READ_ONLY },
		.connection = { .mode = VOLUME_MODE_UPCALL_FREE },
		.dev = makedev(0, 57),
		.waiting = 2,
		.restarts = 3,
		.oom_kills = 1,
		.worker_pid = state == VOLUME_SERVING ? 123 : 0,
		.state = state,
	};

	(void)snprintf(s.config.id, sizeof(s.config.id), "%s", id);
	return s;
}

static struct record *make_record(const char *id)
{
	struct record *record = record_new(id);

	assert_non_null(record);
	record->source = strdup("/data");
	assert_non_null(record_add_target(record, "/pods/a", ""));
	assert_non_null(record_add_target(record, "/pods/b", ""));
	return record;
}

struct world {
	struct record *records[2];
	struct volume_status statuses[2];
	struct ctl_volume *volumes;
	size_t n;
};

/* "both" is known to the two, "kept" to the keeper, "noted" to the plugin. */
static int make_world(void **state)
{
	static struct world w;

	w.records[0] = make_record("noted");
	w.records[1] = make_record("both");
	w.statuses[0] = make_status("kept", VOLUME_RESTARTING);
	w.statuses[1] = make_status("both", VOLUME_SERVING);
	*state = &w;
	return ctl_merge(w.records, 2, w.statuses, 2, &w.volumes, &w.n, NULL);
}

static int free_world(void **state)
{
	struct world *w = *state;

	record_free(w->records[0]);
	record_free(w->records[1]);
	free(w->volumes);
	return 0;
}

static void volumes_are_matched_by_id_and_sorted(void **state)
{
	const struct world *w = *state;

	assert_int_equal(w->n, 3);
	assert_string_equal(w->volumes[0].id, "both");
	assert_ptr_equal(w->volumes[0].record, w->records[1]);
	assert_ptr_equal(w->volumes[0].status, &w->statuses[1]);
	assert_string_equal(w->volumes[1].id, "kept");
	assert_null(w->volumes[1].record);
	assert_string_equal(w->volumes[2].id, "noted");
	assert_null(w->volumes[2].status);
}

static void nothing_is_a_list_too(void **state)
{
	struct ctl_volume *volumes = NULL;
	size_t n = 7;

	assert_int_equal(ctl_merge(NULL, 0, NULL, 0, &volumes, &n, NULL), 0);
	assert_int_equal(n, 0);
	free(volumes);
}

/* What is printed, as owned text. */
static char *print(const struct world *w, bool json)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	if (json)
		assert_int_equal(ctl_print_json(out, w->volumes, w->n, NULL), 0);
	else
		ctl_print_table(out, w->volumes, w->n);
	(void)fclose(out);
	return text;
}

static void json_has_the_promised_keys(void **state)
{
	static const char *const keys[] = { "id",	 "source",   "state",	   "readOnly",
					    "workerPid", "restarts", "targets",	   "connection",
					    "waiting",	 "oomKills", "memoryLimit" };
	_cleanup_free_ char *text = print(*state, true);
	json_t *top = json_loads(text, 0, NULL), *list = json_object_get(top, "volumes"), *both;

	assert_int_equal(json_array_size(list), 3);
	for (size_t i = 0; i < 3; i++)
		for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
			assert_non_null(json_object_get(json_array_get(list, i), keys[k]));
	both = json_array_get(list, 0);
	assert_string_equal(json_string_value(json_object_get(both, "source")), "/data");
	assert_string_equal(json_string_value(json_object_get(both, "state")), "serving");
	assert_true(json_is_true(json_object_get(both, "readOnly")));
	assert_int_equal(json_integer_value(json_object_get(both, "workerPid")), 123);
	assert_int_equal(json_integer_value(json_object_get(both, "restarts")), 3);
	assert_int_equal(json_integer_value(json_object_get(both, "oomKills")), 1);
	assert_true(json_is_null(json_object_get(both, "memoryLimit")));
	assert_int_equal(json_integer_value(json_object_get(both, "connection")), 57);
	assert_int_equal(json_integer_value(json_object_get(both, "waiting")), 2);
	assert_int_equal(json_array_size(json_object_get(both, "targets")), 2);
	json_decref(top);
}

static void what_one_side_does_not_know_is_null(void **state)
{
	_cleanup_free_ char *text = print(*state, true);
	json_t *top = json_loads(text, 0, NULL), *list = json_object_get(top, "volumes");
	json_t *kept = json_array_get(list, 1), *noted = json_array_get(list, 2);

	assert_true(json_is_null(json_object_get(kept, "source")));
	assert_true(json_is_null(json_object_get(kept, "workerPid")));
	assert_true(json_is_null(json_object_get(noted, "workerPid")));
	assert_string_equal(json_string_value(json_object_get(noted, "state")), "not served");
	json_decref(top);
}

static void the_table_says_what_is_amiss(void **state)
{
	_cleanup_free_ char *text = print(*state, false);

	assert_non_null(strstr(text, "/pods/b"));
	assert_non_null(strstr(text, "noted: the plugin has a record of it; the keeper does not"));
	assert_non_null(strstr(text, "kept: the keeper serves it; the plugin has no record"));
}

static void control_characters_do_not_reach_the_terminal(void **state)
{
	struct world w = { .statuses = { make_status("a\033[2Jb", VOLUME_SERVING) } };
	_cleanup_free_ char *text = NULL;

	(void)snprintf(w.statuses[0].reason, sizeof(w.statuses[0].reason), "x\033y");
	assert_int_equal(ctl_merge(NULL, 0, w.statuses, 1, &w.volumes, &w.n, NULL), 0);
	text = print(&w, false);
	assert_null(strchr(text, '\033'));
	free(w.volumes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(volumes_are_matched_by_id_and_sorted, make_world,
						free_world),
		cmocka_unit_test(nothing_is_a_list_too),
		cmocka_unit_test_setup_teardown(json_has_the_promised_keys, make_world, free_world),
		cmocka_unit_test_setup_teardown(what_one_side_does_not_know_is_null, make_world,
						free_world),
		cmocka_unit_test_setup_teardown(the_table_says_what_is_amiss, make_world,
						free_world),
		cmocka_unit_test(control_characters_do_not_reach_the_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
