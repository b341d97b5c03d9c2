/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The seam between the gRPC server and the services: a service is a table of methods on protobuf-c
 * messages and knows nothing of gRPC; the server (csi/server.c) decodes, calls, encodes, and maps
 * errors by csi/status.c.
 *
 * A handler runs on one of the server's pool threads and may block, but not on a FUSE mount. It has
 * to ask call_check() before each step that lasts or that leaves something behind: kubelet gives up
 * after its deadline and calls the opposite method while the old handler still runs.
 */

#include <protobuf-c/protobuf-c.h>

#include "base/error.h"
#include "base/macros.h"

/* One call in progress; owned by the server, borrowed by the handler for as long as it runs. */
struct call;

/*
 * call_check - whether the caller still waits. Returns 0, -ECANCELED (ERROR_CANCELLED) or
 * -ETIMEDOUT (ERROR_TIMEOUT) with *err set.
 */
int __must_check call_check(const struct call *call, struct error *err);

/* call_remaining_ms - milliseconds to the deadline, at most `max`, at least 0; `max` if the caller
 * set none. */
int call_remaining_ms(const struct call *call, int max);

struct method {
	const char *path; /* "/csi.v1.Node/NodeStageVolume" */
	const ProtobufCMessageDescriptor *request, *response;
	/*
	 * immediate - the handler looks at nothing but memory. It then runs on the server's own
	 * thread, so that it answers even when every pool thread is busy.
	 */
	bool immediate;
	bool quiet; /* called so often that success is logged at level debug only */
	/*
	 * handle - `context` is the service's. `response` is initialised and empty; what the
	 * handler puts in is allocated with malloc(3) and is freed by the server, after failures
	 * too (protobuf_c_message_free_unpacked). Returns 0 or -errno with *err set.
	 */
	int (*handle)(void *context, const struct call *call, const ProtobufCMessage *request,
		      ProtobufCMessage *response, struct error *err);
};

struct service {
	const struct method *methods;
	size_t n_methods;
	void *context;
};
