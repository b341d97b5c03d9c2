/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What one keeper process leaves to the next, so that nobody notices: the lock of the run
 * directory, the listening socket, the clients' connections, and what each volume lives by. There
 * are two ways.
 *
 * A successor is another process, started on the same run directory. It asks the keeper that serves
 * there for all of it (control.h, CONTROL_HANDOVER), checks everything as if it came out of escrow,
 * and commits. Until then nothing has happened; from then on the old keeper starts no more workers
 * and ends.
 *
 * A keeper that executes its program file anew stays the same process: descriptors keep their
 * numbers, a memfd tells the new image what they are, and HOLDFAST_HANDOVER_FD is its number. There
 * is no way back from execve(2), so the new file is first started as a successor that does not
 * commit (--check-handover).
 *
 * Either way the new keeper starts its workers first and has the old ones end then: each worker
 * waits for the lock on its ledger, so the pause is the same for one volume and for hundreds.
 */

#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"
#include "base/socket.h"
#include "recovery/control.h"
#include "recovery/supervisor/adopted.h"
#include "recovery/supervisor/reaper.h"

struct handover_volume {
	char id[VOLUME_ID_MAX + 8];
	int fds[SOCKET_FDS_MAX]; /* in the order of enum escrow_fd */
	struct adopted adopted;	 /* what handover_check makes of them */
};

/* A process that the keeper had started and that was not reaped yet. */
struct handover_child {
	int32_t pid;
	int32_t pidfd;
};

struct handover {
	int lock_fd;
	int listen_fd;
	int conn_fd; /* to the keeper before, while that waits for us; -EBADF: it was ourselves */
	int oom_score_adj;
	struct handover_volume *volumes;
	size_t n_volumes;
	int32_t *clients; /* their connections, with what they have sent and nobody read */
	size_t n_clients;
	struct handover_child *children;
	size_t n_children;
};

#define HANDOVER_NONE \
	((struct handover){ .lock_fd = -EBADF, .listen_fd = -EBADF, .conn_fd = -EBADF })

/*
 * handover_add, handover_add_client, handover_add_child - append; the descriptors are the
 * handover's then, on failure the caller's. Return 0 or -ENOMEM with *err set.
 */
int __must_check handover_add(struct handover *handover, const char *id, const int fds[ESCROW_FDS],
			      struct error *err);
int __must_check handover_add_client(struct handover *handover, int fd, struct error *err);
int __must_check handover_add_child(struct handover *handover, pid_t pid, int pidfd,
				    struct error *err);

/*
 * handover_ask - have the keeper that serves `run_dir` offer all that it has, and check it: at most
 * `max_volumes`, each fit to be adopted. Volumes whose connection has ended are left behind.
 * *ret is owned by the caller. Returns 0 or -errno with *err set: ERROR_BUSY while volumes come or
 * go, ERROR_UNAVAILABLE when no keeper answers, ERROR_TIMEOUT when it hangs, or what is unfit.
 */
int __must_check handover_ask(const char *run_dir, size_t max_volumes, struct handover *ret,
			      struct error *err);

/* handover_commit - take what handover_ask brought. Returns as that does. */
int __must_check handover_commit(struct handover *handover, struct error *err);

/*
 * handover_encode - what the next image of this process is told, as bytes; *ret is owned by the
 * caller. Returns 0 or -ENOMEM with *err set.
 */
int __must_check handover_encode(const struct handover *handover, void **ret, size_t *ret_size,
				 struct error *err);

/*
 * handover_decode - the reverse. Nothing is done with the descriptors' numbers. *ret is owned by
 * the caller, who ends it with handover_close, or handover_forget if they are not valid. Returns 0
 * or -errno with *err set: -EBADMSG for garbage, -EPROTONOSUPPORT for what another build wrote.
 */
int __must_check handover_decode(const void *data, size_t size, struct handover *ret,
				 struct error *err);

/*
 * handover_exec - execute the program file `program_fd` in the place of this program, with all that
 * *handover names left open. Returns only on failure, -errno with *err set, and then nothing has
 * changed.
 */
int handover_exec(const struct handover *handover, int program_fd, char *const argv[],
		  struct error *err);

/*
 * handover_inherit - what the image before us left, checked; volumes that are unfit are closed,
 * which is logged. Returns 1, 0 if there was none, or -errno with *err set.
 */
int __must_check handover_inherit(struct handover *ret, struct error *err);

/* handover_finish - our workers are on their way: the old ones are to end now, if they still run.
 */
void handover_finish(struct handover *handover, struct reaper *reaper);

/* handover_close - close what *handover holds; handover_forget - free it, and leave all open. */
void handover_close(struct handover *handover);
void handover_forget(struct handover *handover);
