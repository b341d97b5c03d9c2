/* SPDX-License-Identifier: Apache-2.0 */

/*
 * holdfast-fuse: the worker. Started by the keeper, it waits for its order (fuse/worker.h),
 * attaches, says so, and serves until the connection ends.
 */

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/options.h"
#include "base/socket.h"
#include "fuse/creds.h"
#include "fuse/ledger.h"
#include "fuse/ops.h"
#include "fuse/session.h"
#include "fuse/worker.h"

#define LOCK_PATIENCE_MS 3000

/* Whoever starts this by hand gets told. */
static bool is_started_by_keeper(void)
{
	struct stat st;

	if (fstat(WORKER_FD_START, &st) == 0 && S_ISSOCK(st.st_mode))
		return true;
	(void)fprintf(stderr,
		      "holdfast-fuse is started by holdfast-keeper: descriptor %d is no socket\n",
		      WORKER_FD_START);
	return false;
}

/* Makes room for what the order brings. */
static int move_socket(struct error *err)
{
	if (dup3(WORKER_FD_START, WORKER_FD_STATUS, O_CLOEXEC) < 0)
		return error_errno(err, -errno, "move the keeper's socket");
	(void)close(WORKER_FD_START);
	return 0;
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

static int place(const int fds[WORKER_ORDER_FDS], struct error *err)
{
	static const int places[] = { WORKER_FD_DEV, WORKER_FD_LEDGER, WORKER_FD_SOURCE };

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (fds[i] < 0 || (fds[i] != places[i] && dup3(fds[i], places[i], O_CLOEXEC) < 0))
			return error_set(err, ERROR_INVALID, -EBADF,
					 "the order does not bring what it should");
	return 0;
}

/* Waits for the order. Returns 1 when none comes any more. */
static int take_order(struct error *err)
{
	int fds[SOCKET_FDS_MAX], high[SOCKET_FDS_MAX], r;
	struct worker_order order;
	ssize_t n = socket_recv(WORKER_FD_STATUS, &order, sizeof(order), fds, 0);

	if (n == 0)
		return 1;
	if (n < 0)
		return error_errno(err, (int)n, "receive the order");
	if (n != sizeof(order) || order.version != WORKER_ORDER_VERSION)
		return error_set(err, ERROR_PRECONDITION, -EPROTONOSUPPORT,
				 "the order is of another build than this worker");
	for (size_t i = 0; i < SOCKET_FDS_MAX; i++) {
		high[i] =
			fds[i] < 0 ? fds[i] : fcntl(fds[i], F_DUPFD_CLOEXEC, WORKER_FD_STATUS + 1);
		close_fd(&fds[i]);
	}
	r = place(high, err);
	for (size_t i = 0; i < SOCKET_FDS_MAX; i++)
		close_fd(&high[i]);
	return r;
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
	int r = move_socket(err);

	if (r >= 0)
		r = follow_parent(err);
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
static int serve(struct ledger *ledger, int lock_fd, struct error *err)
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
		.lock_fd = lock_fd,
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

/*
 * LOCK: the worker before is gone with all its threads, whatever has become of the keeper that
 * waited for its end: the lock belongs to this process's own opening of the ledger and goes with
 * its last thread. One that the kernel does not let go of, in a call to the source, is not waited
 * for here: it reads no request any more, and what it may be in the middle of waits for it
 * (takeover.h). Returns the opening.
 */
static int lock_ledger(struct error *err)
{
	_cleanup_close_ int fd = -EBADF;
	char path[FD_PATH_MAX];

	fd = open(fd_path(WORKER_FD_LEDGER, path), O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, -errno, "open the ledger");
	for (int ms = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; ms++) {
		if (errno != EWOULDBLOCK)
			return error_errno(err, -errno, "lock the ledger");
		if (ms == LOCK_PATIENCE_MS) {
			log_warning("a thread of the worker before is stuck in the kernel: what it "
				    "was about waits for its end, all else goes on");
			break;
		}
		(void)usleep(1000);
	}
	return TAKE_FD(fd);
}

static int run(struct error *err)
{
	struct ledger *ledger _cleanup_(ledger_unmap_cleanup) = NULL;
	_cleanup_close_ int lock_fd = -EBADF;
	int r = check_device(err);

	if (r >= 0)
		r = lock_fd = lock_ledger(err);
	if (r >= 0)
		r = ledger_map(WORKER_FD_LEDGER, &ledger, err);
	if (r < 0)
		return r;
	LOG_FIELD("VOLUME_ID", ledger_header(ledger)->config.id);
	return serve(ledger, lock_fd, err);
}

static int wait_and_run(struct error *err)
{
	int r = prepare(err);

	if (r >= 0)
		r = take_order(err);
	if (r > 0) /* the keeper had no use for us */
		return 0;
	return r < 0 ? r : run(err);
}

int main(int argc, char **argv)
{
	static const struct program_spec program = {
		.name = "holdfast-fuse",
		.summary = "Serve one volume of Holdfast; started by holdfast-keeper.",
	};
	struct error err = ERROR_INIT;

	options_parse(&program, argc, argv);
	(void)prctl(PR_SET_NAME, program.name); /* the keeper executes a descriptor */
	if (!is_started_by_keeper())
		return WORKER_EXIT_USAGE;
	log_open("holdfast-fuse", LOG_LEVEL_INFO);
	unblock_signals();
	if (wait_and_run(&err) < 0) {
		log_error("%s", err.text);
		report(&err);
		return WORKER_EXIT_FAILED;
	}
	return WORKER_EXIT_GONE;
}
