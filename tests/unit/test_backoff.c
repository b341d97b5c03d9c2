/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "recovery/keeper.h"
#include "recovery/supervisor/backoff.h"

static void the_first_restart_is_at_once(void **state)
{
	struct backoff b = { 0 };

	assert_true(backoff_next(&b, 5 * NSEC_PER_SEC) == 0);
}

static void a_crash_loop_slows_down_to_one_a_second(void **state)
{
	struct backoff b = { 0 };
	uint64_t last = 0, total = 0;

	for (int i = 0; i < 100; i++) {
		uint64_t delay = backoff_next(&b, 0);

		assert_true(delay >= last && delay <= NSEC_PER_SEC);
		assert_true(i < 2 || delay == MIN_OF(last * 2, NSEC_PER_SEC));
		last = delay;
		total += delay;
	}
	assert_true(last == NSEC_PER_SEC);
	assert_true(total > 80 * NSEC_PER_SEC);
}

static void a_worker_that_served_for_a_while_is_replaced_at_once(void **state)
{
	struct backoff b = { 0 };

	for (int i = 0; i < 20; i++)
		(void)backoff_next(&b, 0);
	assert_true(backoff_next(&b, BACKOFF_HEALTHY_NS - 1) > 0);
	assert_true(backoff_next(&b, BACKOFF_HEALTHY_NS) == 0);
	assert_true(backoff_next(&b, 0) == BACKOFF_FIRST_NS);
}

static void the_limits_leave_room_for_every_volumes_next_worker(void **state)
{
	for (uint64_t nofile = 0; nofile < 100000; nofile += 17) {
		struct keeper_limits limits = keeper_limits_for(nofile);

		assert_true(limits.clients >= 1 && limits.clients <= 256);
		assert_true(limits.volumes == 0 || limits.volumes * 8 + limits.clients < nofile);
	}
	assert_true(keeper_limits_for(UINT64_MAX).volumes > 1000000);
	assert_true(keeper_limits_for(1024).volumes >= 64);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_restart_is_at_once),
		cmocka_unit_test(a_crash_loop_slows_down_to_one_a_second),
		cmocka_unit_test(a_worker_that_served_for_a_while_is_replaced_at_once),
		cmocka_unit_test(the_limits_leave_room_for_every_volumes_next_worker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
