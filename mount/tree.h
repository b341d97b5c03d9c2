/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Mounts as descriptors: made detached, given their flags, and attached in one step, so that no
 * half-configured mount is ever visible and whatever is not attached vanishes with its descriptor
 * (fsopen(2), fsmount(2), open_tree(2), mount_setattr(2), move_mount(2); glibc's <sys/mount.h>).
 */

#include <sys/mount.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"

/* All flags of a mount that mount_set_attr knows, to be cleared before some are set. */
#define MOUNT_ATTR_ALL                                                                  \
	(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | \
	 MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW)

struct mount_fuse {
	int dev_fd; /* an open /dev/fuse, borrowed; the kernel queues FUSE_INIT on it at once */
	const char *volume; /* its id; mountinfo shows the source "holdfast:VOLUME" */
	bool read_only;	    /* of the superblock itself: then no atime is ever asked for again */
	uint32_t max_read;  /* bytes, 0: the kernel's default */
};

/*
 * mount_fuse_create - a detached FUSE mount of type "fuse.holdfast" with default_permissions,
 * allow_other, nosuid and nodev. *ret_fd, owned by the caller, is the mount; it may be sent to a
 * process in another mount namespace and attached there. Source of the option names: the kernel's
 * Documentation/filesystems/fuse.rst. Returns 0 or -errno with *err set.
 */
int __must_check mount_fuse_create(const struct mount_fuse *m, int *ret_fd, struct error *err);

/* What every line of mountinfo with such a mount contains. */
#define MOUNT_FUSE_MARK " - fuse.holdfast holdfast:"

/*
 * mount_fuse_volume - the volume that a mount of this type and source (as mountinfo shows them) was
 * made for; points into `source`. NULL for any other mount.
 */
const char *mount_fuse_volume(const char *fstype, const char *source);

/*
 * mount_clone - a detached copy of the mount at `path` below `dir_fd` (the mount of dir_fd itself
 * with path ""), with everything that is mounted below it if `recursive`. The root of the copy is
 * the directory that the path names. *ret_fd is owned by the caller. Returns 0 or -errno with *err
 * set.
 */
int __must_check mount_clone(int dir_fd, const char *path, bool recursive, int *ret_fd,
			     struct error *err);

/* mount_can_copy_detached - whether a mount that is nowhere attached can be cloned (Linux 6.15). */
bool mount_can_copy_detached(void);

/*
 * mount_set_attr - set and clear per-mount flags (MOUNT_ATTR_*) of one mount; `propagation` is 0
 * (as it is), MS_PRIVATE, MS_SHARED or MS_SLAVE. Returns 0 or -errno with *err set.
 */
int __must_check mount_set_attr(int mount_fd, uint64_t set, uint64_t clear, uint64_t propagation,
				struct error *err);

/*
 * mount_attach - put the detached mount onto the directory that `target_fd` (O_PATH) is open on. No
 * path is looked up, so nothing can be swapped. mount_fd refers to the attached mount afterwards.
 * Returns 0 or -errno with *err set.
 */
int __must_check mount_attach(int mount_fd, int target_fd, struct error *err);

/*
 * mount_detach - lazily unmount what is mounted on `name` in the directory `parent_fd`; a symbolic
 * link is not followed and no FUSE server is asked. Returns 0, -EINVAL when nothing is mounted
 * there, or -errno; *err is set for all but 0.
 */
int __must_check mount_detach(int parent_fd, const char *name, struct error *err);

/*
 * mount_detach_fd - lazily unmount the mount whose root `fd` (O_PATH, or of a mount) is open on. No
 * path is looked up and no FUSE server is asked. What is mounted on top of it is taken instead (the
 * kernel goes to the top): look first. Returns 0, -EINVAL when it is no mount of this namespace, or
 * -errno; *err is set for all but 0.
 */
int __must_check mount_detach_fd(int fd, struct error *err);

/*
 * mount_make_private - cut a mount and all that is mounted below it off from the propagation of
 * their peers and masters. Returns 0 or -errno with *err set.
 */
int __must_check mount_make_private(int mount_fd, struct error *err);

/*
 * mount_join - make a private mount, attached or not, a peer of the one that `peer_fd` lies on, and
 * a slave of that one's master if it has one. Nothing that is mounted on either is propagated. Both
 * are of one superblock; the peer, whose namespace may be another one, shows the whole of what the
 * mount shows (MOVE_MOUNT_SET_GROUP, Linux 5.15; fs/namespace.c, do_set_group). Returns 0 or -errno
 * with *err set.
 */
int __must_check mount_join(int mount_fd, int peer_fd, struct error *err);

/*
 * mount_identify - which superblock and which mount an O_PATH descriptor lies on, without asking a
 * FUSE server (statx(2) with AT_STATX_DONT_SYNC). *ret_is_root says whether it is the root of a
 * mount. Returns 0 or -errno.
 */
int __must_check mount_identify(int fd, dev_t *ret_dev, uint64_t *ret_mount_id, bool *ret_is_root);
