/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/message.h"

#include <errno.h>

#include "base/utf8.h"

/* The wire format: https://protobuf.dev/programming-guides/encoding/ */
#define VARINT_MAX 10 /* bytes of a 64-bit number, 7 bits each */

struct walk {
	size_t fields; /* seen so far */
	struct error *err;
};

static int malformed(struct walk *walk, const ProtobufCMessageDescriptor *type)
{
	return error_set(walk->err, ERROR_INVALID, -EBADMSG,
			 "the request is not a %s message: its bytes are garbled or cut off",
			 type->name);
}

/* Takes a varint off the front of *bytes. Returns false when it does not end. */
static bool take_varint(const uint8_t **bytes, size_t *size, uint64_t *ret)
{
	uint64_t value = 0;

	for (size_t i = 0; i < *size && i < VARINT_MAX; i++) {
		value |= (uint64_t)((*bytes)[i] & 0x7f) << (7 * i);
		if ((*bytes)[i] < 0x80) {
			*bytes += i + 1;
			*size -= i + 1;
			*ret = value;
			return true;
		}
	}
	return false;
}

/* Takes `n` bytes off the front. */
static bool skip(const uint8_t **bytes, size_t *size, uint64_t n)
{
	if (n > *size)
		return false;
	*bytes += n;
	*size -= (size_t)n;
	return true;
}

static int check_string(struct walk *walk, const ProtobufCMessageDescriptor *type,
			const ProtobufCFieldDescriptor *field, const uint8_t *bytes, size_t size)
{
	const char *s = (const char *)bytes;

	if (memchr(s, '\0', size))
		return error_set(walk->err, ERROR_INVALID, -EINVAL,
				 "field %s of %s contains a NUL byte", field->name, type->name);
	if (utf8_prefix(s, size) != size)
		return error_set(walk->err, ERROR_INVALID, -EINVAL, "field %s of %s is not UTF-8",
				 field->name, type->name);
	return 0;
}

static int check_message(struct walk *walk, const ProtobufCMessageDescriptor *type,
			 const uint8_t *bytes, size_t size);

/* A field whose bytes are preceded by their length. Recursion ends, because no message of ours
 * contains itself. */
static int check_bytes(struct walk *walk, const ProtobufCMessageDescriptor *type, unsigned int id,
		       const uint8_t *bytes, size_t size)
{
	const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(type, id);

	if (field && field->type == PROTOBUF_C_TYPE_STRING)
		return check_string(walk, type, field, bytes, size);
	if (field && field->type == PROTOBUF_C_TYPE_MESSAGE)
		return check_message(walk, field->descriptor, bytes, size);
	return 0; /* bytes, packed numbers, or a field of a later version */
}

static int check_field(struct walk *walk, const ProtobufCMessageDescriptor *type,
		       const uint8_t **bytes, size_t *size)
{
	uint64_t tag, length;
	int r;

	if (++walk->fields > MESSAGE_FIELDS_MAX)
		return error_set(walk->err, ERROR_INVALID, -EINVAL,
				 "the request has more than %d fields", MESSAGE_FIELDS_MAX);
	if (!take_varint(bytes, size, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
		return malformed(walk, type);
	switch (tag & 7) {
	case PROTOBUF_C_WIRE_TYPE_VARINT:
		return take_varint(bytes, size, &length) ? 0 : malformed(walk, type);
	case PROTOBUF_C_WIRE_TYPE_64BIT:
		return skip(bytes, size, 8) ? 0 : malformed(walk, type);
	case PROTOBUF_C_WIRE_TYPE_32BIT:
		return skip(bytes, size, 4) ? 0 : malformed(walk, type);
	case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
		if (!take_varint(bytes, size, &length) || length > *size)
			return malformed(walk, type);
		r = check_bytes(walk, type, (unsigned int)(tag >> 3), *bytes, (size_t)length);
		(void)skip(bytes, size, length);
		return r;
	default: /* groups, which proto3 does not have */
		return malformed(walk, type);
	}
}

static int check_message(struct walk *walk, const ProtobufCMessageDescriptor *type,
			 const uint8_t *bytes, size_t size)
{
	while (size > 0) {
		int r = check_field(walk, type, &bytes, &size);

		if (r < 0)
			return r;
	}
	return 0;
}

/* protobuf-c says NULL for "garbage" and "no memory" alike: the allocator knows which it was. */
static void *allocate(void *out_of_memory, size_t size)
{
	void *p = malloc(size);

	if (!p)
		*(bool *)out_of_memory = true;
	return p;
}

static void release(void *out_of_memory, void *p)
{
	free(p);
}

int message_decode(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t size,
		   ProtobufCMessage **ret, struct error *err)
{
	struct walk walk = { .err = err };
	bool out_of_memory = false;
	ProtobufCAllocator allocator = { allocate, release, &out_of_memory };
	ProtobufCMessage *message;
	int r = check_message(&walk, type, bytes, size);

	if (r < 0)
		return r;
	message = protobuf_c_message_unpack(type, &allocator, size, bytes);
	if (!message && out_of_memory)
		return error_errno(err, -ENOMEM, "decode the request");
	if (!message)
		return malformed(&walk, type);
	*ret = message;
	return 0;
}

int message_encode(const ProtobufCMessage *message, uint8_t **ret, size_t *ret_size,
		   struct error *err)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	uint8_t *bytes = malloc(MAX_OF(size, (size_t)1));

	if (!bytes)
		return error_errno(err, -ENOMEM, "encode the response");
	(void)protobuf_c_message_pack(message, bytes);
	*ret = bytes;
	*ret_size = size;
	return 0;
}

ProtobufCMessage *message_new(const ProtobufCMessageDescriptor *type)
{
	ProtobufCMessage *message = malloc(type->sizeof_message);

	if (message)
		protobuf_c_message_init(type, message);
	return message;
}

void message_free(ProtobufCMessage *message)
{
	protobuf_c_message_free_unpacked(message, NULL);
}
