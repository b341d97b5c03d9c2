/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "base/parse.h"

static void numbers_are_strict(void **state)
{
	uint64_t value = 7;

	assert_int_equal(parse_u64("18446744073709551615", &value), 0);
	assert_true(value == UINT64_MAX);
	assert_int_equal(parse_u64("18446744073709551616", &value), -ERANGE);
	assert_true(value == UINT64_MAX);
	static const char *const bad[] = { "", " 1", "1 ", "+1", "-1", "0x1", "1e3" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse_u64(bad[i], &value), -EINVAL);
}

static void durations_are_gos(void **state)
{
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = {
		{ "0", 0 },
		{ "1s", 1000000000 },
		{ "1.5s", 1500000000 },
		{ ".5ms", 500000 },
		{ "1h30m", 5400000000000 },
		{ "100ms20us3ns", 100020003 },
		{ "2\xc2\xb5s", 2000 },
	};
	static const char *const bad[] = { "", "1", "s", "-1s", "1 s", ".s", "1d", "1s1" };
	uint64_t ns;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(parse_duration(good[i].text, &ns), 0);
		assert_true(ns == good[i].ns);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse_duration(bad[i], &ns), -EINVAL);
	assert_int_equal(parse_duration("9999999999999h", &ns), -ERANGE);
}

static void sizes_have_kubernetes_suffixes(void **state)
{
	uint64_t bytes;

	assert_int_equal(parse_size("2Mi", &bytes), 0);
	assert_true(bytes == 2097152);
	assert_int_equal(parse_size("3G", &bytes), 0);
	assert_true(bytes == 3000000000);
	assert_int_equal(parse_size("3X", &bytes), -EINVAL);
	assert_int_equal(parse_size("99999999999Ti", &bytes), -ERANGE);
}

static void booleans_are_two_words(void **state)
{
	bool value = false;

	assert_int_equal(parse_bool("true", &value), 0);
	assert_true(value);
	assert_int_equal(parse_bool("yes", &value), -EINVAL);
	assert_int_equal(parse_bool("True", &value), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_strict),
		cmocka_unit_test(durations_are_gos),
		cmocka_unit_test(sizes_have_kubernetes_suffixes),
		cmocka_unit_test(booleans_are_two_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
