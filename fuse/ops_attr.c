/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/ops_context.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"

static void reply_attr(fuse_req_t req, int r, const struct stat *st)
{
	if (r < 0)
		ops_reply_status(req, r);
	else
		(void)fuse_reply_attr(req, st, ops_of(req)->attr_timeout);
}

void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int r = ops_stat(ops_of(req), ino, &st);

	reply_attr(req, r, &st);
}

static int change_owner(int fd, const struct stat *attr, int valid)
{
	uid_t uid = valid & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
	gid_t gid = valid & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;

	return fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static int change_mode(int fd, mode_t mode)
{
	char path[FD_PATH_MAX];

	return chmod(fd_path(fd, path), mode & 07777) < 0 ? -errno : 0;
}

static int change_size(int fd, off_t size)
{
	_cleanup_creds_ struct creds creds = CREDS_INIT;
	char path[FD_PATH_MAX];
	int r = creds_enter_writer(&creds, request_current()->kill_suidgid);

	if (r < 0)
		return r;
	return truncate(fd_path(fd, path), size) < 0 ? -errno : 0;
}

static struct timespec pick_time(int valid, int flag, int now_flag, const struct timespec *time)
{
	struct timespec ts = { .tv_nsec = UTIME_OMIT };

	if (valid & now_flag)
		ts.tv_nsec = UTIME_NOW;
	else if (valid & flag)
		ts = *time;
	return ts;
}

static int change_times(int fd, const struct stat *attr, int valid)
{
	const struct timespec times[] = {
		pick_time(valid, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, &attr->st_atim),
		pick_time(valid, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, &attr->st_mtim),
	};

	return utimensat(fd, "", times, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

/* In the order in which the changes undo each other's side effects the least: a new owner costs
 * set-id bits, a new size sets times. */
static int change(int fd, const struct stat *attr, int valid)
{
	int r = 0;

	if (valid & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		r = change_owner(fd, attr, valid);
	if (r >= 0 && (valid & FUSE_SET_ATTR_MODE))
		r = change_mode(fd, attr->st_mode);
	if (r >= 0 && (valid & FUSE_SET_ATTR_SIZE))
		r = change_size(fd, attr->st_size);
	if (r >= 0 && (valid & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME)))
		r = change_times(fd, attr, valid);
	return r;
}

static int set_attr(struct ops *ops, uint64_t id, const struct stat *attr, int valid)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	int r;

	if (ops->read_only)
		return -EROFS;
	r = node_get(ops->nodes, id, false, &node);
	return r < 0 ? r : change(node.fd, attr, valid);
}

void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int valid,
		 struct fuse_file_info *fi)
{
	struct ops *ops = ops_of(req);
	struct stat st;
	int r = set_attr(ops, ino, attr, valid);

	if (r >= 0)
		r = ops_stat(ops, ino, &st);
	reply_attr(req, r, &st);
}

void ops_readlink(fuse_req_t req, fuse_ino_t ino)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	char target[PATH_MAX + 1];
	ssize_t n = node_get(ops_of(req)->nodes, ino, false, &node);

	if (n >= 0) {
		n = readlinkat(node.fd, "", target, sizeof(target) - 1);
		n = n < 0 ? -errno : n;
	}
	if (n < 0) {
		ops_reply_status(req, (int)n);
		return;
	}
	target[n] = '\0';
	(void)fuse_reply_readlink(req, target);
}

void ops_statfs(fuse_req_t req, fuse_ino_t ino)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	struct statvfs st;
	int r = node_get(ops_of(req)->nodes, ino, false, &node);

	if (r >= 0 && fstatvfs(node.fd, &st) < 0)
		r = -errno;
	if (r < 0)
		ops_reply_status(req, r);
	else
		(void)fuse_reply_statfs(req, &st);
}

/* The kernel checks permissions itself (default_permissions) and does not ask. */
void ops_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	ops_reply_status(req, mask & W_OK && ops_of(req)->read_only ? -EROFS : 0);
}
