/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "csi/reconcile.h"

#define DEV 77

/* One record, its volume at the keeper, and its mounts; each may be taken away. */
struct fixture {
	struct record *record;
	struct volume_status volume;
	struct reconcile_mount mounts[3];
	struct reconcile_input input;
	struct reconcile_step *steps;
	size_t n_steps;
};

static char staging[] = "/k/staging", target[] = "/k/target", elsewhere[] = "/k/elsewhere";

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->record = record_new("pv-1");
	assert_non_null(f->record);
	f->record->state = RECORD_STAGED;
	f->record->dev = DEV;
	f->record->staging_path = strdup(staging);
	assert_non_null(record_add_target(f->record, target, "x"));
	f->record->targets[0].published = true;
	(void)snprintf(f->volume.config.id, sizeof(f->volume.config.id), "pv-1");
	f->volume.dev = DEV;
	f->volume.state = VOLUME_SERVING;
	f->mounts[0] = (struct reconcile_mount){ DEV, staging };
	f->mounts[1] = (struct reconcile_mount){ DEV, target };
	f->mounts[2] = (struct reconcile_mount){ 1, elsewhere };
	f->input = (struct reconcile_input){
		.records = &f->record,
		.n_records = 1,
		.volumes = &f->volume,
		.n_volumes = 1,
		.mounts = f->mounts,
		.n_mounts = 3,
	};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	record_free(f->record);
	free(f->steps);
	free(f);
	return 0;
}

static void plan(struct fixture *f)
{
	struct error err = ERROR_INIT;

	assert_int_equal(reconcile_plan(&f->input, &f->steps, &f->n_steps, &err), 0);
}

static void expect(struct fixture *f, enum reconcile_kind kind, const char *path)
{
	plan(f);
	assert_int_equal(f->n_steps, 1);
	assert_int_equal(f->steps[0].kind, kind);
	assert_string_equal(f->steps[0].id, "pv-1");
	if (path)
		assert_string_equal(f->steps[0].path, path);
	else
		assert_null(f->steps[0].path);
	assert_non_null(f->steps[0].why);
}

static void nothing_is_done_where_all_is_well(void **state)
{
	struct fixture *f = *state;

	plan(f);
	assert_int_equal(f->n_steps, 0);
}

static void a_stage_that_did_not_end_is_undone(void **state)
{
	struct fixture *f = *state;

	f->record->state = RECORD_STAGING;
	expect(f, RECONCILE_END_VOLUME, NULL);
}

static void an_unstage_is_brought_to_its_end(void **state)
{
	struct fixture *f = *state;

	f->record->state = RECORD_UNSTAGING;
	expect(f, RECONCILE_END_VOLUME, NULL);
}

static void a_publish_that_did_not_end_is_undone(void **state)
{
	struct fixture *f = *state;

	f->record->targets[0].published = false;
	expect(f, RECONCILE_DROP_TARGET, target);
}

static void an_inline_volume_without_a_target_is_ended(void **state)
{
	struct fixture *f = *state;

	f->record->ephemeral = true;
	free(TAKE_PTR(f->record->staging_path));
	f->record->targets[0].published = false;
	expect(f, RECONCILE_END_VOLUME, NULL);
}

static void an_inline_volume_in_use_is_left_alone(void **state)
{
	struct fixture *f = *state;

	f->record->ephemeral = true;
	free(TAKE_PTR(f->record->staging_path));
	plan(f);
	assert_int_equal(f->n_steps, 0);
}

static void a_lost_mount_is_told(void **state)
{
	struct fixture *f = *state;

	f->mounts[1].dev = 1; /* something else is mounted there */
	expect(f, RECONCILE_KEEP, target);
}

static void a_lost_staging_mount_is_told(void **state)
{
	struct fixture *f = *state;

	f->mounts[0].target = elsewhere;
	expect(f, RECONCILE_KEEP, staging);
}

static void a_dead_connection_is_told(void **state)
{
	struct fixture *f = *state;

	f->volume.state = VOLUME_DEAD;
	expect(f, RECONCILE_KEEP, NULL);
	free(TAKE_PTR(f->steps));
	f->input.n_volumes = 0;
	expect(f, RECONCILE_KEEP, NULL);
}

static void a_volume_of_nobody_is_ended(void **state)
{
	struct fixture *f = *state;

	f->input.n_records = 0;
	f->input.n_mounts = 0;
	expect(f, RECONCILE_END_STRAY, NULL);
}

static void a_volume_of_nobody_that_is_mounted_is_left_alone(void **state)
{
	struct fixture *f = *state;

	f->input.n_records = 0;
	expect(f, RECONCILE_KEEP, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(nothing_is_done_where_all_is_well),
		TEST(a_stage_that_did_not_end_is_undone),
		TEST(an_unstage_is_brought_to_its_end),
		TEST(a_publish_that_did_not_end_is_undone),
		TEST(an_inline_volume_without_a_target_is_ended),
		TEST(an_inline_volume_in_use_is_left_alone),
		TEST(a_lost_mount_is_told),
		TEST(a_lost_staging_mount_is_told),
		TEST(a_dead_connection_is_told),
		TEST(a_volume_of_nobody_is_ended),
		TEST(a_volume_of_nobody_that_is_mounted_is_left_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
