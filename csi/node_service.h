/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the handlers of the Node service share, and the handlers themselves, one file a pair:
 * node_stage.c, node_publish.c, node_stats.c, node_info.c.
 *
 * Locks, in their order:
 *   1. `gate`: a handler that changes volumes holds it for reading, the clean-up of leftovers
 *      (node_recover.c) for writing;
 *   2. a volume's lock, then its path's (volume_lock.h): nobody waits for the latter;
 *   3. the mutexes inside volume_lock.c, stats.c, recovery/escrow.c and nsmount_client.c.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "csi/method.h"
#include "csi/node.h"
#include "csi/stats.h"
#include "csi/volume_lock.h"
#include "recovery/escrow.h"
#include "recovery/nsmount_client.h"
#include "recovery/record.h"

struct watchdog;

struct node_service {
	struct node_config config;
	struct record_store *records;
	struct volume_locks *locks;
	struct stats *stats;
	struct escrow *escrow;
	struct nsmount_client *nsmount;
	struct watchdog *watchdog;
	int news_fd;	     /* eventfd: a volume may have been lost */
	atomic_int healing; /* how many healings are under way: calls wait for the volume then */
	pthread_rwlock_t gate;
	atomic_bool leftovers; /* the keeper may have what no record tells of, or the other way */
};

/* The handlers (struct method's `handle`; context is the struct node_service). */
#define NODE_HANDLER(name)                                                                 \
	int __must_check name(void *context, const struct call *call,                      \
			      const ProtobufCMessage *request, ProtobufCMessage *response, \
			      struct error *err)
NODE_HANDLER(node_stage_volume);
NODE_HANDLER(node_unstage_volume);
NODE_HANDLER(node_publish_volume);
NODE_HANDLER(node_unpublish_volume);
NODE_HANDLER(node_get_volume_stats);
NODE_HANDLER(node_expand_volume);
NODE_HANDLER(node_get_capabilities);
NODE_HANDLER(node_get_info);
