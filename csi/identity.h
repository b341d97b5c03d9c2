/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The service csi.v1.Identity: who this plugin is, and that it is there. */

#include "csi/method.h"

struct identity {
	const char *driver_name; /* borrowed */
	bool has_topology;	 /* the node has topology segments */
};

/* identity_service - `identity` is borrowed for the service's life. */
struct service identity_service(struct identity *identity);
