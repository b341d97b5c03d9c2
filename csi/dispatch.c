/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/dispatch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "csi/call.h"
#include "csi/message.h"
#include "csi/subject.h"

void answer_clear(struct answer *answer)
{
	free(answer->message);
	answer->message = NULL;
}

void answer_refuse(struct answer *ret, grpc_status_code code, const char *fmt, ...)
{
	va_list ap;

	*ret = (struct answer){ .code = code };
	va_start(ap, fmt);
	(void)vsnprintf(ret->text, sizeof(ret->text), fmt, ap);
	va_end(ap);
	utf8_clean(ret->text);
}

static int call_handler(const struct method *method, void *context, const struct call *call,
			const ProtobufCMessage *request, struct answer *ret, struct error *err)
{
	_cleanup_message_ ProtobufCMessage *response = message_new(method->response);
	int r = response ? call_check(call, err) : error_errno(err, -ENOMEM, "make the response");

	if (r == 0)
		r = method->handle(context, call, request, response, err);
	if (r == 0)
		r = message_encode(response, &ret->message, &ret->size, err);
	return r;
}

/* "/csi.v1.Node/NodeStageVolume" to "NodeStageVolume" */
static const char *short_name(const struct method *method)
{
	const char *slash = strrchr(method->path, '/');

	return slash ? slash + 1 : method->path;
}

static enum log_level level_of(const struct method *method, grpc_status_code code)
{
	switch (code) {
	case GRPC_STATUS_OK:
		return method->quiet ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO;
	case GRPC_STATUS_INTERNAL:
		return LOG_LEVEL_ERROR;
	case GRPC_STATUS_NOT_FOUND: /* kubelet's statistics of a pod that is being removed */
		return method->quiet ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING;
	default:
		return LOG_LEVEL_WARNING;
	}
}

static void log_outcome(const struct method *method, const struct answer *answer, uint64_t came_ns)
{
	uint64_t us = (clock_now_ns() - came_ns) / 1000;
	char duration[32];

	(void)snprintf(duration, sizeof(duration), "%" PRIu64 ".%03" PRIu64, us / 1000, us % 1000);
	LOG_FIELD("DURATION_MS", duration);
	LOG_FIELD("GRPC_CODE", status_name(answer->code));
	log_at(level_of(method, answer->code), "%s: %s%s%s", short_name(method),
	       status_name(answer->code), *answer->text ? ": " : "", answer->text);
}

/* The thread-local log fields of one call; those that the request does not have stay away. */
struct call_fields {
	struct log_field fields[6];
	size_t n;
};

static void fields_add(struct call_fields *f, const char *name, const char *value)
{
	if (value)
		log_field_push(&f->fields[f->n++], name, value);
}

static void fields_pop(struct call_fields *f)
{
	while (f->n > 0)
		log_field_pop(&f->fields[--f->n]);
}

static void serve(const struct method *method, void *context, const struct call *call,
		  const ProtobufCMessage *request, struct answer *ret, struct error *err)
{
	_cleanup_(fields_pop) struct call_fields fields = { .n = 0 };
	struct subject subject = { 0 };
	int r = err->code; /* of the decoding */

	if (request) {
		subject_of(request, &subject);
		fields_add(&fields, "VOLUME_ID", subject.volume_id);
		fields_add(&fields, "POD_NAMESPACE", subject.pod_namespace);
		fields_add(&fields, "POD_NAME", subject.pod_name);
		fields_add(&fields, "POD_UID", subject.pod_uid);
		r = call_handler(method, context, call, request, ret, err);
	}
	if (r < 0)
		answer_refuse(ret, status_of(err->kind), "%s", err->text);
	log_outcome(method, ret, call->came_ns);
}

void dispatch(const struct method *method, void *context, const struct call *call,
	      uint64_t request_id, const uint8_t *request, size_t size, struct answer *ret)
{
	_cleanup_message_ ProtobufCMessage *message = NULL;
	struct error err = ERROR_INIT;
	char id[24];

	(void)snprintf(id, sizeof(id), "%" PRIu64, request_id);
	LOG_FIELD("RPC", short_name(method));
	LOG_FIELD("REQUEST_ID", id);
	*ret = (struct answer){ .code = GRPC_STATUS_OK };
	if (message_decode(method->request, request, size, &message, &err) < 0)
		message = NULL;
	serve(method, context, call, message, ret, &err);
}
