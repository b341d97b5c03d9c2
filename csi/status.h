/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The one place where our errors become gRPC codes, and what the CSI spec means by them. */

#include <grpc/status.h>

#include "base/error.h"
#include "base/macros.h"

/* status_of - the gRPC code of a failure. Source: the CSI spec's "Error Scheme". */
grpc_status_code status_of(enum error_kind kind);

/* status_name - "OK", "ALREADY_EXISTS", ... as the gRPC documentation spells it. */
const char *status_name(grpc_status_code code);
