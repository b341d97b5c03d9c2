/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Who still uses a dead superblock: no exchange of mounts helps an open file, or a process that is
 * in a directory there. */

#include "base/macros.h"
#include "recovery/plan.h"

/*
 * users_count - how many descriptors, working and root directories of all processes lie on an
 * earlier superblock of each volume, whose bit in counts[i].seen is set then. No FUSE server is
 * asked. A number whose superblock is gone may be somebody else's by now: one that fusectl does not
 * show, or that counts[i].reused tells of, does not count. ret[i] belongs to volumes[i]; a process
 * that can't be looked into counts nothing.
 */
void users_count(int proc_fd, const struct plan_volume *volumes, size_t n_volumes,
		 struct plan_counts *counts, uint32_t *ret);
