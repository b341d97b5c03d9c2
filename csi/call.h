/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a handler can know of the call that it serves: csi/method.h's struct call, for those who
 * make one. */

#include <stdatomic.h>

#include "csi/method.h"

struct call {
	uint64_t came_ns;      /* CLOCK_MONOTONIC: when it came in */
	uint64_t deadline_ns;  /* CLOCK_MONOTONIC; CALL_NO_DEADLINE if the caller set none */
	atomic_bool cancelled; /* set by another thread when the caller gave up */
};

#define CALL_NO_DEADLINE UINT64_MAX

/* call_init - a call that has just come in. */
void call_init(struct call *call, uint64_t deadline_ns);

/* call_cancel - the caller gave up, or its deadline has passed. Any thread. */
void call_cancel(struct call *call);
