/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/policy.h"

#include <errno.h>
#include <linux/magic.h>

#include "base/clock.h"
#include "fuse/uapi.h"

#define LUSTRE_SUPER_MAGIC 0x0bd00bd0 /* not in <linux/magic.h> */

#define MINOR_MIN 31		/* kernel 5.6: the oldest protocol that is tried */
#define PAGES_DEFAULT 32	/* of a request where FUSE_MAX_PAGES is not offered */
#define PAGES_LIMIT_DEFAULT 256 /* of kernels without fs.fuse.max_pages_limit */
#define PAGES_MAX 1024		/* 4 MiB */

/*
 * Bytes. Each thread of a worker has resident memory for a write of this size (session.c), and
 * larger ones were not faster: 1.1 GB/s with 128 KiB, 256 KiB and 1 MiB alike. Reads go up to
 * max_pages.
 */
#define WRITE_MAX (128U << 10)

#define TIMEOUT_CLOSE_TO_OPEN NSEC_PER_SEC
#define TIMEOUT_IMMUTABLE (30 * 24 * 3600 * NSEC_PER_SEC)

/*
 * What is wanted of every volume. On purpose not here: WRITEBACK_CACHE (a dead worker's dirty
 * pages, and no passthrough with it), POSIX_LOCKS and FLOCK_LOCKS (the kernel's own locks are seen
 * by all pods of the volume on this node and survive any worker), ATOMIC_O_TRUNC (a truncation
 * comes as a SETATTR of its own, so that OPEN may be repeated), EXPORT_SUPPORT, FUSE_OVER_IO_URING
 * and request timeouts (the first loses requests when a worker dies, the second ends the
 * connection).
 */
#define WANTED                                                                            \
	(FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS | FUSE_DO_READDIRPLUS | \
	 FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_MAX_PAGES | FUSE_POSIX_ACL |       \
	 FUSE_DONT_MASK | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_INIT_EXT |   \
	 FUSE_CREATE_SUPP_GROUP | FUSE_HAS_RESEND | FUSE_ALLOW_IDMAP)

/*
 * Network file systems, and whatever a FUSE server may be, write back when a file is closed, and
 * tell then what went wrong.
 */
static bool flushes_on_close(uint64_t magic)
{
	static const uint64_t remote[] = {
		NFS_SUPER_MAGIC,  SMB_SUPER_MAGIC,    CIFS_SUPER_MAGIC, SMB2_SUPER_MAGIC,
		CEPH_SUPER_MAGIC, V9FS_MAGIC,	      AFS_FS_MAGIC,	CODA_SUPER_MAGIC,
		FUSE_SUPER_MAGIC, LUSTRE_SUPER_MAGIC,
	};

	for (size_t i = 0; i < ARRAY_SIZE(remote); i++)
		if (magic == remote[i])
			return true;
	return false;
}

/*
 * Why the source can't be passed through to, NULL if it can as far as its type tells. A FUSE source
 * can die: its ENOTCONN would reach the application with no upcall in which we could wait.
 */
static const char *passthrough_obstacle(const struct policy_facts *facts)
{
	uint64_t needed = FUSE_PASSTHROUGH | FUSE_INIT_EXT;

	if ((facts->offered & needed) != needed)
		return "the kernel does not offer FUSE passthrough (Linux 6.9 or newer, "
		       "CONFIG_FUSE_PASSTHROUGH)";
	if (facts->source_magic == FUSE_SUPER_MAGIC)
		return "the source is itself a FUSE or virtiofs mount";
	return NULL;
}

static bool can_be_upcall_free(const struct policy_facts *facts)
{
	return facts->offered & FUSE_NO_OPEN_SUPPORT;
}

static enum volume_mode auto_mode(const struct volume_config *config,
				  const struct policy_facts *facts)
{
	if (config->consistency == VOLUME_IMMUTABLE && can_be_upcall_free(facts))
		return VOLUME_MODE_UPCALL_FREE;
	return passthrough_obstacle(facts) ? VOLUME_MODE_WORKER : VOLUME_MODE_PASSTHROUGH;
}

static int decide_mode(const struct volume_config *config, const struct policy_facts *facts,
		       uint32_t *ret, struct error *err)
{
	const char *obstacle = NULL;
	enum volume_mode mode = (enum volume_mode)config->mode;

	if (mode == VOLUME_MODE_AUTO)
		mode = auto_mode(config, facts);
	else if (mode == VOLUME_MODE_PASSTHROUGH)
		obstacle = passthrough_obstacle(facts);
	else if (mode == VOLUME_MODE_UPCALL_FREE && !can_be_upcall_free(facts))
		obstacle = "the kernel does not offer FUSE_NO_OPEN_SUPPORT";
	if (obstacle)
		return error_set(err, ERROR_PRECONDITION, -EOPNOTSUPP,
				 "mode '%s' is not possible: %s; use mode 'auto'",
				 volume_mode_name(mode), obstacle);
	*ret = (uint32_t)mode;
	return 0;
}

/*
 * Whether files are registered with the connection: those that are passed through, and where files
 * can be removed, those that are open without a name, which nothing but the worker would hold.
 */
static bool registers_files(const struct volume_config *config, enum volume_mode mode)
{
	return mode == VOLUME_MODE_PASSTHROUGH ||
	       (mode == VOLUME_MODE_WORKER && !(config->flags & VOLUME_READ_ONLY));
}

static uint64_t decide_flags(const struct volume_config *config, enum volume_mode mode)
{
	uint64_t flags = WANTED;

	if (config->consistency == VOLUME_IMMUTABLE)
		flags |= FUSE_EXPLICIT_INVAL_DATA | FUSE_CACHE_SYMLINKS | FUSE_NO_OPENDIR_SUPPORT;
	else
		flags |= FUSE_AUTO_INVAL_DATA;
	if (mode == VOLUME_MODE_UPCALL_FREE)
		flags |= FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT;
	if (registers_files(config, mode))
		flags |= FUSE_PASSTHROUGH;
	return flags;
}

static uint32_t decide_max_pages(const struct policy_facts *facts)
{
	uint32_t limit = facts->max_pages_limit ?: PAGES_LIMIT_DEFAULT;

	if (!(facts->offered & FUSE_MAX_PAGES))
		return PAGES_DEFAULT;
	return MIN_OF(limit, PAGES_MAX);
}

static void decide_timeouts(const struct volume_config *config, struct connection_state *state)
{
	uint64_t timeout =
		config->consistency == VOLUME_IMMUTABLE ? TIMEOUT_IMMUTABLE : TIMEOUT_CLOSE_TO_OPEN;

	state->attr_timeout_ns =
		config->flags & VOLUME_HAS_ATTR_TIMEOUT ? config->attr_timeout_ns : timeout;
	state->entry_timeout_ns =
		config->flags & VOLUME_HAS_ENTRY_TIMEOUT ? config->entry_timeout_ns : timeout;
}

/* How deep file systems may be stacked below ours; one more than the source is (fs/fuse/backing.c).
 */
static uint32_t decide_stack_depth(const struct policy_facts *facts, uint64_t negotiated)
{
	if (!(negotiated & FUSE_PASSTHROUGH))
		return 0;
	return facts->source_magic == OVERLAYFS_SUPER_MAGIC ? 2 : 1;
}

int policy_connect(const struct volume_config *config, const struct policy_facts *facts,
		   struct connection_state *ret, struct error *err)
{
	struct connection_state state = {
		.offered = facts->offered,
		.major = facts->major,
		.minor = facts->minor,
		.max_readahead = facts->max_readahead,
		.max_pages = decide_max_pages(facts),
		.time_gran = 1,
	};
	int r;

	if (facts->major != FUSE_KERNEL_VERSION || facts->minor < MINOR_MIN)
		return error_set(err, ERROR_PRECONDITION, -EPROTO,
				 "the kernel speaks FUSE %u.%u; %u.%u or newer is needed",
				 facts->major, facts->minor, FUSE_KERNEL_VERSION, MINOR_MIN);
	r = decide_mode(config, facts, &state.mode, err);
	if (r < 0)
		return r;
	state.negotiated = decide_flags(config, (enum volume_mode)state.mode) & facts->offered;
	state.max_write = MIN_OF(state.max_pages * facts->page_size, WRITE_MAX);
	state.max_stack_depth = decide_stack_depth(facts, state.negotiated);
	state.flush_on_close =
		!(config->flags & VOLUME_READ_ONLY) && flushes_on_close(facts->source_magic);
	decide_timeouts(config, &state);
	*ret = state;
	return 0;
}

enum open_mode policy_open_mode(const struct policy_open *open)
{
	if (open->current != OPEN_MODE_NONE)
		return open->current;
	if (open->mode == VOLUME_MODE_PASSTHROUGH && open->regular && open->can_back)
		return OPEN_MODE_PASSTHROUGH;
	return OPEN_MODE_CACHED;
}

/*
 * NOFLUSH wherever writes go through at once: close(2) then has nothing to wait for, and must not
 * wait for a worker that is being restarted.
 */
uint32_t policy_open_flags(const struct policy_open *open, enum open_mode decided)
{
	uint32_t flags = open->flush ? 0 : FOPEN_NOFLUSH;

	if (decided == OPEN_MODE_PASSTHROUGH)
		return flags | FOPEN_PASSTHROUGH; /* the kernel refuses KEEP_CACHE with it */
	return flags | (open->unchanged ? FOPEN_KEEP_CACHE : 0);
}

uint32_t policy_opendir_flags(const struct connection_state *state,
			      const struct volume_config *config)
{
	if (config->consistency != VOLUME_IMMUTABLE &&
	    state->mode != (uint32_t)VOLUME_MODE_UPCALL_FREE)
		return 0;
	return FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE;
}

bool policy_latches(const struct connection_state *state, uint32_t opcode)
{
	switch (opcode) {
	case FUSE_OPEN:
	case FUSE_FLUSH:
		return state->negotiated & FUSE_NO_OPEN_SUPPORT;
	case FUSE_OPENDIR:
		return state->negotiated & FUSE_NO_OPENDIR_SUPPORT;
	default:
		return false;
	}
}
