/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The sizes of a volume that may hang: asked by a child process (holdfast-statfs), with a deadline.
 * A child that is stuck in the kernel can't be killed, so a volume whose child is stuck is not
 * asked again while that one lives.
 */

#include "base/error.h"
#include "base/macros.h"
#include "mount/statfs.h"

struct stats; /* remembers the stuck children; safe in several threads */

/* stats_new - NULL when out of memory. */
struct stats *stats_new(void);
/* stats_free - NULL is fine. Children that are still stuck stay behind; they end with their volume.
 */
void stats_free(struct stats *stats);

/*
 * stats_read - ask the file system that `mount_fd` (O_PATH, borrowed) lies on. Returns 0 or -errno
 * with *err set: -ETIMEDOUT (ERROR_TIMEOUT) when there was no answer in time, -EBUSY (ERROR_BUSY)
 * when an earlier child of the volume is still stuck, what statfs(2) itself said.
 */
int __must_check stats_read(struct stats *stats, const char *volume_id, int mount_fd,
			    int timeout_ms, struct statfs_report *ret, struct error *err);
