/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include <errno.h>
#include <string.h>

#include "recovery/handover.h"

/* Offsets in the state's header, which never changes its layout. */
#define VERSION_AT 8
#define LEDGER_VERSION_AT 12
#define N_VOLUMES_AT 16
#define N_CLIENTS_AT 20
#define N_CHILDREN_AT 24
#define HEADER_SIZE 40

struct state {
	unsigned char *data;
	size_t size;
};

/* Two volumes, a client, two children; the numbers are no descriptors. */
static struct state make_state(void)
{
	const int one[] = { 1001, 1002, 1003, 1004 }, two[] = { 1005, 1006, 1007, 1008 };
	struct handover h = HANDOVER_NONE;
	struct error err = ERROR_INIT;
	struct state state;

	h.lock_fd = 900;
	h.listen_fd = 901;
	h.oom_score_adj = -17;
	assert_int_equal(handover_add(&h, "pv-1", one, &err), 0);
	assert_int_equal(handover_add(&h, "pv-2", two, &err), 0);
	assert_int_equal(handover_add_client(&h, 950, &err), 0);
	assert_int_equal(handover_add_child(&h, 77, 951, &err), 0);
	assert_int_equal(handover_add_child(&h, 78, 952, &err), 0);
	assert_int_equal(handover_encode(&h, (void **)&state.data, &state.size, &err), 0);
	handover_forget(&h);
	return state;
}

/* What is refused leaves the result as it was, and says why. */
static int refused(const struct state *state, size_t size)
{
	struct handover h = HANDOVER_NONE;
	struct error err = ERROR_INIT;
	int r = handover_decode(state->data, size, &h, &err);

	assert_true(r < 0);
	assert_int_equal(r, err.code);
	assert_true(err.text[0] != '\0');
	assert_int_equal(h.lock_fd, -EBADF);
	assert_null(h.volumes);
	return r;
}

static void what_was_told_arrives(void **unused)
{
	struct state state = make_state();
	struct handover h = HANDOVER_NONE;

	assert_int_equal(handover_decode(state.data, state.size, &h, NULL), 0);
	assert_int_equal(h.lock_fd, 900);
	assert_int_equal(h.listen_fd, 901);
	assert_int_equal(h.conn_fd, -EBADF);
	assert_int_equal(h.oom_score_adj, -17);
	assert_int_equal(h.n_volumes, 2);
	assert_string_equal(h.volumes[1].id, "pv-2");
	assert_int_equal(h.volumes[1].fds[ESCROW_MOUNT], 1005);
	assert_int_equal(h.volumes[1].fds[ESCROW_SOURCE], 1008);
	assert_int_equal(h.n_clients, 1);
	assert_int_equal(h.clients[0], 950);
	assert_int_equal(h.n_children, 2);
	assert_int_equal(h.children[1].pid, 78);
	assert_int_equal(h.children[1].pidfd, 952);
	handover_forget(&h);
	free(state.data);
}

static void nothing_at_all_is_a_state_too(void **unused)
{
	struct handover h = HANDOVER_NONE;
	struct state state;

	assert_int_equal(handover_encode(&h, (void **)&state.data, &state.size, NULL), 0);
	assert_int_equal(state.size, HEADER_SIZE);
	assert_int_equal(handover_decode(state.data, state.size, &h, NULL), 0);
	assert_int_equal(h.n_volumes, 0);
	handover_forget(&h);
	free(state.data);
}

static void every_other_size_is_refused(void **unused)
{
	struct state state = make_state();

	for (size_t size = 0; size < state.size; size++)
		assert_int_equal(refused(&state, size), -EBADMSG);
	state.data = realloc(state.data, state.size + 1);
	assert_non_null(state.data);
	assert_int_equal(refused(&state, state.size + 1), -EBADMSG);
	free(state.data);
}

static void set(struct state *state, size_t at, uint32_t value)
{
	memcpy(state->data + at, &value, sizeof(value));
}

static void other_builds_are_told_from_garbage(void **unused)
{
	static const size_t versions[] = { VERSION_AT, LEDGER_VERSION_AT };

	for (size_t i = 0; i < ARRAY_SIZE(versions); i++)
		for (uint32_t version = 0; version < 200; version += 99) {
			struct state state = make_state();

			set(&state, versions[i], version);
			assert_int_equal(refused(&state, state.size), -EPROTONOSUPPORT);
			free(state.data);
		}
}

static void a_foreign_magic_is_garbage(void **unused)
{
	struct state state = make_state();

	set(&state, 0, 1);
	assert_int_equal(refused(&state, state.size), -EBADMSG);
	free(state.data);
}

static void counts_have_to_fit(void **unused)
{
	static const size_t counts[] = { N_VOLUMES_AT, N_CLIENTS_AT, N_CHILDREN_AT };
	static const uint32_t wrong[] = { 0, 9, UINT32_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
		for (size_t j = 0; j < ARRAY_SIZE(wrong); j++) {
			struct state state = make_state();

			set(&state, counts[i], wrong[j]);
			assert_int_equal(refused(&state, state.size), -EBADMSG);
			free(state.data);
		}
}

static void ids_are_terminated_and_not_empty(void **unused)
{
	struct state state = make_state();

	memset(state.data + HEADER_SIZE, 'x', VOLUME_ID_MAX + 8);
	assert_int_equal(refused(&state, state.size), -EBADMSG);
	memset(state.data + HEADER_SIZE, 0, VOLUME_ID_MAX + 8);
	assert_int_equal(refused(&state, state.size), -EBADMSG);
	free(state.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_told_arrives),
		cmocka_unit_test(nothing_at_all_is_a_state_too),
		cmocka_unit_test(every_other_size_is_refused),
		cmocka_unit_test(other_builds_are_told_from_garbage),
		cmocka_unit_test(a_foreign_magic_is_garbage),
		cmocka_unit_test(counts_have_to_fit),
		cmocka_unit_test(ids_are_terminated_and_not_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
