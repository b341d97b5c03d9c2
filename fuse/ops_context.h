/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the operations share, and the operations themselves, by the file that holds them; only ops.c
 * and the ops_*.c include this. */

#include <sys/stat.h>

#include "fuse/creds.h"
#include "fuse/handle.h"
#include "fuse/ledger.h"
#include "fuse/node.h"
#include "fuse/ops.h"
#include "fuse/reply.h"
#include "fuse/request.h"
#include "fuse/source.h"

struct ops {
	struct ledger *ledger;
	const struct volume_config *config;
	const struct connection_state *state;
	int dev_fd;
	bool read_only;
	double attr_timeout, entry_timeout; /* s */
	struct source *source;
	struct node_table *nodes;
	struct handle_table *handles;
};

static inline struct ops *ops_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* ops_reply_status - reply without a body: r is 0 or -errno. */
static inline void ops_reply_status(fuse_req_t req, int r)
{
	(void)fuse_reply_err(req, r < 0 ? -r : 0);
}

/*
 * ops_check_name - whether a name is one entry of a directory: nothing leads out of it. Returns 0,
 * -EINVAL or -ENAMETOOLONG.
 */
int __must_check ops_check_name(const char *name);

/*
 * ops_open_parent - the directory `parent`, in which `name` is about to be looked at, or with
 * `change` changed: -EROFS on a read-only volume. Returns 0 or -errno.
 */
int __must_check ops_open_parent(struct ops *ops, uint64_t parent, const char *name, bool change,
				 struct node_ref *ret);

/* ops_show - turn attributes of the source into what the volume shows: inode number and group. */
void ops_show(const struct ops *ops, uint32_t dev, struct stat *st);

/* ops_stat - the attributes that the volume shows for a node. Returns 0 or -errno. */
int __must_check ops_stat(struct ops *ops, uint64_t id, struct stat *ret);

/*
 * ops_enter - the answer about a file that was found as `name` in `parent` (name NULL: it has
 * none), with one more reference to its node by the kernel. `fd` is open on it and borrowed;
 * `keep`, an O_PATH descriptor of it or negative, is consumed in any case, and may be the same.
 * Returns 0 or -errno.
 */
int __must_check ops_enter(struct ops *ops, uint64_t parent, const char *name, int fd, int keep,
			   struct fuse_entry_param *ret);

/* ops_look_up - ops_enter for what `name` in the directory `dir_fd`, the node `parent`, is. */
int __must_check ops_look_up(struct ops *ops, uint64_t parent, int dir_fd, const char *name,
			     struct fuse_entry_param *ret);

/* ops_reply_entry - reply with an entry, or with the error r; a caller that is gone keeps no
 * reference. */
void ops_reply_entry(fuse_req_t req, int r, const struct fuse_entry_param *entry);

/* ops_as_caller - creds_enter_caller for the request at hand, with the volume's group. */
int __must_check ops_as_caller(fuse_req_t req, struct creds *creds, mode_t umask);

/*
 * ops_get_file - the descriptor to serve a request on an open file or directory by: the handle's,
 * or with fh 0 (OPEN was answered ENOSYS) the node's. Released by ops_put_file.
 */
struct ops_file {
	int fd;
	struct node_ref node;
	struct handle_ref handle;
};
#define OPS_FILE_INIT                                                      \
	{                                                                  \
		.fd = -1, .node = NODE_REF_INIT, .handle = HANDLE_REF_INIT \
	}
int __must_check ops_get_file(struct ops *ops, uint64_t id, uint64_t fh, struct ops_file *ret);
void ops_put_file(struct ops_file *file);
#define _cleanup_ops_file_ _cleanup_(ops_put_file)

/* ops_lookup.c */
void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);

/* ops_attr.c */
void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int valid,
		 struct fuse_file_info *fi);
void ops_readlink(fuse_req_t req, fuse_ino_t ino);
void ops_statfs(fuse_req_t req, fuse_ino_t ino);
void ops_access(fuse_req_t req, fuse_ino_t ino, int mask);

/* ops_name.c */
void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void ops_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name);
void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		const char *new_name, unsigned int flags);

/* ops_file.c */
void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		struct fuse_file_info *fi);
void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

/* ops_data.c */
void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	       struct fuse_file_info *fi);
void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		   struct fuse_file_info *fi);
void ops_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void ops_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			 struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
			 struct fuse_file_info *fi_out, size_t len, int flags);
void ops_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg,
	       struct fuse_file_info *fi, unsigned int flags, const void *in_buf, size_t in_size,
	       size_t out_size);

/* ops_dir.c */
void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		     struct fuse_file_info *fi);

/* ops_xattr.c */
void ops_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		  int flags);
void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
