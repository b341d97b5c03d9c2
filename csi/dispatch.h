/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One call from bytes to bytes, without any gRPC: decode, handle, encode, and one line in the log.
 */

#include "csi/method.h"
#include "csi/status.h"

struct answer {
	grpc_status_code code;
	char text[ERROR_TEXT_MAX]; /* why not, UTF-8; empty with GRPC_STATUS_OK */
	uint8_t *message;	   /* with GRPC_STATUS_OK, owned; else NULL */
	size_t size;
};

/*
 * dispatch - serve one call of `method` of a service with `context`. `request_id` is what the log
 * tells this call from others by; `request` is borrowed. Fills *ret, whose message the caller owns
 * (answer_clear).
 */
void dispatch(const struct method *method, void *context, const struct call *call,
	      uint64_t request_id, const uint8_t *request, size_t size, struct answer *ret);

/* answer_refuse - an answer that is a failure. */
void answer_refuse(struct answer *ret, grpc_status_code code, const char *fmt, ...) _printf_(3, 4);

void answer_clear(struct answer *answer);
#define _cleanup_answer_ _cleanup_(answer_clear)
