/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Where a child goes that was killed and does not die, because it is in an uninterruptible call on
 * a hung source: it is waited for without anybody waiting.
 */

#include "recovery/loop.h"
#include "recovery/supervisor/child.h"

struct reaper {
	struct loop *loop;
	struct orphan *orphans;
};

/* reaper_adopt - take over *child, which is CHILD_NONE afterwards. */
void reaper_adopt(struct reaper *reaper, struct child *child);

/* reaper_each - call see(context) for each that has not ended yet. */
void reaper_each(const struct reaper *reaper, void (*see)(void *context, const struct child *child),
		 void *context);

/* reaper_done - forget those that are left. */
void reaper_done(struct reaper *reaper);
