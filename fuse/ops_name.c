/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/ops_context.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuse/once.h"

/*
 * mknod, mkdir and symlink: made as the caller, then looked up as what is there now. Which system
 * call it is and what for is in here.
 */
struct making {
	fuse_req_t req;
	int dir_fd;
	const char *name;
	mode_t mode; /* with the type */
	dev_t rdev;
	const char *target; /* of a symlink */
};

static int make_as_caller(void *context)
{
	_cleanup_creds_ struct creds creds = CREDS_INIT;
	const struct making *what = context;
	mode_t mask = S_ISLNK(what->mode) ? 0 : fuse_req_ctx(what->req)->umask;
	int r = ops_as_caller(what->req, &creds, mask);

	if (r < 0)
		return r;
	if (S_ISLNK(what->mode))
		r = symlinkat(what->target, what->dir_fd, what->name);
	else if (S_ISDIR(what->mode))
		r = mkdirat(what->dir_fd, what->name, what->mode & 07777);
	else
		r = mknodat(what->dir_fd, what->name, what->mode, what->rdev);
	return r < 0 ? -errno : 0;
}

static int make_once(struct making *what)
{
	const struct once_making once = {
		.dir_fd = what->dir_fd,
		.name = what->name,
		.type = what->mode & S_IFMT ?: S_IFREG, /* mknod(2) takes 0 for S_IFREG */
		.make = make_as_caller,
		.context = what,
	};

	return once_make(&once);
}

static void make(fuse_req_t req, uint64_t parent, const char *name, struct making *what)
{
	struct ops *ops = ops_of(req);
	_cleanup_node_ref_ struct node_ref dir = NODE_REF_INIT;
	struct fuse_entry_param entry;
	int r;

	r = ops_open_parent(ops, parent, name, true, &dir);
	if (r >= 0) {
		what->req = req;
		what->dir_fd = dir.fd;
		what->name = name;
		r = make_once(what);
	}
	if (r >= 0)
		r = ops_look_up(ops, parent, dir.fd, name, &entry);
	ops_reply_entry(req, r, &entry);
}

void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct making what = { .mode = mode, .rdev = rdev };

	make(req, parent, name, &what);
}

void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct making what = { .mode = S_IFDIR | (mode & 07777) };

	make(req, parent, name, &what);
}

void ops_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct making what = { .mode = S_IFLNK, .target = target };

	make(req, parent, name, &what);
}

struct linking {
	int fd, dir_fd;
	const char *name;
};

static int do_link(void *context)
{
	const struct linking *what = context;

	return linkat(what->fd, "", what->dir_fd, what->name, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static int link_node(struct ops *ops, uint64_t id, int dir_fd, const char *name)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	struct linking linking = { .dir_fd = dir_fd, .name = name };
	struct once_making once = {
		.dir_fd = dir_fd, .name = name, .make = do_link, .context = &linking
	};
	struct stat st;
	int r = node_get(ops->nodes, id, false, &node);

	if (r < 0)
		return r;
	if (fstat(node.fd, &st) < 0)
		return -errno;
	linking.fd = node.fd;
	once.type = st.st_mode & S_IFMT;
	once.ino = st.st_ino;
	return once_make(&once);
}

void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	struct ops *ops = ops_of(req);
	_cleanup_node_ref_ struct node_ref dir = NODE_REF_INIT;
	struct fuse_entry_param entry;
	int r;

	r = ops_open_parent(ops, new_parent, new_name, true, &dir);
	if (r >= 0)
		r = link_node(ops, ino, dir.fd, new_name);
	if (r >= 0)
		r = ops_look_up(ops, new_parent, dir.fd, new_name, &entry);
	ops_reply_entry(req, r, &entry);
}

/*
 * A file that is about to lose a name, if that matters: it is found by name alone (no file handle),
 * or it is open and nothing but this worker holds it once its last name is gone.
 */
struct farewell {
	int fd; /* O_PATH; negative if it does not matter */
	struct source_identity identity;
};
#define FAREWELL_INIT        \
	{                    \
		.fd = -EBADF \
	}

static void prepare_farewell(struct ops *ops, uint64_t parent, int dir_fd, const char *name,
			     struct farewell *ret)
{
	_cleanup_close_ int fd = -EBADF;
	uint64_t id;

	if (node_has_handle(ops->nodes, parent) && !handle_wants_anchors(ops->handles))
		return;
	fd = node_openat(ops->nodes, dir_fd, name, O_PATH | O_NOFOLLOW, 0);
	if (fd < 0 || source_identify(ops->source, fd, parent, name, &ret->identity) < 0)
		return;
	id = node_find(ops->nodes, &ret->identity);
	if (id == 0)
		return;
	if (S_ISREG(ret->identity.st.st_mode) && handle_wants_anchors(ops->handles))
		handle_anchor(ops->handles, id, fd);
	ret->fd = TAKE_FD(fd);
}

/* It was `name` in `parent`. Its descriptor is kept, if there is no other way to it. */
static void say_farewell(struct ops *ops, uint64_t parent, const char *name,
			 struct farewell *farewell)
{
	if (farewell->fd >= 0)
		node_unnamed(ops->nodes, &farewell->identity, parent, name, TAKE_FD(farewell->fd));
}

static void remove_name(fuse_req_t req, uint64_t parent, const char *name, int flags)
{
	struct ops *ops = ops_of(req);
	_cleanup_node_ref_ struct node_ref dir = NODE_REF_INIT;
	struct farewell farewell = FAREWELL_INIT;
	int r;

	r = ops_open_parent(ops, parent, name, true, &dir);
	if (r >= 0) {
		prepare_farewell(ops, parent, dir.fd, name, &farewell);
		r = once_remove(dir.fd, name, flags);
	}
	if (r >= 0)
		say_farewell(ops, parent, name, &farewell);
	close_fd(&farewell.fd);
	ops_reply_status(req, r);
}

void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, 0);
}

void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, AT_REMOVEDIR);
}

/* What is now `name` in `parent` is found there from now on. */
static void note_arrival(struct ops *ops, uint64_t parent, int dir_fd, const char *name)
{
	_cleanup_close_ int fd = -EBADF;
	struct source_identity identity;

	if (node_has_handle(ops->nodes, parent))
		return;
	fd = node_openat(ops->nodes, dir_fd, name, O_PATH | O_NOFOLLOW, 0);
	if (fd >= 0 && source_identify(ops->source, fd, parent, name, &identity) >= 0)
		node_named(ops->nodes, &identity, parent, name);
}

struct renaming {
	fuse_req_t req;
	uint64_t from, to; /* directories' node ids */
	int from_fd, to_fd;
	const char *name, *new_name;
	unsigned int flags;
};

/* A whiteout is a new inode, made as the caller. */
static int rename_as_caller(void *context)
{
	_cleanup_creds_ struct creds creds = CREDS_INIT;
	const struct renaming *what = context;
	int r = 0;

	if (what->flags & RENAME_WHITEOUT)
		r = ops_as_caller(what->req, &creds, 0);
	if (r >= 0 &&
	    renameat2(what->from_fd, what->name, what->to_fd, what->new_name, what->flags) < 0)
		r = -errno;
	return r;
}

static int rename_once(struct renaming *what)
{
	const struct once_renaming once = {
		.from_fd = what->from_fd,
		.to_fd = what->to_fd,
		.name = what->name,
		.new_name = what->new_name,
		.flags = what->flags,
		.rename = rename_as_caller,
		.context = what,
	};

	return once_rename(&once);
}

static int do_rename(struct renaming *what)
{
	struct farewell farewell = FAREWELL_INIT;
	struct ops *ops = ops_of(what->req);
	int r;

	if (!(what->flags & RENAME_EXCHANGE))
		prepare_farewell(ops, what->to, what->to_fd, what->new_name, &farewell);
	r = rename_once(what);
	if (r >= 0) {
		say_farewell(ops, what->to, what->new_name, &farewell);
		note_arrival(ops, what->to, what->to_fd, what->new_name);
	}
	if (r >= 0 && (what->flags & RENAME_EXCHANGE))
		note_arrival(ops, what->from, what->from_fd, what->name);
	close_fd(&farewell.fd);
	return r;
}

void ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		const char *new_name, unsigned int flags)
{
	struct ops *ops = ops_of(req);
	_cleanup_node_ref_ struct node_ref from = NODE_REF_INIT, to = NODE_REF_INIT;
	int r;

	r = ops_open_parent(ops, parent, name, true, &from);
	if (r >= 0)
		r = ops_open_parent(ops, new_parent, new_name, true, &to);
	if (r >= 0) {
		struct renaming what = {
			.req = req,
			.from = parent,
			.to = new_parent,
			.from_fd = from.fd,
			.to_fd = to.fd,
			.name = name,
			.new_name = new_name,
			.flags = flags,
		};

		r = do_rename(&what);
	}
	ops_reply_status(req, r);
}
