/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a request is about, for the log. Only the fields named here are ever read for it: whatever
 * else a request holds (secrets, tokens in the volume context, attributes) can't reach a log line
 * by way of this module.
 */

#include <protobuf-c/protobuf-c.h>

#include "base/macros.h"

struct subject {
	const char *volume_id, *pod_name, *pod_namespace, *pod_uid; /* NULL: not in the request */
};

/*
 * subject_of - read `volume_id` and, from `volume_context`, kubelet's csi.storage.k8s.io/pod.* keys
 * out of a message of any type. *ret borrows from the message.
 */
void subject_of(const ProtobufCMessage *message, struct subject *ret);
