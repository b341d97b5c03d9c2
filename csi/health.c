/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/health.h"

#include <errno.h>

#include "proto/health.pb-c.h"

static int check(void *context, const struct call *call, const ProtobufCMessage *request,
		 ProtobufCMessage *response, struct error *err)
{
	static const char *const names[] = { "", "csi.v1.Identity", "csi.v1.Node" };
	const char *name = ((const Grpc__Health__V1__HealthCheckRequest *)request)->service;
	Grpc__Health__V1__HealthCheckResponse *r =
		(Grpc__Health__V1__HealthCheckResponse *)response;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(name, names[i]) == 0) {
			r->status =
				GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
			return 0;
		}
	return error_set(err, ERROR_NOT_FOUND, -ENOENT, "no service '%s' is known here", name);
}

static const struct method methods[] = {
	{
		.path = "/grpc.health.v1.Health/Check",
		.request = &grpc__health__v1__health_check_request__descriptor,
		.response = &grpc__health__v1__health_check_response__descriptor,
		.immediate = true,
		.quiet = true,
		.handle = check,
	},
};

struct service health_service(void)
{
	return (struct service){ methods, ARRAY_SIZE(methods), NULL };
}
