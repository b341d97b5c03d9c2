/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/ops_context.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuse/once.h"
#include "fuse/uapi.h"

/* What a created file is opened with; the rest of the flags is the kernel's affair, or needs
 * aligned buffers (O_DIRECT). */
#define CREATE_FLAGS (O_ACCMODE | O_SYNC | O_DSYNC | O_NOATIME)

static bool wants_write(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

/* The kernel negotiated to truncate by SETATTR; should an OPEN ask for it nevertheless, it gets it.
 */
static int truncate_node(struct ops *ops, uint64_t id)
{
	_cleanup_creds_ struct creds creds = CREDS_INIT;
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	char path[FD_PATH_MAX];
	int r;

	r = node_get(ops->nodes, id, false, &node);
	if (r >= 0)
		r = creds_enter_writer(&creds, request_current()->kill_suidgid);
	if (r >= 0)
		r = truncate(fd_path(node.fd, path), 0) < 0 ? -errno : 0;
	return r;
}

/*
 * A file that is passed through is opened by the kernel itself, without a look at what forbids
 * writing besides permissions (chattr +i and +a): whoever wants to write opens it here as well.
 */
static int open_for_writing(struct ops *ops, uint64_t id, int flags, int *ret_fd)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	char path[FD_PATH_MAX];
	int r;

	r = node_get(ops->nodes, id, false, &node);
	if (r < 0)
		return r;
	r = node_openat(ops->nodes, AT_FDCWD, fd_path(node.fd, path),
			flags & (CREATE_FLAGS | O_APPEND), 0);
	if (r < 0)
		return r;
	*ret_fd = r;
	return 0;
}

static int open_file(struct ops *ops, struct handle_open *open)
{
	int fd = -EBADF, r = 0;

	if (ops->read_only && wants_write(open->flags))
		return -EROFS;
	if (open->flags & O_TRUNC)
		r = truncate_node(ops, open->node);
	if (r >= 0 && wants_write(open->flags))
		r = open_for_writing(ops, open->node, open->flags, &fd);
	return r < 0 ? r : handle_new(ops->handles, open, fd);
}

void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct ops *ops = ops_of(req);
	const struct request *request = request_current();
	struct handle_open open = { .node = ino, .unique = request->unique, .flags = fi->flags };
	int r;

	if (policy_latches(ops->state, FUSE_OPEN)) {
		ops_reply_status(req, -ENOSYS);
		return;
	}
	if (request->again && handle_find(ops->handles, request->unique, &open))
		r = 0;
	else
		r = open_file(ops, &open);
	if (r < 0)
		ops_reply_status(req, r);
	else if (reply_open(req, open.fh, open.fopen_flags, open.backing_id) == -ENOENT)
		handle_release(ops->handles, open.fh);
}

/*
 * A new file, as the caller. The kernel has seen that there was none and checked permissions for
 * making one, not for opening one that somebody else has made meanwhile: ESTALE makes it look
 * again. With an access mode that the file's own bits forbid it is open all the same.
 */
struct creating {
	fuse_req_t req;
	int dir_fd;
	const char *name;
	mode_t mode;
	int flags;
};

static int create_as_caller(void *context)
{
	_cleanup_creds_ struct creds creds = CREDS_INIT;
	const struct creating *what = context;
	struct ops *ops = ops_of(what->req);
	int r = ops_as_caller(what->req, &creds, fuse_req_ctx(what->req)->umask);

	if (r < 0)
		return r;
	if (request_current()->opcode == FUSE_TMPFILE)
		return node_openat(ops->nodes, what->dir_fd, ".",
				   (what->flags & (CREATE_FLAGS | O_EXCL)) | O_TMPFILE, what->mode);
	return node_openat(ops->nodes, what->dir_fd, what->name,
			   (what->flags & CREATE_FLAGS) | O_CREAT | O_EXCL | O_NOFOLLOW,
			   what->mode);
}

/* An earlier worker has made it for this request. */
static int open_created(void *context)
{
	const struct creating *what = context;

	return node_openat(ops_of(what->req)->nodes, what->dir_fd, what->name,
			   (what->flags & CREATE_FLAGS) | O_NOFOLLOW, 0);
}

/* A file without a name is made anew, as it went with the worker. */
static int create_once(struct creating *what)
{
	const struct once_making once = {
		.dir_fd = what->dir_fd,
		.name = what->name,
		.type = S_IFREG,
		.make = create_as_caller,
		.found = open_created,
		.context = what,
	};
	int r;

	if (request_current()->opcode == FUSE_TMPFILE)
		return create_as_caller(what);
	r = once_make(&once);
	return r == -EEXIST && !(what->flags & O_EXCL) ? -ESTALE : r;
}

/* A file without a name goes with its last descriptor: the kernel shall hold one for the next
 * worker. */
static void anchor_nameless(struct ops *ops, uint64_t id)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;

	if (handle_wants_anchors(ops->handles) && node_get(ops->nodes, id, false, &node) >= 0)
		handle_anchor(ops->handles, id, node.fd);
}

static int create_file(fuse_req_t req, struct handle_open *open, uint64_t parent, const char *name,
		       mode_t mode, struct fuse_entry_param *ret)
{
	_cleanup_node_ref_ struct node_ref dir = NODE_REF_INIT;
	_cleanup_close_ int fd = -EBADF;
	struct ops *ops = ops_of(req);
	struct creating creating = { .req = req, .name = name, .mode = mode, .flags = open->flags };
	bool nameless = request_current()->opcode == FUSE_TMPFILE;
	int keep = -EBADF, r;

	if (nameless)
		r = ops->read_only ? -EROFS : node_get(ops->nodes, parent, false, &dir);
	else
		r = ops_open_parent(ops, parent, name, true, &dir);
	if (r < 0)
		return r;
	creating.dir_fd = dir.fd;
	fd = create_once(&creating);
	if (fd < 0)
		return fd;
	if (nameless) /* the way to it for as long as it has no name */
		keep = source_reopen(fd, O_PATH);
	r = ops_enter(ops, parent, nameless ? NULL : name, fd, keep, ret);
	if (r < 0)
		return r;
	open->node = ret->ino;
	r = handle_new(ops->handles, open, TAKE_FD(fd));
	if (r < 0)
		node_take_back(ops->nodes);
	else if (nameless)
		anchor_nameless(ops, ret->ino);
	return r;
}

/* The file that a worker before us made for this request, without having answered. */
static int find_created(struct ops *ops, uint64_t unique, struct handle_open *open,
			struct fuse_entry_param *ret)
{
	struct stat st;
	int r;

	if (!handle_find(ops->handles, unique, open))
		return -ENOENT;
	r = ops_stat(ops, open->node, &st);
	if (r >= 0)
		r = node_refer(ops->nodes, open->node);
	if (r < 0) {
		handle_release(ops->handles, open->fh); /* it went with the worker */
		return r;
	}
	*ret = (struct fuse_entry_param){
		.ino = open->node,
		.attr = st,
		.attr_timeout = ops->attr_timeout,
		.entry_timeout = ops->entry_timeout,
	};
	return 0;
}

void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		struct fuse_file_info *fi)
{
	struct ops *ops = ops_of(req);
	const struct request *request = request_current();
	struct handle_open open = { .unique = request->unique, .flags = fi->flags };
	struct fuse_entry_param entry;
	int r = -ENOENT;

	if (request->again)
		r = find_created(ops, request->unique, &open, &entry);
	if (r < 0)
		r = create_file(req, &open, parent, name, mode, &entry);
	if (r < 0) {
		ops_reply_status(req, r);
	} else if (reply_create(req, &entry, open.fh, open.fopen_flags, open.backing_id) ==
		   -ENOENT) {
		handle_release(ops->handles, open.fh);
		node_take_back(ops->nodes);
	}
}

/*
 * close(2). A network file system writes back and tells its errors when a descriptor is closed, so
 * one is.
 */
void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct ops *ops = ops_of(req);
	_cleanup_ops_file_ struct ops_file file = OPS_FILE_INIT;
	int fd, r;

	if (policy_latches(ops->state, FUSE_FLUSH)) {
		ops_reply_status(req, -ENOSYS);
		return;
	}
	r = ops_get_file(ops, ino, fi->fh, &file);
	if (r >= 0) {
		fd = fd_dup(file.fd);
		r = fd < 0 ? fd : (close(fd) < 0 ? -errno : 0);
	}
	ops_reply_status(req, r);
}

void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	handle_release(ops_of(req)->handles, fi->fh);
	ops_reply_status(req, 0);
}
