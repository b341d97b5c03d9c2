/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Leftovers of a killed predecessor, or of a keeper that was away, are undone between two calls. */

#include "csi/node_service.h"

/*
 * node_recover - undo what is half done; no handler may run. Each step is logged, and one that
 * fails does not stop the others: service->leftovers says afterwards whether to try again. Returns
 * 0, or -errno with *err set when there was nothing to decide from (no keeper, unreadable records).
 */
int __must_check node_recover(struct node_service *service, struct error *err);
