/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/server.h"

#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/compression.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <pthread.h>

#include "base/clock.h"
#include "base/log.h"
#include "csi/call.h"
#include "csi/dispatch.h"
#include "csi/message.h"
#include "csi/pool.h"

/*
 * One thread of ours takes all events off the core's completion queue and moves the calls along:
 *
 *   matched    the core has a call for us: ask it for the message, and to tell when the call closes
 *   received   the message is here: an immediate method is answered at once, any other goes to the
 *              pool, whose thread starts the reply
 *   sent       the reply is out, or nobody wants it any more
 *   closed     the call is over, or the caller has given up, which its handler sees from then on
 *
 * `sent` and `closed` come in any order, and after both the call's slot is free again. `sent` comes
 * only after the handler is done, so a slot outlives its handler. Whoever starts the reply does not
 * touch the slot afterwards.
 *
 * As long as there is a free slot, the core has one request of ours for a further call; calls that
 * come faster than we ask wait inside the core.
 */

#define SPARE_SLOTS 64	/* beyond max_calls: for probes, and to refuse the others */
#define MAX_STREAMS 128 /* on one connection; clients queue what is beyond */

struct tag {
	void (*on)(void *owner, bool success);
	void *owner;
};

struct slot {
	struct pool_job job;
	struct call call;
	struct server *server;
	struct slot *next_free;
	struct tag matched, received, sent, closed;
	grpc_call *grpc;
	grpc_call_details details;
	grpc_metadata_array metadata;
	grpc_byte_buffer *request;
	grpc_byte_buffer *reply; /* under server.lock: one thread makes it, another frees it */
	const struct method *method;
	void *context; /* the method's service's */
	uint64_t id;
	int cancelled;	/* written by the core */
	bool is_queued; /* with the pool; under server.lock, as the next two */
	bool is_sent, is_closed;
};

struct server {
	struct server_config config;
	grpc_server *grpc;
	grpc_completion_queue *queue;
	struct pool *pool;
	pthread_t thread;
	bool has_thread;
	struct tag shut_down;
	_Atomic uint64_t heartbeat_ns;

	pthread_mutex_t lock; /* guards the rest; a leaf: nothing is called while it is held */
	pthread_cond_t changed;
	struct slot *free;
	struct slot *requested; /* its request for a call is with the core */
	size_t n_running;	/* slots between matched and released */
	size_t n_queued;	/* of these, with the pool */
	uint64_t last_id;
	bool is_stopping, is_shut_down;
	struct slot slots[];
};

/* An operation that can't be started counts as one that failed. */
static void start_batch(struct slot *slot, const grpc_op *ops, size_t n, struct tag *tag)
{
	grpc_call_error e = grpc_call_start_batch(slot->grpc, ops, n, tag, NULL);

	if (e == GRPC_CALL_OK)
		return;
	log_error("grpc_call_start_batch: %s", grpc_call_error_to_string(e));
	tag->on(tag->owner, false);
}

static void request_next(struct server *server)
{
	struct slot *slot = NULL;
	grpc_call_error e;

	pthread_mutex_lock(&server->lock);
	if (!server->is_stopping && !server->requested && server->free) {
		slot = server->requested = server->free;
		server->free = slot->next_free;
	}
	pthread_mutex_unlock(&server->lock);
	if (!slot)
		return;
	grpc_call_details_init(&slot->details);
	grpc_metadata_array_init(&slot->metadata);
	e = grpc_server_request_call(server->grpc, &slot->grpc, &slot->details, &slot->metadata,
				     server->queue, server->queue, &slot->matched);
	if (e != GRPC_CALL_OK)
		slot->matched.on(slot, false);
}

static void give_back(struct slot *slot, bool was_running)
{
	struct server *server = slot->server;

	grpc_call_details_destroy(&slot->details);
	grpc_metadata_array_destroy(&slot->metadata);
	pthread_mutex_lock(&server->lock);
	if (was_running)
		server->n_running--;
	else
		server->requested = NULL;
	slot->next_free = server->free;
	server->free = slot;
	pthread_cond_broadcast(&server->changed);
	pthread_mutex_unlock(&server->lock);
}

static void release(struct slot *slot)
{
	struct server *server = slot->server;

	grpc_byte_buffer_destroy(slot->request);
	grpc_byte_buffer_destroy(slot->reply);
	grpc_call_unref(slot->grpc);
	give_back(slot, true);
	request_next(server);
}

static void end_part(struct slot *slot, bool *part)
{
	bool both;

	pthread_mutex_lock(&slot->server->lock);
	*part = true;
	both = slot->is_sent && slot->is_closed;
	pthread_mutex_unlock(&slot->server->lock);
	if (both)
		release(slot);
}

static void on_sent(void *owner, bool success)
{
	struct slot *slot = owner;

	end_part(slot, &slot->is_sent);
}

static void on_closed(void *owner, bool success)
{
	struct slot *slot = owner;

	if (slot->cancelled)
		call_cancel(&slot->call);
	end_part(slot, &slot->is_closed);
}

static void free_message(void *message)
{
	free(message);
}

/* Consumes the answer's message; NULL if there is none. */
static grpc_byte_buffer *make_buffer(struct answer *answer)
{
	grpc_byte_buffer *buffer;
	grpc_slice slice;

	if (!answer->message)
		return NULL;
	slice = grpc_slice_new(TAKE_PTR(answer->message), answer->size, free_message);
	buffer = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	return buffer;
}

/* Starts the reply. Consumes the answer's message; the slot may be gone when this returns. */
static void reply(struct slot *slot, struct answer *answer)
{
	grpc_slice details = grpc_slice_from_copied_string(answer->text);
	grpc_byte_buffer *message = make_buffer(answer);
	grpc_op ops[3] = { { .op = GRPC_OP_SEND_INITIAL_METADATA } };
	size_t n = 1;

	pthread_mutex_lock(&slot->server->lock);
	slot->reply = message;
	pthread_mutex_unlock(&slot->server->lock);
	if (message) {
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = message;
	}
	ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[n].data.send_status_from_server.status = answer->code;
	ops[n++].data.send_status_from_server.status_details = &details;
	start_batch(slot, ops, n, &slot->sent);
	grpc_slice_unref(details);
}

/* The request's bytes in one piece, owned by the caller; NULL when out of memory. */
static uint8_t *gather(grpc_byte_buffer *buffer, size_t size)
{
	uint8_t *bytes = malloc(MAX_OF(size, (size_t)1));
	grpc_byte_buffer_reader reader;
	grpc_slice *slice;
	size_t used = 0;

	if (!bytes || !grpc_byte_buffer_reader_init(&reader, buffer))
		return bytes;
	while (grpc_byte_buffer_reader_peek(&reader, &slice)) {
		size_t n = MIN_OF(GRPC_SLICE_LENGTH(*slice), size - used);

		memcpy(bytes + used, GRPC_SLICE_START_PTR(*slice), n);
		used += n;
	}
	grpc_byte_buffer_reader_destroy(&reader);
	return bytes;
}

static void serve(struct slot *slot)
{
	size_t size = grpc_byte_buffer_length(slot->request);
	_cleanup_free_ uint8_t *bytes = gather(slot->request, size);
	_cleanup_answer_ struct answer answer = { .code = GRPC_STATUS_OK };

	if (bytes)
		dispatch(slot->method, slot->context, &slot->call, slot->id, bytes, size, &answer);
	else
		answer_refuse(&answer, GRPC_STATUS_RESOURCE_EXHAUSTED,
			      "out of memory: the request has %zu bytes", size);
	reply(slot, &answer);
}

static void serve_job(void *context, struct pool_job *job)
{
	struct slot *slot = (struct slot *)((uint8_t *)job - offsetof(struct slot, job));
	struct server *server = context;

	serve(slot);
	pthread_mutex_lock(&server->lock);
	server->n_queued--;
	pthread_mutex_unlock(&server->lock);
}

static void refuse(struct slot *slot, grpc_status_code code, const char *text)
{
	char *path = grpc_slice_to_c_string(slot->details.method);
	struct answer answer;

	LOG_FIELD("RPC", path);
	log_at(code == GRPC_STATUS_UNIMPLEMENTED ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING,
	       "refused: %s: %s", status_name(code), text);
	gpr_free(path);
	answer_refuse(&answer, code, "%s", text);
	reply(slot, &answer);
}

static bool enqueue(struct slot *slot)
{
	struct server *server = slot->server;
	bool fits;

	pthread_mutex_lock(&server->lock);
	fits = server->n_queued < server->config.max_calls;
	server->n_queued += fits;
	pthread_mutex_unlock(&server->lock);
	if (fits)
		pool_submit(server->pool, &slot->job);
	return fits;
}

static void on_received(void *owner, bool success)
{
	struct slot *slot = owner;

	if (!success || !slot->request)
		refuse(slot, GRPC_STATUS_INVALID_ARGUMENT,
		       "the call came without a message, or with one of more than 4 MiB");
	else if (slot->request->data.raw.compression != GRPC_COMPRESS_NONE)
		refuse(slot, GRPC_STATUS_UNIMPLEMENTED, "compressed messages are not served");
	else if (grpc_byte_buffer_length(slot->request) > MESSAGE_MAX)
		refuse(slot, GRPC_STATUS_RESOURCE_EXHAUSTED, "the message is larger than 4 MiB");
	else if (slot->method->immediate)
		serve(slot);
	else if (!enqueue(slot))
		refuse(slot, GRPC_STATUS_RESOURCE_EXHAUSTED,
		       "too many calls are under way: try again later");
}

static bool find_method(const struct server_config *config, grpc_slice path, struct slot *ret)
{
	for (size_t i = 0; i < config->n_services; i++) {
		const struct service *service = &config->services[i];

		for (size_t j = 0; j < service->n_methods; j++)
			if (grpc_slice_str_cmp(path, service->methods[j].path) == 0) {
				ret->method = &service->methods[j];
				ret->context = service->context;
				return true;
			}
	}
	return false;
}

static uint64_t deadline_ns(gpr_timespec deadline)
{
	gpr_timespec left;

	deadline = gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC);
	if (gpr_time_cmp(deadline, gpr_inf_future(GPR_CLOCK_MONOTONIC)) == 0)
		return CALL_NO_DEADLINE;
	left = gpr_time_sub(deadline, gpr_now(GPR_CLOCK_MONOTONIC));
	if (left.tv_sec < 0)
		return clock_now_ns();
	if (left.tv_sec > INT32_MAX)
		return CALL_NO_DEADLINE;
	return clock_now_ns() + (uint64_t)left.tv_sec * NSEC_PER_SEC + (uint64_t)left.tv_nsec;
}

static void begin(struct slot *slot)
{
	struct server *server = slot->server;

	call_init(&slot->call, deadline_ns(slot->details.deadline));
	slot->request = slot->reply = NULL;
	slot->method = NULL;
	slot->context = NULL;
	slot->cancelled = 0;
	slot->is_sent = slot->is_closed = false;
	pthread_mutex_lock(&server->lock);
	slot->id = ++server->last_id;
	server->n_running++;
	server->requested = NULL;
	pthread_mutex_unlock(&server->lock);
	request_next(server);
}

static void on_matched(void *owner, bool success)
{
	struct slot *slot = owner;
	const grpc_op close = { .op = GRPC_OP_RECV_CLOSE_ON_SERVER,
				.data.recv_close_on_server.cancelled = &slot->cancelled };
	const grpc_op receive = { .op = GRPC_OP_RECV_MESSAGE,
				  .data.recv_message.recv_message = &slot->request };

	if (!success) { /* the server is shutting down */
		give_back(slot, false);
		return;
	}
	begin(slot);
	start_batch(slot, &close, 1, &slot->closed);
	if (find_method(&slot->server->config, slot->details.method, slot))
		start_batch(slot, &receive, 1, &slot->received);
	else
		refuse(slot, GRPC_STATUS_UNIMPLEMENTED, "this method is not served here");
}

static void on_shut_down(void *owner, bool success)
{
	struct server *server = owner;

	pthread_mutex_lock(&server->lock);
	server->is_shut_down = true;
	pthread_cond_broadcast(&server->changed);
	pthread_mutex_unlock(&server->lock);
}

static void *turn(void *arg)
{
	struct server *server = arg;

	for (;;) {
		gpr_timespec until = gpr_inf_future(GPR_CLOCK_MONOTONIC);
		grpc_event event;

		if (server->config.tick_ms > 0)
			until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
					     gpr_time_from_millis((int64_t)server->config.tick_ms,
								  GPR_TIMESPAN));
		event = grpc_completion_queue_next(server->queue, until, NULL);
		atomic_store(&server->heartbeat_ns, clock_now_ns());
		if (event.type == GRPC_QUEUE_SHUTDOWN)
			return NULL;
		if (event.type == GRPC_OP_COMPLETE) {
			struct tag *tag = event.tag;

			tag->on(tag->owner, event.success != 0);
		}
	}
}

static void log_core(gpr_log_func_args *args)
{
	log_at(args->severity == GPR_LOG_SEVERITY_ERROR ? LOG_LEVEL_WARNING : LOG_LEVEL_DEBUG,
	       "grpc: %s", args->message);
}

static void make_core(struct server *server)
{
	grpc_arg args[] = {
		{ .type = GRPC_ARG_INTEGER,
		  .key = (char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
		  .value.integer = (int)MESSAGE_MAX },
		{ .type = GRPC_ARG_INTEGER,
		  .key = (char *)GRPC_ARG_MAX_CONCURRENT_STREAMS,
		  .value.integer = MAX_STREAMS },
		/* a compressed message of 4 MiB may be one of 4 GiB: refused, not unpacked */
		{ .type = GRPC_ARG_INTEGER,
		  .key = (char *)GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION,
		  .value.integer = 0 },
		{ .type = GRPC_ARG_INTEGER,
		  .key = (char *)GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET,
		  .value.integer = 1 << GRPC_COMPRESS_NONE },
	};
	const grpc_channel_args channel = { .num_args = ARRAY_SIZE(args), .args = args };

	gpr_set_log_function(log_core);
	grpc_init();
	server->grpc = grpc_server_create(&channel, NULL);
	server->queue = grpc_completion_queue_create_for_next(NULL);
	grpc_server_register_completion_queue(server->grpc, server->queue, NULL);
}

static struct server *make_server(const struct server_config *config)
{
	size_t n = config->max_calls + SPARE_SLOTS;
	struct server *server = calloc(1, sizeof(*server) + n * sizeof(server->slots[0]));

	if (!server)
		return NULL;
	server->config = *config;
	server->shut_down = (struct tag){ on_shut_down, server };
	(void)pthread_mutex_init(&server->lock, NULL);
	(void)pthread_cond_init(&server->changed, NULL);
	for (size_t i = 0; i < n; i++) {
		struct slot *slot = &server->slots[i];

		slot->server = server;
		slot->matched = (struct tag){ on_matched, slot };
		slot->received = (struct tag){ on_received, slot };
		slot->sent = (struct tag){ on_sent, slot };
		slot->closed = (struct tag){ on_closed, slot };
		slot->next_free = server->free;
		server->free = slot;
	}
	return server;
}

int server_new(const struct server_config *config, struct server **ret, struct error *err)
{
	_cleanup_server_ struct server *server = make_server(config);
	int r;

	if (!server)
		return error_errno(err, -ENOMEM, "make a server for %zu calls", config->max_calls);
	r = pool_new(config->n_threads, serve_job, server, &server->pool, err);
	if (r < 0)
		return r;
	make_core(server);
	r = -pthread_create(&server->thread, NULL, turn, server);
	if (r < 0)
		return error_errno(err, r, "start the server's thread");
	server->has_thread = true;
	grpc_server_start(server->grpc);
	request_next(server);
	*ret = TAKE_PTR(server);
	return 0;
}

void server_add_connection(struct server *server, int fd)
{
	grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();

	grpc_server_add_channel_from_fd(server->grpc, fd, credentials);
	grpc_server_credentials_release(credentials);
}

uint64_t server_heartbeat_ns(struct server *server)
{
	return atomic_load(&server->heartbeat_ns);
}

/* Under server.lock. */
static bool wait_until(struct server *server, bool (*condition)(const struct server *),
		       uint64_t patience_ms)
{
	struct timespec until = clock_timespec(clock_now_ns() + patience_ms * NSEC_PER_MSEC);
	int e = 0;

	while (!condition(server) && e == 0)
		e = pthread_cond_clockwait(&server->changed, &server->lock, CLOCK_MONOTONIC,
					   &until);
	return condition(server);
}

static bool is_idle(const struct server *server)
{
	return server->n_running == 0;
}

static bool is_over(const struct server *server)
{
	return server->n_running == 0 && !server->requested && server->is_shut_down;
}

/* The core itself would wait for the caller's side of idle connections too: hence the cancelling in
 * any case, once no call runs. */
bool server_stop(struct server *server, uint64_t drain_ms, uint64_t cancel_ms)
{
	bool over;

	pthread_mutex_lock(&server->lock);
	server->is_stopping = true;
	pthread_mutex_unlock(&server->lock);
	grpc_server_shutdown_and_notify(server->grpc, server->queue, &server->shut_down);
	pthread_mutex_lock(&server->lock);
	(void)wait_until(server, is_idle, drain_ms);
	pthread_mutex_unlock(&server->lock);
	grpc_server_cancel_all_calls(server->grpc);
	pthread_mutex_lock(&server->lock);
	over = wait_until(server, is_over, cancel_ms);
	pthread_mutex_unlock(&server->lock);
	return over;
}

static void free_core(struct server *server)
{
	grpc_completion_queue_shutdown(server->queue);
	if (server->has_thread)
		(void)pthread_join(server->thread, NULL);
	grpc_server_destroy(server->grpc);
	grpc_completion_queue_destroy(server->queue);
	grpc_shutdown();
}

void server_free(struct server *server)
{
	if (!server)
		return;
	pool_free(server->pool);
	if (server->grpc)
		free_core(server);
	(void)pthread_cond_destroy(&server->changed);
	(void)pthread_mutex_destroy(&server->lock);
	free(server);
}
