/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/subject.h"

/* Kubelet's keys: https://kubernetes-csi.github.io/docs/pod-info.html */
#define POD_NAME "csi.storage.k8s.io/pod.name"
#define POD_NAMESPACE "csi.storage.k8s.io/pod.namespace"
#define POD_UID "csi.storage.k8s.io/pod.uid"

static const void *member(const ProtobufCMessage *message, unsigned int offset)
{
	return (const uint8_t *)message + offset;
}

/* The string field `name`; NULL if the type has none, or it is empty. */
static const char *string_field(const ProtobufCMessage *message, const char *name)
{
	const ProtobufCFieldDescriptor *field =
		protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);
	const char *value;

	if (!field || field->type != PROTOBUF_C_TYPE_STRING ||
	    field->label == PROTOBUF_C_LABEL_REPEATED)
		return NULL;
	value = *(char *const *)member(message, field->offset);
	return value && *value ? value : NULL;
}

static void take_entry(const ProtobufCMessage *entry, struct subject *subject)
{
	const char *key = string_field(entry, "key");

	if (!key)
		return;
	if (strcmp(key, POD_NAME) == 0)
		subject->pod_name = string_field(entry, "value");
	else if (strcmp(key, POD_NAMESPACE) == 0)
		subject->pod_namespace = string_field(entry, "value");
	else if (strcmp(key, POD_UID) == 0)
		subject->pod_uid = string_field(entry, "value");
}

void subject_of(const ProtobufCMessage *message, struct subject *ret)
{
	const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(
		message->descriptor, "volume_context");
	ProtobufCMessage *const *entries;
	size_t n;

	*ret = (struct subject){ .volume_id = string_field(message, "volume_id") };
	if (!field || field->type != PROTOBUF_C_TYPE_MESSAGE ||
	    field->label != PROTOBUF_C_LABEL_REPEATED)
		return;
	n = *(const size_t *)member(message, field->quantifier_offset);
	entries = *(ProtobufCMessage *const *const *)member(message, field->offset);
	for (size_t i = 0; i < n; i++)
		take_entry(entries[i], ret);
}
