/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/ops_context.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuse/buffer.h"
#include "fuse/uapi.h"

/*
 * Reading a directory keeps no state: a request says after which entry to go on, by the source's
 * own cookie (d_off), and lseek(2) and getdents64(2) do. So a new worker goes on where the last one
 * stopped, and one descriptor may serve many streams.
 */

#define REPLY_MAX (256U << 10)

/* getdents64(2) */
struct source_entry {
	uint64_t ino;
	int64_t off;
	unsigned short reclen;
	unsigned char type;
	char name[];
};

/* One READDIR or READDIRPLUS on its way. */
struct listing {
	struct ops *ops;
	fuse_req_t req;
	uint64_t dir; /* node id */
	uint32_t dev;
	int fd;
	bool plus;
	char *reply;
	size_t size, used;
	char *entries; /* of getdents64, as large as reply */
};

void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct ops *ops = ops_of(req);
	const struct request *request = request_current();
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	struct handle_open open = { .node = ino, .unique = request->unique, .directory = true };
	int r;

	if (policy_latches(ops->state, FUSE_OPENDIR)) {
		ops_reply_status(req, -ENOSYS);
		return;
	}
	if (request->again && handle_find(ops->handles, request->unique, &open)) {
		r = 0;
	} else {
		r = node_get(ops->nodes, ino, false, &node);
		if (r >= 0)
			r = node_openat(ops->nodes, node.fd, ".", O_RDONLY | O_DIRECTORY, 0);
		if (r >= 0)
			r = handle_new(ops->handles, &open, r);
	}
	if (r < 0)
		ops_reply_status(req, r);
	else if (reply_open(req, open.fh, open.fopen_flags, 0) == -ENOENT)
		handle_release(ops->handles, open.fh);
}

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static struct stat entry_stat(const struct listing *l, const struct source_entry *e)
{
	return (struct stat){ .st_ino = source_shown_ino(l->dev, e->ino),
			      .st_mode = DTTOIF(e->type) };
}

/* Whether the entry had room. */
static bool add_plain(struct listing *l, const struct source_entry *e)
{
	struct stat st = entry_stat(l, e);
	size_t room = l->size - l->used;
	size_t n = fuse_add_direntry(l->req, l->reply + l->used, room, e->name, &st, e->off);

	if (n > room)
		return false;
	l->used += n;
	return true;
}

/*
 * The entry and what it is, which the kernel takes for the answer to a LOOKUP. What can't be looked
 * at goes without (node id 0): the kernel will ask, and get the error.
 */
static bool add_plus(struct listing *l, const struct source_entry *e)
{
	struct fuse_entry_param entry = { .attr = entry_stat(l, e) };
	size_t room = l->size - l->used;
	int r = -EINVAL;

	if (fuse_add_direntry_plus(l->req, NULL, 0, e->name, NULL, 0) > room)
		return false;
	if (!is_dot(e->name) && ops_check_name(e->name) >= 0)
		r = ops_look_up(l->ops, l->dir, l->fd, e->name, &entry);
	if (r == -ENOENT) /* gone meanwhile */
		return true;
	l->used +=
		fuse_add_direntry_plus(l->req, l->reply + l->used, room, e->name, &entry, e->off);
	return true;
}

/* Adds what getdents64 has read. Returns whether there is room for more. */
static bool add_entries(struct listing *l, size_t n)
{
	for (size_t at = 0; at < n;) {
		const struct source_entry *e = (const void *)(l->entries + at);

		if (!(l->plus ? add_plus(l, e) : add_plain(l, e)))
			return false;
		at += e->reclen;
	}
	return true;
}

/* How much to ask getdents64 for: about what fits, since what does not is read again. */
static size_t ask_for(const struct listing *l)
{
	size_t room = l->size - l->used;

	return l->plus ? MAX_OF(room / 4, 1024U) : MAX_OF(room, 1024U);
}

static int list(struct listing *l, off_t off)
{
	long n;

	if (lseek(l->fd, off, SEEK_SET) < 0)
		return -errno;
	do {
		n = syscall(SYS_getdents64, l->fd, l->entries, MIN_OF(ask_for(l), l->size));
		if (n < 0)
			return l->used ? 0 : -errno;
	} while (n > 0 && add_entries(l, (size_t)n));
	return 0;
}

/* The directory's descriptor. Without a handle it is opened for this request alone, as a position
 * in it can't be shared. */
static int open_listing(struct listing *l, uint64_t fh, struct handle_ref *handle, int *own_fd)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	int r;

	if (fh) {
		r = handle_get(l->ops->handles, fh, handle);
		l->fd = handle->fd;
		return r;
	}
	r = node_get(l->ops->nodes, l->dir, false, &node);
	if (r >= 0)
		r = node_openat(l->ops->nodes, node.fd, ".", O_RDONLY | O_DIRECTORY, 0);
	if (r >= 0)
		*own_fd = l->fd = r;
	return r;
}

static int reply_listing(struct listing *l, uint64_t fh, off_t off)
{
	_cleanup_handle_ref_ struct handle_ref handle = HANDLE_REF_INIT;
	_cleanup_buffer_ struct buffer *buffer = NULL;
	_cleanup_close_ int own_fd = -EBADF;
	const struct ledger_node *node = node_record(l->ops->nodes, l->dir);
	int r;

	if (!node)
		return -ESTALE;
	l->dev = atomic_load(&node->dev);
	r = buffer_get(2 * l->size, &buffer);
	if (r < 0)
		return r;
	l->reply = buffer->data;
	l->entries = l->reply + l->size;
	r = open_listing(l, fh, &handle, &own_fd);
	if (r >= 0)
		r = list(l, off);
	if (r < 0)
		return r;
	if (fuse_reply_buf(l->req, l->reply, l->used) == -ENOENT)
		node_take_back(l->ops->nodes);
	return 0;
}

static void read_directory(fuse_req_t req, uint64_t dir, uint64_t fh, size_t size, off_t off,
			   bool plus)
{
	struct listing listing = {
		.ops = ops_of(req),
		.req = req,
		.dir = dir,
		.fd = -EBADF,
		.plus = plus,
		.size = MIN_OF(size, REPLY_MAX) & ~(size_t)7,
	};
	int r = reply_listing(&listing, fh, off);

	if (r < 0)
		ops_reply_status(req, r);
}

void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_directory(req, ino, fi->fh, size, off, false);
}

void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	read_directory(req, ino, fi->fh, size, off, true);
}
