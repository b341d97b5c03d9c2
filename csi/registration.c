/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/registration.h"

#include <errno.h>
#include <sys/eventfd.h>

#include "base/log.h"
#include "proto/registration.pb-c.h"

/* What kubelet's plugin watcher knows a CSI plugin by (k8s.io/kubelet, pluginregistration/v1), and
 * the versions of CSI that it negotiates. */
#define PLUGIN_TYPE "CSIPlugin"
#define CSI_VERSION "1.0.0"

static int get_info(void *context, const struct call *call, const ProtobufCMessage *request,
		    ProtobufCMessage *response, struct error *err)
{
	const struct registration *registration = context;
	Pluginregistration__PluginInfo *r = (Pluginregistration__PluginInfo *)response;

	r->type = strdup(PLUGIN_TYPE);
	r->name = strdup(registration->driver_name);
	r->endpoint = strdup(registration->endpoint);
	r->supported_versions = calloc(1, sizeof(char *));
	if (!r->type || !r->name || !r->endpoint || !r->supported_versions)
		return error_errno(err, -ENOMEM, "describe the plugin");
	r->supported_versions[0] = strdup(CSI_VERSION);
	if (!r->supported_versions[0])
		return error_errno(err, -ENOMEM, "describe the plugin");
	r->n_supported_versions = 1;
	return 0;
}

static int notify_registration_status(void *context, const struct call *call,
				      const ProtobufCMessage *request, ProtobufCMessage *response,
				      struct error *err)
{
	const struct registration *registration = context;
	const Pluginregistration__RegistrationStatus *status =
		(const Pluginregistration__RegistrationStatus *)request;

	if (status->plugin_registered) {
		log_notice("kubelet has registered the plugin %s", registration->driver_name);
		return 0;
	}
	log_error("kubelet refuses the plugin %s: %s", registration->driver_name, status->error);
	if (eventfd_write(registration->refused_fd, 1) < 0)
		return error_errno(err, -errno, "eventfd_write");
	return 0;
}

static const struct method methods[] = {
	{
		.path = "/pluginregistration.Registration/GetInfo",
		.request = &pluginregistration__info_request__descriptor,
		.response = &pluginregistration__plugin_info__descriptor,
		.immediate = true,
		.quiet = true,
		.handle = get_info,
	},
	{
		.path = "/pluginregistration.Registration/NotifyRegistrationStatus",
		.request = &pluginregistration__registration_status__descriptor,
		.response = &pluginregistration__registration_status_response__descriptor,
		.immediate = true,
		.quiet = true,
		.handle = notify_registration_status,
	},
};

struct service registration_service(struct registration *registration)
{
	return (struct service){ methods, ARRAY_SIZE(methods), registration };
}
