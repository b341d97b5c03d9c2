/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <limits.h>
#include <time.h>

#include "base/macros.h"

#define NSEC_PER_MSEC 1000000ULL
#define NSEC_PER_SEC 1000000000ULL

/* clock_now_ns - CLOCK_MONOTONIC in nanoseconds. */
static inline uint64_t clock_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* clock_timespec - nanoseconds as the C library takes them. */
static inline struct timespec clock_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / NSEC_PER_SEC),
				  .tv_nsec = (long)(ns % NSEC_PER_SEC) };
}

/* clock_left_ms - milliseconds until due_ns, for poll(2); rounded up, so that a loop does not spin
 * through the last one. 0 when it has passed. */
static inline int clock_left_ms(uint64_t due_ns)
{
	uint64_t now = clock_now_ns(), ms;

	if (now >= due_ns)
		return 0;
	ms = (due_ns - now) / NSEC_PER_MSEC + 1;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}
