/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A volume that comes out of escrow (control.h, CONTROL_ADOPT): descriptors, checked to be what
 * they should be and to belong together, before anything is done with them. Whoever brings them is
 * the keeper's own user, so this is against mistakes and other releases, not against attacks.
 */

#include "base/error.h"
#include "base/macros.h"
#include "base/socket.h"
#include "fuse/connection.h"
#include "fuse/ledger.h"
#include "recovery/control.h"

struct adopted {
	struct connection connection;
	struct ledger *ledger; /* the header */
	int ledger_fd;
	int source_fd;
};

#define ADOPTED_NONE                                                               \
	((struct adopted){ .connection = { .dev_fd = -EBADF, .mount_fd = -EBADF }, \
			   .ledger_fd = -EBADF,                                    \
			   .source_fd = -EBADF })

/*
 * adopted_open - the volume `id` from `fds`; those that are used are taken (-EBADF afterwards).
 * Never asks the source or the volume's own file system anything: they may hang. Returns 0 or
 * -errno with *err set: -EINVAL, -ENOTDIR, -EBADMSG for what is something else or does not belong
 * together, -EPROTONOSUPPORT for a ledger of another version, -ENOTCONN (ERROR_PRECONDITION) for a
 * connection that has ended. *ret is owned by the caller.
 */
int __must_check adopted_open(const char *id, int fds[SOCKET_FDS_MAX], struct adopted *ret,
			      struct error *err);

/* adopted_close - close what *adopted holds. */
void adopted_close(struct adopted *adopted);

/* adopted_check_source - whether `fd` is a directory, opened with O_PATH. Returns 0, -EINVAL or
 * -ENOTDIR with *err set. */
int __must_check adopted_check_source(int fd, struct error *err);
