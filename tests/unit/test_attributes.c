/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "csi/attributes.h"

static int decode(const struct attribute *list, size_t n, struct attributes *ret, struct error *err)
{
	*err = (struct error)ERROR_INIT;
	return attributes_decode(list, n, ret, err);
}

static void refuse(const char *key, const char *value, const char *word)
{
	const struct attribute list[] = { { "source", "/data" }, { key, value } };
	struct attributes a = { .source = NULL };
	struct error err;
	bool alone = strcmp(key, "source") == 0;

	assert_int_equal(decode(list + alone, 2 - alone, &a, &err), -EINVAL);
	assert_int_equal(err.kind, ERROR_INVALID);
	assert_null(a.source);
	if (!strstr(err.text, word))
		fail_msg("'%s' does not hold '%s'", err.text, word);
}

static void every_attribute_is_read(void **state)
{
	const struct attribute list[] = {
		{ "source", "/srv/data sets/" },
		{ "readOnly", "false" },
		{ "attrTimeout", "1m" },
		{ "entryTimeout", "0" },
		{ "mode", "worker" },
		{ "consistency", "immutable" },
		{ "memoryLimit", "16Mi" },
		{ "csi.storage.k8s.io/ephemeral", "true" },
		{ "csi.storage.k8s.io/pod.uid", "u-1" },
		{ "csi.storage.k8s.io/whatever.comes", "anything\n" },
	};
	_cleanup_attributes_ struct attributes a = { 0 };
	struct error err;

	assert_int_equal(decode(list, ARRAY_SIZE(list), &a, &err), 0);
	assert_string_equal(a.source, "/srv/data sets");
	assert_true(a.has_read_only && !a.read_only);
	assert_true(a.has_attr_timeout && a.attr_timeout_ns == 60000000000);
	assert_true(a.has_entry_timeout && a.entry_timeout_ns == 0);
	assert_int_equal(a.mode, VOLUME_MODE_WORKER);
	assert_int_equal(a.consistency, VOLUME_IMMUTABLE);
	assert_true(a.memory_limit == VOLUME_MEMORY_MIN);
	assert_true(a.ephemeral);
	assert_int_equal(a.n_given, 7);
}

static void nothing_is_required_here(void **state)
{
	_cleanup_attributes_ struct attributes a = { 0 };
	struct error err;

	assert_int_equal(decode(NULL, 0, &a, &err), 0);
	assert_null(a.source);
	assert_false(a.has_read_only || a.has_attr_timeout || a.has_entry_timeout || a.ephemeral);
	assert_true(a.memory_limit == 0);
	assert_int_equal(a.mode, VOLUME_MODE_AUTO);
	assert_int_equal(a.consistency, VOLUME_CLOSE_TO_OPEN);
}

static void file_uris_are_paths(void **state)
{
	static const struct {
		const char *uri, *path;
	} good[] = {
		{ "file:///data", "/data" },
		{ "file:///data%20sets/", "/data sets" },
		{ "file:///%C3%A9", "/\xc3\xa9" },
		{ "/per%20cent", "/per%20cent" },
		{ "/", "/" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		const struct attribute list[] = { { "source", good[i].uri } };
		_cleanup_attributes_ struct attributes a = { 0 };
		struct error err;

		assert_int_equal(decode(list, 1, &a, &err), 0);
		assert_string_equal(a.source, good[i].path);
	}
}

static void dangerous_sources_are_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"data",
		"file://",
		"file://host/data",
		"file:///%2",
		"file:///a%2fb",
		"file:///a%00",
		"file:///%2e%2e/etc",
		"file:///a%0a",
		"/a/../b",
		"/a/./b",
		"/a//b",
		"/a\nb",
		"/\xff",
		"/\xc2\x9b",
		"s3://bucket",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		refuse("source", bad[i], "source");
}

static void wrong_values_are_named_with_what_is_possible(void **state)
{
	refuse("readOnly", "True", "\"true\" and \"false\"");
	refuse("readOnly", "", "readOnly");
	refuse("attrTimeout", "-1s", "1h30m");
	refuse("entryTimeout", "forever", "entryTimeout");
	refuse("mode", "turbo", "passthrough");
	refuse("consistency", "strong", "close-to-open");
	refuse("csi.storage.k8s.io/ephemeral", "maybe", "ephemeral");
	refuse("memoryLimit", "", "\"512Mi\"");
	refuse("memoryLimit", "64mb", "\"512Mi\"");
	refuse("memoryLimit", "-64Mi", "\"512Mi\"");
	refuse("memoryLimit", "unlimited", "\"512Mi\"");
	refuse("memoryLimit", "8Ei", "less than 8Ei");
	refuse("memoryLimit", "0", "leave it out");
	refuse("memoryLimit", "16777215", "the least is 16Mi");
}

static void unknown_attributes_are_refused_with_the_nearest(void **state)
{
	refuse("sorce", "/x", "'source'");
	refuse("readonly", "true", "'readOnly'");
	refuse("read-only", "true", "'readOnly'");
	refuse("ATTR_TIMEOUT", "1s", "'attrTimeout'");
	refuse("entrytimeout", "1s", "'entryTimeout'");
	refuse("consistancy", "immutable", "'consistency'");
	refuse("memory-limit", "64Mi", "'memoryLimit'");
	refuse("csi.storage.k8s.io", "x", "not known");
	assert_string_equal(attributes_nearest("mod"), "mode");
	assert_string_equal(attributes_nearest("Source"), "source");
	assert_non_null(attributes_nearest(""));
}

static void a_key_that_is_given_twice_is_refused(void **state)
{
	const struct attribute list[] = { { "source", "/a" },
					  { "mode", "auto" },
					  { "source", "/b" } };
	struct attributes a;
	struct error err;

	assert_int_equal(decode(list, ARRAY_SIZE(list), &a, &err), -EINVAL);
	assert_non_null(strstr(err.text, "twice"));
}

static void tokens_may_be_long_and_are_never_repeated(void **state)
{
	_cleanup_free_ char *token = calloc(1, 20001);
	const struct attribute list[] = {
		{ "csi.storage.k8s.io/serviceAccount.tokens", token },
		{ "tokens", "SECRET" },
	};
	_cleanup_attributes_ struct attributes a = { 0 };
	struct error err;

	assert_non_null(token);
	memset(token, 'S', 20000);
	assert_int_equal(decode(list, 1, &a, &err), 0);
	assert_int_equal(decode(list, 2, &a, &err), -EINVAL);
	assert_null(strstr(err.text, "SECRET"));
	assert_null(strstr(err.text, "SSS"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_attribute_is_read),
		cmocka_unit_test(nothing_is_required_here),
		cmocka_unit_test(file_uris_are_paths),
		cmocka_unit_test(dangerous_sources_are_refused),
		cmocka_unit_test(wrong_values_are_named_with_what_is_possible),
		cmocka_unit_test(unknown_attributes_are_refused_with_the_nearest),
		cmocka_unit_test(a_key_that_is_given_twice_is_refused),
		cmocka_unit_test(tokens_may_be_long_and_are_never_repeated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
