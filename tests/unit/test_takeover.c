/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <pthread.h>

#include "base/clock.h"
#include "fuse/takeover.h"
#include "tests/unit/volume_fixture.h"
#include "tests/unit/inbox_fixture.h"

#define NOW (1000 * NSEC_PER_SEC)

DEFINE_CLEANUP(struct takeover *, takeover_free);
#define _cleanup_takeover_ _cleanup_(takeover_free_cleanup)

/* What stands for the device: /dev/null takes the probe, so each request is awaited; where it is
 * open for reading only it takes nothing, so none is. */
static struct takeover *take_over(struct volume_fixture *v, bool awaited)
{
	_cleanup_close_ int fd = open("/dev/null", (awaited ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
	struct takeover *t = NULL;

	assert_return_code(fd, errno);
	assert_int_equal(takeover_new(v->ledger, fd, &t), 0);
	return t;
}

/* The last worker had the request in inbox `index` in hand for `age_ns` when it ended; 0: it had
 * not begun. */
static void leave(struct volume_fixture *v, uint32_t index, uint32_t opcode, uint64_t age_ns)
{
	struct ledger_thread *thread = &ledger_header(v->ledger)->threads[index];

	inbox_fill(v, index, opcode);
	atomic_store(&thread->tid, 7);
	atomic_store(&thread->since_ns, age_ns ? NOW - age_ns : 0);
}

static void end(struct volume_fixture *v, enum ledger_end how)
{
	atomic_store(&ledger_header(v->ledger)->end, how);
	atomic_store(&ledger_header(v->ledger)->ended_ns, NOW);
}

static uint32_t deaths(struct volume_fixture *v, uint32_t index)
{
	return atomic_load(&ledger_header(v->ledger)->threads[index].deaths);
}

static enum takeover_verdict judge(struct volume_fixture *v, const struct takeover *t,
				   uint32_t index)
{
	const struct inbox inbox = { .ledger = v->ledger, .index = index };

	return takeover_judge(t, &inbox);
}

static void an_empty_ledger_leaves_nothing(void **state)
{
	struct volume_fixture *v = *state;
	_cleanup_takeover_ struct takeover *t = take_over(v, true);

	for (uint32_t i = 0; i < LEDGER_MAX_INBOXES; i++) {
		assert_false(takeover_has(t, i));
		assert_int_equal(judge(v, t, i), TAKEOVER_NOTHING);
	}
}

static void what_was_answered_is_done(void **state)
{
	struct volume_fixture *v = *state;
	_cleanup_takeover_ struct takeover *t = NULL;

	leave(v, 3, FUSE_MKDIR, 1);
	end(v, LEDGER_END_CRASH);
	t = take_over(v, false);
	assert_int_equal(judge(v, t, 3), TAKEOVER_NOTHING);
	assert_int_equal(deaths(v, 3), 0);
}

static void what_is_awaited_runs_again(void **state)
{
	struct volume_fixture *v = *state;
	_cleanup_takeover_ struct takeover *t = NULL;

	leave(v, 0, FUSE_MKDIR, 0);
	leave(v, LEDGER_MAX_INBOXES - 1, FUSE_LOOKUP, 0);
	t = take_over(v, true);
	assert_int_equal(judge(v, t, 0), TAKEOVER_REPLAY);
	assert_int_equal(judge(v, t, LEDGER_MAX_INBOXES - 1), TAKEOVER_REPLAY);
	assert_true(takeover_has(t, 0));
	assert_false(takeover_has(t, 1));
}

/* The probe is the answer to an interrupt of that request, with no error. */
static void the_probe_ends_no_request(void **state)
{
	struct fuse_out_header out;
	int fds[2];

	assert_return_code(pipe2(fds, O_CLOEXEC), errno);
	assert_true(inbox_is_awaited(fds[1], 42));
	assert_int_equal(read(fds[0], &out, sizeof(out)), sizeof(out));
	assert_int_equal(out.len, sizeof(out));
	assert_int_equal(out.error, 0);
	assert_true(out.unique == (42 | 1));
	close_fd(&fds[1]);
	assert_false(inbox_is_awaited(fds[0], 42));
	close_fd(&fds[0]);
}

static void a_forget_goes_on_whatever_the_kernel_says(void **state)
{
	struct volume_fixture *v = *state;
	_cleanup_takeover_ struct takeover *t = NULL;

	leave(v, 1, FUSE_FORGET, 1);
	leave(v, 2, FUSE_BATCH_FORGET, 1);
	end(v, LEDGER_END_CRASH);
	t = take_over(v, false);
	assert_int_equal(judge(v, t, 1), TAKEOVER_GO_ON);
	assert_int_equal(judge(v, t, 2), TAKEOVER_GO_ON);
	assert_int_equal(deaths(v, 1), 0);
}

static void lengths_that_make_no_sense_are_no_request(void **state)
{
	static const uint32_t lengths[] = { 1, sizeof(struct fuse_in_header) - 1,
					    LEDGER_INBOX_DATA_MAX + 1, UINT32_MAX };
	struct volume_fixture *v = *state;

	leave(v, 3, FUSE_MKDIR, 1);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		_cleanup_takeover_ struct takeover *t = NULL;

		memcpy(inbox_record(v, 3)->data, &lengths[i], sizeof(lengths[i]));
		t = take_over(v, true);
		assert_int_equal(judge(v, t, 3), TAKEOVER_NOTHING);
	}
}

static void a_death_is_blamed_on_what_was_in_hand(void **state)
{
	static const struct {
		enum ledger_end end;
		uint64_t age_ns;
		uint32_t deaths;
	} rules[] = {
		{ LEDGER_END_NONE, NSEC_PER_MSEC, 0 },
		{ LEDGER_END_PLANNED, NSEC_PER_MSEC, 0 },
		{ LEDGER_END_PLANNED, 5 * NSEC_PER_SEC, 0 },
		{ LEDGER_END_CRASH, 0, 0 }, /* it did not come to it */
		{ LEDGER_END_CRASH, NSEC_PER_MSEC, 1 },
		{ LEDGER_END_CRASH, 100 * NSEC_PER_MSEC, 1 },
		{ LEDGER_END_CRASH, 5 * NSEC_PER_SEC, 1 },
		{ LEDGER_END_KILLED, 0, 0 },
		{ LEDGER_END_KILLED, NSEC_PER_MSEC, 1 },
		{ LEDGER_END_KILLED, 100 * NSEC_PER_MSEC, 0 }, /* merely slow */
		{ LEDGER_END_KILLED, 5 * NSEC_PER_SEC, 1 },
		{ (enum ledger_end)99, NSEC_PER_MSEC, 0 },
	};
	struct volume_fixture *v = *state;

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		_cleanup_takeover_ struct takeover *t = NULL;

		atomic_store(&ledger_header(v->ledger)->threads[3].deaths, 0);
		leave(v, 3, FUSE_READ, rules[i].age_ns);
		end(v, rules[i].end);
		t = take_over(v, true);
		assert_int_equal(deaths(v, 3), rules[i].deaths);
		assert_int_equal(judge(v, t, 3), TAKEOVER_REPLAY);
	}
}

static void a_death_is_blamed_on_a_request_once(void **state)
{
	struct volume_fixture *v = *state;

	leave(v, 3, FUSE_READ, NSEC_PER_MSEC);
	end(v, LEDGER_END_CRASH);
	takeover_free(take_over(v, true));
	takeover_free(take_over(v, true)); /* that worker died before it came to it */
	assert_int_equal(deaths(v, 3), 1);
}

static void the_third_death_in_a_row_ends_a_request(void **state)
{
	struct volume_fixture *v = *state;

	end(v, LEDGER_END_CRASH);
	for (uint32_t n = 1; n <= TAKEOVER_DEATHS_MAX; n++) {
		_cleanup_takeover_ struct takeover *t = NULL;

		leave(v, 3, FUSE_READ, NSEC_PER_MSEC);
		leave(v, 4, FUSE_READ, 0);
		t = take_over(v, true);
		assert_int_equal(deaths(v, 3), n);
		assert_int_equal(judge(v, t, 3),
				 n < TAKEOVER_DEATHS_MAX ? TAKEOVER_REPLAY : TAKEOVER_GIVE_UP);
		assert_int_equal(judge(v, t, 4), TAKEOVER_REPLAY);
	}
}

static void a_request_that_was_served_leaves_no_blame(void **state)
{
	struct volume_fixture *v = *state;

	leave(v, 3, FUSE_READ, NSEC_PER_MSEC);
	end(v, LEDGER_END_CRASH);
	takeover_free(take_over(v, true));
	inbox_serve(v, 3);
	inbox_clear(&test_inbox);
	assert_int_equal(deaths(v, 3), 0);
	assert_null(inbox_request(&test_inbox));
}

struct waiting {
	struct takeover *takeover;
	uint32_t index;
	pthread_t thread;
	_Atomic uint32_t *order; /* the next place */
	uint32_t place;
};

static void *wait_turn(void *arg)
{
	struct waiting *w = arg;

	takeover_wait_turn(w->takeover, w->index);
	w->place = atomic_fetch_add(w->order, 1);
	takeover_done(w->takeover);
	return NULL;
}

static void suspects_run_one_after_the_other_the_least_suspect_first(void **state)
{
	static const struct {
		uint32_t index, deaths, place;
	} left[] = { { 5, 2, 3 }, { 7, 1, 2 }, { 3, 1, 1 }, { 9, 0, 0 } };
	struct volume_fixture *v = *state;
	_cleanup_takeover_ struct takeover *t = NULL;
	struct waiting waiting[ARRAY_SIZE(left)];
	_Atomic uint32_t order = 0;

	end(v, LEDGER_END_PLANNED);
	for (size_t i = 0; i < ARRAY_SIZE(left); i++) {
		leave(v, left[i].index, FUSE_READ, 1);
		atomic_store(&ledger_header(v->ledger)->threads[left[i].index].deaths,
			     left[i].deaths);
	}
	t = take_over(v, true);
	for (size_t i = 0; i < ARRAY_SIZE(left); i++) {
		waiting[i] =
			(struct waiting){ .takeover = t, .index = left[i].index, .order = &order };
		assert_int_equal(pthread_create(&waiting[i].thread, NULL, wait_turn, &waiting[i]),
				 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(left); i++) {
		assert_int_equal(pthread_join(waiting[i].thread, NULL), 0);
		assert_int_equal(waiting[i].place, left[i].place);
	}
}

static void what_is_not_suspect_need_not_wait(void **state)
{
	struct volume_fixture *v = *state;
	_cleanup_takeover_ struct takeover *t = NULL;

	leave(v, 3, FUSE_READ, 0);
	leave(v, 9, FUSE_READ, 0);
	end(v, LEDGER_END_CRASH);
	t = take_over(v, true);
	takeover_wait_turn(t, 9);
	takeover_done(t);
	takeover_wait_turn(t, 3);
	takeover_done(t);
}

static void a_suspect_waits_for_others_but_not_for_ever(void **state)
{
	struct volume_fixture *v = *state;
	_cleanup_takeover_ struct takeover *t = NULL;

	leave(v, 3, FUSE_READ, 0);
	leave(v, 9, FUSE_READ, NSEC_PER_MSEC);
	end(v, LEDGER_END_CRASH);
	t = take_over(v, true);
	takeover_wait_turn(t, 9); /* 3 is never done */
	takeover_done(t);
}

static void poison_is_noted_for_the_keeper(void **state)
{
	struct volume_fixture *v = *state;
	struct ledger_header *header = ledger_header(v->ledger);

	inbox_take(v, FUSE_RENAME2);
	takeover_note_poison(&test_inbox);
	takeover_note_poison(&test_inbox);
	assert_int_equal(atomic_load(&header->poisoned), 2);
	assert_int_equal(atomic_load(&header->poison_opcode), FUSE_RENAME2);
	assert_true(atomic_load(&header->poison_nodeid) == 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, volume_setup, inbox_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_empty_ledger_leaves_nothing),
		TEST(what_was_answered_is_done),
		TEST(what_is_awaited_runs_again),
		TEST(the_probe_ends_no_request),
		TEST(a_forget_goes_on_whatever_the_kernel_says),
		TEST(lengths_that_make_no_sense_are_no_request),
		TEST(a_death_is_blamed_on_what_was_in_hand),
		TEST(a_death_is_blamed_on_a_request_once),
		TEST(the_third_death_in_a_row_ends_a_request),
		TEST(a_request_that_was_served_leaves_no_blame),
		TEST(suspects_run_one_after_the_other_the_least_suspect_first),
		TEST(what_is_not_suspect_need_not_wait),
		TEST(a_suspect_waits_for_others_but_not_for_ever),
		TEST(poison_is_noted_for_the_keeper),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
