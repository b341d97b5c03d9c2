/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/parse.h"
#include "fuse/policy.h"
#include "fuse/uapi.h"
#include "mount/tree.h"

#define INIT_TIMEOUT_MS 5000 /* the kernel queues FUSE_INIT while the mount is being made */
#define MINOR_SPOKEN 41	     /* the newest protocol of which we use something */

/* Reads and writes that the kernel has under way for a connection at most; its default is 12. */
#define MAX_BACKGROUND 64

struct init_request {
	struct fuse_in_header header;
	struct uapi_init_in in;
};

static int open_device(int *ret_fd, struct error *err)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
		return error_set(err, ERROR_PRECONDITION, -errno,
				 "/dev/fuse is not there: load the kernel module (modprobe fuse) "
				 "and give the keeper the device");
	if (errno == EPERM || errno == EACCES)
		return error_set(
			err, ERROR_PRECONDITION, -errno,
			"/dev/fuse may not be opened: allow the keeper the device (10:229)");
	return error_errno(err, -errno, "open '/dev/fuse'");
}

static int make_mount(const struct volume_config *config, int dev_fd, int *ret_fd,
		      struct error *err)
{
	const struct mount_fuse m = {
		.dev_fd = dev_fd,
		.volume = config->id,
		.read_only = config->flags & VOLUME_READ_ONLY,
		.max_read = config->max_read,
	};
	int r;

	r = mount_fuse_create(&m, ret_fd, err);
	if (r == -EPERM && err)
		err->kind = ERROR_PRECONDITION; /* CAP_SYS_ADMIN is not there */
	return r;
}

static int read_init(int dev_fd, struct init_request *ret, struct error *err)
{
	struct pollfd p = { .fd = dev_fd, .events = POLLIN };
	_cleanup_free_ char *buf = malloc(FUSE_MIN_READ_BUFFER);
	ssize_t n;

	if (!buf)
		return error_errno(err, -ENOMEM, "FUSE_INIT");
	if (poll(&p, 1, INIT_TIMEOUT_MS) != 1)
		return error_set(err, ERROR_TIMEOUT, -ETIMEDOUT, "the kernel sent no FUSE_INIT");
	n = read(dev_fd, buf, FUSE_MIN_READ_BUFFER);
	if (n < 0)
		return error_errno(err, -errno, "read FUSE_INIT");
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, buf, MIN_OF((size_t)n, sizeof(*ret)));
	if ((size_t)n < offsetof(struct init_request, in.flags2) || ret->header.opcode != FUSE_INIT)
		return error_set(
			err, ERROR_INTERNAL, -EPROTO,
			"the kernel's first request is no FUSE_INIT (opcode %u, %zd bytes)",
			ret->header.opcode, n);
	return 0;
}

/* A number from /proc/sys/fs/fuse; `missing` where this kernel does not have it. */
static uint32_t read_sysctl(const char *name, uint32_t missing)
{
	_cleanup_close_ int fd = -EBADF;
	char path[64], text[16];
	uint32_t value;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/sys/fs/fuse/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : fd_read_all(fd, text, sizeof(text) - 1);
	text[MAX_OF(n, 0)] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return parse_u32(text, UINT32_MAX, &value) < 0 ? missing : value;
}

static void gather_facts(const struct init_request *init, uint64_t source_magic,
			 struct policy_facts *ret)
{
	*ret = (struct policy_facts){
		.offered = init->in.flags,
		.major = init->in.major,
		.minor = init->in.minor,
		.max_readahead = init->in.max_readahead,
		.max_pages_limit = read_sysctl("max_pages_limit", 0),
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
		.source_magic = source_magic,
	};
	if (init->in.flags & FUSE_INIT_EXT)
		ret->offered |= (uint64_t)init->in.flags2 << 32;
}

static int answer_init(int dev_fd, uint64_t unique, const struct connection_state *state,
		       struct error *err)
{
	struct uapi_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = MIN_OF(state->minor, MINOR_SPOKEN),
		.max_readahead = state->max_readahead,
		.flags = (uint32_t)state->negotiated,
		.flags2 = (uint32_t)(state->negotiated >> 32),
		.max_background = MAX_BACKGROUND,
		.congestion_threshold = MAX_BACKGROUND * 3 / 4,
		.max_write = state->max_write,
		.time_gran = state->time_gran,
		.max_pages = (uint16_t)state->max_pages,
		.max_stack_depth = state->max_stack_depth,
	};
	struct fuse_out_header header = { .len = sizeof(header) + sizeof(out), .unique = unique };
	struct iovec iov[] = { { &header, sizeof(header) }, { &out, sizeof(out) } };

	if (writev(dev_fd, iov, ARRAY_SIZE(iov)) < 0)
		return error_errno(err, -errno, "answer FUSE_INIT");
	return 0;
}

/* A refused INIT has no result that we could read: the superblock is there but useless. */
static int negotiate(const struct volume_config *config, uint64_t source_magic, int dev_fd,
		     struct connection_state *ret, struct error *err)
{
	struct init_request init;
	struct policy_facts facts;
	int r = read_init(dev_fd, &init, err);

	if (r < 0)
		return r;
	gather_facts(&init, source_magic, &facts);
	r = policy_connect(config, &facts, ret, err);
	if (r >= 0)
		r = answer_init(dev_fd, init.header.unique, ret, err);
	return r;
}

/* A read is as large as the kernel allows only if readahead asks for as much. */
static void raise_readahead(const struct connection *c)
{
	char path[64], text[16];
	_cleanup_close_ int fd = -EBADF;
	int r = 0;

	(void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(c->dev),
		       minor(c->dev));
	(void)snprintf(text, sizeof(text), "%u",
		       c->state.max_pages * (uint32_t)sysconf(_SC_PAGESIZE) / 1024);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	r = fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
	if (r < 0)
		(void)log_warning_errno(r, "readahead stays small: %s", path);
}

uint64_t connection_request_max_ns(void)
{
	uint32_t each = read_sysctl("default_request_timeout", 0);
	uint32_t max = read_sysctl("max_request_timeout", 0);

	if (each && max)
		return MIN_OF(each, max) * NSEC_PER_SEC;
	return MAX_OF(each, max) * NSEC_PER_SEC;
}

static void warn_of_timeouts(void)
{
	if (connection_request_max_ns())
		log_warning("fs.fuse.default_request_timeout or max_request_timeout is set: the "
			    "kernel ends a whole volume when one request takes that long, so a "
			    "request to a slow source fails before; set both to 0");
}

int connection_open(const struct volume_config *config, uint64_t source_magic,
		    struct connection *ret, struct error *err)
{
	_cleanup_close_ int dev_fd = -EBADF, mount_fd = -EBADF;
	struct connection c = { 0 };
	uint64_t mount_id;
	bool is_root;
	int r;

	r = open_device(&dev_fd, err);
	if (r < 0)
		return r;
	warn_of_timeouts();
	r = make_mount(config, dev_fd, &mount_fd, err);
	if (r < 0)
		return r;
	r = negotiate(config, source_magic, dev_fd, &c.state, err);
	if (r < 0)
		return r;
	r = mount_identify(mount_fd, &c.dev, &mount_id, &is_root);
	if (r < 0)
		return error_errno(err, r, "statx of the new mount");
	raise_readahead(&c);
	c.dev_fd = TAKE_FD(dev_fd);
	c.mount_fd = TAKE_FD(mount_fd);
	*ret = c;
	return 0;
}

bool connection_has_ended(int dev_fd)
{
	struct pollfd p = { .fd = dev_fd };

	return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLNVAL));
}

void connection_close(struct connection *c)
{
	close_fd(&c->mount_fd);
	close_fd(&c->dev_fd);
}

int connection_resend(int dev_fd)
{
	struct fuse_out_header header = { .len = sizeof(header), .error = UAPI_NOTIFY_RESEND };

	return write(dev_fd, &header, sizeof(header)) < 0 ? -errno : 0;
}

bool connection_can_resend(const struct connection_state *state)
{
	return state->negotiated & FUSE_HAS_RESEND;
}
