/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a worker makes of the requests that its predecessor left in the inboxes (inbox.h): which
 * were answered, which run again, and which one is to blame.
 *
 * A request that was in hand at three deaths of workers in a row is answered EIO by the fourth, so
 * that one poisonous request does not end the volume. A death is laid to its charge if the worker
 * ended by itself, ran out of memory or hung. SIGKILL by somebody says little: it counts where the
 * request had just been begun, as when the worker kills itself over it, or had been running for a
 * second, but not in between, where a request that is merely slow would be blamed for whoever kills
 * workers every few milliseconds.
 *
 * So that the others in hand at the same moment are not blamed with it, suspects (one death or
 * more) run one after the other, the least suspect first, and only what was begun is blamed.
 *
 * A thread of the worker before that the kernel does not let go of, in a call to a source that
 * hangs, may still have its effect. What it may be in the middle of runs again when it is gone,
 * which the lock of the ledger tells; everything else is served meanwhile.
 *
 * Threads: one mutex covers whose turn it is; it is held over no system call but the wait.
 */

#include "base/macros.h"
#include "fuse/inbox.h"
#include "fuse/ledger.h"

#define TAKEOVER_DEATHS_MAX 3

struct takeover;

/* takeover_new - look at all inboxes before any thread runs; `ledger` is borrowed. Returns 0 or
 * -ENOMEM. */
int __must_check takeover_new(struct ledger *ledger, int dev_fd, struct takeover **ret);
void takeover_free(struct takeover *takeover);

/* takeover_has - whether inbox `index` holds a request that was left. */
bool takeover_has(const struct takeover *takeover, uint32_t index);

enum takeover_verdict {
	TAKEOVER_NOTHING = 0, /* nothing is there, or it was answered */
	TAKEOVER_REPLAY = 1,  /* run it again; take back first what it handed out */
	TAKEOVER_GO_ON = 2,   /* a FORGET: go on where it was left */
	TAKEOVER_GIVE_UP = 3, /* answer EIO */
};

/* takeover_judge - what to do with the request in `inbox`. */
enum takeover_verdict takeover_judge(const struct takeover *takeover, const struct inbox *inbox);

/*
 * takeover_wait_for_end - where the request in `inbox` changes something that the worker before may
 * still be about: wait until that is gone. `lock_fd` is this worker's own opening of the ledger,
 * which it locks (flock(2)); negative: there is none (tests).
 */
void takeover_wait_for_end(const struct inbox *inbox, int lock_fd);

/* takeover_wait_turn - wait until those that are less suspect are done, a second at most.
 * takeover_done - the request was dealt with. */
void takeover_wait_turn(struct takeover *takeover, uint32_t index);
void takeover_done(struct takeover *takeover);

/* takeover_note_poison - the request in `inbox` is given up: log it, and note it for the keeper. */
void takeover_note_poison(const struct inbox *inbox);
