/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The steps that the handlers are made of, each on one record. The caller holds the volume's lock.
 * Records change in memory; who calls saves them.
 */

#include "csi/mountpoint.h"
#include "csi/node_service.h"
#include "recovery/control.h"

/*
 * node_volume_load - the volume's record; *ret is NULL when there is none, else owned by the
 * caller. Returns 0 or -errno with *err set.
 */
int __must_check node_volume_load(struct node_service *service, const char *id, struct record **ret,
				  struct error *err);

/*
 * node_volume_start - open the source, save the record (RECORD_STAGING) and have the keeper serve
 * the volume; a volume of that name which no record told of is ended first. `call` may be NULL.
 * Sets record->dev. *ret_mount_fd is owned by the caller. After a failure node_volume_end undoes
 * what may be there. Returns 0 or -errno with *err set.
 */
int __must_check node_volume_start(struct node_service *service, const struct call *call,
				   struct record *record, int *ret_mount_fd, struct error *err);

/*
 * node_volume_ask - what the keeper knows of a volume. One that it has lost, or whose connection
 * has ended, is VOLUME_DEAD, with *ret_mount_fd -EBADF; else that is a detached mount, owned by the
 * caller. Returns 0, or -errno with *err set when the keeper does not answer.
 */
int __must_check node_volume_ask(struct node_service *service, int timeout_ms, const char *id,
				 int *ret_mount_fd, struct volume_status *ret, struct error *err);

/*
 * node_volume_mount - a detached mount of the volume for one more place. Where the connection has
 * ended or the keeper lost the volume, it is healed (node_heal.h). *ret_mount_fd is owned by the caller. Returns 0 or
 * -errno with *err set.
 */
int __must_check node_volume_mount(struct node_service *service, const struct call *call,
				   struct record *record, int *ret_mount_fd, struct error *err);

/*
 * node_volume_check - whether the keeper serves the volume, and its staging mount is there: what is
 * not is mended. A keeper that does not answer is an error. Returns 0 or -errno with *err set.
 */
int __must_check node_volume_check(struct node_service *service, const struct call *call,
				   struct record *record, struct error *err);

/*
 * node_volume_end - take everything of the volume away: mounts, made directories, the keeper's
 * volume, at last the record. A keeper that is not there is no obstacle: what it may have is ended
 * when it comes back. Returns 0, or -errno with *err set; the record is then still there.
 */
int __must_check node_volume_end(struct node_service *service, struct record *record,
				 struct error *err);

/*
 * node_volume_find_target - a target path where the volume is published and still mounted (one from
 * which the mount has vanished needs no Unpublish any more), NULL if there is none; borrowed from
 * the record.
 */
const char *node_volume_find_target(struct node_service *service, const struct record *record);

/*
 * node_volume_clear_target - unmount and remove one target path. The record is not changed. Returns
 * 0 or -errno with *err set.
 */
int __must_check node_volume_clear_target(struct node_service *service, const struct record *record,
					  const char *path, struct error *err);

/*
 * node_volume_clear_unknown - unmount what of a volume is mounted at a path that no record tells
 * of. The keeper's volume is ended by node_recover once it is mounted nowhere. Returns as
 * mountpoint_clear does.
 */
int __must_check node_volume_clear_unknown(struct node_service *service, const char *id,
					   const char *path, struct error *err);

/* How long the keeper may take, if the caller has more time than that. */
#define NODE_KEEPER_START_MS 60000
#define NODE_KEEPER_END_MS 15000
#define NODE_KEEPER_LOOK_MS 5000
