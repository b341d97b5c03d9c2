/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A thread that notices volumes whose connection has ended, and has them healed (node_heal.h).
 *
 * It is told by the escrow, which watches the keeper and each of its volumes; by libmount's
 * monitor, when mounts of the node change; by operators, at PLUGIN_SOCKET (holdfastctl heal). Where
 * something was left to do it looks again soon, and in any case every half a minute. It never
 * touches a mount itself: nothing that hangs stops it.
 */

#include "csi/node_service.h"

struct watchdog;

/*
 * watchdog_new - start the thread, which looks at all volumes at once. `service` and its news_fd
 * are borrowed. *ret is owned by the caller. Returns 0 or -errno with *err set.
 */
int __must_check watchdog_new(struct node_service *service, struct watchdog **ret,
			      struct error *err);

/* watchdog_free - end the thread; a healing that has begun is brought to its end. NULL is fine. */
void watchdog_free(struct watchdog *watchdog);
