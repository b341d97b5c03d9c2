/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Where a thread reads its requests to: a place in the ledger, so that the kernel itself writes
 * down what a worker has taken from the connection. That makes takeover exact, on every kernel:
 * when a worker has died, each request that it did not answer lies in an inbox, and whether it was
 * answered the kernel tells (inbox_is_awaited). Nothing is asked to be sent again. The steps of a
 * request, which the model (tests/model) has by the same names:
 *
 *   READ    read(2) of the device puts it into the inbox
 *   BEGIN   for what must not run twice: the state before, then that it is begun (once.h)
 *   CALL    the system calls on the source
 *   RESULT  their outcome, then that there is one
 *   REPLY   the answer is written to the device
 *   CLEAR   the inbox is empty again
 *
 * and those of a takeover:
 *
 *   LOCK    the worker before is gone, with all its threads
 *   PROBE   was it answered? then CLEAR is all that is missing
 *   UNDO    references to nodes that its answer would have handed out are taken back (refs.h)
 *   REPLAY  it runs again; what it finds begun or done is not done twice
 *
 * Memory: a worker that is killed while the kernel has to make a page for a request fails that
 * request with EIO (fs/fuse/dev.c, fuse_dev_do_read), so pages are there before anything is read.
 */

#include <linux/fuse.h>

#include "base/macros.h"
#include "fuse/ledger.h"

struct inbox {
	struct ledger *ledger;
	struct ledger_thread *thread;
	struct ledger_inbox *record;
	uint32_t index;
	size_t size; /* of record->data, as far as it is used */
};

/*
 * inbox_open - the inbox of that index, below LEDGER_MAX_INBOXES, with room for requests of `size`
 * bytes; pages for the first `touch` bytes are made. Its content stays. Returns 0 or -errno.
 */
int __must_check inbox_open(struct ledger *ledger, uint32_t index, size_t size, size_t touch,
			    struct inbox *ret);

/* inbox_request - the request that lies there, NULL if none does. Its length is checked, nothing
 * else is. */
const struct fuse_in_header *inbox_request(const struct inbox *inbox);

/* inbox_begin - the request that lies there runs now, for whom it may concern (the keeper). */
void inbox_begin(struct inbox *inbox);

/* inbox_clear - the request was dealt with: CLEAR. */
void inbox_clear(struct inbox *inbox);

/*
 * inbox_is_awaited - PROBE: whether the kernel waits for the answer to `unique`. It looks up what
 * an answer belongs to in order to say that an interrupt was seen; with error 0 nothing comes of it
 * (fs/fuse/dev.c, fuse_dev_do_write).
 */
bool inbox_is_awaited(int dev_fd, uint64_t unique);

/*
 * inbox_current - the inbox whose request this thread is serving; NULL for threads that serve none.
 * inbox_set_current - for the session's loop (and tests). `inbox` is borrowed.
 */
struct inbox *inbox_current(void);
void inbox_set_current(struct inbox *inbox);
