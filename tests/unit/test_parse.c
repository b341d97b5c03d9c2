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

static void quantities_are_kuberneteses(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "1048576", 1048576 },
		{ "2Mi", 2097152 },
		{ "3G", 3000000000 },
		{ "1k", 1000 },
		{ "007Ki", 7168 },
		{ "1.5Gi", 1610612736 },
		{ "0.0001k", 1 },
		{ "1.0000000000000000000000001", 1 },
		{ "9223372036854775807", INT64_MAX },
		{ "7Ei", 7ULL << 60 },
	};
	static const char *const bad[] = {
		"",	" 1Mi",	 "1Mi ",   "1 Mi", "-1Mi",  "+1Mi", "Mi",
		".5Mi", "1.Mi",	 "1..5Mi", "1e6",  "500m",  "1K",   "1mi",
		"1MI",	"1MiB",	 "1Mb",	   "0x10", "1,5Gi", "inf",  "1Mi1",
		"1E3",	"1MiMi", "ten",	   "\xff", "1\n",   "1Zi",  "1Mi\xc2\xa0",
	};
	static const char *const large[] = { "9223372036854775808", "8Ei", "9.3E", "99999999999Ti",
					     "99999999999999999999" };
	uint64_t bytes = 4711;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse_quantity(bad[i], &bytes), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(large); i++)
		assert_int_equal(parse_quantity(large[i], &bytes), -ERANGE);
	assert_true(bytes == 4711);
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(parse_quantity(good[i].text, &bytes), 0);
		assert_true(bytes == good[i].bytes);
	}
}

static void a_shown_quantity_is_the_same_one(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{ 0, "0" },
		{ 1, "1" },
		{ 1000, "1000" },
		{ 64ULL << 20, "64Mi" },
		{ 1610612736, "1536Mi" },
		{ 1ULL << 30, "1Gi" },
		{ 4ULL << 60, "4Ei" },
		{ INT64_MAX, "9223372036854775807" },
	};
	char buf[QUANTITY_MAX];
	uint64_t back;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_string_equal(quantity_show(cases[i].bytes, buf), cases[i].text);
		assert_int_equal(parse_quantity(buf, &back), 0);
		assert_true(back == cases[i].bytes);
	}
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
		cmocka_unit_test(quantities_are_kuberneteses),
		cmocka_unit_test(a_shown_quantity_is_the_same_one),
		cmocka_unit_test(booleans_are_two_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
