/* SPDX-License-Identifier: Apache-2.0 */

/*
 * holdfast-keeper: holds every /dev/fuse descriptor and every ledger, and keeps a worker running
 * for each volume. One thread, no gRPC. This file makes the process what it has to be; keeper.c is
 * what it does.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/options.h"
#include "base/parse.h"
#include "base/version.h"
#include "recovery/handover.h"
#include "recovery/keeper.h"
#include "recovery/reexec.h"
#include "recovery/run_dir.h"

#define OOM_SCORE_FILE "/proc/self/oom_score_adj"
#define OOM_SCORE_SPARED "-1000"
#define EXIT_USAGE 2
#define HANG_LIMIT_MIN_NS (100 * NSEC_PER_MSEC)
#define BUSY_LIMIT_NS (20 * NSEC_PER_SEC) /* for a keeper that adds or removes volumes */
#define GONE_LIMIT_NS NSEC_PER_SEC	  /* for one that was killed to have ended wholly */
#define AGAIN_US 20000
#define STAND_BY_NS (100 * NSEC_PER_MSEC)

struct settings {
	const char *run_dir;
	const char *worker;
	const char *log_level;
	const char *hang_timeout;
	uint64_t hang_limit_ns;
	bool stand_by;
	bool check_handover;
	char *const *argv;
};

/* The process's events besides the keeper's own. */
struct process {
	struct loop loop;
	struct keeper *keeper;
	int signal_fd;
	struct loop_source signals;
	struct loop_timer watchdog;
	uint64_t watchdog_ns;
	struct reexec reexec;
};

/* As many files as we may have. Returns how many that is. */
static uint64_t raise_file_limit(void)
{
	int r;
	uint64_t n = fd_raise_limit(&r);

	if (r < 0)
		(void)log_warning_errno(r, "the limit of open files stays low");
	return n;
}

/* The keeper is the last to be killed when memory is short. Returns what it was started with. */
static int spare_from_oom_killer(void)
{
	_cleanup_close_ int fd = open(OOM_SCORE_FILE, O_RDWR | O_CLOEXEC);
	char text[16] = "";
	bool negative;
	uint32_t value = 0;
	int r = fd < 0 ? -errno : 0;

	if (r >= 0 && fd_read_all(fd, text, sizeof(text) - 1) > 0)
		text[strcspn(text, "\n")] = '\0';
	negative = text[0] == '-';
	if (parse_u32(text + negative, 1000, &value) < 0)
		value = 0;
	if (r >= 0)
		r = fd_write_all(fd, OOM_SCORE_SPARED, strlen(OOM_SCORE_SPARED));
	if (r < 0)
		(void)log_warning_errno(r, "the OOM killer may choose the keeper: %s",
					OOM_SCORE_FILE);
	return negative ? -(int)value : (int)value;
}

static void on_signal(void *context, uint32_t events)
{
	struct process *p = context;
	struct signalfd_siginfo info;

	if (read(p->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGHUP) {
		reexec_begin(&p->reexec);
		return;
	}
	log_notice("ending: %s", sigdescr_np((int)info.ssi_signo) ?: "signal");
	notify_stopping();
	keeper_end(p->keeper);
}

static sigset_t our_signals(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	return set;
}

static int open_signals(struct process *p, struct error *err)
{
	sigset_t set = our_signals();

	(void)signal(SIGPIPE, SIG_IGN); /* a log that nobody reads */
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return error_errno(err, -errno, "sigprocmask");
	p->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (p->signal_fd < 0)
		return error_errno(err, -errno, "signalfd");
	return loop_add(&p->loop, &p->signals, p->signal_fd, EPOLLIN, err);
}

static void on_watchdog(void *context)
{
	struct process *p = context;

	notify_watchdog();
	loop_arm(&p->loop, &p->watchdog, clock_now_ns() + p->watchdog_ns);
}

static void start_watchdog(struct process *p)
{
	p->watchdog_ns = notify_watchdog_interval_ms() * NSEC_PER_MSEC;
	if (p->watchdog_ns)
		on_watchdog(p);
}

static void tell_ready(const struct settings *settings, const struct process *p,
		       const struct keeper_params *params)
{
	char status[32];

	(void)snprintf(status, sizeof(status), "%zu volumes", keeper_volumes(p->keeper));
	notify_ready(status);
	log_info("holdfast-keeper " HOLDFAST_VERSION " serves %s, up to %zu volumes",
		 settings->run_dir, params->limits.volumes);
}

/* Returns 0, 1 if a successor has taken over, or -errno with *err set. */
static int serve(const struct settings *settings, const struct keeper_params *params,
		 struct handover *from, struct error *err)
{
	struct process p = {
		.loop = { .epoll_fd = -EBADF },
		.signal_fd = -EBADF,
		.signals = { .fd = -EBADF, .ready = on_signal, .context = &p },
		.watchdog = { .fire = on_watchdog, .context = &p },
	};
	int r = loop_init(&p.loop, err);

	if (r >= 0)
		r = open_signals(&p, err);
	if (r >= 0)
		r = keeper_open(&p.loop, params, from, &p.keeper, err);
	if (r >= 0) {
		reexec_init(&p.reexec, &p.loop, p.keeper, settings->argv);
		start_watchdog(&p);
		tell_ready(settings, &p, params);
		r = loop_run(&p.loop, err);
		reexec_done(&p.reexec);
		r = r < 0 ? r : keeper_has_successor(p.keeper);
	}
	keeper_free(p.keeper);
	close_fd(&p.signal_fd);
	loop_done(&p.loop);
	return r;
}

/* Asks the keeper that serves, until it is not busy for once. */
static int ask_patiently(const struct settings *settings, size_t max_volumes, uint64_t due_ns,
			 struct handover *ret, struct error *err)
{
	for (;;) {
		int r = handover_ask(settings->run_dir, max_volumes, ret, err);

		if (r >= 0 || err->kind != ERROR_BUSY || clock_now_ns() > due_ns)
			return r;
		(void)usleep(AGAIN_US);
	}
}

static int succeed(const struct settings *settings, size_t max_volumes, uint64_t due_ns,
		   struct handover *ret, struct error *err)
{
	int r = ask_patiently(settings, max_volumes, due_ns, ret, err);

	if (r >= 0)
		r = handover_commit(ret, err);
	if (r < 0)
		handover_close(ret);
	return r;
}

static bool is_unreachable(const struct error *err)
{
	return err->kind == ERROR_UNAVAILABLE && err->code != -EPROTONOSUPPORT;
}

/*
 * Be the keeper of the run directory: at once where there is none, else in the place of the one
 * that serves, if it agrees. One that holds the lock and does not listen may just be ending.
 */
static int take_place(const struct settings *settings, size_t max_volumes, struct handover *ret,
		      struct error *err)
{
	const uint64_t begin_ns = clock_now_ns(), due_ns = begin_ns + BUSY_LIMIT_NS;

	for (;;) {
		struct error locked = ERROR_INIT, why = ERROR_INIT;
		int r = run_dir_lock(settings->run_dir, "keeper", 0, &ret->lock_fd, &locked);

		if (r != -EADDRINUSE)
			return r < 0 ? error_set(err, locked.kind, r, "%s", locked.text) : 0;
		r = succeed(settings, max_volumes, due_ns, ret, &why);
		if (r >= 0)
			return 0;
		if (is_unreachable(&why) ? clock_now_ns() > begin_ns + GONE_LIMIT_NS
					 : why.kind != ERROR_BUSY || clock_now_ns() > due_ns)
			return error_set(err, ERROR_PRECONDITION, -EADDRINUSE, "%.300s (%.600s)",
					 locked.text, why.text);
		(void)usleep(AGAIN_US);
	}
}

/*
 * Another keeper has taken over. Returns 1 with the lock in *ret once that is gone, 0 when a signal
 * says to end, or -errno with *err set.
 */
static int stand_by(const struct settings *settings, struct handover *ret, struct error *err)
{
	const struct timespec pause = { .tv_nsec = STAND_BY_NS };
	const sigset_t set = our_signals();

	log_notice("standing by until the next keeper is gone");
	for (;;) {
		int r = run_dir_lock(settings->run_dir, "keeper", 0, &ret->lock_fd, err), number;

		if (r != -EADDRINUSE)
			return r < 0 ? r : 1;
		number = sigtimedwait(&set, NULL, &pause);
		if (number == SIGTERM || number == SIGINT)
			return 0;
		notify_watchdog();
	}
}

/* Serves for once. Returns as serve does. */
static int serve_in_place(const struct settings *settings, struct keeper_params *params,
			  struct handover *from, struct error *err)
{
	int r;

	params->lock_fd = from->lock_fd;
	r = serve(settings, params, from, err);
	handover_close(from);
	return r;
}

static int run(const struct settings *settings, struct error *err)
{
	struct keeper_params params = {
		.run_dir = settings->run_dir,
		.program = { .path = settings->worker, .log_level = settings->log_level },
		.limits = keeper_limits_for(raise_file_limit()),
		.hang_limit_ns = settings->hang_limit_ns,
	};
	struct handover from = HANDOVER_NONE;
	int r = handover_inherit(&from, err);

	params.program.oom_score_adj = spare_from_oom_killer();
	if (r > 0)
		params.program.oom_score_adj = from.oom_score_adj;
	if (r == 0)
		r = take_place(settings, params.limits.volumes, &from, err);
	if (r < 0)
		return r;
	while ((r = serve_in_place(settings, &params, &from, err)) > 0) {
		r = settings->stand_by ? stand_by(settings, &from, err) : 0;
		if (r <= 0)
			break;
	}
	return r;
}

/* Whether this build can go on with what the keeper that serves has; nothing is changed. */
static int check_handover(const struct settings *settings, struct error *err)
{
	_cleanup_(handover_close) struct handover h = HANDOVER_NONE;
	size_t max_volumes = keeper_limits_for(raise_file_limit()).volumes;
	int r = ask_patiently(settings, max_volumes, clock_now_ns() + BUSY_LIMIT_NS, &h, err);

	if (r >= 0)
		log_info("holdfast-keeper " HOLDFAST_VERSION " can take over %zu volumes",
			 h.n_volumes);
	return r;
}

int main(int argc, char **argv)
{
	struct settings settings = {
		.run_dir = "/run/holdfast", .log_level = "info", .hang_timeout = "2s", .argv = argv
	};
	const struct option_spec options[] = {
		{ "run-dir", "DIR", "where the control socket is (default /run/holdfast)",
		  OPTION_STRING, &settings.run_dir },
		{ "worker", "PATH",
		  "the FUSE server to start (default: holdfast-fuse beside this "
		  "program, or where it is installed)",
		  OPTION_STRING, &settings.worker },
		{ "hang-timeout", "DURATION",
		  "kill a worker that makes no progress for so long while requests wait and it is "
		  "not waiting for the source (default 2s; 0: never)",
		  OPTION_STRING, &settings.hang_timeout },
		{ "check-handover", NULL,
		  "exit 0 if this program can take over from the keeper that serves DIR; changes "
		  "nothing",
		  OPTION_SWITCH, &settings.check_handover },
		{ "stand-by", NULL,
		  "when another keeper takes over, wait to serve again once that is gone, instead "
		  "of ending: for a service manager that would start this one again, as kubelet",
		  OPTION_SWITCH, &settings.stand_by },
		{ "log-level", "LEVEL", "error, warning, notice, info (default) or debug",
		  OPTION_STRING, &settings.log_level },
	};
	const struct program_spec program = {
		.name = "holdfast-keeper",
		.summary = "Keeps the FUSE connections of all volumes, and a worker serving each.",
		.options = options,
		.n_options = ARRAY_SIZE(options),
	};
	struct error err = ERROR_INIT;
	enum log_level level;
	int r;

	fd_fill_stdio();
	options_parse(&program, argc, argv);
	if (log_parse_level(settings.log_level, &level) < 0) {
		(void)fprintf(stderr,
			      "holdfast-keeper: --log-level '%s' is not one of error, "
			      "warning, notice, info, debug\n",
			      settings.log_level);
		return EXIT_USAGE;
	}
	if (parse_duration(settings.hang_timeout, &settings.hang_limit_ns) < 0 ||
	    (settings.hang_limit_ns && settings.hang_limit_ns < HANG_LIMIT_MIN_NS)) {
		(void)fprintf(stderr,
			      "holdfast-keeper: --hang-timeout '%s' is not 0 and no duration of "
			      "100ms or more, as in 2s\n",
			      settings.hang_timeout);
		return EXIT_USAGE;
	}
	log_open("holdfast-keeper", level);
	(void)prctl(PR_SET_NAME, "holdfast-keeper"); /* executed by way of a descriptor */
	r = settings.check_handover ? check_handover(&settings, &err) : run(&settings, &err);
	if (r < 0) {
		log_error("%s", err.text);
		return EXIT_FAILURE;
	}
	if (!settings.check_handover)
		log_info("ended");
	return EXIT_SUCCESS;
}
