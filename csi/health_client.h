/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The other end of csi/health.h, for liveness probes that start a command. */

#include "base/error.h"
#include "base/macros.h"

/*
 * health_ask - ask the gRPC server on the socket `path` whether it serves. Waits at most
 * `timeout_ms`. Returns 0 if it does, or -errno with *err set: ERROR_UNAVAILABLE when nobody
 * answers or the answer is no, ERROR_TIMEOUT.
 */
int __must_check health_ask(const char *path, int timeout_ms, struct error *err);
