/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/health_client.h"

#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdio.h>

#include "csi/message.h"
#include "csi/status.h"
#include "proto/health.pb-c.h"

#define METHOD "/grpc.health.v1.Health/Check"

struct exchange {
	grpc_channel *channel;
	grpc_completion_queue *queue;
	grpc_call *call;
	grpc_byte_buffer *request, *response;
	grpc_metadata_array initial, trailing;
	grpc_status_code status;
	grpc_slice details;
};

/* "The whole server": an empty HealthCheckRequest has no bytes. */
static void exchange_open(struct exchange *x, const char *target, gpr_timespec deadline)
{
	grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
	grpc_slice method = grpc_slice_from_static_string(METHOD), empty = grpc_empty_slice();

	x->channel = grpc_channel_create(target, credentials, NULL);
	grpc_channel_credentials_release(credentials);
	x->queue = grpc_completion_queue_create_for_pluck(NULL);
	x->call = grpc_channel_create_call(x->channel, NULL, GRPC_PROPAGATE_DEFAULTS, x->queue,
					   method, NULL, deadline, NULL);
	x->request = grpc_raw_byte_buffer_create(&empty, 1);
	x->response = NULL;
	x->details = grpc_empty_slice();
	grpc_metadata_array_init(&x->initial);
	grpc_metadata_array_init(&x->trailing);
}

static void exchange_close(struct exchange *x)
{
	grpc_metadata_array_destroy(&x->trailing);
	grpc_metadata_array_destroy(&x->initial);
	grpc_slice_unref(x->details);
	grpc_byte_buffer_destroy(x->response);
	grpc_byte_buffer_destroy(x->request);
	grpc_call_unref(x->call);
	grpc_completion_queue_shutdown(x->queue);
	grpc_completion_queue_destroy(x->queue);
	grpc_channel_destroy(x->channel);
}

/* The call's deadline ends this in any case. */
static void exchange_run(struct exchange *x)
{
	const grpc_op ops[] = {
		{ .op = GRPC_OP_SEND_INITIAL_METADATA },
		{ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = x->request },
		{ .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT },
		{ .op = GRPC_OP_RECV_INITIAL_METADATA,
		  .data.recv_initial_metadata.recv_initial_metadata = &x->initial },
		{ .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &x->response },
		{ .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
		  .data.recv_status_on_client = { .trailing_metadata = &x->trailing,
						  .status = &x->status,
						  .status_details = &x->details } },
	};

	x->status = GRPC_STATUS_UNKNOWN;
	if (grpc_call_start_batch(x->call, ops, ARRAY_SIZE(ops), x, NULL) == GRPC_CALL_OK)
		(void)grpc_completion_queue_pluck(x->queue, x, gpr_inf_future(GPR_CLOCK_MONOTONIC),
						  NULL);
}

static int refused(const struct exchange *x, struct error *err)
{
	_cleanup_free_ char *text = strndup((const char *)GRPC_SLICE_START_PTR(x->details),
					    GRPC_SLICE_LENGTH(x->details));
	bool late = x->status == GRPC_STATUS_DEADLINE_EXCEEDED;

	return error_set(err, late ? ERROR_TIMEOUT : ERROR_UNAVAILABLE, late ? -ETIMEDOUT : -EIO,
			 "%s: %s", status_name(x->status), text ?: "");
}

static int decode(const struct exchange *x, struct error *err)
{
	_cleanup_message_ ProtobufCMessage *message = NULL;
	grpc_byte_buffer_reader reader;
	grpc_slice all;
	int status, r;

	if (!x->response || !grpc_byte_buffer_reader_init(&reader, x->response))
		return error_set(err, ERROR_UNAVAILABLE, -EBADMSG, "an answer without a message");
	all = grpc_byte_buffer_reader_readall(&reader);
	r = message_decode(&grpc__health__v1__health_check_response__descriptor,
			   GRPC_SLICE_START_PTR(all), GRPC_SLICE_LENGTH(all), &message, err);
	grpc_slice_unref(all);
	grpc_byte_buffer_reader_destroy(&reader);
	if (r < 0)
		return r;
	status = (int)((Grpc__Health__V1__HealthCheckResponse *)message)->status;
	if (status != GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING)
		return error_set(err, ERROR_UNAVAILABLE, -EAGAIN, "the server says status %d",
				 status);
	return 0;
}

int health_ask(const char *path, int timeout_ms, struct error *err)
{
	_cleanup_free_ char *target = NULL;
	struct exchange x;
	int r;

	if (asprintf(&target, "unix:%s", path) < 0)
		return error_errno(err, -ENOMEM, "name the socket");
	grpc_init();
	exchange_open(&x, target,
		      gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
				   gpr_time_from_millis(timeout_ms, GPR_TIMESPAN)));
	exchange_run(&x);
	r = x.status == GRPC_STATUS_OK ? decode(&x, err) : refused(&x, err);
	exchange_close(&x);
	grpc_shutdown();
	return r;
}
