/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The service pluginregistration.Registration: kubelet finds the registration socket, asks who is
 * there, and says whether it took the plugin. A plugin that was not taken gets no calls, so it has
 * to end and start again.
 */

#include "csi/method.h"

struct registration {
	const char *driver_name, *endpoint; /* borrowed; endpoint is the CSI socket's path */
	int refused_fd; /* an eventfd, borrowed: written when kubelet refuses the plugin */
};

/* registration_service - `registration` is borrowed for the service's life. */
struct service registration_service(struct registration *registration);
