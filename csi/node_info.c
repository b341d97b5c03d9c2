/* SPDX-License-Identifier: Apache-2.0 */

/* NodeGetInfo, NodeGetCapabilities, NodeExpandVolume: answers that depend on no volume. */

#include <errno.h>
#include <string.h>

#include "csi/message.h"
#include "csi/node_service.h"
#include "csi.pb-c.h"

#define CAPABILITY(name) CSI__V1__NODE_SERVICE_CAPABILITY__RPC__TYPE__##name

static const Csi__V1__NodeServiceCapability__RPC__Type capabilities[] = {
	CAPABILITY(STAGE_UNSTAGE_VOLUME), CAPABILITY(GET_VOLUME_STATS),
	CAPABILITY(VOLUME_CONDITION),	  CAPABILITY(SINGLE_NODE_MULTI_WRITER),
	CAPABILITY(VOLUME_MOUNT_GROUP),
};

static Csi__V1__NodeServiceCapability *make_capability(
	Csi__V1__NodeServiceCapability__RPC__Type type)
{
	Csi__V1__NodeServiceCapability *c =
		(void *)message_new(&csi__v1__node_service_capability__descriptor);

	if (!c)
		return NULL;
	c->rpc = (void *)message_new(&csi__v1__node_service_capability__rpc__descriptor);
	if (!c->rpc) {
		free(c);
		return NULL;
	}
	c->type_case = CSI__V1__NODE_SERVICE_CAPABILITY__TYPE_RPC;
	c->rpc->type = type;
	return c;
}

NODE_HANDLER(node_get_capabilities)
{
	Csi__V1__NodeGetCapabilitiesResponse *answer = (void *)response;

	answer->capabilities = calloc(ARRAY_SIZE(capabilities), sizeof(*answer->capabilities));
	if (!answer->capabilities)
		return error_errno(err, -ENOMEM, "NodeGetCapabilities");
	for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++) {
		answer->capabilities[i] = make_capability(capabilities[i]);
		if (!answer->capabilities[i])
			return error_errno(err, -ENOMEM, "NodeGetCapabilities");
		answer->n_capabilities++;
	}
	return 0;
}

/* Appends one "KEY=VALUE". */
static int add_segment(Csi__V1__Topology *topology, const char *item)
{
	Csi__V1__Topology__SegmentsEntry *entry =
		(void *)message_new(&csi__v1__topology__segments_entry__descriptor);
	const char *equals = strchr(item, '=');

	if (!entry)
		return -ENOMEM;
	topology->segments[topology->n_segments++] = entry;
	entry->key = strndup(item, (size_t)(equals - item));
	entry->value = strdup(equals + 1);
	return entry->key && entry->value ? 0 : -ENOMEM;
}

static int fill_topology(const struct strv *items, Csi__V1__NodeGetInfoResponse *answer)
{
	if (items->n == 0)
		return 0;
	answer->accessible_topology = (void *)message_new(&csi__v1__topology__descriptor);
	if (!answer->accessible_topology)
		return -ENOMEM;
	answer->accessible_topology->segments =
		calloc(items->n, sizeof(*answer->accessible_topology->segments));
	if (!answer->accessible_topology->segments)
		return -ENOMEM;
	for (size_t i = 0; i < items->n; i++)
		if (add_segment(answer->accessible_topology, items->items[i]) < 0)
			return -ENOMEM;
	return 0;
}

NODE_HANDLER(node_get_info)
{
	struct node_service *s = context;
	Csi__V1__NodeGetInfoResponse *answer = (void *)response;

	answer->node_id = strdup(s->config.node_id);
	if (!answer->node_id || fill_topology(s->config.topology, answer) < 0)
		return error_errno(err, -ENOMEM, "NodeGetInfo");
	answer->max_volumes_per_node = 0; /* no limit */
	return 0;
}

NODE_HANDLER(node_expand_volume)
{
	return error_set(err, ERROR_UNIMPLEMENTED, -ENOSYS,
			 "a volume is as large as its source: there is nothing to expand");
}
