/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The kernel's FUSE protocol as far as <linux/fuse.h> of an older distribution does not know it:
 * Debian 12 has 7.38, the kernel we run on may speak 7.45. Constants are added where they are
 * missing, under the kernel's names; structs and enum members, which can't be probed, get names of
 * our own. Source: the kernel's include/uapi/linux/fuse.h.
 */

#include <linux/fuse.h>
#include <linux/ioctl.h>

#include "base/macros.h"

/* FUSE_INIT flags; those from bit 32 on travel in flags2 and only with FUSE_INIT_EXT. */
#ifndef FUSE_CREATE_SUPP_GROUP
#define FUSE_CREATE_SUPP_GROUP (1ULL << 34)
#endif
#ifndef FUSE_DIRECT_IO_ALLOW_MMAP
#define FUSE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
#endif
#ifndef FUSE_PASSTHROUGH
#define FUSE_PASSTHROUGH (1ULL << 37)
#endif
#ifndef FUSE_NO_EXPORT_SUPPORT
#define FUSE_NO_EXPORT_SUPPORT (1ULL << 38)
#endif
#ifndef FUSE_HAS_RESEND
#define FUSE_HAS_RESEND (1ULL << 39)
#endif
#ifndef FUSE_ALLOW_IDMAP
#define FUSE_ALLOW_IDMAP (1ULL << 40)
#endif

/* Flags in the answer to FUSE_OPEN and FUSE_CREATE. */
#ifndef FOPEN_PASSTHROUGH
#define FOPEN_PASSTHROUGH (1 << 7)
#endif

/* Set in the unique of a request that was read before, not answered, and sent again. */
#ifndef FUSE_UNIQUE_RESEND
#define FUSE_UNIQUE_RESEND (1ULL << 63)
#endif

#define UAPI_NOTIFY_RESEND 7 /* enum fuse_notify_code, from 7.40 on */
#define UAPI_EXT_GROUPS 32   /* enum fuse_ext_type: struct uapi_supp_groups follows */

/* enum values of 7.38: the oldest header that we build with */
_Static_assert(FUSE_TMPFILE == 51, "FUSE_TMPFILE");
_Static_assert(sizeof(struct fuse_in_header) == 40, "struct fuse_in_header has total_extlen");

/* FUSE_INIT's body and answer, as of 7.40. */
struct uapi_init_in {
	uint32_t major, minor;
	uint32_t max_readahead;
	uint32_t flags;
	uint32_t flags2;
	uint32_t unused[11];
};
_Static_assert(sizeof(struct uapi_init_in) == 64, "struct fuse_init_in");

struct uapi_init_out {
	uint32_t major, minor;
	uint32_t max_readahead;
	uint32_t flags;
	uint16_t max_background;
	uint16_t congestion_threshold;
	uint32_t max_write;
	uint32_t time_gran;
	uint16_t max_pages;
	uint16_t map_alignment;
	uint32_t flags2;
	uint32_t max_stack_depth;
	uint32_t unused[6];
};
_Static_assert(sizeof(struct uapi_init_out) == 64, "struct fuse_init_out");

/* The answer to FUSE_OPEN, and the second half of that to FUSE_CREATE. */
struct uapi_open_out {
	uint64_t fh;
	uint32_t open_flags; /* FOPEN_* */
	int32_t backing_id;
};
_Static_assert(sizeof(struct uapi_open_out) == sizeof(struct fuse_open_out), "fuse_open_out");

/* An extension of a request: its header, and the payload of UAPI_EXT_GROUPS. */
struct uapi_ext_header {
	uint32_t size; /* with this header, a multiple of 8 */
	uint32_t type;
};
struct uapi_supp_groups {
	uint32_t nr_groups;
	uint32_t groups[];
};

/* ioctls of /dev/fuse that register and forget a file to pass through to. */
struct uapi_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
_Static_assert(sizeof(struct uapi_backing_map) == 16, "struct fuse_backing_map");
#define UAPI_IOC_BACKING_OPEN _IOW(229, 1, struct uapi_backing_map)
#define UAPI_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)
