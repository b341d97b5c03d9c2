/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "fuse/refs.h"
#include "tests/unit/volume_fixture.h"
#include "tests/unit/inbox_fixture.h"

#define ROOT 1

static uint64_t lookups_of(struct volume_fixture *v, uint64_t id)
{
	const struct ledger_node *node = node_record(v->nodes, id);

	return node ? atomic_load(&node->lookups) : 0;
}

static uint64_t make_and_look_up(struct volume_fixture *v, const char *name)
{
	volume_make_file(v, name);
	return volume_look_up(v, ROOT, name);
}

static void references_are_listed_with_their_request(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t a, b;

	inbox_take(v, FUSE_READDIRPLUS);
	a = make_and_look_up(v, "a");
	b = make_and_look_up(v, "b");
	assert_int_equal(refs_count(), 2);
	assert_true(refs_last() == b);
	assert_true(inbox_record(v, 3)->refs[0] == a);
	node_take_back(v->nodes);
	assert_int_equal(refs_count(), 0);
	assert_int_equal(node_count(v->nodes), 1);
}

static void what_was_there_before_the_request_stays(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t id = make_and_look_up(v, "a");

	inbox_take(v, FUSE_LOOKUP);
	assert_true(volume_look_up(v, ROOT, "a") == id);
	assert_int_equal(lookups_of(v, id), 2);
	inbox_take_over(v);
	node_take_back(v->nodes);
	assert_int_equal(lookups_of(v, id), 1);
}

static void a_request_hands_out_so_many_references_and_no_more(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t id = make_and_look_up(v, "a");

	inbox_take(v, FUSE_READDIRPLUS);
	for (int i = 0; i < LEDGER_MAX_REFS; i++)
		assert_int_equal(node_refer(v->nodes, id), 0);
	assert_int_equal(node_refer(v->nodes, id), -ENOBUFS);
	assert_int_equal(lookups_of(v, id), LEDGER_MAX_REFS + 1);
	node_take_back(v->nodes);
	assert_int_equal(lookups_of(v, id), 1);
}

static void without_a_request_only_the_count_changes(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t id = make_and_look_up(v, "a");

	assert_int_equal(refs_count(), 0);
	node_take_back(v->nodes);
	assert_int_equal(lookups_of(v, id), 1);
	node_forget(v->nodes, id, 5);
	assert_int_equal(node_count(v->nodes), 1);
}

/* A change to `id` is written down; of its stores, the first `n` are made. */
static void die_in_change(struct volume_fixture *v, uint64_t id, uint64_t lookups, uint32_t n_refs,
			  uint32_t n_forgotten, int n)
{
	struct ledger_update *update = &ledger_header(v->ledger)->update;
	struct ledger_inbox *record = inbox_record(v, 3);

	*update = (struct ledger_update){ .node = ledger_id_index(id),
					  .inbox = 3,
					  .n_refs = n_refs,
					  .n_forgotten = n_forgotten,
					  .lookups = lookups,
					  .ref = id };
	atomic_store(&update->valid, 1);
	if (n > 0)
		atomic_store(&node_record(v->nodes, id)->lookups, lookups);
	if (n > 1 && n_refs)
		record->refs[n_refs - 1] = id;
	if (n > 2)
		atomic_store(&record->n_refs, n_refs);
	if (n > 3)
		atomic_store(&record->n_forgotten, n_forgotten);
}

static void a_half_done_reference_is_finished(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t id = make_and_look_up(v, "a");

	for (int n = 0; n <= 4; n++) {
		inbox_take(v, FUSE_LOOKUP);
		die_in_change(v, id, 2, 1, 0, n);
		inbox_take_over(v);
		assert_int_equal(lookups_of(v, id), 2);
		assert_int_equal(refs_count(), 1);
		assert_true(refs_last() == id);
		node_take_back(v->nodes);
		assert_int_equal(lookups_of(v, id), 1);
		assert_int_equal(refs_count(), 0);
	}
}

static void a_half_done_return_is_finished(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t id = make_and_look_up(v, "a");

	for (int n = 0; n <= 4; n++) {
		inbox_take(v, FUSE_LOOKUP);
		assert_int_equal(node_refer(v->nodes, id), 0);
		die_in_change(v, id, 1, 0, 0, n);
		inbox_take_over(v);
		assert_int_equal(lookups_of(v, id), 1);
		assert_int_equal(refs_count(), 0);
	}
}

static void a_half_done_forget_is_finished_and_not_repeated(void **state)
{
	struct volume_fixture *v = *state;

	for (int n = 0; n <= 4; n++) {
		uint64_t id = make_and_look_up(v, "a");

		inbox_take(v, FUSE_FORGET);
		die_in_change(v, id, 0, 0, 1, n);
		inbox_take_over(v);
		assert_int_equal(refs_forgotten(), 1);
		assert_int_equal(node_count(v->nodes), 1);
		inbox_clear(&test_inbox);
		inbox_set_current(NULL);
	}
}

static void a_batch_goes_on_behind_what_was_forgotten(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t a = make_and_look_up(v, "a"), b = make_and_look_up(v, "b");

	inbox_take(v, FUSE_BATCH_FORGET);
	node_forget(v->nodes, a, 1);
	inbox_take_over(v);
	assert_int_equal(refs_forgotten(), 1);
	node_forget(v->nodes, b, 1);
	node_forget(v->nodes, b, 1); /* unknown: dealt with all the same */
	assert_int_equal(refs_forgotten(), 3);
	assert_int_equal(node_count(v->nodes), 1);
}

static void a_change_that_makes_no_sense_is_dropped(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t id = make_and_look_up(v, "a");
	struct ledger_update wrong[] = {
		{ .valid = 1, .node = LEDGER_MAX_NODES, .inbox = 3 },
		{ .valid = 1, .node = ledger_id_index(id), .inbox = LEDGER_MAX_INBOXES },
		{ .valid = 1, .node = ledger_id_index(id), .n_refs = LEDGER_MAX_REFS + 1 },
		{ .valid = 2, .node = ledger_id_index(id), .inbox = 3 },
		{ .valid = 0, .node = ledger_id_index(id), .inbox = 3 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		ledger_header(v->ledger)->update = wrong[i];
		volume_take_over(v);
		assert_int_equal(lookups_of(v, id), 1);
		assert_int_equal(atomic_load(&ledger_header(v->ledger)->update.valid), 0);
	}
}

static void references_to_nodes_that_are_gone_are_taken_back_without_harm(void **state)
{
	struct volume_fixture *v = *state;
	struct ledger_inbox *record;

	inbox_take(v, FUSE_READDIRPLUS);
	record = inbox_record(v, 3);
	record->refs[0] = ledger_id(LEDGER_MAX_NODES + 7, 1);
	record->refs[1] = ROOT;
	record->refs[2] = ledger_id(ROOT, 9);
	atomic_store(&record->n_refs, 3);
	node_take_back(v->nodes);
	assert_int_equal(refs_count(), 0);
	atomic_store(&record->n_refs, UINT32_MAX); /* never more than there is room for */
	assert_int_equal(refs_count(), LEDGER_MAX_REFS);
	assert_non_null(node_record(v->nodes, ROOT));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, volume_setup, inbox_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(references_are_listed_with_their_request),
		TEST(what_was_there_before_the_request_stays),
		TEST(a_request_hands_out_so_many_references_and_no_more),
		TEST(without_a_request_only_the_count_changes),
		TEST(a_half_done_reference_is_finished),
		TEST(a_half_done_return_is_finished),
		TEST(a_half_done_forget_is_finished_and_not_repeated),
		TEST(a_batch_goes_on_behind_what_was_forgotten),
		TEST(a_change_that_makes_no_sense_is_dropped),
		TEST(references_to_nodes_that_are_gone_are_taken_back_without_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
