/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/call.h"

#include <errno.h>

#include "base/clock.h"

void call_init(struct call *call, uint64_t deadline_ns)
{
	call->came_ns = clock_now_ns();
	call->deadline_ns = deadline_ns;
	atomic_init(&call->cancelled, false);
}

void call_cancel(struct call *call)
{
	atomic_store(&call->cancelled, true);
}

/* The deadline first: gRPC cancels a call whose deadline passes, and "too late" tells more. */
int call_check(const struct call *call, struct error *err)
{
	if (clock_now_ns() >= call->deadline_ns)
		return error_set(err, ERROR_TIMEOUT, -ETIMEDOUT,
				 "the caller's deadline has passed");
	if (atomic_load(&call->cancelled))
		return error_set(err, ERROR_CANCELLED, -ECANCELED, "the caller has given up");
	return 0;
}

int call_remaining_ms(const struct call *call, int max)
{
	uint64_t now = clock_now_ns(), left;

	if (atomic_load(&call->cancelled) || now >= call->deadline_ns)
		return 0;
	left = (call->deadline_ns - now) / NSEC_PER_MSEC;
	return left < (uint64_t)max ? (int)left : max;
}
