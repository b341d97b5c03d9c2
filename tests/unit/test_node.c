/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "tests/unit/volume_fixture.h"

#define ROOT 1

/* A file that is nowhere: what a lookup would have found. */
static struct source_identity identity_of(uint64_t ino, unsigned char generation)
{
	return (struct source_identity){
		.st.st_ino = ino, .handle = { .type = 1, .size = 1, .bytes = { generation } }
	};
}

static uint64_t remember(struct volume_fixture *v, uint64_t ino, unsigned char generation)
{
	struct source_identity identity = identity_of(ino, generation);
	uint64_t id;

	assert_int_equal(node_remember(v->nodes, &identity, ROOT, "x", -1, &id), 0);
	return id;
}

static uint64_t find(struct volume_fixture *v, uint64_t ino, unsigned char generation)
{
	struct source_identity identity = identity_of(ino, generation);

	return node_find(v->nodes, &identity);
}

static void a_file_has_one_id_whatever_its_name(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t a, b;

	volume_make_file(v, "a");
	assert_return_code(linkat(v->dir_fd, "a", v->dir_fd, "b", 0), errno);
	a = volume_look_up(v, ROOT, "a");
	b = volume_look_up(v, ROOT, "b");
	assert_true(a == b);
	assert_true(a != ROOT);
	assert_int_equal(node_count(v->nodes), 2);
}

static void the_source_directory_is_node_one(void **state)
{
	struct volume_fixture *v = *state;

	assert_true(volume_look_up(v, ROOT, ".") == ROOT);
	node_forget(v->nodes, ROOT, 1000);
	assert_non_null(node_record(v->nodes, ROOT));
}

static void a_node_lives_until_its_last_reference_is_forgotten(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t id = remember(v, 7, 0);

	assert_true(remember(v, 7, 0) == id);
	node_forget(v->nodes, id, 1);
	assert_non_null(node_record(v->nodes, id));
	node_forget(v->nodes, id, 1);
	assert_null(node_record(v->nodes, id));
	assert_true(find(v, 7, 0) == 0);
}

static void an_id_is_never_used_twice(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t before = remember(v, 7, 0), after;

	node_forget(v->nodes, before, 1);
	after = remember(v, 7, 0);
	assert_true(before != after);
	assert_true(ledger_id_index(before) == ledger_id_index(after));
	assert_null(node_record(v->nodes, before));
}

static void an_inode_number_that_is_used_again_is_another_node(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t old = remember(v, 7, 0), new = remember(v, 7, 1);

	assert_true(old != new);
	assert_true(find(v, 7, 0) == old);
	assert_true(find(v, 7, 1) == new);
}

static void an_open_node_outlives_its_references(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t id = remember(v, 7, 0);

	node_opened(v->nodes, id);
	node_forget(v->nodes, id, 1);
	assert_non_null(node_record(v->nodes, id));
	node_closed(v->nodes, id);
	assert_null(node_record(v->nodes, id));
}

static void ids_that_were_never_given_out_are_stale(void **state)
{
	struct volume_fixture *v = *state;
	static const uint64_t bad[] = { 0,	    2,		1ULL << 32 | 1,	 UINT64_MAX,
					UINT32_MAX, 1ULL << 32, LEDGER_MAX_NODES };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct node_ref ref = NODE_REF_INIT;

		assert_int_equal(node_get(v->nodes, bad[i], false, &ref), -ESTALE);
		node_forget(v->nodes, bad[i], 1);
	}
}

static void the_next_worker_knows_every_node(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t ids[3000];

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		ids[i] = remember(v, i * 8 + 100, (unsigned char)i);
	for (size_t i = 0; i < ARRAY_SIZE(ids); i += 3)
		node_forget(v->nodes, ids[i], 1);
	volume_take_over(v);
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		assert_true(find(v, i * 8 + 100, (unsigned char)i) == (i % 3 ? ids[i] : 0));
	assert_int_equal(node_count(v->nodes), 2001);
	/* what was free is used again before the table grows */
	for (size_t i = 0; i < 1000; i++)
		(void)remember(v, i + 1000000, 0);
	assert_int_equal(atomic_load(&ledger_header(v->ledger)->nodes_used), ARRAY_SIZE(ids) + 1);
}

static void the_next_worker_opens_what_the_last_one_knew(void **state)
{
	struct volume_fixture *v = *state;
	_cleanup_node_ref_ struct node_ref ref = NODE_REF_INIT;
	char text[8] = "";
	uint64_t dir, file;

	assert_return_code(mkdirat(v->dir_fd, "d", 0755), errno);
	volume_make_file(v, "d/file");
	dir = volume_look_up(v, ROOT, "d");
	file = volume_look_up(v, dir, "file");
	volume_take_over(v);
	assert_int_equal(node_get(v->nodes, file, true, &ref), 0);
	assert_int_equal(pread(ref.fd, text, sizeof(text), 0), 6);
	assert_string_equal(text, "d/file");
}

static void a_file_that_is_gone_is_stale(void **state)
{
	struct volume_fixture *v = *state;
	struct node_ref ref = NODE_REF_INIT;
	uint64_t id;

	volume_make_file(v, "f");
	id = volume_look_up(v, ROOT, "f");
	assert_return_code(unlinkat(v->dir_fd, "f", 0), errno);
	volume_take_over(v);
	assert_int_equal(node_get(v->nodes, id, false, &ref), -ESTALE);
}

/* As on a source without file handles. */
static uint64_t remember_by_name(struct volume_fixture *v, uint64_t parent, int dir_fd,
				 const char *name, struct source_identity *ret)
{
	uint64_t id;
	int fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	assert_return_code(fd, errno);
	assert_int_equal(source_identify(v->source, fd, parent, name, ret), 0);
	ret->handle.size = 0;
	assert_int_equal(node_remember(v->nodes, ret, parent, name, fd, &id), 0);
	return id;
}

static void without_file_handles_a_node_is_found_by_its_name(void **state)
{
	struct volume_fixture *v = *state;
	struct source_identity dir, file;
	struct node_ref ref = NODE_REF_INIT;
	uint64_t dir_id, file_id;

	assert_return_code(mkdirat(v->dir_fd, "d", 0755), errno);
	volume_make_file(v, "f");
	assert_return_code(renameat(v->dir_fd, "f", v->dir_fd, "d/f"), errno);
	dir_id = remember_by_name(v, ROOT, v->dir_fd, "d", &dir);
	file_id = remember_by_name(v, dir_id, v->dir_fd, "d/f", &file);
	node_named(v->nodes, &file, dir_id, "f");
	/* both move, as far as the worker was told */
	assert_return_code(renameat(v->dir_fd, "d/f", v->dir_fd, "d/g"), errno);
	node_named(v->nodes, &file, dir_id, "g");
	assert_return_code(renameat(v->dir_fd, "d", v->dir_fd, "e"), errno);
	node_named(v->nodes, &dir, ROOT, "e");
	volume_take_over(v);
	assert_int_equal(node_get(v->nodes, file_id, false, &ref), 0);
	assert_true(source_is(v->source, ref.fd, file.dev, file.st.st_ino));
	node_put(&ref);
	/* and once behind its back */
	assert_return_code(renameat(v->dir_fd, "e", v->dir_fd, "d"), errno);
	volume_take_over(v);
	assert_int_equal(node_get(v->nodes, file_id, false, &ref), -ESTALE);
}

static void without_file_handles_another_file_of_the_name_is_stale(void **state)
{
	struct volume_fixture *v = *state;
	struct source_identity file;
	struct node_ref ref = NODE_REF_INIT;
	uint64_t id;

	volume_make_file(v, "f");
	volume_make_file(v, "g");
	id = remember_by_name(v, ROOT, v->dir_fd, "f", &file);
	assert_return_code(renameat(v->dir_fd, "g", v->dir_fd, "f"), errno);
	volume_take_over(v);
	assert_int_equal(node_get(v->nodes, id, false, &ref), -ESTALE);
}

static void without_file_handles_a_removed_file_stays_reachable(void **state)
{
	struct volume_fixture *v = *state;
	struct source_identity file;
	struct node_ref ref = NODE_REF_INIT;
	uint64_t id;

	volume_make_file(v, "f");
	id = remember_by_name(v, ROOT, v->dir_fd, "f", &file);
	assert_return_code(unlinkat(v->dir_fd, "f", 0), errno);
	node_unnamed(v->nodes, &file, ROOT, "f", -1);
	node_fds_trim(v->nodes, 0, true);
	assert_int_equal(node_get(v->nodes, id, false, &ref), 0);
	node_put(&ref);
}

static void nodes_do_not_hold_descriptors(void **state)
{
	struct volume_fixture *v = *state;
	struct node_ref ref = NODE_REF_INIT;
	int before, after;

	before = dup(v->dir_fd);
	for (int i = 0; i < 500; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "f%d", i);
		volume_make_file(v, name);
		(void)volume_look_up(v, ROOT, name);
	}
	node_fds_trim(v->nodes, 0, false);
	if (!source_has_handles(v->source)) /* needs CAP_DAC_READ_SEARCH */
		node_fds_trim(v->nodes, 0, true);
	after = dup(v->dir_fd);
	assert_true(after <= before + 300);
	(void)close(before);
	(void)close(after);
	assert_int_equal(node_get(v->nodes, volume_look_up(v, ROOT, "f3"), false, &ref), 0);
	node_put(&ref);
}

static void other_file_systems_below_are_told_apart(void **state)
{
	assert_true(source_shown_ino(0, 5) == 5);
	assert_true(source_shown_ino(1, 5) != source_shown_ino(2, 5));
	assert_true(source_shown_ino(1, 5) != 5);
}

/* A worker that died at the worst moment: a live node that nobody refers to. */
static void half_made_nodes_are_swept(void **state)
{
	struct volume_fixture *v = *state;
	uint64_t id = remember(v, 7, 0);

	atomic_store(&ledger_nodes(v->ledger)[ledger_id_index(id)].lookups, 0);
	volume_take_over(v);
	assert_null(node_record(v->nodes, id));
	assert_int_equal(node_count(v->nodes), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, volume_setup, volume_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_file_has_one_id_whatever_its_name),
		TEST(the_source_directory_is_node_one),
		TEST(a_node_lives_until_its_last_reference_is_forgotten),
		TEST(an_id_is_never_used_twice),
		TEST(an_inode_number_that_is_used_again_is_another_node),
		TEST(an_open_node_outlives_its_references),
		TEST(ids_that_were_never_given_out_are_stale),
		TEST(the_next_worker_knows_every_node),
		TEST(the_next_worker_opens_what_the_last_one_knew),
		TEST(a_file_that_is_gone_is_stale),
		TEST(without_file_handles_a_node_is_found_by_its_name),
		TEST(without_file_handles_another_file_of_the_name_is_stale),
		TEST(without_file_handles_a_removed_file_stays_reachable),
		TEST(nodes_do_not_hold_descriptors),
		TEST(half_made_nodes_are_swept),
		cmocka_unit_test(other_file_systems_below_are_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
