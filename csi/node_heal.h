/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A volume whose connection has ended for good gets a new one, and everything that shows the old
 * one is exchanged: staging path, targets, and what runtimes made of them inside containers
 * (recovery/nsmount.h). Also what is left to exchange of an earlier time.
 */

#include "csi/node_service.h"

/*
 * node_heal - look after the `n` volumes, whose locks the caller holds: one whose connection has
 * ended, or that neither keeper nor escrow have, is started afresh; where a volume is not mounted
 * though it should be, it is mounted; stale mounts of all of them are exchanged in one go. Records
 * are saved. `call` may be NULL. What fails for one is logged and does not keep the others from
 * being healed. Returns 0, or -errno with *err set, which tells of the last failure.
 */
int __must_check node_heal(struct node_service *service, const struct call *call,
			   struct record *const *records, size_t n, struct error *err);

/* node_heal_is_due - whether something was left to exchange for a volume, as its record has it. */
bool node_heal_is_due(const struct record *record);
