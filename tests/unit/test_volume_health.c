/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <pthread.h>
#include <stdio.h>

#include "csi/volume_health.h"
#include "csi/volume_lock.h"

struct queue {
	struct volume_locks *locks;
	struct volume_lock *lines[4];
};

static int queue_up(void **state)
{
	struct queue *q = test_calloc(1, sizeof(*q));
	struct error err = ERROR_INIT;

	q->locks = volume_locks_new();
	assert_non_null(q->locks);
	for (size_t i = 0; i < ARRAY_SIZE(q->lines); i++)
		assert_int_equal(
			volume_lock_queue(q->locks, i == 3 ? "pv-2" : "pv-1", &q->lines[i], &err),
			0);
	*state = q;
	return 0;
}

static int dissolve(void **state)
{
	struct queue *q = *state;

	for (size_t i = 0; i < ARRAY_SIZE(q->lines); i++)
		volume_lock_release(q->lines[i]);
	volume_locks_free(q->locks);
	test_free(q);
	return 0;
}

static void one_call_at_a_time(void **state)
{
	struct queue *q = *state;

	assert_true(volume_lock_wait(q->lines[0], 0));
	assert_false(volume_lock_wait(q->lines[1], 0));
	assert_false(volume_lock_wait(q->lines[2], 5));
	assert_true(volume_lock_wait(q->lines[3], 0));
	volume_lock_release(TAKE_PTR(q->lines[0]));
	assert_false(volume_lock_wait(q->lines[2], 0));
	assert_true(volume_lock_wait(q->lines[1], 0));
}

static void who_leaves_the_queue_holds_nobody_up(void **state)
{
	struct queue *q = *state;

	volume_lock_release(TAKE_PTR(q->lines[1]));
	assert_false(volume_lock_wait(q->lines[2], 0));
	volume_lock_release(TAKE_PTR(q->lines[0]));
	assert_true(volume_lock_wait(q->lines[2], 0));
}

static void *wait_long(void *lock)
{
	return volume_lock_wait(lock, 10000) ? lock : NULL;
}

static void who_waits_is_woken(void **state)
{
	struct queue *q = *state;
	void *had_it = NULL;
	pthread_t thread;

	volume_lock_release(TAKE_PTR(q->lines[1]));
	assert_int_equal(pthread_create(&thread, NULL, wait_long, q->lines[2]), 0);
	assert_false(volume_lock_wait(q->lines[2], 20)); /* it is in its wait, mostly */
	volume_lock_release(TAKE_PTR(q->lines[0]));
	assert_int_equal(pthread_join(thread, &had_it), 0);
	assert_ptr_equal(had_it, q->lines[2]);
}

static struct volume_facts healthy(void)
{
	return (struct volume_facts){
		.path = "/k/target",
		.mounted = true,
		.keeper_answers = true,
		.answers = true,
		.status = { .state = VOLUME_SERVING },
	};
}

static void expect(const struct volume_facts *facts, enum volume_health_state state,
		   const char *word)
{
	struct volume_health health;

	volume_health_judge(facts, &health);
	assert_int_equal(health.state, state);
	if (!strstr(health.message, word))
		fail_msg("'%s' does not hold '%s'", health.message, word);
}

static void health_names_the_worst(void **state)
{
	struct volume_facts f = healthy();

	expect(&f, VOLUME_HEALTH_GOOD, "serving");
	f.status.restarts = 3;
	(void)snprintf(f.status.reason, sizeof(f.status.reason), "killed by signal 9");
	expect(&f, VOLUME_HEALTH_GOOD, "restarted 3 times, last because: killed by signal 9");
	f.status.state = VOLUME_RESTARTING;
	expect(&f, VOLUME_HEALTH_DEGRADED, "killed by signal 9");
	f.answers = false;
	expect(&f, VOLUME_HEALTH_INACCESSIBLE, "being started");
	f.status.state = VOLUME_SERVING;
	f.status.waiting = 5;
	expect(&f, VOLUME_HEALTH_INACCESSIBLE, "5 requests wait");
	f.status.state = VOLUME_DEAD;
	expect(&f, VOLUME_HEALTH_INACCESSIBLE, "connection has ended");
	f.keeper_answers = false;
	expect(&f, VOLUME_HEALTH_INACCESSIBLE, "holdfast-keeper");
	f.mounted = false;
	expect(&f, VOLUME_HEALTH_INACCESSIBLE, "/k/target");
}

static void slow_sources_and_poison_are_told(void **state)
{
	struct volume_facts f = healthy();

	f.status.source_wait_ms = 7400;
	expect(&f, VOLUME_HEALTH_DEGRADED, "running for 7 s");
	f.answers = false;
	expect(&f, VOLUME_HEALTH_INACCESSIBLE, "the source is slow or hangs");
	f = healthy();
	f.status.poisoned = 2;
	f.status.poison_opcode = 15;
	expect(&f, VOLUME_HEALTH_DEGRADED, "2 requests were answered EIO");
}

static void one_kill_for_memory_is_a_takeover_more_are_a_condition(void **state)
{
	struct volume_facts f = healthy();

	f.status.config.memory_limit = 64ULL << 20;
	f.status.restarts = f.status.oom_kills = 40; /* long ago */
	f.status.oom_kills_recent = 1;
	expect(&f, VOLUME_HEALTH_GOOD, "serving");
	f.status.oom_kills_recent = 2;
	expect(&f, VOLUME_HEALTH_DEGRADED,
	       "2 times within 10 minutes: raise memoryLimit (now 64Mi)");
	f.status.state = VOLUME_RESTARTING;
	expect(&f, VOLUME_HEALTH_DEGRADED, "and is being started again: raise memoryLimit");
	f.answers = false;
	expect(&f, VOLUME_HEALTH_INACCESSIBLE, "raise memoryLimit");
	f.status.state = VOLUME_DEAD;
	expect(&f, VOLUME_HEALTH_INACCESSIBLE, "connection has ended");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_call_at_a_time, queue_up, dissolve),
		cmocka_unit_test_setup_teardown(who_leaves_the_queue_holds_nobody_up, queue_up,
						dissolve),
		cmocka_unit_test_setup_teardown(who_waits_is_woken, queue_up, dissolve),
		cmocka_unit_test(health_names_the_worst),
		cmocka_unit_test(slow_sources_and_poison_are_told),
		cmocka_unit_test(one_kill_for_memory_is_a_takeover_more_are_a_condition),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
