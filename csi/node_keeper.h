/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The keeper's calls that change or look for a volume, in step with the escrow: a keeper that does
 * not know a volume may have come a moment ago, and is about to be given it back.
 */

#include "csi/node_service.h"
#include "recovery/control.h"

/*
 * node_keeper_add - keeper_add; the volume's descriptors go into escrow in the same step. Without
 * room for them the volume works, and ends with its keeper, which is logged.
 */
int __must_check node_keeper_add(struct node_service *service, int timeout_ms,
				 const struct volume_config *config, int source_fd,
				 int *ret_mount_fd, struct volume_status *ret, struct error *err);

/*
 * node_keeper_mount - keeper_mount. ERROR_NOT_FOUND means that the volume is in no escrow either;
 * ERROR_UNAVAILABLE that it could not be given back in time.
 */
int __must_check node_keeper_mount(struct node_service *service, int timeout_ms, const char *id,
				   int *ret_mount_fd, struct volume_status *ret, struct error *err);

/*
 * node_keeper_remove - keeper_remove, and the end of the escrow whatever the keeper says: with both
 * the connection ends. To be called for a volume that is mounted nowhere any more.
 */
int __must_check node_keeper_remove(struct node_service *service, const char *id,
				    struct error *err);
