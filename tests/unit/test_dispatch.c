/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "csi/call.h"
#include "csi/dispatch.h"
#include "csi/message.h"
#include "proto/csi.pb-c.h"

/* What the process writes to stderr while `body` runs is in logged. */
static char logged[8192];

static int capture_begin(int *ret_saved)
{
	int fd = memfd_create("stderr", MFD_CLOEXEC);

	assert_true(fd >= 0);
	*ret_saved = dup(STDERR_FILENO);
	assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
	return fd;
}

static void capture_end(int fd, int saved)
{
	ssize_t n;

	assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	n = fd_read_all(fd, logged, sizeof(logged) - 1);
	assert_true(n >= 0);
	logged[n] = '\0';
	close_fd(&fd);
	close_fd(&saved);
}

static int handled; /* how often the handler ran */

static int accept_all(void *context, const struct call *call, const ProtobufCMessage *request,
		      ProtobufCMessage *response, struct error *err)
{
	handled++;
	return 0;
}

static int refuse(void *context, const struct call *call, const ProtobufCMessage *request,
		  ProtobufCMessage *response, struct error *err)
{
	handled++;
	return error_set(err, ERROR_EXISTS, -EEXIST, "caf\xc3: staged with other attributes");
}

static struct method stage_method(bool good)
{
	return (struct method){
		.path = "/csi.v1.Node/NodeStageVolume",
		.request = &csi__v1__node_stage_volume_request__descriptor,
		.response = &csi__v1__node_stage_volume_response__descriptor,
		.handle = good ? accept_all : refuse,
	};
}

/* A stage call with a volume, a pod, and secrets in all places where they come. */
static uint8_t *stage_request(size_t *ret_size)
{
	Csi__V1__NodeStageVolumeRequest__VolumeContextEntry context[3] = {
		CSI__V1__NODE_STAGE_VOLUME_REQUEST__VOLUME_CONTEXT_ENTRY__INIT,
		CSI__V1__NODE_STAGE_VOLUME_REQUEST__VOLUME_CONTEXT_ENTRY__INIT,
		CSI__V1__NODE_STAGE_VOLUME_REQUEST__VOLUME_CONTEXT_ENTRY__INIT,
	};
	Csi__V1__NodeStageVolumeRequest__VolumeContextEntry *contexts[] = { &context[0],
									    &context[1],
									    &context[2] };
	Csi__V1__NodeStageVolumeRequest__SecretsEntry secret =
		CSI__V1__NODE_STAGE_VOLUME_REQUEST__SECRETS_ENTRY__INIT;
	Csi__V1__NodeStageVolumeRequest__SecretsEntry *secrets[] = { &secret };
	Csi__V1__NodeStageVolumeRequest request = CSI__V1__NODE_STAGE_VOLUME_REQUEST__INIT;
	uint8_t *bytes = NULL;

	request.volume_id = (char *)"pv-1";
	context[0].key = (char *)"csi.storage.k8s.io/pod.name";
	context[0].value = (char *)"train-0";
	context[1].key = (char *)"csi.storage.k8s.io/serviceAccount.tokens";
	context[1].value = (char *)"HUSH-token";
	context[2].key = (char *)"csi.storage.k8s.io/pod.uid";
	context[2].value = (char *)"uid-7";
	request.volume_context = contexts;
	request.n_volume_context = ARRAY_SIZE(contexts);
	secret.key = (char *)"HUSH-key";
	secret.value = (char *)"HUSH-value";
	request.secrets = secrets;
	request.n_secrets = 1;
	assert_int_equal(message_encode(&request.base, &bytes, ret_size, NULL), 0);
	return bytes;
}

static void run(bool good, struct answer *ret)
{
	size_t size;
	_cleanup_free_ uint8_t *bytes = stage_request(&size);
	struct method method = stage_method(good);
	struct call call;
	int saved, fd = capture_begin(&saved);

	call_init(&call, CALL_NO_DEADLINE);
	dispatch(&method, NULL, &call, 42, bytes, size, ret);
	capture_end(fd, saved);
}

static void a_call_is_one_line_with_volume_and_pod(void **state)
{
	_cleanup_answer_ struct answer answer;

	run(true, &answer);
	assert_int_equal(answer.code, GRPC_STATUS_OK);
	assert_non_null(answer.message);
	assert_non_null(strstr(logged, "rpc=NodeStageVolume"));
	assert_non_null(strstr(logged, "volume_id=pv-1"));
	assert_non_null(strstr(logged, "pod_name=train-0"));
	assert_non_null(strstr(logged, "pod_uid=uid-7"));
	assert_non_null(strstr(logged, "request_id=42"));
	assert_non_null(strstr(logged, "grpc_code=OK"));
	assert_non_null(strstr(logged, "duration_ms="));
	assert_ptr_equal(strchr(logged, '\n'), logged + strlen(logged) - 1);
}

static void secrets_and_tokens_are_in_no_line(void **state)
{
	for (int good = 0; good <= 1; good++) {
		_cleanup_answer_ struct answer answer;

		run(good, &answer);
		assert_true(strlen(logged) > 0);
		assert_null(strstr(logged, "HUSH"));
		assert_null(strstr(answer.text, "HUSH"));
	}
}

static void a_failure_has_code_and_text_in_answer_and_log(void **state)
{
	_cleanup_answer_ struct answer answer;

	run(false, &answer);
	assert_int_equal(answer.code, GRPC_STATUS_ALREADY_EXISTS);
	assert_null(answer.message);
	assert_string_equal(answer.text, "caf?: staged with other attributes"); /* UTF-8 */
	assert_non_null(strstr(logged, "level=warning"));
	assert_non_null(strstr(logged, "grpc_code=ALREADY_EXISTS"));
	assert_non_null(strstr(logged, "staged with other attributes"));
}

static void garbage_never_reaches_the_handler(void **state)
{
	static const uint8_t garbage[] = { 0xff, 0xff, 0xff };
	struct method method = stage_method(true);
	_cleanup_answer_ struct answer answer;
	struct call call;

	handled = 0;
	call_init(&call, CALL_NO_DEADLINE);
	dispatch(&method, NULL, &call, 1, garbage, sizeof(garbage), &answer);
	assert_int_equal(answer.code, GRPC_STATUS_INVALID_ARGUMENT);
	assert_int_equal(handled, 0);
}

static void a_call_that_nobody_waits_for_is_not_begun(void **state)
{
	struct method method = stage_method(true);
	_cleanup_answer_ struct answer answer;
	struct call call;

	handled = 0;
	call_init(&call, CALL_NO_DEADLINE);
	call_cancel(&call);
	dispatch(&method, NULL, &call, 1, (const uint8_t *)"", 0, &answer);
	assert_int_equal(answer.code, GRPC_STATUS_CANCELLED);
	assert_int_equal(handled, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_is_one_line_with_volume_and_pod),
		cmocka_unit_test(secrets_and_tokens_are_in_no_line),
		cmocka_unit_test(a_failure_has_code_and_text_in_answer_and_log),
		cmocka_unit_test(garbage_never_reaches_the_handler),
		cmocka_unit_test(a_call_that_nobody_waits_for_is_not_begun),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
