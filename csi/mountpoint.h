/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A place where kubelet wants a volume: its staging path or a target path. Everything here looks
 * with O_PATH descriptors and mountinfo only, so dead and hung volumes never block, and touches
 * nothing but the mounts of its own volume.
 */

#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"

struct mountpoint {
	const char *root;      /* kubelet's root directory; borrowed */
	const char *path;      /* below it; borrowed */
	const char *volume_id; /* borrowed */
	dev_t dev;	       /* st_dev of the volume's superblock, 0 if it has none */
};

enum mountpoint_state {
	MOUNTPOINT_MISSING = 0, /* the path is not there */
	MOUNTPOINT_PLAIN = 1,	/* a directory on which nothing is mounted */
	MOUNTPOINT_OURS = 2,	/* the volume's present superblock is mounted there, on top */
	MOUNTPOINT_STALE = 3,	/* an earlier superblock of the volume is */
	MOUNTPOINT_FOREIGN = 4, /* something else is */
};

/*
 * mountpoint_look - *ret_fd (owned by the caller, O_PATH, -EBADF when MISSING) is what is there.
 * ret_fd may be NULL. Returns an enum mountpoint_state, or -errno with *err set; a symbolic link or
 * anything that is no directory at the path is an error (ERROR_INVALID).
 */
int __must_check mountpoint_look(const struct mountpoint *m, int *ret_fd, struct error *err);

/*
 * mountpoint_prepare - make sure that there is an empty directory at the path on which nothing is
 * mounted; what an earlier life of this volume left mounted there is unmounted. With `make` the
 * directory is made if it is missing (its parent has to be there), and *ret_created says so.
 * *ret_fd (O_PATH) is owned by the caller. Returns 0 or -errno with *err set: a foreign mount or
 * files below (ERROR_PRECONDITION), no directory or a symbolic link (ERROR_INVALID).
 */
int __must_check mountpoint_prepare(const struct mountpoint *m, bool make, bool *ret_created,
				    int *ret_fd, struct error *err);

/*
 * mountpoint_attach - put the detached `mount_fd` onto `dir_fd`, which mountpoint_prepare opened.
 * The mount then has exactly `flags` (MOUNT_ATTR_*), and nosuid and nodev. If the path leads
 * elsewhere by now, the mount is taken away again. Returns 0 or -errno with *err set.
 */
int __must_check mountpoint_attach(const struct mountpoint *m, int mount_fd, int dir_fd,
				   uint64_t flags, struct error *err);

/*
 * mountpoint_clear - unmount every layer of this volume from the top of the path, the present one
 * and earlier ones; what lies below a foreign mount stays. A path that is not there is fine.
 * Returns an enum mountpoint_state of what is there now (MISSING, PLAIN or FOREIGN), or -errno with
 * *err set.
 */
int __must_check mountpoint_clear(const struct mountpoint *m, struct error *err);

/*
 * mountpoint_clear_all - unmount the volume's present superblock wherever it is mounted below the
 * root, also at paths that somebody has renamed since, but for those that `spare` wants to stay: it
 * is given the path behind the root ("/pods/..."); NULL: none. m->path is not looked at. Returns 0
 * or -errno with *err set.
 */
int __must_check mountpoint_clear_all(const struct mountpoint *m,
				      bool (*spare)(const void *context, const char *path),
				      const void *context, struct error *err);
