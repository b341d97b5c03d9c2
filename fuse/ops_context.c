/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/ops_context.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fd.h"

int ops_check_name(const char *name)
{
	size_t length = strlen(name);

	if (length > LEDGER_NAME_MAX)
		return -ENAMETOOLONG;
	if (length == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
	    memchr(name, '/', length))
		return -EINVAL;
	return 0;
}

int ops_open_parent(struct ops *ops, uint64_t parent, const char *name, bool change,
		    struct node_ref *ret)
{
	int r = ops_check_name(name);

	if (r < 0)
		return r;
	if (change && ops->read_only)
		return -EROFS;
	return node_get(ops->nodes, parent, false, ret);
}

/*
 * With a group the whole volume belongs to it, and the group may do what the owner may: that is
 * what kubelet would have made of the files with chown and chmod (fsGroup).
 */
void ops_show(const struct ops *ops, uint32_t dev, struct stat *st)
{
	st->st_ino = source_shown_ino(dev, st->st_ino);
	if (!(ops->config->flags & VOLUME_HAS_GROUP))
		return;
	st->st_gid = ops->config->group;
	if (!S_ISLNK(st->st_mode))
		st->st_mode |= (st->st_mode & S_IRWXU) >> 3;
}

int ops_stat(struct ops *ops, uint64_t id, struct stat *ret)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	const struct ledger_node *record;
	int r = node_get(ops->nodes, id, false, &node);

	if (r < 0)
		return r;
	record = node_record(ops->nodes, id);
	if (!record)
		return -ESTALE;
	if (fstat(node.fd, ret) < 0)
		return -errno;
	handle_note_attr(ops->handles, id, ret);
	ops_show(ops, atomic_load(&record->dev), ret);
	return 0;
}

int ops_enter(struct ops *ops, uint64_t parent, const char *name, int fd, int keep,
	      struct fuse_entry_param *ret)
{
	struct source_identity identity;
	uint64_t id;
	int r;

	r = source_identify(ops->source, fd, parent, name, &identity);
	if (r < 0) {
		close_fd(&keep);
		return r;
	}
	r = node_remember(ops->nodes, &identity, parent, name, keep, &id);
	if (r < 0)
		return r;
	*ret = (struct fuse_entry_param){
		.ino = id,
		.attr = identity.st,
		.attr_timeout = ops->attr_timeout,
		.entry_timeout = ops->entry_timeout,
	};
	handle_note_attr(ops->handles, id, &identity.st);
	ops_show(ops, identity.dev, &ret->attr);
	return 0;
}

int ops_look_up(struct ops *ops, uint64_t parent, int dir_fd, const char *name,
		struct fuse_entry_param *ret)
{
	int fd = node_openat(ops->nodes, dir_fd, name, O_PATH | O_NOFOLLOW, 0);

	return fd < 0 ? fd : ops_enter(ops, parent, name, fd, fd, ret);
}

void ops_reply_entry(fuse_req_t req, int r, const struct fuse_entry_param *entry)
{
	struct ops *ops = ops_of(req);

	if (r < 0)
		ops_reply_status(req, r);
	else if (fuse_reply_entry(req, entry) == -ENOENT)
		node_take_back(ops->nodes);
}

int ops_as_caller(fuse_req_t req, struct creds *creds, mode_t umask)
{
	const struct ops *ops = ops_of(req);
	const gid_t *group = ops->config->flags & VOLUME_HAS_GROUP ? &ops->config->group : NULL;

	return creds_enter_caller(creds, request_current(), umask, group);
}

int ops_get_file(struct ops *ops, uint64_t id, uint64_t fh, struct ops_file *ret)
{
	int r;

	if (fh == 0) {
		r = node_get(ops->nodes, id, true, &ret->node);
		ret->fd = ret->node.fd;
	} else {
		r = handle_get(ops->handles, fh, &ret->handle);
		ret->fd = ret->handle.fd;
	}
	return r;
}

void ops_put_file(struct ops_file *file)
{
	handle_put(&file->handle);
	node_put(&file->node);
}
