/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "base/utf8.h"
#include "csi/message.h"
#include "proto/csi.pb-c.h"

#define TYPE (&csi__v1__node_publish_volume_request__descriptor)

static int decode(const void *bytes, size_t size, struct error *err)
{
	_cleanup_message_ ProtobufCMessage *message = NULL;

	return message_decode(TYPE, bytes, size, &message, err);
}

static void what_is_encoded_is_decoded(void **state)
{
	Csi__V1__NodePublishVolumeRequest request = CSI__V1__NODE_PUBLISH_VOLUME_REQUEST__INIT;
	_cleanup_message_ ProtobufCMessage *message = NULL;
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t size;

	request.volume_id = (char *)"pv-\xc3\xa9";
	request.readonly = true;
	assert_int_equal(message_encode(&request.base, &bytes, &size, NULL), 0);
	assert_int_equal(message_decode(TYPE, bytes, size, &message, NULL), 0);
	assert_string_equal(((Csi__V1__NodePublishVolumeRequest *)message)->volume_id,
			    "pv-\xc3\xa9");
	assert_true(((Csi__V1__NodePublishVolumeRequest *)message)->readonly);
}

static void no_bytes_are_an_empty_message(void **state)
{
	assert_int_equal(decode("", 0, NULL), 0);
}

static void a_nul_does_not_hide_the_rest_of_a_string(void **state)
{
	static const uint8_t id[] = { 0x0a, 3, 'a', 0, 'b' };
	/* volume_context { key: "k\0" } */
	static const uint8_t nested[] = { 0x42, 4, 0x0a, 2, 'k', 0 };
	struct error err = ERROR_INIT;

	assert_int_equal(decode(id, sizeof(id), &err), -EINVAL);
	assert_int_equal(err.kind, ERROR_INVALID);
	assert_non_null(strstr(err.text, "volume_id"));
	assert_int_equal(decode(nested, sizeof(nested), &err), -EINVAL);
	assert_non_null(strstr(err.text, "key"));
}

static void strings_are_utf8(void **state)
{
	static const uint8_t bytes[] = { 0x0a, 2, 0xc0, 0x80 };
	struct error err = ERROR_INIT;

	assert_int_equal(decode(bytes, sizeof(bytes), &err), -EINVAL);
	assert_non_null(strstr(err.text, "UTF-8"));
}

static void garbage_is_told_from_a_message(void **state)
{
	static const struct {
		uint8_t bytes[12];
		size_t size;
	} bad[] = {
		{ { 0x0a, 9, 'a' }, 3 },	   /* cut off */
		{ { 0x0a }, 1 },		   /* no length */
		{ { 0x00, 0 }, 2 },		   /* field 0 */
		{ { 0x0b, 0x0c }, 2 },		   /* a group */
		{ { 0x30, 0xff, 0xff, 0xff }, 4 }, /* endless number */
		{ { 0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1 }, 11 },
		{ { 0x31, 1, 2 }, 3 }, /* 64 bits, cut off */
	};
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(decode(bad[i].bytes, bad[i].size, &err), -EBADMSG);
		assert_int_equal(err.kind, ERROR_INVALID);
	}
}

static void fields_of_later_versions_are_skipped(void **state)
{
	static const uint8_t bytes[] = { 0xfa, 0x3e, 2, 0, 0xff, 0xf5, 0x3e, 1, 2, 3, 4 };

	assert_int_equal(decode(bytes, sizeof(bytes), NULL), 0);
}

/* Four bytes of request, a hundred of memory: a request of 4 MiB would take half a gigabyte. */
static void a_flood_of_fields_is_refused(void **state)
{
	size_t size = (size_t)2 * (MESSAGE_FIELDS_MAX + 1);
	_cleanup_free_ uint8_t *bytes = calloc(1, size);
	struct error err = ERROR_INIT;

	assert_non_null(bytes);
	for (size_t i = 0; i < size; i += 2)
		bytes[i] = 0x42; /* volume_context {} */
	assert_int_equal(decode(bytes, size, &err), -EINVAL);
	assert_int_equal(decode(bytes, size - 2, &err), 0);
}

static void utf8_is_what_rfc_3629_says(void **state)
{
	static const char *const good[] = { "a",
					    "\xc2\x80",
					    "\xe0\xa0\x80",
					    "\xed\x9f\xbf",
					    "\xf0\x90\x80\x80",
					    "\xf4\x8f\xbf\xbf" };
	static const char *const bad[] = { "\x80",	   "\xc1\xbf",	       "\xe0\x9f\xbf",
					   "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
					   "\xf5",	   "\xe2\x82",	       "\xc3(" };

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(utf8_prefix(good[i], strlen(good[i])), strlen(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(utf8_prefix(bad[i], strlen(bad[i])), 0);
	assert_int_equal(utf8_prefix("a\0b", 3), 3);
}

static void a_text_cut_in_a_character_is_made_whole(void **state)
{
	char text[] = "caf\xc3\xa9 \xe2\x82 x\xff";

	utf8_clean(text);
	assert_string_equal(text, "caf\xc3\xa9 ?? x?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_encoded_is_decoded),
		cmocka_unit_test(no_bytes_are_an_empty_message),
		cmocka_unit_test(a_nul_does_not_hide_the_rest_of_a_string),
		cmocka_unit_test(strings_are_utf8),
		cmocka_unit_test(garbage_is_told_from_a_message),
		cmocka_unit_test(fields_of_later_versions_are_skipped),
		cmocka_unit_test(a_flood_of_fields_is_refused),
		cmocka_unit_test(utf8_is_what_rfc_3629_says),
		cmocka_unit_test(a_text_cut_in_a_character_is_made_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
