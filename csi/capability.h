/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a volume capability of the CSI specification means to us: a decoded, checked value. */

#include "base/error.h"
#include "base/macros.h"
#include "mount/options.h"
#include "csi.pb-c.h"

struct capability {
	uint32_t access_mode; /* Csi__V1__VolumeCapability__AccessMode__Mode */
	bool reader_only;     /* the access mode allows no writing */
	bool single_target;   /* at most one target path on this node ("NodePublishVolume", second
				 table) */
	bool has_group;
	uint32_t group; /* volume_mount_group */
	struct mount_options options;
};

/*
 * capability_decode - check and decode; `message` may be NULL, which is an error. Returns 0 or
 * -EINVAL with *err set (ERROR_INVALID): no capability, a block volume, an access mode that is not
 * known, a file system type that is not ours, a group that is no number, a mount flag that is not
 * served.
 */
int __must_check capability_decode(const Csi__V1__VolumeCapability *message, struct capability *ret,
				   struct error *err);

/* capability_mode_name - "MULTI_NODE_READER_ONLY" and so on. */
const char *capability_mode_name(uint32_t access_mode);
