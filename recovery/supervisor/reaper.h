/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Where a worker goes that was killed and does not die, because it is in an uninterruptible call on
 * a hung source: it is waited for without anybody waiting.
 */

#include "recovery/loop.h"
#include "recovery/supervisor/worker_process.h"

/* reaper_adopt - take over *worker, which is WORKER_PROCESS_NONE afterwards. */
void reaper_adopt(struct loop *loop, struct worker_process *worker);
