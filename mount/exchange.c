/* SPDX-License-Identifier: Apache-2.0 */
#include "mount/exchange.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "mount/idmap.h"
#include "mount/namespace.h"
#include "mount/path.h"
#include "mount/tree.h"
#include "mount/uapi.h"

static int open_place(int dir_fd, const char *path, uint64_t resolve)
{
	return path_open_at(dir_fd, path, O_PATH | O_NOFOLLOW, resolve);
}

static uint64_t id_of(int fd)
{
	uint64_t id = 0;
	bool is_root;
	dev_t dev;

	return mount_identify(fd, &dev, &id, &is_root) >= 0 && is_root ? id : 0;
}

static int is_directory(int fd, bool *ret)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &stx) <
	    0)
		return -errno;
	*ret = S_ISDIR(stx.stx_mode);
	return 0;
}

static bool lies_on(int fd, const struct mount_entry *entry)
{
	uint64_t id;
	bool is_root;
	dev_t dev;

	return mount_identify(fd, &dev, &id, &is_root) >= 0 && is_root && id == entry->id &&
	       dev == entry->dev;
}

/*
 * What is mounted there. A walk through a dead FUSE mount, once the kernel has to ask whether an
 * entry is still good, makes it drop the entry with all that is mounted below (fs/fuse/dir.c,
 * fuse_dentry_revalidate; d_invalidate): so for what lies on the old mount only what is in the
 * cache counts.
 */
static int open_entry(const struct mount_entry *entry, bool on_old)
{
	_cleanup_close_ int fd = open_place(AT_FDCWD, entry->target, on_old ? RESOLVE_CACHED : 0);

	if (fd < 0)
		return fd;
	return lies_on(fd, entry) ? TAKE_FD(fd) : -ESTALE;
}

bool exchange_is_dead(int fd)
{
	struct statx stx;

	/* fs/fuse/dev.c: no request is made on a connection that has ended */
	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC | AT_NO_AUTOMOUNT,
		     STATX_BASIC_STATS, &stx) < 0 &&
	       (errno == ENOTCONN || errno == ECONNABORTED);
}

int exchange_open(const struct mount_entry *entry)
{
	return open_entry(entry, false);
}

/* umount2(2) knows only paths, and /proc may not be where this namespace has it. The kernel goes
 * to what is on top of the mount. What lies below it stays with its peers. */
static int detach(const struct exchange *x, int fd)
{
	_cleanup_close_ int dir = openat(x->proc_fd, "self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char name[16];
	int r;

	if (dir < 0 || fchdir(dir) < 0)
		return -errno;
	r = mount_make_private(fd, NULL);
	if (r < 0)
		return r;
	(void)snprintf(name, sizeof(name), "%d", fd);
	return umount2(name, MNT_DETACH) < 0 ? -errno : 0;
}

static int move_mount_to(int mount_fd, int target_fd, unsigned int flags)
{
	return move_mount(mount_fd, "", target_fd, "",
			  MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH | flags) < 0
		       ? -errno
		       : 0;
}

/* Whether this kernel can mount beneath. */
static bool can_mount_beneath(void)
{
	/* flags are checked before descriptors (fs/namespace.c) */
	return move_mount_to(-EBADF, -EBADF, UAPI_MOVE_MOUNT_BENEATH) != -EINVAL;
}

/* *err names them all. */
static void lose(struct exchange *x, const struct exchange_carry *carry, int code,
		 struct error *err)
{
	struct error before = *err;

	(void)error_errno(err, code, "the mount at %s was lost with the one below it",
			  carry->entry->target);
	if (x->lost++ > 0)
		(void)error_prefix(err, "%s; then", before.text);
}

static int copy_carry(struct exchange_carry *carry, bool on_old)
{
	_cleanup_close_ int fd = open_entry(carry->entry, on_old);
	int r = fd < 0 ? fd : mount_clone(fd, "", true, &carry->fd, NULL);

	carry->whole = r >= 0;
	return r;
}

/* A layer on the old mount's root; a copy of one that stays is in the carry's fd afterwards. */
static int take_off(const struct exchange *x, struct exchange_carry *carry)
{
	_cleanup_close_ int fd = open_entry(carry->entry, false);
	int r = fd < 0 ? fd : 0;

	if (r >= 0 && !carry->drop)
		r = mount_clone(fd, "", true, &carry->fd, NULL);
	if (r >= 0)
		r = detach(x, fd);
	if (r < 0)
		close_fd(&carry->fd);
	return r;
}

/*
 * Takes the layers off, top first; then the old mount is what its path shows, or one that shows the
 * same and is locked on it. What is mounted below a layer goes with it, so it is copied before;
 * what can't be is tried again by copy_nested. Returns that mount's descriptor or -errno.
 */
static int uncover(struct exchange *x)
{
	for (size_t i = x->n_carries; i > 0; i--) {
		struct exchange_carry *carry = &x->carries[i - 1];
		int r = 0;

		if (!*carry->where)
			r = take_off(x, carry);
		else if (!carry->drop && carry->fd < 0)
			(void)copy_carry(carry, true);
		if (r == -EINVAL && carry->drop)
			return open_entry(carry->entry, false);
		if (r < 0)
			return r;
	}
	return open_entry(x->old, false);
}

/* Where the new mount is slow, that time passes before anything is taken off. */
static void look_up_nested(const struct exchange *x)
{
	for (size_t i = 0; x->new_fd >= 0 && i < x->n_carries; i++) {
		_cleanup_close_ int fd = -EBADF;

		if (*x->carries[i].where && !x->carries[i].drop)
			fd = open_place(x->new_fd, x->carries[i].where, 0);
	}
}

/* The detached mount gets what the mount `like` has, which `like_fd` lies on, but for its peers and
 * masters. */
static int make_alike(const struct exchange *x, int new_fd, const struct mount_entry *like,
		      int like_fd, struct error *err)
{
	_cleanup_close_ int userns_fd = -EBADF;
	int r = mount_set_attr(new_fd, like->attr, MOUNT_ATTR_ALL, 0, err);

	if (r >= 0 && like->idmapped) {
		r = mount_idmap_of(like_fd, x->ns_fd, x->proc_fd, &userns_fd, err);
		if (r >= 0)
			r = mount_idmap_set(new_fd, userns_fd, err);
	}
	if (r >= 0)
		r = mount_set_attr(new_fd, 0, 0, MS_PRIVATE, err);
	return r >= 0 && like->shared ? mount_set_attr(new_fd, 0, 0, MS_SHARED, err) : r;
}

static bool are_of_one_superblock(int a, int b)
{
	dev_t dev_a, dev_b;
	bool is_root;
	uint64_t id;

	return mount_identify(a, &dev_a, &id, &is_root) >= 0 &&
	       mount_identify(b, &dev_b, &id, &is_root) >= 0 && dev_a == dev_b;
}

/* One that is mounted anew: while it lives a copy of it will do as well, and is the same in all. */
static int renew_carry(const struct exchange *x, struct exchange_carry *carry)
{
	_cleanup_close_ int fd = open_entry(carry->entry, true);
	int copy = -EBADF;

	if (fd >= 0 && are_of_one_superblock(fd, carry->fd) &&
	    mount_clone(fd, "", false, &copy, NULL) >= 0) {
		close_fd(&carry->fd);
		carry->fd = copy;
		return 0;
	}
	if (fd < 0 && carry->entry->idmapped)
		return fd;
	return make_alike(x, carry->fd, carry->entry, fd, NULL);
}

/* The kernel does not know the way to it any more. Its id mapping can't be told then. */
static int use_spare(const struct exchange *x, struct exchange_carry *carry)
{
	if (carry->entry->idmapped)
		return -EOPNOTSUPP;
	close_fd(&carry->fd);
	carry->fd = TAKE_FD(carry->spare_fd);
	return make_alike(x, carry->fd, carry->entry, -EBADF, NULL);
}

/* While the old mount is there: copies of what lies below it. */
static void copy_nested(struct exchange *x, struct error *err)
{
	for (size_t i = 0; i < x->n_carries; i++) {
		struct exchange_carry *carry = &x->carries[i];
		int r;

		if (!*carry->where || carry->drop || carry->whole)
			continue;
		if (carry->within && carry->within->whole) {
			carry->whole = true;
			continue;
		}
		r = carry->anew ? renew_carry(x, carry) : copy_carry(carry, true);
		if (r < 0 && carry->spare_fd >= 0)
			r = use_spare(x, carry);
		if (r < 0) {
			lose(x, carry, r, err);
			carry->drop = true;
		}
	}
}

/* An exchange that was not brought to its end had put it there. */
static bool is_there(const struct exchange_carry *carry, int at_fd)
{
	return id_of(at_fd) != 0 && are_of_one_superblock(at_fd, carry->fd);
}

/* What lay below the old mount goes onto the new one. */
static void attach_nested(struct exchange *x, struct error *err)
{
	for (size_t i = 0; i < x->n_carries; i++) {
		struct exchange_carry *carry = &x->carries[i];
		_cleanup_close_ int at = -EBADF;
		int r;

		if (carry->drop || !*carry->where || (carry->within && carry->within->whole))
			continue;
		at = open_place(x->new_fd, carry->where, 0);
		if (at >= 0 && is_there(carry, at))
			continue;
		r = at < 0 ? at : move_mount_to(carry->fd, at, 0);
		if (r < 0)
			lose(x, carry, r, err);
	}
}

/* The detached mount gets the old one's peers and master. */
static int join_group(const struct exchange *x, struct error *err)
{
	int r;

	if (x->group_fd < 0)
		return 0;
	r = mount_set_attr(x->new_fd, 0, 0, MS_PRIVATE, err);
	if (r >= 0)
		r = mount_join(x->new_fd, x->group_fd, err);
	if (r >= 0 && !x->is_peer)
		r = mount_set_attr(x->new_fd, 0, 0, MS_SLAVE, err);
	if (r >= 0 && !x->is_peer && x->old->shared)
		r = mount_set_attr(x->new_fd, 0, 0, MS_SHARED, err);
	return r;
}

static bool has_nested(const struct exchange *x)
{
	for (size_t i = 0; i < x->n_carries; i++)
		if (*x->carries[i].where && !x->carries[i].drop)
			return true;
	return false;
}

/* At home, where nobody is propagated to: else what is attached to one of some peers would be to
 * all of them. */
static int put_together(struct exchange *x, struct error *err)
{
	int whole = -EBADF, r = mount_attach(x->new_fd, x->place_fd, err), code;

	if (r < 0)
		return r;
	attach_nested(x, err);
	r = join_group(x, err);
	if (r >= 0)
		r = mount_clone(x->new_fd, "", true, &whole, err);
	code = detach(x, x->new_fd);
	if (r >= 0 && code < 0)
		r = error_errno(err, code, "unmount what was put together");
	close_fd(&x->new_fd);
	x->new_fd = whole;
	return r;
}

/* The detached mount becomes what is to be attached. */
static int complete(struct exchange *x, struct error *err)
{
	int r, back;

	if (!has_nested(x))
		return join_group(x, err);
	r = mount_namespace_enter(x->home_fd);
	if (r < 0)
		return error_errno(err, r, "enter the own mount namespace");
	r = put_together(x, err);
	back = mount_namespace_enter(x->ns_fd);
	return back < 0 ? error_errno(err, back, "enter the mount namespace again") : r;
}

/* What lay on the old mount's root goes onto that of `fd`: the new mount, or the old one again. */
static void cover_again(struct exchange *x, int fd, struct error *err)
{
	for (size_t i = 0; i < x->n_carries; i++) {
		struct exchange_carry *carry = &x->carries[i];
		int r;

		if (*carry->where || carry->fd < 0)
			continue;
		r = move_mount_to(carry->fd, fd, 0);
		if (r < 0)
			lose(x, carry, r, err);
	}
}

/* Somebody may have mounted on it meanwhile, or unmounted it. */
static int detach_old(struct exchange *x, int old_fd, struct error *err)
{
	_cleanup_close_ int top = open_entry(x->old, false);
	int r = top < 0 ? top : detach(x, old_fd);

	if (r == -ESTALE || r == -ENOENT)
		return -ESTALE;
	return r < 0 ? error_errno(err, r, "unmount the old mount at %s", x->old->target) : 0;
}

/* The old mount can't be replaced: it is locked (mount_namespaces(7)). */
static int mount_over(struct exchange *x, int old_fd, struct error *err)
{
	int r = move_mount_to(x->new_fd, old_fd, 0);

	return r < 0 ? error_errno(err, r, "mount over the mount at %s", x->old->target) : 0;
}

/* Kernels that can't mount beneath: a moment without either. */
static int detach_and_mount(struct exchange *x, int old_fd, struct error *err)
{
	_cleanup_close_ int below = -EBADF;
	int r = detach(x, old_fd);

	if (r == -EINVAL) /* locked */
		return mount_over(x, old_fd, err);
	if (r < 0)
		return error_errno(err, r, "unmount the old mount at %s", x->old->target);
	below = open_place(AT_FDCWD, x->old->target, 0);
	r = below < 0 ? below : move_mount_to(x->new_fd, below, 0);
	if (r < 0)
		return error_errno(err, r, "%s has no mount any more: mount there", x->old->target);
	return 0;
}

static int check_seen(const struct exchange *x, struct error *err)
{
	_cleanup_close_ int fd = open_place(AT_FDCWD, x->old->target, 0);
	uint64_t seen = fd < 0 ? 0 : id_of(fd);

	if (seen != 0 && seen == id_of(x->new_fd))
		return 0;
	for (size_t i = 0; i < x->n_carries; i++)
		if (seen != 0 && !*x->carries[i].where && x->carries[i].fd >= 0 &&
		    seen == id_of(x->carries[i].fd))
			return 0;
	return error_set(err, ERROR_INTERNAL, -ESTALE,
			 "%s does not show the new mount after the exchange", x->old->target);
}

/* The new mount is there: all that lacks is that it be seen. */
static int finish(struct exchange *x, int old_fd, struct error *err)
{
	int r;

	copy_nested(x, err);
	r = detach_old(x, old_fd, err);
	if (r < 0)
		return r;
	x->new_fd = open_entry(x->below, false);
	if (x->new_fd < 0)
		return -ESTALE;
	attach_nested(x, err);
	return 0;
}

/* A file can't be where a directory was. */
static int check_kind(const struct exchange *x, int old_fd, struct error *err)
{
	bool is_dir, was_dir;
	int r = is_directory(x->new_fd, &is_dir);

	if (r >= 0)
		r = is_directory(old_fd, &was_dir);
	if (r < 0)
		return error_errno(err, r, "statx of the mount at %s", x->old->target);
	if (is_dir != was_dir)
		return error_set(err, ERROR_PRECONDITION, is_dir ? -EISDIR : -ENOTDIR,
				 "'%s' of the volume is %s directory now", x->old->root,
				 is_dir ? "a" : "no");
	return 0;
}

/* The old mount is what its path shows. */
static int replace(struct exchange *x, int old_fd, struct error *err)
{
	int r;

	if (x->below)
		return finish(x, old_fd, err);
	r = check_kind(x, old_fd, err);
	if (r >= 0)
		r = make_alike(x, x->new_fd, x->old, old_fd, err);
	if (r < 0)
		return r;
	copy_nested(x, err);
	r = complete(x, err);
	if (r < 0)
		return r;
	if (!can_mount_beneath())
		return detach_and_mount(x, old_fd, err);
	r = move_mount_to(x->new_fd, old_fd, UAPI_MOVE_MOUNT_BENEATH);
	if (r == -EINVAL)
		return mount_over(x, old_fd, err);
	if (r < 0)
		return error_errno(err, r, "mount beneath the old mount at %s", x->old->target);
	return detach_old(x, old_fd, err);
}

int mount_exchange(struct exchange *x, struct error *err)
{
	_cleanup_close_ int old_fd = -EBADF, top_fd = -EBADF;
	int r;

	look_up_nested(x);
	old_fd = uncover(x);
	r = old_fd < 0 ? old_fd : 0;
	if (r < 0) {
		top_fd = open_place(AT_FDCWD, x->old->target, 0);
		cover_again(x, top_fd, err);
	}
	if (r == -ENOENT || r == -ESTALE || r == -ENOTDIR)
		return -ESTALE;
	if (r < 0)
		return error_errno(err, r, "open %s", x->old->target);
	if (x->may_live && !exchange_is_dead(old_fd))
		r = -ESTALE;
	else
		r = replace(x, old_fd, err);
	/* attached to a shared parent it has become shared, whatever it was before */
	if (r >= 0 && !x->old->master && !x->old->shared)
		r = mount_set_attr(x->new_fd, 0, 0, MS_PRIVATE, err);
	cover_again(x, r < 0 ? old_fd : x->new_fd, err);
	return r < 0 ? r : check_seen(x, err);
}
