/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The keeper's half of a FUSE connection: make the mount, answer FUSE_INIT by hand on the raw
 * descriptor, and remember what was negotiated so that every worker attaches to exactly the same
 * state.
 */

#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"
#include "fuse/volume.h"

/*
 * What FUSE_INIT agreed on (include/uapi/linux/fuse.h, struct fuse_init_in and fuse_init_out). Lies
 * in the ledger; a value type of fixed layout.
 */
struct connection_state {
	uint64_t offered;      /* the kernel's flags, flags2 in the upper half */
	uint64_t negotiated;   /* ours */
	uint32_t major, minor; /* the kernel's protocol version */
	uint32_t mode;	       /* enum volume_mode as decided; never VOLUME_MODE_AUTO */
	uint32_t max_write;    /* bytes */
	uint32_t max_pages;
	uint32_t max_readahead;
	uint32_t max_stack_depth;
	uint32_t time_gran;	 /* ns */
	uint32_t flush_on_close; /* bool: the source wants to know of close(2) */
	uint32_t reserved;
	uint64_t attr_timeout_ns, entry_timeout_ns; /* as decided */
};

struct connection {
	int dev_fd;   /* /dev/fuse, initialised */
	int mount_fd; /* the detached mount; attached by whoever it is handed to */
	dev_t dev;    /* st_dev of the superblock; its minor is the number below
			 /sys/fs/fuse/connections */
	struct connection_state state;
};

/*
 * connection_open - make a FUSE mount for `config`, answer FUSE_INIT, set the readahead of its
 * backing device. `source_magic` is the kind of file system of the source (statfs(2), f_type),
 * which the policy looks at; the caller asks for it, because a source may hang and this never does.
 * *ret owns both descriptors afterwards; connection_close gives them back. Returns 0 or -errno with
 * *err set: no /dev/fuse (ERROR_PRECONDITION), no CAP_SYS_ADMIN (ERROR_PRECONDITION), an INIT that
 * the kernel does not send or does not like, a mode that the kernel does not offer
 * (ERROR_PRECONDITION).
 */
int __must_check connection_open(const struct volume_config *config, uint64_t source_magic,
				 struct connection *ret, struct error *err);

/*
 * connection_has_ended - whether the connection of this /dev/fuse was aborted, or has no mount left
 * (POLLERR: fs/fuse/dev.c, fuse_dev_poll).
 */
bool connection_has_ended(int dev_fd);

/* connection_close - close what *c holds. The kernel ends the connection with the last descriptor
 * of its dev_fd. */
void connection_close(struct connection *c);

/*
 * connection_resend - have the kernel send every request again that was read and not answered
 * (FUSE_NOTIFY_RESEND), with bit 63 of its unique set. Returns 0 or -errno; -EINVAL on a kernel
 * without it.
 */
int __must_check connection_resend(int dev_fd);

/*
 * connection_request_max_ns - how old a request may get before the kernel ends its whole connection
 * (fs.fuse.default_request_timeout or max_request_timeout, Linux 6.15), in nanoseconds. 0: any age.
 */
uint64_t connection_request_max_ns(void);

/* connection_can_resend - whether FUSE_HAS_RESEND was negotiated. */
bool connection_can_resend(const struct connection_state *state);
