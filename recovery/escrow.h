/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What holdfast-csi keeps so that a keeper may die: duplicates of the descriptors that each
 * volume's connection lives by (control.h, enum escrow_fd). The kernel ends a connection with the
 * last descriptor of its device, so as long as these are open requests wait, and files that are
 * open in passthrough read on. The next keeper gets the descriptors back (CONTROL_ADOPT) and starts
 * a worker. Nothing is ever read from them here.
 *
 * A thread watches the keeper (CONTROL_WATCH). When that hangs up, the keeper is gone: the
 * thread waits for the next one's socket, asks what it has (CONTROL_LIST), fetches what is not in
 * escrow (CONTROL_ESCROW: after a restart of this process) and gives back what the keeper lacks. A
 * volume whose connection has ended, or that the keeper can't read, is dropped, and then its
 * connection ends: applications get an error rather than wait for ever.
 *
 * Each keeper that the thread finds has a number, the generation. A deposit knows the generation of
 * the keeper that has its volume for sure; it is given back to every later one. A keeper answers
 * -EEXIST for what it has, so giving back once too often does no harm, and the thread need not know
 * which keeper a call of another thread has reached.
 *
 * All functions may be called from any thread. One mutex covers the table; it is held over no
 * system call that lasts. While the thread talks to the keeper about a volume its deposit is
 * `busy`: who wants to change it waits, as long as the thread's call takes at most.
 */

#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"
#include "recovery/control.h"

struct escrow;

/*
 * escrow_new - start the thread; `run_dir` is where the keeper's socket is or will be. `news_fd`,
 * an eventfd that is borrowed, is written to whenever a volume may have been lost: a keeper has
 * come and got what there was for it, or tells that a connection has ended. *ret is owned by the
 * caller. Returns 0 or -errno with *err set.
 */
int __must_check escrow_new(const char *run_dir, int news_fd, struct escrow **ret,
			    struct error *err);

/* escrow_free - end the thread and close all. NULL is fine. */
void escrow_free(struct escrow *escrow);

/*
 * escrow_settle - wait until the keeper that is there and the escrow know the same volumes, at most
 * `timeout_ms`. Returns at once while there is no keeper.
 */
void escrow_settle(struct escrow *escrow, int timeout_ms);

/*
 * escrow_refresh - the keeper has a volume that did not come by escrow_put: fetch what is new, and
 * wait for that, at most `timeout_ms`.
 */
void escrow_refresh(struct escrow *escrow, int timeout_ms);

/* escrow_generation - for escrow_put: to be asked before the call that makes the volume. */
uint64_t escrow_generation(struct escrow *escrow);

/*
 * escrow_put - take a new volume's descriptors, which are consumed. `generation` is from before the
 * keeper was called: should it have died since, its successor gets the volume. Without memory, or
 * with the last few descriptors that this process may have (they are for calls that end volumes),
 * the volume goes without escrow, which is logged.
 */
void escrow_put(struct escrow *escrow, const char *id, dev_t dev, uint64_t generation,
		const int fds[ESCROW_FDS]);

/*
 * escrow_withdraw - the volume is about to be removed from the keeper: it is not given back any
 * more. Closes the source, so that it is the worker's end that waits for a hung one.
 * escrow_forget - the removal was answered: close the rest, with which the connection ends.
 */
void escrow_withdraw(struct escrow *escrow, const char *id);
void escrow_forget(struct escrow *escrow, const char *id);

enum escrow_claim {
	ESCROW_NOT_HELD = 0, /* the volume is lost */
	ESCROW_GIVEN = 1,    /* the keeper has it again */
	ESCROW_PENDING = 2,  /* not within the time */
};

/*
 * escrow_reclaim - a keeper said that it does not know the volume: have it given back, and wait for
 * that, at most `timeout_ms`.
 */
enum escrow_claim escrow_reclaim(struct escrow *escrow, const char *id, int timeout_ms);
