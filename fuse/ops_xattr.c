/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/ops_context.h"

#include <errno.h>
#include <linux/limits.h>
#include <linux/posix_acl_xattr.h>
#include <linux/xattr.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/fd.h"
#include "fuse/once.h"

#ifndef XATTR_NAME_POSIX_ACL_ACCESS
#define XATTR_NAME_POSIX_ACL_ACCESS "system.posix_acl_access"
#endif

/*
 * Extended attributes are reached by "/proc/self/fd/N" of an O_PATH descriptor, which is followed
 * to the very file, be it a symbolic link. POSIX ACLs are the attributes system.posix_acl_*.
 */

static int get_node(struct ops *ops, uint64_t id, bool change, struct node_ref *ret,
		    char path[FD_PATH_MAX])
{
	int r = change && ops->read_only ? -EROFS : node_get(ops->nodes, id, false, ret);

	if (r >= 0)
		(void)fd_path(ret->fd, path);
	return r;
}

/* Who sets an access ACL of a group that he is not in loses the set-group-id bit by it; the worker
 * would not. */
static int kill_sgid(int fd, const char *path)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!(st.st_mode & S_ISGID))
		return 0;
	return chmod(path, st.st_mode & 07777 & ~(mode_t)S_ISGID) < 0 ? -errno : 0;
}

void ops_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		  int flags)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	char path[FD_PATH_MAX];
	int r = get_node(ops_of(req), ino, true, &node, path);

	if (r >= 0)
		r = once_setxattr(path, name, value, size, flags);
	if (r >= 0 && request_current()->kill_suidgid &&
	    strcmp(name, XATTR_NAME_POSIX_ACL_ACCESS) == 0)
		r = kill_sgid(node.fd, path);
	ops_reply_status(req, r);
}

/* Replies with `n` bytes, or with their number alone if no room for them was offered. */
static void reply_value(fuse_req_t req, ssize_t n, const char *value, size_t size)
{
	if (n < 0)
		ops_reply_status(req, (int)n);
	else if (size == 0)
		(void)fuse_reply_xattr(req, (size_t)n);
	else
		(void)fuse_reply_buf(req, value, (size_t)n);
}

void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	_cleanup_free_ char *value = NULL;
	size_t room = MIN_OF(size, (size_t)XATTR_SIZE_MAX);
	char path[FD_PATH_MAX];
	ssize_t n = get_node(ops_of(req), ino, false, &node, path);

	if (n >= 0 && room > 0 && !(value = malloc(room)))
		n = -ENOMEM;
	if (n >= 0) {
		n = getxattr(path, name, value, room);
		n = n < 0 ? -errno : n;
	}
	reply_value(req, n, value, room);
}

/* The names of `prefix`... go; returns what is left of the `n` bytes. */
static size_t hide_names(char *list, size_t n, const char *prefix)
{
	size_t kept = 0;

	for (size_t at = 0; at < n;) {
		size_t length = strnlen(list + at, n - at) + 1;

		if (strncmp(list + at, prefix, strlen(prefix)) != 0) {
			memmove(list + kept, list + at, length);
			kept += length;
		}
		at += length;
	}
	return kept;
}

/*
 * All names, asked for in one go with the largest room there can be, so that those that are not
 * shown do not count. trusted.* is for callers with CAP_SYS_ADMIN, and the kernel leaves it to file
 * systems to hide it from others.
 */
static ssize_t list_names(const char *path, char *list)
{
	ssize_t n = listxattr(path, list, XATTR_LIST_MAX);

	if (n < 0)
		return -errno;
	if (memmem(list, (size_t)n, XATTR_TRUSTED_PREFIX, strlen(XATTR_TRUSTED_PREFIX)) &&
	    !creds_caller_is_admin(request_current()))
		n = (ssize_t)hide_names(list, (size_t)n, XATTR_TRUSTED_PREFIX);
	return n;
}

void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	_cleanup_free_ char *list = malloc(XATTR_LIST_MAX);
	char path[FD_PATH_MAX];
	ssize_t n = list ? get_node(ops_of(req), ino, false, &node, path) : -ENOMEM;

	if (n >= 0)
		n = list_names(path, list);
	if (n > 0 && size > 0 && (size_t)n > size)
		n = -ERANGE;
	reply_value(req, n, list, size);
}

void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	char path[FD_PATH_MAX];
	int r = get_node(ops_of(req), ino, true, &node, path);

	if (r >= 0)
		r = once_removexattr(path, name);
	ops_reply_status(req, r);
}
