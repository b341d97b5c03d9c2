/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The mount flags of a volume capability (a PV's mountOptions), which kubelet passes on unchecked.
 */

#include "base/error.h"
#include "base/macros.h"

struct mount_options {
	uint64_t
		attr_set; /* MOUNT_ATTR_* to set on the mount, nosuid and nodev always among them */
	uint64_t attr_clear; /* MOUNT_ATTR_* to clear */
	bool read_only;	     /* "ro" was given */
	uint32_t max_read;   /* bytes, 0: not given */
};

/* mount_options_init - what holds without any flag: nosuid, nodev, relatime. */
void mount_options_init(struct mount_options *ret);

/*
 * mount_options_add - take one flag into account. A flag may hold several, separated by commas.
 * Returns 0 or -EINVAL with *err set (ERROR_INVALID): it names the flag and those that are
 * possible.
 */
int __must_check mount_options_add(struct mount_options *o, const char *flag, struct error *err);
