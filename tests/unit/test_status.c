/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "base/clock.h"
#include "csi/call.h"
#include "csi/status.h"

static void every_kind_of_error_has_the_code_that_the_spec_names(void **state)
{
	static const struct {
		enum error_kind kind;
		const char *name;
	} pairs[] = {
		{ ERROR_INTERNAL, "INTERNAL" },
		{ ERROR_INVALID, "INVALID_ARGUMENT" },
		{ ERROR_NOT_FOUND, "NOT_FOUND" },
		{ ERROR_EXISTS, "ALREADY_EXISTS" },
		{ ERROR_PRECONDITION, "FAILED_PRECONDITION" },
		{ ERROR_BUSY, "ABORTED" },
		{ ERROR_EXHAUSTED, "RESOURCE_EXHAUSTED" },
		{ ERROR_UNAVAILABLE, "UNAVAILABLE" },
		{ ERROR_UNIMPLEMENTED, "UNIMPLEMENTED" },
		{ ERROR_CANCELLED, "CANCELLED" },
		{ ERROR_TIMEOUT, "DEADLINE_EXCEEDED" },
		{ ERROR_OUT_OF_RANGE, "OUT_OF_RANGE" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
		assert_string_equal(status_name(status_of(pairs[i].kind)), pairs[i].name);
}

static void a_kind_from_another_build_is_internal(void **state)
{
	assert_int_equal(status_of((enum error_kind)99), GRPC_STATUS_INTERNAL);
	assert_string_equal(status_name((grpc_status_code)99), "UNKNOWN");
}

static void a_call_without_deadline_goes_on(void **state)
{
	struct error err = ERROR_INIT;
	struct call call;

	call_init(&call, CALL_NO_DEADLINE);
	assert_int_equal(call_check(&call, &err), 0);
	assert_int_equal(call_remaining_ms(&call, 700), 700);
}

static void a_cancelled_call_says_so(void **state)
{
	struct error err = ERROR_INIT;
	struct call call;

	call_init(&call, CALL_NO_DEADLINE);
	call_cancel(&call);
	assert_int_equal(call_check(&call, &err), -ECANCELED);
	assert_int_equal(err.kind, ERROR_CANCELLED);
	assert_int_equal(call_remaining_ms(&call, 700), 0);
}

static void a_late_call_is_late_even_when_it_was_cancelled_for_it(void **state)
{
	struct error err = ERROR_INIT;
	struct call call;

	call_init(&call, clock_now_ns() - 1);
	call_cancel(&call);
	assert_int_equal(call_check(&call, &err), -ETIMEDOUT);
	assert_int_equal(err.kind, ERROR_TIMEOUT);
}

static void the_rest_of_the_time_is_told(void **state)
{
	struct call call;
	int left;

	call_init(&call, clock_now_ns() + 60 * NSEC_PER_SEC);
	left = call_remaining_ms(&call, 600000);
	assert_in_range(left, 50000, 60000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_error_has_the_code_that_the_spec_names),
		cmocka_unit_test(a_kind_from_another_build_is_internal),
		cmocka_unit_test(a_call_without_deadline_goes_on),
		cmocka_unit_test(a_cancelled_call_says_so),
		cmocka_unit_test(a_late_call_is_late_even_when_it_was_cancelled_for_it),
		cmocka_unit_test(the_rest_of_the_time_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
