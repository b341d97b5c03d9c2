/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The ledger: a memfd, mapped by keeper and worker, that holds what must survive a worker.
 *
 * It is created sparse at its full size and sealed, so it never grows or shrinks and is never
 * mapped twice: a page costs memory once it is touched. Every record has a fixed size, and becomes
 * valid by one release store to its `state` or `generation`; a worker may die between any two
 * instructions, and its successor has to make sense of what it finds. Nothing in it is a pointer.
 * The worker that reads a ledger trusts no number in it: indexes and sizes are checked.
 */

#include <stdatomic.h>

#include "base/error.h"
#include "base/macros.h"
#include "fuse/connection.h"
#include "fuse/volume.h"

#define LEDGER_MAGIC 0x5244474c54464c48ULL /* "HLFTLGDR" */
#define LEDGER_VERSION 1

#define LEDGER_MAX_NODES (1U << 24)
#define LEDGER_MAX_HANDLES (1U << 20)
#define LEDGER_MAX_DEVS 256
#define LEDGER_FILE_HANDLE_MAX \
	40 /* bytes of a struct file_handle's f_handle that a node has room for */

struct ledger_header {
	uint64_t magic;
	uint32_t version;
	uint32_t node_size, handle_size, dev_size; /* sizeof, so that a foreign layout is noticed */
	struct volume_config config;
	struct connection_state connection;
	_Atomic uint64_t epoch; /* counts workers; raised by each as it attaches */
	/* Progress, for the keeper: a worker that reads requests and answers none is stuck. */
	_Atomic uint64_t requests_read, requests_answered;
	_Atomic uint32_t nodes_used,
		handles_used; /* high-water marks: records beyond were never touched */
};

struct ledger; /* a mapping in this process */

/*
 * ledger_create - make and map a ledger for a volume. *ret_fd is the memfd, sealed against growing
 * and shrinking. Returns 0 or -errno with *err set; both results are owned by the caller.
 */
int __must_check ledger_create(const struct volume_config *config,
			       const struct connection_state *connection, struct ledger **ret,
			       int *ret_fd, struct error *err);

/*
 * ledger_map - map a ledger that somebody else made. Size, seals, magic, version and layout are
 * checked first. Returns 0 or -errno with *err set: -EPROTONOSUPPORT (ERROR_PRECONDITION) for
 * another version, -EBADMSG for what is no ledger.
 */
int __must_check ledger_map(int fd, struct ledger **ret, struct error *err);

/* ledger_unmap - NULL is fine. The memfd stays as long as anybody holds it. */
void ledger_unmap(struct ledger *ledger);
DEFINE_CLEANUP(struct ledger *, ledger_unmap);

struct ledger_header *ledger_header(struct ledger *ledger);
