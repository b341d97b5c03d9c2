/* SPDX-License-Identifier: Apache-2.0 */

/*
 * holdfast-fuse: the worker. Started by the keeper with the descriptors of fuse/worker.h; it
 * attaches, says so, and serves until the connection ends.
 */

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/options.h"
#include "fuse/creds.h"
#include "fuse/ledger.h"
#include "fuse/ops.h"
#include "fuse/session.h"
#include "fuse/worker.h"

static const struct {
	int fd;
	const char *name;
} inherited[] = {
	{ WORKER_FD_DEV, "the FUSE device" },
	{ WORKER_FD_LEDGER, "the ledger" },
	{ WORKER_FD_SOURCE, "the source directory" },
	{ WORKER_FD_STATUS, "the status socket" },
};

/* Whoever starts this by hand gets told; the keeper always passes all four. */
static bool check_descriptors(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(inherited); i++) {
		if (fcntl(inherited[i].fd, F_SETFD, FD_CLOEXEC) == 0)
			continue;
		(void)fprintf(stderr,
			      "holdfast-fuse is started by holdfast-keeper: descriptor %d (%s) is "
			      "missing\n",
			      inherited[i].fd, inherited[i].name);
		return false;
	}
	return true;
}

/* Dies with the keeper. One that is gone before prctl(2) is noticed by its end of the socket. */
static int follow_parent(struct error *err)
{
	struct pollfd p = { .fd = WORKER_FD_STATUS };

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return error_errno(err, -errno, "prctl(PR_SET_PDEATHSIG)");
	if (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR))
		return error_set(err, ERROR_UNAVAILABLE, -EPIPE, "the keeper is gone");
	return 0;
}

static int check_device(struct error *err)
{
	int flags = fcntl(WORKER_FD_DEV, F_GETFL);

	if (flags < 0)
		return error_errno(err, -errno, "fcntl of the FUSE device");
	if (flags & O_NONBLOCK)
		return error_set(err, ERROR_INVALID, -EINVAL, "the FUSE device must be blocking");
	return 0;
}

static int prepare(struct error *err)
{
	int r = follow_parent(err);

	if (r >= 0)
		r = check_device(err);
	if (r < 0)
		return r;
	/* One arena: a volume has few threads and little to allocate, but there are many volumes.
	 */
	(void)mallopt(M_ARENA_MAX, 1);
	(void)ops_raise_fd_limit();
	r = creds_process_init();
	return r < 0 ? error_errno(err, r, "the worker's own credentials") : 0;
}

/* The keeper waits for this one message. */
static void report(const struct error *err)
{
	struct worker_report report = {
		.version = WORKER_REPORT_VERSION,
		.code = err->code,
	};
	size_t length = strnlen(err->text, sizeof(report.text) - 1);

	memcpy(report.text, err->text, length);
	if (send(WORKER_FD_STATUS, &report, sizeof(report), MSG_NOSIGNAL) < 0)
		(void)log_warning_errno(-errno, "report to the keeper");
}

static void undo(void *userdata, uint64_t unique, bool given_up)
{
	ops_undo(userdata, unique, given_up);
}

static void trim(void *userdata)
{
	ops_trim(userdata);
}

/* Serves until the connection ends. Returns 0 then, or -errno. */
static int serve(struct ledger *ledger, struct error *err)
{
	_cleanup_ops_ struct ops *ops = NULL;
	_cleanup_session_ struct session *session = NULL;
	struct ledger_header *header = ledger_header(ledger);
	const struct ops_params ops_params = {
		.ledger = ledger,
		.dev_fd = WORKER_FD_DEV,
		.source_fd = WORKER_FD_SOURCE,
	};
	struct session_params params = {
		.dev_fd = WORKER_FD_DEV,
		.ops = &ops_table,
		.ledger = ledger,
		.undo = undo,
		.n_threads = SESSION_THREADS,
		.tick = trim,
	};
	int r = ops_new(&ops_params, &ops, err);

	if (r < 0)
		return r;
	params.userdata = ops;
	r = session_new(&params, &session, err);
	if (r < 0)
		return r;
	atomic_fetch_add(&header->epoch, 1);
	r = session_start(session, err);
	if (r < 0)
		return r;
	report(err);
	r = session_wait(session);
	if (r < 0) {
		/* Threads still run on what would be freed now. */
		(void)log_error_errno(r, "the FUSE connection can't be served");
		_exit(WORKER_EXIT_FAILED);
	}
	return 0;
}

/* Whatever the keeper blocks, a signal ends this process; its threads get none. */
static void unblock_signals(void)
{
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int run(struct error *err)
{
	struct ledger *ledger _cleanup_(ledger_unmap_cleanup) = NULL;
	int r = prepare(err);

	if (r >= 0)
		r = ledger_map(WORKER_FD_LEDGER, &ledger, err);
	if (r < 0)
		return r;
	LOG_FIELD("VOLUME_ID", ledger_header(ledger)->config.id);
	return serve(ledger, err);
}

int main(int argc, char **argv)
{
	static const struct program_spec program = {
		.name = "holdfast-fuse",
		.summary = "Serve one volume of Holdfast; started by holdfast-keeper.",
	};
	struct error err = ERROR_INIT;

	options_parse(&program, argc, argv);
	if (!check_descriptors())
		return WORKER_EXIT_USAGE;
	log_open("holdfast-fuse", LOG_LEVEL_INFO);
	unblock_signals();
	if (run(&err) < 0) {
		log_error("%s", err.text);
		report(&err);
		return WORKER_EXIT_FAILED;
	}
	return WORKER_EXIT_GONE;
}
