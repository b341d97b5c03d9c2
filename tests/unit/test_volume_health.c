/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "csi/volume_health.h"
#include "csi/volume_lock.h"

static void one_call_at_a_time(void **state)
{
	struct volume_locks *locks = volume_locks_new();
	struct volume_lock *first, *second, *other;
	struct error err = ERROR_INIT;

	assert_non_null(locks);
	assert_int_equal(volume_lock_take(locks, "pv-1", &first, &err), 0);
	assert_int_equal(volume_lock_take(locks, "pv-2", &other, &err), 0);
	assert_int_equal(volume_lock_take(locks, "pv-1", &second, &err), -EBUSY);
	assert_int_equal(err.kind, ERROR_BUSY);
	assert_non_null(strstr(err.text, "pv-1"));
	volume_lock_release(first);
	assert_int_equal(volume_lock_take(locks, "pv-1", &second, &err), 0);
	volume_lock_release(other);
	volume_lock_release(second);
	volume_lock_release(NULL);
	volume_locks_free(locks);
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
		cmocka_unit_test(one_call_at_a_time),
		cmocka_unit_test(health_names_the_worst),
		cmocka_unit_test(slow_sources_and_poison_are_told),
		cmocka_unit_test(one_kill_for_memory_is_a_takeover_more_are_a_condition),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
