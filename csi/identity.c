/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/identity.h"

#include <errno.h>

#include "base/version.h"
#include "csi/message.h"
#include "proto/csi.pb-c.h"

static int get_plugin_info(void *context, const struct call *call, const ProtobufCMessage *request,
			   ProtobufCMessage *response, struct error *err)
{
	const struct identity *identity = context;
	Csi__V1__GetPluginInfoResponse *r = (Csi__V1__GetPluginInfoResponse *)response;

	r->name = strdup(identity->driver_name);
	r->vendor_version = strdup(HOLDFAST_VERSION);
	if (!r->name || !r->vendor_version)
		return error_errno(err, -ENOMEM, "name the plugin");
	return 0;
}

/* The capability of having volumes that not every node reaches. There is no controller service. */
static Csi__V1__PluginCapability *topology_capability(void)
{
	Csi__V1__PluginCapability *capability =
		(void *)message_new(&csi__v1__plugin_capability__descriptor);

	if (!capability)
		return NULL;
	capability->service = (void *)message_new(&csi__v1__plugin_capability__service__descriptor);
	if (!capability->service) {
		free(capability);
		return NULL;
	}
	capability->type_case = CSI__V1__PLUGIN_CAPABILITY__TYPE_SERVICE;
	capability->service->type =
		CSI__V1__PLUGIN_CAPABILITY__SERVICE__TYPE__VOLUME_ACCESSIBILITY_CONSTRAINTS;
	return capability;
}

static int get_plugin_capabilities(void *context, const struct call *call,
				   const ProtobufCMessage *request, ProtobufCMessage *response,
				   struct error *err)
{
	const struct identity *identity = context;
	Csi__V1__GetPluginCapabilitiesResponse *r =
		(Csi__V1__GetPluginCapabilitiesResponse *)response;

	if (!identity->has_topology)
		return 0;
	r->capabilities = calloc(1, sizeof(struct Csi__V1__PluginCapability *));
	if (!r->capabilities)
		return error_errno(err, -ENOMEM, "list the capabilities");
	r->capabilities[0] = topology_capability();
	if (!r->capabilities[0])
		return error_errno(err, -ENOMEM, "list the capabilities");
	r->n_capabilities = 1;
	return 0;
}

/*
 * Always ready: whoever asks would restart this process if it were not, which brings back neither a
 * keeper nor a volume. Calls that need the keeper say UNAVAILABLE by themselves.
 */
static int probe(void *context, const struct call *call, const ProtobufCMessage *request,
		 ProtobufCMessage *response, struct error *err)
{
	Csi__V1__ProbeResponse *r = (Csi__V1__ProbeResponse *)response;

	r->ready = (void *)message_new(&google__protobuf__bool_value__descriptor);
	if (!r->ready)
		return error_errno(err, -ENOMEM, "say ready");
	r->ready->value = true;
	return 0;
}

static const struct method methods[] = {
	{
		.path = "/csi.v1.Identity/GetPluginInfo",
		.request = &csi__v1__get_plugin_info_request__descriptor,
		.response = &csi__v1__get_plugin_info_response__descriptor,
		.immediate = true,
		.quiet = true,
		.handle = get_plugin_info,
	},
	{
		.path = "/csi.v1.Identity/GetPluginCapabilities",
		.request = &csi__v1__get_plugin_capabilities_request__descriptor,
		.response = &csi__v1__get_plugin_capabilities_response__descriptor,
		.immediate = true,
		.quiet = true,
		.handle = get_plugin_capabilities,
	},
	{
		.path = "/csi.v1.Identity/Probe",
		.request = &csi__v1__probe_request__descriptor,
		.response = &csi__v1__probe_response__descriptor,
		.immediate = true,
		.quiet = true,
		.handle = probe,
	},
};

struct service identity_service(struct identity *identity)
{
	return (struct service){ methods, ARRAY_SIZE(methods), identity };
}
