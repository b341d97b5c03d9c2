/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One mount exchanged for another at the same place, in this process's mount namespace: flags,
 * propagation, id mapping and what is mounted on or below it are kept, one layer is left, and at no
 * moment does the path show neither, where the kernel can mount beneath (Linux 6.5,
 * MOVE_MOUNT_BENEATH of move_mount(2)). For a process of one thread (holdfast-nsmount): it changes
 * its working directory, and is in this namespace afterwards.
 *
 * What is mounted below the old mount is put onto the new one where nobody sees that, and the whole
 * attached in one step. What goes is made private before, with all below it: unmounted as it was it
 * would take the same away from its peers (fs/pnode.c, propagate_umount).
 *
 * No step asks the server of the old mount. Each path is opened without following links, and
 * nothing is done before the descriptor was seen to lie on the very mount that is meant.
 */

#include "base/error.h"
#include "base/macros.h"
#include "mount/mountinfo.h"

/* A mount on or below the old one, which would go with it. */
struct exchange_carry {
	const struct mount_entry *entry;
	const char *where; /* from the old mount's root: "a/b"; "" is on that root itself */
	int fd;		   /* the detached mount to put there, owned; -EBADF: a copy of the one that
			      is there is made, with all that is on it */
	int spare_fd; /* where fd is -EBADF: what to put there should the way to the one that is
			 there be lost; owned, -EBADF: nothing */
	bool anew;    /* fd is a plain mount of what belongs there, to be made like the one that
			 is */
	const struct exchange_carry *within; /* one before it that it lies on; NULL: none */
	bool whole; /* a copy was made, which brings along what is on it; or it comes so itself */
	bool drop;  /* it is stale too: it just goes */
};

struct exchange {
	const struct mount_entry *old;
	int new_fd; /* a detached mount, whose root is the directory or file that belongs there */
	/*
	 * Or it is beneath the old one already, because somebody who did this was killed: NULL if
	 * not. Then new_fd is -EBADF, and becomes a descriptor of it, for the caller.
	 */
	const struct mount_entry *below;
	struct exchange_carry *carries; /* outer ones first */
	size_t n_carries;
	int ns_fd;     /* this namespace */
	int home_fd;   /* one where nothing is propagated: mounts are put together there */
	int place_fd;  /* a directory in it, opened there */
	bool may_live; /* nothing is done unless the old mount's connection has ended */
	int group_fd;  /* a mount that the new one is to be a peer or a slave of; -EBADF: none */
	bool is_peer;
	int proc_fd; /* a directory of procfs, opened before this namespace was entered */
	size_t lost; /* carries that could not be brought along: see *err */
};

/*
 * exchange_is_dead - whether the FUSE connection of the mount that `fd` (O_PATH) lies on has ended.
 * One that has not is asked for attributes, and may hang.
 */
bool exchange_is_dead(int fd);

/*
 * exchange_open - the root (O_PATH) of the mount, where its path leads to it; owned by the caller.
 * Returns it or -errno, -ESTALE for another mount.
 */
int __must_check exchange_open(const struct mount_entry *entry);

/*
 * mount_exchange - do it. Returns 0 when the new mount was seen at the path afterwards. -ESTALE:
 * the old mount is not there any more, lives, or is covered by one that this does not know of.
 * Other -errno: *err says what failed, and the old mount is still there unless it says otherwise.
 * With 0 and x->lost, *err says what was lost.
 */
int __must_check mount_exchange(struct exchange *x, struct error *err);
