/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A handler's turn on a volume: nobody else works on it, on its path, or on leftovers meanwhile. */

#include "csi/node_service.h"

struct node_turn {
	struct node_service *service; /* NULL: not taken */
	struct volume_lock *volume, *path;
};

/*
 * node_turn_take - first undo leftovers (node_recover.h) if there may be some and no handler is in
 * the way; then take the volume's and the path's lock, and look whether the caller still waits. A call
 * waits for others on the volume for a second, or for five while volumes are being healed; without
 * `call` nobody waits. The turn is given back by node_turn_end, after a failure too. Returns 0 or
 * -errno with *err set: ERROR_BUSY when another call has the volume or the path.
 */
int __must_check node_turn_take(struct node_service *service, const struct call *call,
				const char *volume_id, const char *path, struct node_turn *ret,
				struct error *err);
void node_turn_end(struct node_turn *turn);
#define _cleanup_node_turn_ _cleanup_(node_turn_end)
