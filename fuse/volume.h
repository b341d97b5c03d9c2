/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What makes one volume: fixed by Stage, carried in the keeper's messages and in the ledger, never
 * changed while the connection lives. A value type of fixed layout, because processes of different
 * builds exchange it.
 */

#include "base/error.h"
#include "base/macros.h"

/* The longest volume id: the CSI spec's limit for strings is 128 bytes ("Size Limits"). */
#define VOLUME_ID_MAX 128

/* How the volume is served; "auto" is decided by the policy module before the connection is made.
 */
enum volume_mode {
	VOLUME_MODE_AUTO = 0,
	VOLUME_MODE_UPCALL_FREE = 1, /* no OPEN, OPENDIR, FLUSH; data in the kernel's page cache */
	VOLUME_MODE_PASSTHROUGH = 2, /* the kernel reads and writes the source's file itself */
	VOLUME_MODE_WORKER = 3,	     /* READ and WRITE are served by the worker */
};

enum volume_consistency {
	VOLUME_CLOSE_TO_OPEN = 0,
	VOLUME_IMMUTABLE = 1,
};

/* volume_config.flags */
#define VOLUME_READ_ONLY (1U << 0)
#define VOLUME_HAS_GROUP (1U << 1)	  /* `group` is the group that every file shows */
#define VOLUME_HAS_ATTR_TIMEOUT (1U << 2) /* else the policy's default for the mode */
#define VOLUME_HAS_ENTRY_TIMEOUT (1U << 3)
/* another connection has taken its place and its name; this one ends with its last open file */
#define VOLUME_RETIRED (1U << 4)
#define VOLUME_FLAGS_ALL 0x1fU

/*
 * The least memory limit. A worker alone takes 1 to 2 MiB, while a takeover lasts there may be two,
 * and each of its 8 threads may have a buffer of 1 MiB in work. The rest is for the ledger: its
 * pages are shared memory, charged to the cgroup of the worker that touched them first, can't be
 * reclaimed, and stay charged when that worker dies. So a successor begins with what its
 * predecessors left, about 120 bytes for each file that the kernel knows (400 where the source
 * has no file handles), and a limit that is too small for the files in use kills it again.
 */
#define VOLUME_MEMORY_MIN (16ULL << 20)

struct volume_config {
	char id[VOLUME_ID_MAX + 8]; /* NUL-terminated, the rest is zero */
	uint32_t flags;
	uint32_t mode;	      /* enum volume_mode */
	uint32_t consistency; /* enum volume_consistency */
	uint32_t group;
	uint32_t max_read; /* bytes, 0: the largest that the kernel allows */
	uint32_t reserved;
	uint64_t attr_timeout_ns, entry_timeout_ns;
	uint64_t memory_limit; /* bytes for the worker and its ledger, 0: none */
};

/*
 * volume_config_check - whether a config that came from outside makes sense: the id is terminated
 * and not empty, flags and enums are known, upcall-free and immutable only with VOLUME_READ_ONLY,
 * and a memory limit is large enough. Returns 0 or -EINVAL with *err set (ERROR_INVALID).
 */
int __must_check volume_config_check(const struct volume_config *config, struct error *err);

/* volume_mode_name, volume_mode_parse - "auto", "upcall-free", "passthrough", "worker". parse: 0 or
 * -EINVAL. */
const char *volume_mode_name(enum volume_mode mode);
int __must_check volume_mode_parse(const char *s, enum volume_mode *ret);

/* volume_consistency_name, volume_consistency_parse - "close-to-open", "immutable". parse: 0 or
 * -EINVAL. */
const char *volume_consistency_name(enum volume_consistency consistency);
int __must_check volume_consistency_parse(const char *s, enum volume_consistency *ret);
