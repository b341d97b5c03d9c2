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
#include <sys/signalfd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/options.h"
#include "base/parse.h"
#include "base/version.h"
#include "recovery/keeper.h"
#include "recovery/run_dir.h"

#define OOM_SCORE_FILE "/proc/self/oom_score_adj"
#define OOM_SCORE_SPARED "-1000"
#define EXIT_USAGE 2
#define HANG_LIMIT_MIN_NS (100 * NSEC_PER_MSEC)

struct settings {
	const char *run_dir;
	const char *worker;
	const char *log_level;
	const char *hang_timeout;
	uint64_t hang_limit_ns;
};

/* The process's events besides the keeper's own. */
struct process {
	struct loop loop;
	struct keeper *keeper;
	int signal_fd;
	struct loop_source signals;
	struct loop_timer watchdog;
	uint64_t watchdog_ns;
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
	log_notice("ending: %s", sigdescr_np((int)info.ssi_signo) ?: "signal");
	notify_stopping();
	keeper_end(p->keeper);
}

static int open_signals(struct process *p, struct error *err)
{
	sigset_t set;

	(void)signal(SIGPIPE, SIG_IGN); /* a log that nobody reads */
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
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

static int serve(const struct settings *settings, const struct worker_program *program,
		 struct keeper_limits limits, struct error *err)
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
		r = keeper_open(&p.loop, settings->run_dir, program, limits,
				settings->hang_limit_ns, &p.keeper, err);
	if (r >= 0) {
		start_watchdog(&p);
		notify_ready("0 volumes");
		log_info("holdfast-keeper " HOLDFAST_VERSION " serves %s, up to %zu volumes",
			 settings->run_dir, limits.volumes);
		r = loop_run(&p.loop, err);
	}
	keeper_free(p.keeper);
	close_fd(&p.signal_fd);
	loop_done(&p.loop);
	return r;
}

static int run(const struct settings *settings, struct error *err)
{
	_cleanup_close_ int lock_fd = -EBADF;
	struct worker_program program = { .path = settings->worker,
					  .log_level = settings->log_level };
	int r = run_dir_lock(settings->run_dir, "keeper", 1000, &lock_fd, err);

	if (r < 0)
		return r;
	program.oom_score_adj = spare_from_oom_killer();
	return serve(settings, &program, keeper_limits_for(raise_file_limit()), err);
}

int main(int argc, char **argv)
{
	struct settings settings = { .run_dir = "/run/holdfast",
				     .log_level = "info",
				     .hang_timeout = "2s" };
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
	if (run(&settings, &err) < 0) {
		log_error("%s", err.text);
		return EXIT_FAILURE;
	}
	log_info("ended");
	return EXIT_SUCCESS;
}
