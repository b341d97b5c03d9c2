/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "recovery/control.h"

static struct control_request make_request(enum control_type type, const char *id)
{
	struct control_request r = {
		.header = { .magic = CONTROL_MAGIC,
			    .version = CONTROL_VERSION,
			    .type = (uint16_t)type,
			    .size = sizeof(struct control_request),
			    .serial = 3 },
	};

	(void)snprintf(r.config.id, sizeof(r.config.id), "%s", id);
	return r;
}

static int check(const struct control_request *request)
{
	return control_check(request, sizeof(*request), NULL);
}

static void every_request_passes_that_makes_sense(void **state)
{
	struct control_request add = make_request(CONTROL_ADD, "v"),
			       mount = make_request(CONTROL_MOUNT, "v"),
			       removal = make_request(CONTROL_REMOVE, "v"),
			       list = make_request(CONTROL_LIST, ""),
			       escrow = make_request(CONTROL_ESCROW, "v"),
			       adopt = make_request(CONTROL_ADOPT, "v");

	assert_int_equal(check(&add), 0);
	assert_int_equal(check(&mount), 0);
	assert_int_equal(check(&removal), 0);
	assert_int_equal(check(&list), 0);
	assert_int_equal(check(&escrow), 0);
	assert_int_equal(check(&adopt), 0);
}

static void every_other_size_is_garbage(void **state)
{
	struct {
		struct control_request request;
		char more[64];
	} p = { .request = make_request(CONTROL_LIST, "") };

	for (size_t size = 0; size <= sizeof(p); size++)
		if (size != sizeof(p.request))
			assert_int_equal(control_check(&p, size, NULL), -EBADMSG);
}

static void a_foreign_header_is_garbage(void **state)
{
	struct control_request r = make_request(CONTROL_LIST, "");

	r.header.magic++;
	assert_int_equal(check(&r), -EBADMSG);
	r = make_request(CONTROL_LIST, "");
	r.header.size--;
	assert_int_equal(check(&r), -EBADMSG);
	r = make_request(CONTROL_LIST, "");
	r.header.reserved = 1;
	assert_int_equal(check(&r), -EBADMSG);
	r = make_request(CONTROL_LIST, "");
	r.header.flags = CONTROL_MORE;
	assert_int_equal(check(&r), -EBADMSG);
	r = make_request((enum control_type)77, "v");
	assert_int_equal(check(&r), -EBADMSG);
}

static void another_version_is_told_from_garbage(void **state)
{
	struct control_request r = make_request(CONTROL_LIST, "");
	struct error err = ERROR_INIT;

	r.header.version = CONTROL_VERSION + 1;
	assert_int_equal(control_check(&r, sizeof(r.header), &err), -EPROTONOSUPPORT);
	assert_non_null(strstr(err.text, "version 5"));
}

static void ids_are_terminated_and_clean(void **state)
{
	struct control_request r = make_request(CONTROL_REMOVE, "");

	assert_int_equal(check(&r), -EINVAL);
	memset(r.config.id, 'x', sizeof(r.config.id));
	assert_int_equal(check(&r), -EINVAL);
	memset(r.config.id, 0, sizeof(r.config.id));
	memset(r.config.id, 'x', VOLUME_ID_MAX);
	assert_int_equal(check(&r), 0);
	r.config.id[VOLUME_ID_MAX] = 'x';
	assert_int_equal(check(&r), -EINVAL);
	r = make_request(CONTROL_MOUNT, "v");
	r.config.id[2] = 'x';
	assert_int_equal(check(&r), -EINVAL);
	r = make_request(CONTROL_ESCROW, "");
	assert_int_equal(check(&r), -EINVAL);
	r = make_request(CONTROL_ADOPT, "v");
	r.config.id[2] = 'x';
	assert_int_equal(check(&r), -EINVAL);
}

static void only_an_add_has_to_have_a_whole_config(void **state)
{
	struct control_request r = make_request(CONTROL_ADD, "v");

	r.config.mode = 99;
	assert_int_equal(check(&r), -EINVAL);
	r.header.type = CONTROL_REMOVE;
	assert_int_equal(check(&r), 0);
	r = make_request(CONTROL_ADD, "v");
	r.config.consistency = VOLUME_IMMUTABLE;
	assert_int_equal(check(&r), -EINVAL);
	r.config.flags = VOLUME_READ_ONLY;
	assert_int_equal(check(&r), 0);
	r.config.reserved = 1;
	assert_int_equal(check(&r), -EINVAL);
}

static void a_reply_has_to_belong_to_the_request(void **state)
{
	struct control_reply reply = {
		.header = { .magic = CONTROL_MAGIC,
			    .version = CONTROL_VERSION,
			    .type = CONTROL_ADD,
			    .size = sizeof(struct control_reply),
			    .serial = 9 },
	};
	struct control_reply copy;

	memset(reply.text, 'x', sizeof(reply.text));
	memset(reply.status.reason, 'x', sizeof(reply.status.reason));
	assert_int_equal(control_check_reply(&reply, sizeof(reply), CONTROL_ADD, 9, &copy, NULL),
			 0);
	assert_int_equal(strlen(copy.text), sizeof(copy.text) - 1);
	assert_int_equal(strlen(copy.status.reason), sizeof(copy.status.reason) - 1);
	assert_int_equal(control_check_reply(&reply, sizeof(reply), CONTROL_ADD, 8, &copy, NULL),
			 -EBADMSG);
	assert_int_equal(control_check_reply(&reply, sizeof(reply), CONTROL_LIST, 9, &copy, NULL),
			 -EBADMSG);
	assert_int_equal(
		control_check_reply(&reply, sizeof(reply) - 1, CONTROL_ADD, 9, &copy, NULL),
		-EBADMSG);
}

static void states_have_names(void **state)
{
	assert_string_equal(volume_state_name(VOLUME_SERVING), "serving");
	assert_string_equal(volume_state_name(VOLUME_DEAD), "dead");
	assert_string_equal(volume_state_name((enum volume_state)1234), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_request_passes_that_makes_sense),
		cmocka_unit_test(every_other_size_is_garbage),
		cmocka_unit_test(a_foreign_header_is_garbage),
		cmocka_unit_test(another_version_is_told_from_garbage),
		cmocka_unit_test(ids_are_terminated_and_clean),
		cmocka_unit_test(only_an_add_has_to_have_a_whole_config),
		cmocka_unit_test(a_reply_has_to_belong_to_the_request),
		cmocka_unit_test(states_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
