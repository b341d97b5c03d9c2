/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/ops_context.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuse/buffer.h"
#include "fuse/once.h"

/* A worker that is busy for long looks like one that hangs; the caller goes on with the rest. */
#define COPY_MAX (64U << 20)

/*
 * Read into a buffer that threads share and written to the device from there. Splicing from the
 * source to the device was not faster and has a trap (a pipe of 1 MiB has no room for a request of
 * 1 MiB and its header).
 */
static int read_file(fuse_req_t req, int fd, size_t size, off_t off)
{
	_cleanup_buffer_ struct buffer *buffer = NULL;
	size_t done = 0;
	int r = buffer_get(size, &buffer);

	if (r < 0)
		return r;
	/* the kernel takes a short answer for the end of the file */
	while (done < size) {
		ssize_t n = pread(fd, (char *)buffer->data + done, size - done, off + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	(void)fuse_reply_buf(req, buffer->data, done);
	return 0;
}

void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct ops *ops = ops_of(req);
	_cleanup_ops_file_ struct ops_file file = OPS_FILE_INIT;
	int r = ops_get_file(ops, ino, fi->fh, &file);

	if (r >= 0)
		r = read_file(req, file.fd, size, off);
	if (r < 0)
		ops_reply_status(req, r);
}

/*
 * All of it, or as much as goes. O_APPEND is as the application has it now: it may have changed
 * since it opened the file (fcntl(2)).
 */
static ssize_t write_file(int fd, const char *buf, size_t size, off_t off, bool append)
{
	_cleanup_creds_ struct creds creds = CREDS_INIT;
	int r = creds_enter_writer(&creds, request_current()->kill_suidgid);

	if (r < 0)
		return r;
	return append ? once_append(fd, buf, size) : fd_write_at(fd, buf, size, off, 0);
}

void ops_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	       struct fuse_file_info *fi)
{
	struct ops *ops = ops_of(req);
	_cleanup_ops_file_ struct ops_file file = OPS_FILE_INIT;
	ssize_t n = ops->read_only ? -EROFS : ops_get_file(ops, ino, fi->fh, &file);

	if (n >= 0)
		n = write_file(file.fd, buf, size, off, fi->flags & O_APPEND);
	if (n < 0)
		ops_reply_status(req, (int)n);
	else
		(void)fuse_reply_write(req, (size_t)n);
}

void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct ops *ops = ops_of(req);
	_cleanup_ops_file_ struct ops_file file = OPS_FILE_INIT;
	int r = ops_get_file(ops, ino, fi->fh, &file);

	if (r >= 0)
		r = datasync ? fdatasync(file.fd) : fsync(file.fd);
	ops_reply_status(req, r == -1 ? -errno : r);
}

static int allocate(int fd, int mode, off_t offset, off_t length)
{
	_cleanup_creds_ struct creds creds = CREDS_INIT;
	int r = creds_enter_writer(&creds, request_current()->kill_suidgid);

	if (r < 0)
		return r;
	return fallocate(fd, mode, offset, length) < 0 ? -errno : 0;
}

void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		   struct fuse_file_info *fi)
{
	struct ops *ops = ops_of(req);
	_cleanup_ops_file_ struct ops_file file = OPS_FILE_INIT;
	int r = ops->read_only ? -EROFS : ops_get_file(ops, ino, fi->fh, &file);

	if (r >= 0)
		r = allocate(file.fd, mode, offset, length);
	ops_reply_status(req, r);
}

/* Only SEEK_DATA and SEEK_HOLE come here. The descriptor's own position is used by nobody. */
void ops_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct ops *ops = ops_of(req);
	_cleanup_ops_file_ struct ops_file file = OPS_FILE_INIT;
	off_t at = 0;
	int r = ops_get_file(ops, ino, fi->fh, &file);

	if (r >= 0) {
		at = lseek(file.fd, off, whence);
		r = at < 0 ? -errno : 0;
	}
	if (r < 0)
		ops_reply_status(req, r);
	else
		(void)fuse_reply_lseek(req, at);
}

static ssize_t copy_range(int from, off_t off_in, int to, off_t off_out, size_t size, int flags)
{
	_cleanup_creds_ struct creds creds = CREDS_INIT;
	int r = creds_enter_writer(&creds, request_current()->kill_suidgid);
	ssize_t n;

	if (r < 0)
		return r;
	n = copy_file_range(from, &off_in, to, &off_out, MIN_OF(size, COPY_MAX),
			    (unsigned int)flags);
	return n < 0 ? -errno : n;
}

void ops_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			 struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
			 struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct ops *ops = ops_of(req);
	_cleanup_ops_file_ struct ops_file from = OPS_FILE_INIT;
	_cleanup_ops_file_ struct ops_file to = OPS_FILE_INIT;
	ssize_t n = ops->read_only ? -EROFS : ops_get_file(ops, ino_in, fi_in->fh, &from);

	if (n >= 0)
		n = ops_get_file(ops, ino_out, fi_out->fh, &to);
	if (n >= 0)
		n = copy_range(from.fd, off_in, to.fd, off_out, len, flags);
	if (n < 0)
		ops_reply_status(req, (int)n);
	else
		(void)fuse_reply_write(req, (size_t)n);
}

void ops_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg,
	       struct fuse_file_info *fi, unsigned int flags, const void *in_buf, size_t in_size,
	       size_t out_size)
{
	ops_reply_status(req, -ENOTTY);
}
