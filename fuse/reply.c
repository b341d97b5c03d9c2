/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/reply.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fuse/creds.h"
#include "fuse/uapi.h"

#define NSEC_PER_SEC_F 1e9

struct create_out {
	struct fuse_entry_out entry;
	struct uapi_open_out open;
};

/* libfuse counts timeouts in seconds as a double. */
static void split_timeout(double timeout, uint64_t *ret_sec, uint32_t *ret_nsec)
{
	*ret_sec = (uint64_t)timeout;
	*ret_nsec = (uint32_t)((timeout - (double)*ret_sec) * NSEC_PER_SEC_F);
}

static void fill_attr(struct fuse_attr *attr, const struct stat *st)
{
	*attr = (struct fuse_attr){
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.blocks = (uint64_t)st->st_blocks,
		.atime = (uint64_t)st->st_atim.tv_sec,
		.mtime = (uint64_t)st->st_mtim.tv_sec,
		.ctime = (uint64_t)st->st_ctim.tv_sec,
		.atimensec = (uint32_t)st->st_atim.tv_nsec,
		.mtimensec = (uint32_t)st->st_mtim.tv_nsec,
		.ctimensec = (uint32_t)st->st_ctim.tv_nsec,
		.mode = st->st_mode,
		.nlink = (uint32_t)st->st_nlink,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.rdev = (uint32_t)st->st_rdev,
		.blksize = (uint32_t)st->st_blksize,
	};
}

static void fill_entry(struct fuse_entry_out *out, const struct fuse_entry_param *entry)
{
	out->nodeid = entry->ino;
	out->generation = entry->generation;
	split_timeout(entry->entry_timeout, &out->entry_valid, &out->entry_valid_nsec);
	split_timeout(entry->attr_timeout, &out->attr_valid, &out->attr_valid_nsec);
	fill_attr(&out->attr, &entry->attr);
}

static void fill_open(struct uapi_open_out *out, uint64_t fh, uint32_t fopen_flags,
		      int32_t backing_id)
{
	out->fh = fh;
	out->open_flags = fopen_flags;
	out->backing_id = fopen_flags & FOPEN_PASSTHROUGH ? backing_id : 0;
}

int reply_open(fuse_req_t req, uint64_t fh, uint32_t fopen_flags, int32_t backing_id)
{
	struct uapi_open_out out = { 0 };

	fill_open(&out, fh, fopen_flags, backing_id);
	return fuse_reply_buf(req, (const char *)&out, sizeof(out));
}

int reply_create(fuse_req_t req, const struct fuse_entry_param *entry, uint64_t fh,
		 uint32_t fopen_flags, int32_t backing_id)
{
	struct create_out out = { 0 };

	fill_entry(&out.entry, entry);
	fill_open(&out.open, fh, fopen_flags, backing_id);
	return fuse_reply_buf(req, (const char *)&out, sizeof(out));
}

int backing_open(int dev_fd, int fd)
{
	_cleanup_creds_ struct creds creds = CREDS_INIT;
	struct uapi_backing_map map = { .fd = fd };
	int r = creds_enter_writer(&creds, true);

	if (r < 0)
		return r;
	r = ioctl(dev_fd, UAPI_IOC_BACKING_OPEN, &map);
	return r < 0 ? -errno : r;
}

int backing_close(int dev_fd, int32_t id)
{
	uint32_t number = (uint32_t)id;

	return ioctl(dev_fd, UAPI_IOC_BACKING_CLOSE, &number) < 0 ? -errno : 0;
}

int notify_inval_attr(int dev_fd, uint64_t nodeid)
{
	struct {
		struct fuse_out_header header;
		struct fuse_notify_inval_inode_out body;
	} out = {
		.header = { .len = sizeof(out), .error = FUSE_NOTIFY_INVAL_INODE },
		.body = { .ino = nodeid, .off = -1 }, /* a negative offset spares the data */
	};

	return write(dev_fd, &out, sizeof(out)) < 0 ? -errno : 0;
}
