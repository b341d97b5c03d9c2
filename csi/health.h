/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The service grpc.health.v1.Health. Watch is not served, as the protocol
 * allows: nothing of this server ever changes between serving and not serving.
 * Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
 */

#include "csi/method.h"

/* health_service - no state: it answers that the server and its CSI services serve. */
struct service health_service(void);
