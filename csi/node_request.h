/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Stage and Publish requests, checked and decoded before anything is done. */

#include "base/error.h"
#include "base/macros.h"
#include "csi/attributes.h"
#include "csi/capability.h"
#include "csi.pb-c.h"
#include "fuse/volume.h"

struct node_request {
	const char *volume_id;	  /* borrowed from the message, as all strings here */
	const char *staging_path; /* "" where a publish call gives none */
	const char *target_path;  /* "" in a stage call */
	bool read_only;		  /* publish: `readonly` */
	struct attributes attributes;
	struct capability capability;
};

/*
 * node_request_stage, node_request_publish - check and decode; *ret is given back by
 * node_request_clear and borrows from the message. Returns 0 or -errno with *err set
 * (ERROR_INVALID): what is missing, too long, malformed, not below `kubelet_root`, not known.
 */
int __must_check node_request_stage(const Csi__V1__NodeStageVolumeRequest *message,
				    const char *kubelet_root, struct node_request *ret,
				    struct error *err);
int __must_check node_request_publish(const Csi__V1__NodePublishVolumeRequest *message,
				      const char *kubelet_root, struct node_request *ret,
				      struct error *err);
void node_request_clear(struct node_request *request);
#define _cleanup_node_request_ _cleanup_(node_request_clear)

/*
 * node_request_config - what the volume is to be. Read-only if the attribute, the access mode,
 * the mount flag "ro" or an inline volume's `readonly` says so; nothing widens that. Returns 0 or
 * -EINVAL with *err set (ERROR_INVALID): no source, or attributes that do not go together.
 */
int __must_check node_request_config(const struct node_request *request, struct volume_config *ret,
				     struct error *err);
