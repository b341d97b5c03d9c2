/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where a volume has to be mounted on the node: its staging path and its targets. */

#include "csi/mountpoint.h"
#include "csi/node_service.h"

/* node_place - the volume at `path`; borrows both. */
struct mountpoint node_place(const struct node_service *service, const struct record *record,
			     const char *path);

/*
 * node_places_clone - a detached mount, owned by the caller, cloned from where the volume's present
 * connection is mounted. Returns 0, or -ENOENT if that is nowhere.
 */
int __must_check node_places_clone(const struct node_service *service,
				   const struct record *record, int *ret_mount_fd);

/*
 * node_places_note_stale - where an earlier connection is mounted that the record does not know of:
 * now it does.
 */
void node_places_note_stale(const struct node_service *service, struct record *record);

/* node_places_missing - how many there are where the present connection is not mounted. */
size_t node_places_missing(const struct node_service *service, const struct record *record);

/*
 * node_places_mount - mount it where nothing is; paths that are not there any more are left alone,
 * and so are earlier connections, which are exchanged (node_heal.h): a path never shows nothing. *mount_fd is a detached mount of the volume: where the kernel can't copy such a one, it is
 * replaced by a copy of one that was mounted. Returns 0 or -errno with *err set, of the last place
 * that failed.
 */
int __must_check node_places_mount(const struct node_service *service, const struct record *record,
				   int *mount_fd, struct error *err);

/*
 * node_places_seed - for kernels that can't copy a detached mount (before Linux 6.15): replace
 * *mount_fd by a copy of one that is mounted; where the volume is mounted nowhere and no mount waits
 * to be exchanged, that one is mounted before. Elsewhere nothing. Returns as node_places_mount,
 * -ENOTCONN when the only mount there was is gone: the volume needs a new connection.
 */
int __must_check node_places_seed(const struct node_service *service, const struct record *record,
				  int *mount_fd, struct error *err);
