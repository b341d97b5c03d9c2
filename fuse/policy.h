/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How a volume is served, and how each of its files: the only place that decides. Pure functions of
 * what is known: nothing here asks the kernel.
 *
 * The kernel wants all opens of an inode that overlap to be alike (fs/fuse/iomode.c: else EIO): all
 * in passthrough with one backing id, or all through the page cache. So what policy_open says for a
 * file that is open already is what it is open as.
 */

#include "base/error.h"
#include "base/macros.h"
#include "fuse/connection.h"
#include "fuse/volume.h"

/* What is known when FUSE_INIT has to be answered. */
struct policy_facts {
	uint64_t offered;	  /* the kernel's INIT flags */
	uint32_t major, minor;	  /* its protocol version */
	uint32_t max_readahead;	  /* bytes, from INIT */
	uint32_t max_pages_limit; /* fs.fuse.max_pages_limit, 0: unknown (older kernels) */
	uint32_t page_size;	  /* bytes */
	uint64_t source_magic;	  /* statfs(2), f_type of the source directory */
};

/*
 * policy_connect - decide mode, INIT flags, request sizes and timeouts of a volume. Returns 0 or
 * -errno with *err set (ERROR_PRECONDITION): -EPROTO for a kernel that is too old, -EOPNOTSUPP for
 * an explicit mode that kernel or source can't do.
 */
int __must_check policy_connect(const struct volume_config *config,
				const struct policy_facts *facts, struct connection_state *ret,
				struct error *err);

/*
 * How an inode is open; lies in the ledger. There is no "direct": O_DIRECT opens of a cached inode
 * go past the page cache by themselves.
 */
enum open_mode {
	OPEN_MODE_NONE = 0,	   /* nobody has it open */
	OPEN_MODE_CACHED = 1,	   /* READ and WRITE come to the worker */
	OPEN_MODE_PASSTHROUGH = 2, /* the kernel reads and writes the backing file */
};

struct policy_open {
	enum volume_mode mode;	/* connection_state.mode */
	bool regular;		/* S_ISREG */
	bool can_back;		/* nothing has shown yet that this file or its device can't be
				   registered (backing_open) */
	enum open_mode current; /* the node's; NONE unless it is open */
	bool flush;		/* opened for writing, with connection_state.flush_on_close */
	bool unchanged;		/* size, mtime and ctime are what the kernel was told last */
};

/* policy_open_mode - how to open the inode. Never OPEN_MODE_NONE. */
enum open_mode policy_open_mode(const struct policy_open *open);

/*
 * policy_open_flags - the FOPEN_* flags that go with `decided`, which is policy_open_mode's answer
 * or, where backing_open then failed, OPEN_MODE_CACHED.
 */
uint32_t policy_open_flags(const struct policy_open *open, enum open_mode decided);

/* policy_opendir_flags - the FOPEN_* flags of an answer to OPENDIR. */
uint32_t policy_opendir_flags(const struct connection_state *state,
			      const struct volume_config *config);

/*
 * policy_latches - whether `opcode` (FUSE_OPEN, FUSE_OPENDIR, FUSE_FLUSH) is to be answered
 * -ENOSYS, after which the kernel never sends it again on this connection.
 */
bool policy_latches(const struct connection_state *state, uint32_t opcode);
