/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/backoff.h"

uint64_t backoff_next(struct backoff *backoff, uint64_t served_ns)
{
	uint64_t delay = served_ns >= BACKOFF_HEALTHY_NS ? 0 : backoff->next_ns;

	backoff->next_ns = delay ? MIN_OF(delay * 2, BACKOFF_MAX_NS) : BACKOFF_FIRST_NS;
	return delay;
}
