/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * When the next worker is started after one has died: at once the first time, then after 10 ms,
 * twice as much each time, up to a second. A worker that served for a healthy while makes the next
 * death a first one again. Pure arithmetic: the clock is the caller's.
 */

#include "base/clock.h"
#include "base/macros.h"

#define BACKOFF_FIRST_NS (10 * NSEC_PER_MSEC)
#define BACKOFF_MAX_NS NSEC_PER_SEC
/*
 * Long enough to have answered what had waited; a worker that goes on dying at this age costs a
 * fifth of a CPU (a start takes about 2 ms). Applications must not wait because somebody kills
 * workers at random moments.
 */
#define BACKOFF_HEALTHY_NS (10 * NSEC_PER_MSEC)

struct backoff {
	uint64_t next_ns; /* the delay after the next death, 0 at first */
};

/*
 * backoff_next - the delay, in nanoseconds, until a worker may be started in the place of one that
 * served for `served_ns` (0: it never did).
 */
uint64_t backoff_next(struct backoff *backoff, uint64_t served_ns);
