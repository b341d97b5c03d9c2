/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/request.h"

#include <errno.h>
#include <string.h>

#include "fuse/uapi.h"

/* What a request's body is made of: a struct of fixed size, then names that end in a NUL, then
 * data. */
struct body_shape {
	uint8_t fixed; /* bytes */
	uint8_t names;
};

static const struct body_shape shapes[] = {
	[FUSE_LOOKUP] = { 0, 1 },
	[FUSE_FORGET] = { sizeof(struct fuse_forget_in), 0 },
	[FUSE_GETATTR] = { sizeof(struct fuse_getattr_in), 0 },
	[FUSE_SETATTR] = { sizeof(struct fuse_setattr_in), 0 },
	[FUSE_SYMLINK] = { 0, 2 },
	[FUSE_MKNOD] = { sizeof(struct fuse_mknod_in), 1 },
	[FUSE_MKDIR] = { sizeof(struct fuse_mkdir_in), 1 },
	[FUSE_UNLINK] = { 0, 1 },
	[FUSE_RMDIR] = { 0, 1 },
	[FUSE_RENAME] = { sizeof(struct fuse_rename_in), 2 },
	[FUSE_LINK] = { sizeof(struct fuse_link_in), 1 },
	[FUSE_OPEN] = { sizeof(struct fuse_open_in), 0 },
	[FUSE_READ] = { sizeof(struct fuse_read_in), 0 },
	[FUSE_WRITE] = { sizeof(struct fuse_write_in), 0 },
	[FUSE_RELEASE] = { sizeof(struct fuse_release_in), 0 },
	[FUSE_FSYNC] = { sizeof(struct fuse_fsync_in), 0 },
	[FUSE_SETXATTR] = { FUSE_COMPAT_SETXATTR_IN_SIZE, 1 }, /* without the extended flags */
	[FUSE_GETXATTR] = { sizeof(struct fuse_getxattr_in), 1 },
	[FUSE_LISTXATTR] = { sizeof(struct fuse_getxattr_in), 0 },
	[FUSE_REMOVEXATTR] = { 0, 1 },
	[FUSE_FLUSH] = { sizeof(struct fuse_flush_in), 0 },
	[FUSE_OPENDIR] = { sizeof(struct fuse_open_in), 0 },
	[FUSE_READDIR] = { sizeof(struct fuse_read_in), 0 },
	[FUSE_RELEASEDIR] = { sizeof(struct fuse_release_in), 0 },
	[FUSE_FSYNCDIR] = { sizeof(struct fuse_fsync_in), 0 },
	[FUSE_GETLK] = { sizeof(struct fuse_lk_in), 0 },
	[FUSE_SETLK] = { sizeof(struct fuse_lk_in), 0 },
	[FUSE_SETLKW] = { sizeof(struct fuse_lk_in), 0 },
	[FUSE_ACCESS] = { sizeof(struct fuse_access_in), 0 },
	[FUSE_CREATE] = { sizeof(struct fuse_create_in), 1 },
	[FUSE_INTERRUPT] = { sizeof(struct fuse_interrupt_in), 0 },
	[FUSE_BMAP] = { sizeof(struct fuse_bmap_in), 0 },
	[FUSE_IOCTL] = { sizeof(struct fuse_ioctl_in), 0 },
	[FUSE_POLL] = { sizeof(struct fuse_poll_in), 0 },
	[FUSE_BATCH_FORGET] = { sizeof(struct fuse_batch_forget_in), 0 },
	[FUSE_FALLOCATE] = { sizeof(struct fuse_fallocate_in), 0 },
	[FUSE_READDIRPLUS] = { sizeof(struct fuse_read_in), 0 },
	[FUSE_RENAME2] = { sizeof(struct fuse_rename2_in), 2 },
	[FUSE_LSEEK] = { sizeof(struct fuse_lseek_in), 0 },
	[FUSE_COPY_FILE_RANGE] = { sizeof(struct fuse_copy_file_range_in), 0 },
	[FUSE_TMPFILE] = { sizeof(struct fuse_create_in), 1 },
};

static _Thread_local const struct request *current;

const struct request *request_current(void)
{
	return current;
}

void request_set_current(const struct request *request)
{
	current = request;
}

static int decode_groups(const char *payload, size_t size, struct request *ret)
{
	uint32_t n;

	if (size < sizeof(n))
		return -EBADMSG;
	memcpy(&n, payload, sizeof(n));
	if (n > REQUEST_GROUPS_MAX || n * sizeof(gid_t) > size - sizeof(n))
		return -EBADMSG;
	memcpy(ret->groups, payload + sizeof(n), n * sizeof(gid_t));
	ret->n_groups = n;
	return 0;
}

/* The extensions lie behind the body, at any alignment; those that we did not ask for are skipped.
 */
static int decode_extensions(const char *p, size_t size, struct request *ret)
{
	while (size > 0) {
		struct uapi_ext_header header;
		int r = 0;

		if (size < sizeof(header))
			return -EBADMSG;
		memcpy(&header, p, sizeof(header));
		if (header.size < sizeof(header) || header.size > size)
			return -EBADMSG;
		if (header.type == UAPI_EXT_GROUPS)
			r = decode_groups(p + sizeof(header), header.size - sizeof(header), ret);
		if (r < 0)
			return r;
		p += header.size;
		size -= header.size;
	}
	return 0;
}

/*
 * WRITE, OPEN, SETATTR and SETXATTR say so themselves (FUSE_HANDLE_KILLPRIV_V2). FALLOCATE and
 * COPY_FILE_RANGE have no such flag, though the kernel leaves those to us too: whoever is not
 * known to be root loses the bits.
 */
static bool wants_kill(const struct fuse_in_header *in, const void *body)
{
	switch (in->opcode) {
	case FUSE_OPEN:
		return ((const struct fuse_open_in *)body)->open_flags & FUSE_OPEN_KILL_SUIDGID;
	case FUSE_CREATE:
		return ((const struct fuse_create_in *)body)->open_flags & FUSE_OPEN_KILL_SUIDGID;
	case FUSE_WRITE:
		return ((const struct fuse_write_in *)body)->write_flags & FUSE_WRITE_KILL_SUIDGID;
	case FUSE_SETATTR:
		return ((const struct fuse_setattr_in *)body)->valid & FATTR_KILL_SUIDGID;
	case FUSE_FALLOCATE:
	case FUSE_COPY_FILE_RANGE:
		return in->uid != 0;
	default:
		return false;
	}
}

/* Cuts the 8 bytes that FUSE_SETXATTR_EXT put between the fixed part and the name. */
static int cut_setxattr_flags(char *body, size_t *size, struct request *ret)
{
	const struct fuse_setxattr_in *in = (const struct fuse_setxattr_in *)body;

	if (*size < sizeof(*in))
		return -EBADMSG;
	ret->kill_suidgid = in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID;
	memmove(body + FUSE_COMPAT_SETXATTR_IN_SIZE, body + sizeof(*in), *size - sizeof(*in));
	*size -= sizeof(*in) - FUSE_COMPAT_SETXATTR_IN_SIZE;
	return 0;
}

/* How many bytes of data a body says that it carries behind its names. */
static uint64_t stated_data_size(uint32_t opcode, const void *body)
{
	switch (opcode) {
	case FUSE_WRITE:
		return ((const struct fuse_write_in *)body)->size;
	case FUSE_SETXATTR:
		return *(const uint32_t *)body;
	case FUSE_BATCH_FORGET:
		return (uint64_t)((const struct fuse_batch_forget_in *)body)->count *
		       sizeof(struct fuse_forget_one);
	case FUSE_IOCTL:
		return ((const struct fuse_ioctl_in *)body)->in_size;
	default:
		return 0;
	}
}

static int check_body(uint32_t opcode, const char *body, size_t size)
{
	struct body_shape shape = { 0, 0 };
	const char *p;

	if (opcode < ARRAY_SIZE(shapes))
		shape = shapes[opcode];
	if (size < shape.fixed)
		return -EBADMSG;
	p = body + shape.fixed;
	for (unsigned int i = 0; i < shape.names; i++) {
		const char *end = memchr(p, '\0', size - (size_t)(p - body));

		if (!end)
			return -EBADMSG;
		p = end + 1;
	}
	if (stated_data_size(opcode, body) > size - (size_t)(p - body))
		return -EBADMSG;
	return 0;
}

static void decode_header(const struct fuse_in_header *in, struct request *ret)
{
	*ret = (struct request){
		.unique = in->unique & ~FUSE_UNIQUE_RESEND,
		.again = in->unique & FUSE_UNIQUE_RESEND,
		.opcode = in->opcode,
		.nodeid = in->nodeid,
		.uid = in->uid,
		.gid = in->gid,
		.pid = in->pid,
	};
}

static bool is_rewritten(const struct fuse_in_header *in, uint64_t negotiated)
{
	return in->total_extlen || in->opcode == FUSE_TMPFILE ||
	       (in->opcode == FUSE_SETXATTR && (negotiated & FUSE_SETXATTR_EXT));
}

int request_decode(void *buf, size_t size, uint64_t negotiated, void *scratch, struct request *ret,
		   void **ret_buf, size_t *ret_size)
{
	struct fuse_in_header *in =
		is_rewritten(buf, negotiated) ? memcpy(scratch, buf, size) : buf;
	char *body = (char *)in + sizeof(*in);
	size_t body_size = size - sizeof(*in), ext_size = (size_t)in->total_extlen * 8;
	int r;

	decode_header(in, ret);
	ret->has_groups = negotiated & FUSE_CREATE_SUPP_GROUP;
	if (in->len != size || ext_size > body_size)
		return -EBADMSG;
	body_size -= ext_size;
	r = decode_extensions(body + body_size, ext_size, ret);
	if (r >= 0 && in->opcode == FUSE_SETXATTR && (negotiated & FUSE_SETXATTR_EXT))
		r = cut_setxattr_flags(body, &body_size, ret);
	if (r >= 0)
		r = check_body(in->opcode, body, body_size);
	if (r < 0)
		return r;
	if (wants_kill(in, body))
		ret->kill_suidgid = true;
	if (in != buf) {
		if (in->opcode == FUSE_TMPFILE)
			in->opcode = FUSE_CREATE;
		in->total_extlen = 0;
		in->len = (uint32_t)(sizeof(*in) + body_size);
	}
	*ret_buf = in;
	*ret_size = in->len;
	return 0;
}
