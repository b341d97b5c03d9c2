/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * protobuf messages from and to bytes that come from outside. protobuf-c alone is too trusting in
 * three points: it cuts a string at an embedded NUL, so that "allowed\0../secret" would pass every
 * check; it does not look whether strings are UTF-8; and a small message with very many fields
 * makes it allocate a hundred times the message's size. So the bytes are walked once before they
 * are decoded.
 */

#include <protobuf-c/protobuf-c.h>

#include "base/error.h"
#include "base/macros.h"

#define MESSAGE_MAX ((size_t)4 << 20) /* bytes, gRPC's own default */
#define MESSAGE_FIELDS_MAX 65536      /* in one message, nested ones included */

/*
 * message_decode - *ret is owned by the caller (message_free). Returns 0 or -errno with *err set:
 * -EBADMSG (ERROR_INVALID) when the bytes are no such message, -EINVAL (ERROR_INVALID) when a
 * string of it is not UTF-8 or contains a NUL, or when it has too many fields; -ENOMEM
 * (ERROR_EXHAUSTED).
 */
int __must_check message_decode(const ProtobufCMessageDescriptor *type, const uint8_t *bytes,
				size_t size, ProtobufCMessage **ret, struct error *err);

/* message_encode - *ret is owned by the caller (free(3)). Returns 0 or -ENOMEM with *err set. */
int __must_check message_encode(const ProtobufCMessage *message, uint8_t **ret, size_t *ret_size,
				struct error *err);

/* message_new - an initialised, empty message. NULL when out of memory. */
ProtobufCMessage *message_new(const ProtobufCMessageDescriptor *type);

/* message_free - the message and all that it holds. NULL is fine. */
void message_free(ProtobufCMessage *message);
DEFINE_CLEANUP(ProtobufCMessage *, message_free);
#define _cleanup_message_ _cleanup_(message_free_cleanup)
