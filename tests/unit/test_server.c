/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "csi/server.h"
#include "proto/health.pb-c.h"

/* A server in this process with methods that last, and clients of the core's own on socketpairs. */

#define THREADS 2
#define MAX_CALLS 6
#define PATIENCE_MS 20000

static atomic_int running;    /* handlers of /test/Wait right now */
static atomic_int begun;      /* so far */
static atomic_bool is_open;   /* /test/Wait returns */
static atomic_int last_check; /* what call_check said when /test/Obey returned */

static void nap(void)
{
	(void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static int at_once(void *context, const struct call *call, const ProtobufCMessage *request,
		   ProtobufCMessage *response, struct error *err)
{
	return 0;
}

static int wait_for_gate(void *context, const struct call *call, const ProtobufCMessage *request,
			 ProtobufCMessage *response, struct error *err)
{
	atomic_fetch_add(&running, 1);
	atomic_fetch_add(&begun, 1);
	while (!atomic_load(&is_open))
		nap();
	atomic_fetch_sub(&running, 1);
	return 0;
}

/* Runs until the caller has had enough. */
static int obey(void *context, const struct call *call, const ProtobufCMessage *request,
		ProtobufCMessage *response, struct error *err)
{
	int r;

	atomic_fetch_add(&running, 1);
	while ((r = call_check(call, err)) == 0)
		nap();
	atomic_store(&last_check, r);
	atomic_fetch_sub(&running, 1);
	return r;
}

#define METHOD(name, function, at)                                                \
	{                                                                         \
		.path = name, .handle = function, .immediate = at, .quiet = true, \
		.request = &grpc__health__v1__health_check_request__descriptor,   \
		.response = &grpc__health__v1__health_check_response__descriptor, \
	}

static const struct method methods[] = {
	METHOD("/test/AtOnce", at_once, true),
	METHOD("/test/Pooled", at_once, false),
	METHOD("/test/Wait", wait_for_gate, false),
	METHOD("/test/Obey", obey, false),
};
static const struct service service = { methods, ARRAY_SIZE(methods), NULL };

static struct server *server;

static int set_up(void **state)
{
	const struct server_config config = {
		.services = &service, .n_services = 1, .n_threads = THREADS, .max_calls = MAX_CALLS
	};

	atomic_store(&is_open, false);
	atomic_store(&begun, 0);
	atomic_store(&last_check, 0);
	grpc_init(); /* the clients' */
	return server_new(&config, &server, NULL);
}

static int tear_down(void **state)
{
	bool over;

	atomic_store(&is_open, true);
	over = !server || server_stop(server, PATIENCE_MS, PATIENCE_MS);
	if (over)
		server_free(server);
	server = NULL;
	grpc_shutdown();
	return over ? 0 : -1;
}

static void stop_server(uint64_t drain_ms)
{
	assert_true(server_stop(server, drain_ms, PATIENCE_MS));
	server_free(server);
	server = NULL;
}

static void eventually(atomic_int *value, int wanted)
{
	for (int i = 0; i < PATIENCE_MS && atomic_load(value) != wanted; i++)
		nap();
	assert_int_equal(atomic_load(value), wanted);
}

struct client {
	grpc_channel *channel;
	grpc_completion_queue *queue;
};

static struct client client_new(void)
{
	grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
	struct client c;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
			 0);
	server_add_connection(server, fds[0]);
	c.channel = grpc_channel_create_from_fd("test", fds[1], credentials, NULL);
	grpc_channel_credentials_release(credentials);
	c.queue = grpc_completion_queue_create_for_pluck(NULL);
	return c;
}

static void client_free(struct client c)
{
	grpc_completion_queue_shutdown(c.queue);
	grpc_completion_queue_destroy(c.queue);
	grpc_channel_destroy(c.channel);
}

struct pending {
	struct client client;
	grpc_call *call;
	grpc_byte_buffer *request, *response;
	grpc_metadata_array initial, trailing;
	grpc_status_code status;
	grpc_slice details;
};

static void call_start(struct pending *p, struct client client, const char *path, int timeout_ms)
{
	grpc_slice empty = grpc_empty_slice();

	*p = (struct pending){ .client = client, .details = grpc_empty_slice() };
	p->call = grpc_channel_create_call(
		client.channel, NULL, GRPC_PROPAGATE_DEFAULTS, client.queue,
		grpc_slice_from_copied_string(path), NULL,
		gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
			     gpr_time_from_millis(timeout_ms, GPR_TIMESPAN)),
		NULL);
	p->request = grpc_raw_byte_buffer_create(&empty, 1);
	grpc_metadata_array_init(&p->initial);
	grpc_metadata_array_init(&p->trailing);
	const grpc_op ops[] = {
		{ .op = GRPC_OP_SEND_INITIAL_METADATA },
		{ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = p->request },
		{ .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT },
		{ .op = GRPC_OP_RECV_INITIAL_METADATA,
		  .data.recv_initial_metadata.recv_initial_metadata = &p->initial },
		{ .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &p->response },
		{ .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
		  .data.recv_status_on_client = { .trailing_metadata = &p->trailing,
						  .status = &p->status,
						  .status_details = &p->details } },
	};
	assert_int_equal(grpc_call_start_batch(p->call, ops, ARRAY_SIZE(ops), p, NULL),
			 GRPC_CALL_OK);
}

/* Waits for the end; the status. */
static grpc_status_code call_end(struct pending *p)
{
	(void)grpc_completion_queue_pluck(p->client.queue, p, gpr_inf_future(GPR_CLOCK_MONOTONIC),
					  NULL);
	grpc_metadata_array_destroy(&p->trailing);
	grpc_metadata_array_destroy(&p->initial);
	grpc_byte_buffer_destroy(p->request);
	grpc_byte_buffer_destroy(p->response);
	grpc_slice_unref(p->details);
	grpc_call_unref(p->call);
	return p->status;
}

static grpc_status_code call_once(struct client client, const char *path)
{
	struct pending p;

	call_start(&p, client, path, PATIENCE_MS);
	return call_end(&p);
}

/* The caller's deadline passes at both ends; whether the server's or the news of the caller's comes
 * first is chance. */
static void assert_gave_up(void)
{
	for (int i = 0; i < PATIENCE_MS && atomic_load(&last_check) == 0; i++)
		nap();
	assert_true(atomic_load(&last_check) == -ETIMEDOUT ||
		    atomic_load(&last_check) == -ECANCELED);
}

static void a_probe_is_answered_while_every_thread_is_busy(void **state)
{
	struct client client = client_new();
	struct pending p[MAX_CALLS];

	for (size_t i = 0; i < MAX_CALLS; i++)
		call_start(&p[i], client, "/test/Wait", PATIENCE_MS);
	eventually(&running, THREADS);
	for (int i = 0; i < 100; i++)
		assert_int_equal(call_once(client, "/test/AtOnce"), GRPC_STATUS_OK);
	atomic_store(&is_open, true);
	for (size_t i = 0; i < MAX_CALLS; i++)
		assert_int_equal(call_end(&p[i]), GRPC_STATUS_OK);
	client_free(client);
}

static void calls_beyond_the_limit_are_refused_and_later_served(void **state)
{
	struct client client = client_new();
	struct pending p[MAX_CALLS + 1];
	int refused = 0;

	for (size_t i = 0; i <= MAX_CALLS; i++)
		call_start(&p[i], client, "/test/Wait", PATIENCE_MS);
	assert_int_equal(call_end(&p[MAX_CALLS]), GRPC_STATUS_RESOURCE_EXHAUSTED);
	atomic_store(&is_open, true);
	for (size_t i = 0; i < MAX_CALLS; i++)
		refused += call_end(&p[i]) != GRPC_STATUS_OK;
	assert_int_equal(refused, 0);
	assert_int_equal(call_once(client, "/test/Pooled"), GRPC_STATUS_OK);
	client_free(client);
}

static void a_handler_sees_that_its_caller_gave_up(void **state)
{
	struct client client = client_new();
	struct pending p;

	call_start(&p, client, "/test/Obey", PATIENCE_MS);
	eventually(&running, 1);
	(void)grpc_call_cancel(p.call, NULL);
	assert_int_equal(call_end(&p), GRPC_STATUS_CANCELLED);
	eventually(&last_check, -ECANCELED);
	client_free(client);
}

static void a_handler_sees_that_its_caller_is_gone(void **state)
{
	struct client client = client_new();
	struct pending p;

	call_start(&p, client, "/test/Obey", PATIENCE_MS);
	eventually(&running, 1);
	grpc_channel_destroy(client.channel);
	client.channel = grpc_lame_client_channel_create("test", GRPC_STATUS_UNAVAILABLE, "");
	(void)grpc_call_cancel(p.call, NULL);
	(void)call_end(&p);
	eventually(&last_check, -ECANCELED);
	client_free(client);
}

static void a_handler_sees_the_callers_deadline(void **state)
{
	struct client client = client_new();
	struct pending p;

	call_start(&p, client, "/test/Obey", 200);
	assert_int_equal(call_end(&p), GRPC_STATUS_DEADLINE_EXCEEDED);
	assert_gave_up();
	client_free(client);
}

static void a_call_given_up_in_the_queue_is_never_begun(void **state)
{
	struct client client = client_new();
	struct pending busy[THREADS], late;

	for (size_t i = 0; i < THREADS; i++)
		call_start(&busy[i], client, "/test/Wait", PATIENCE_MS);
	eventually(&running, THREADS);
	call_start(&late, client, "/test/Wait", 100);
	assert_int_equal(call_end(&late), GRPC_STATUS_DEADLINE_EXCEEDED);
	atomic_store(&is_open, true);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(call_end(&busy[i]), GRPC_STATUS_OK);
	assert_int_equal(call_once(client, "/test/Pooled"), GRPC_STATUS_OK);
	assert_int_equal(atomic_load(&begun), THREADS);
	client_free(client);
}

static void many_calls_of_many_clients_are_all_answered(void **state)
{
	struct client clients[4];
	struct pending p[MAX_CALLS];

	for (size_t i = 0; i < ARRAY_SIZE(clients); i++)
		clients[i] = client_new();
	for (int round = 0; round < 200; round++) {
		for (size_t i = 0; i < MAX_CALLS; i++)
			call_start(&p[i], clients[i % ARRAY_SIZE(clients)],
				   i % 2 ? "/test/Pooled" : "/test/AtOnce", PATIENCE_MS);
		for (size_t i = 0; i < MAX_CALLS; i++)
			assert_int_equal(call_end(&p[i]), GRPC_STATUS_OK);
	}
	for (size_t i = 0; i < ARRAY_SIZE(clients); i++)
		client_free(clients[i]);
}

static void unknown_methods_are_unimplemented(void **state)
{
	struct client client = client_new();

	assert_int_equal(call_once(client, "/test/Nothing"), GRPC_STATUS_UNIMPLEMENTED);
	assert_int_equal(call_once(client, "/test/AtOnceMore"), GRPC_STATUS_UNIMPLEMENTED);
	client_free(client);
}

static void stopping_lets_running_calls_end(void **state)
{
	struct client client = client_new();
	struct pending p;

	call_start(&p, client, "/test/Obey", 400);
	eventually(&running, 1);
	stop_server(PATIENCE_MS);
	assert_int_equal(call_end(&p), GRPC_STATUS_DEADLINE_EXCEEDED);
	assert_gave_up();
	client_free(client);
}

static void stopping_cancels_what_does_not_end(void **state)
{
	struct client client = client_new();
	struct pending p;

	call_start(&p, client, "/test/Obey", PATIENCE_MS);
	eventually(&running, 1);
	stop_server(50);
	assert_int_not_equal(call_end(&p), GRPC_STATUS_OK);
	assert_int_equal(atomic_load(&last_check), -ECANCELED);
	client_free(client);
}

static void stopping_does_not_wait_for_silent_connections(void **state)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
			 0);
	server_add_connection(server, fds[0]);
	stop_server(PATIENCE_MS);
	(void)close(fds[1]);
}

static void a_handler_that_hangs_is_reported(void **state)
{
	struct client client = client_new();
	struct pending p;

	call_start(&p, client, "/test/Wait", PATIENCE_MS);
	eventually(&running, 1);
	assert_false(server_stop(server, 10, 100));
	atomic_store(&is_open, true);
	stop_server(PATIENCE_MS);
	(void)call_end(&p);
	client_free(client);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_probe_is_answered_while_every_thread_is_busy),
		TEST(calls_beyond_the_limit_are_refused_and_later_served),
		TEST(a_handler_sees_that_its_caller_gave_up),
		TEST(a_handler_sees_that_its_caller_is_gone),
		TEST(a_handler_sees_the_callers_deadline),
		TEST(a_call_given_up_in_the_queue_is_never_begun),
		TEST(many_calls_of_many_clients_are_all_answered),
		TEST(unknown_methods_are_unimplemented),
		TEST(stopping_lets_running_calls_end),
		TEST(stopping_cancels_what_does_not_end),
		TEST(stopping_does_not_wait_for_silent_connections),
		TEST(a_handler_that_hangs_is_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
