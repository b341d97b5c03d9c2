/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/supervisor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sysmacros.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "fuse/ledger.h"
#include "mount/fusectl.h"
#include "mount/tree.h"
#include "recovery/supervisor/backoff.h"
#include "recovery/supervisor/progress.h"
#include "recovery/supervisor/source_probe.h"

#define PROBE_LIMIT_NS (5 * NSEC_PER_SEC)  /* for the source to say what it is */
#define START_LIMIT_NS (10 * NSEC_PER_SEC) /* from fork to the worker's report */
#define KILL_LIMIT_NS (3 * NSEC_PER_SEC)   /* from SIGKILL to the end of the process */
#define OOM_HEALTHY_NS (10 * NSEC_PER_SEC) /* who is out of memory sooner will be so again */

struct supervisor {
	const struct supervisor_context *context;
	void *owner;
	struct volume_config config;
	int source_fd;
	struct connection connection;
	struct ledger *ledger;
	int ledger_fd;
	struct memory_limit *memory;

	enum volume_state state;
	bool stopping;
	bool yielding;	    /* the connection is another keeper's, as is the ledger's `end` */
	struct child probe; /* before the connection is made */
	struct loop_source probe_exit;
	struct loop_timer probe_limit;

	struct child worker;
	struct loop_source report, exit; /* of the worker */
	struct loop_timer limit;	 /* of the start, then of the kill */
	struct loop_timer restart;	 /* the back-off */
	bool killed;			 /* limit is that of the kill */
	enum ledger_end end;		 /* how it ends, where that is known before */
	int fresh_fd;			 /* a program file that the next worker tries; or -EBADF */
	bool on_trial;			 /* it is that worker, and has not reported yet */

	struct progress progress;
	uint64_t source_wait_ns; /* a call to the source has been running for so long; 0: none */
	uint64_t lost_since_ns;	 /* progress.still_since_ns of the lost requests last told of */

	struct backoff backoff;
	uint64_t down_since_ns;		/* when the last worker died */
	uint64_t serving_since_ns;	/* 0: this worker has not reported yet */
	uint64_t served_before;		/* requests, by all workers before this one */
	int code;			/* negative errno that goes with the complaint */
	char complaint[240];		/* what this worker is about to die of, if it is known */
	char reason[VOLUME_REASON_MAX]; /* what the last one died of */
};

const char *supervisor_id(const struct supervisor *s)
{
	return s->config.id;
}

static void forget_worker_events(struct supervisor *s)
{
	loop_disarm(&s->limit);
	loop_drop(s->context->loop, &s->report);
	loop_drop(s->context->loop, &s->exit);
}

static void complain(struct supervisor *s, int code, const char *text)
{
	s->code = code;
	(void)snprintf(s->complaint, sizeof(s->complaint), "%.*s", (int)sizeof(s->complaint) - 1,
		       text);
}

/* What it might still have to say does not matter any more. */
static void kill_worker(struct supervisor *s)
{
	s->killed = true;
	loop_drop(s->context->loop, &s->report);
	child_kill(&s->worker);
	loop_arm(s->context->loop, &s->limit, clock_now_ns() + KILL_LIMIT_NS);
}

static uint64_t requests_served(const struct supervisor *s)
{
	uint64_t n = 0;

	for (size_t i = 0; i < LEDGER_MAX_INBOXES; i++)
		n += atomic_load(&ledger_header(s->ledger)->threads[i].served);
	return n;
}

/* Starts a worker whose report and end are events. Nothing is left on failure. */
static int start_worker(struct supervisor *s, struct error *err)
{
	struct loop *loop = s->context->loop;
	struct standby *standby = s->context->standby;
	int r = s->fresh_fd >= 0 ? standby_try(standby, s->fresh_fd, &s->worker, err)
				 : standby_take(standby, &s->worker, err);

	if (r < 0)
		return r;
	memory_limit_join(s->memory, s->worker.pid);
	s->killed = false;
	s->on_trial = s->fresh_fd >= 0;
	s->end = s->on_trial ? LEDGER_END_PLANNED : LEDGER_END_NONE;
	s->served_before = requests_served(s);
	complain(s, -EIO, "");
	r = loop_add(loop, &s->report, s->worker.report_fd, EPOLLIN, err);
	if (r >= 0)
		r = loop_add(loop, &s->exit, s->worker.pidfd, EPOLLIN, err);
	if (r >= 0)
		r = worker_order(&s->worker, s->connection.dev_fd, s->ledger_fd, s->source_fd, err);
	if (r < 0) {
		forget_worker_events(s);
		child_kill(&s->worker);
		reaper_adopt(s->context->reaper, &s->worker);
		return r;
	}
	loop_arm(loop, &s->limit, clock_now_ns() + START_LIMIT_NS);
	return 0;
}

/* One that has answered something was of use, however short it lived. */
static void schedule_restart(struct supervisor *s)
{
	uint64_t now = clock_now_ns();
	uint64_t served = s->serving_since_ns ? now - s->serving_since_ns : 0;

	if (s->serving_since_ns && requests_served(s) > s->served_before)
		served = MAX_OF(served, BACKOFF_HEALTHY_NS);

	s->state = VOLUME_RESTARTING;
	s->serving_since_ns = 0;
	loop_arm(s->context->loop, &s->restart, now + backoff_next(&s->backoff, served));
}

static void on_restart(void *context)
{
	struct supervisor *s = context;
	struct error err = ERROR_INIT;

	LOG_FIELD("VOLUME_ID", s->config.id);
	if (start_worker(s, &err) >= 0)
		return;
	(void)snprintf(s->reason, sizeof(s->reason), "%.*s", (int)sizeof(s->reason) - 1, err.text);
	log_error("no worker: %s", err.text);
	schedule_restart(s);
}

/* A program file that does not work must not keep a volume waiting. */
static void end_trial(struct supervisor *s)
{
	log_error("restart failed: the new program file's worker does not serve: %s; going on with "
		  "the program file before",
		  s->reason);
	s->on_trial = false;
	close_fd(&s->fresh_fd);
	s->backoff = (struct backoff){ .next_ns = 0 };
}

/* The worker's process is gone, s->reason says why: what now? */
static void worker_gone(struct supervisor *s)
{
	struct error err = ERROR_INIT;

	if (s->stopping) {
		s->context->on_stopped(s->owner, s);
		return;
	}
	if (s->state == VOLUME_STARTING) {
		(void)error_set(&err, error_kind_of(s->code), s->code,
				"the worker could not start: %s", s->reason);
		s->context->on_started(s->owner, s, &err);
		return;
	}
	atomic_fetch_add(&ledger_header(s->ledger)->restarts, 1);
	if (connection_has_ended(s->connection.dev_fd)) {
		s->state = VOLUME_DEAD;
		if (s->config.flags & VOLUME_RETIRED)
			log_info("nobody uses it any more");
		else
			log_error("the connection has ended: the volume is dead until it is "
				  "mounted afresh");
		s->context->on_dead(s->owner, s);
		return;
	}
	if (s->state == VOLUME_SERVING)
		s->down_since_ns = clock_now_ns();
	if (s->on_trial)
		end_trial(s);
	schedule_restart(s);
}

static void worker_serves(struct supervisor *s)
{
	uint64_t now = clock_now_ns();

	memory_limit_serves(s->memory, s->worker.pid);
	loop_disarm(&s->limit);
	s->serving_since_ns = now;
	s->progress = (struct progress){ .still_since_ns = 0 };
	s->source_wait_ns = 0;
	if (s->on_trial) {
		standby_pin(s->context->standby, TAKE_FD(s->fresh_fd));
		s->on_trial = false;
		s->end = LEDGER_END_NONE;
	}
	if (s->state == VOLUME_STARTING) {
		s->state = VOLUME_SERVING;
		s->context->on_started(s->owner, s, NULL);
		return;
	}
	s->state = VOLUME_SERVING;
	log_info("a new worker serves after %llu ms",
		 (unsigned long long)((now - s->down_since_ns) / NSEC_PER_MSEC));
}

static void take_report(struct supervisor *s)
{
	struct worker_report report;
	int r = worker_receive(&s->worker, &report);

	if (r == -EAGAIN)
		return;
	loop_drop(s->context->loop, &s->report);
	if (r == -ENODATA) {
		complain(s, -EIO, "it did not report");
	} else if (r < 0) {
		complain(s, -EPROTO, "its report is of another build than this keeper");
		kill_worker(s);
	} else if (report.code != 0) {
		complain(s, report.code < 0 ? report.code : -EIO, report.text);
	} else {
		worker_serves(s);
	}
}

static void on_report(void *context, uint32_t events)
{
	struct supervisor *s = context;
	char pid[16];

	LOG_FIELD("VOLUME_ID", s->config.id);
	(void)snprintf(pid, sizeof(pid), "%d", (int)s->worker.pid);
	LOG_FIELD("WORKER_PID", pid);
	take_report(s);
}

static void explain_exit(struct supervisor *s, const siginfo_t *info)
{
	char how[108];

	child_describe_exit(info, how, sizeof(how));
	if (info->si_code == CLD_KILLED && memory_limit_explain(s->memory, how, sizeof(how))) {
		s->end = LEDGER_END_CRASH;
		if (clock_now_ns() - s->serving_since_ns < OOM_HEALTHY_NS)
			s->serving_since_ns =
				0; /* as if it had not served: the next ones back off */
	}
	if (s->complaint[0])
		(void)snprintf(s->reason, sizeof(s->reason), "%s (%s)", s->complaint, how);
	else
		(void)snprintf(s->reason, sizeof(s->reason), "%s", how);
	if (!s->stopping)
		log_warning("worker ended: %s", s->reason);
}

/* For the successor, which has to know whether a request is to blame (fuse/takeover.h). */
static void note_end(struct supervisor *s, const siginfo_t *info)
{
	struct ledger_header *header = ledger_header(s->ledger);
	bool killed = info->si_code == CLD_KILLED && info->si_status == SIGKILL;
	enum ledger_end end = s->end;

	if (end == LEDGER_END_NONE)
		end = killed ? LEDGER_END_KILLED : LEDGER_END_CRASH;
	atomic_store(&header->ended_ns, clock_now_ns());
	atomic_store(&header->end, end);
}

static void on_exit_event(void *context, uint32_t events)
{
	struct supervisor *s = context;
	char pid[16];
	siginfo_t info;

	LOG_FIELD("VOLUME_ID", s->config.id);
	(void)snprintf(pid, sizeof(pid), "%d", (int)s->worker.pid);
	LOG_FIELD("WORKER_PID", pid);
	if (s->report.fd >= 0)
		take_report(s); /* its last words */
	if (child_reap(&s->worker, &info) < 0)
		return;
	forget_worker_events(s);
	child_close(&s->worker);
	explain_exit(s, &info);
	if (!s->yielding)
		note_end(s, &info);
	worker_gone(s);
}

/* The worker did not report in time, or was killed and does not die. */
static void on_limit(void *context)
{
	struct supervisor *s = context;
	pid_t pid = s->worker.pid;

	LOG_FIELD("VOLUME_ID", s->config.id);
	if (!s->killed) {
		complain(s, -ETIMEDOUT, "it did not report within 10 s");
		kill_worker(s);
		return;
	}
	log_error("worker %d does not die: it is in a call to the source that the kernel does not "
		  "interrupt; going on without it",
		  (int)pid);
	forget_worker_events(s);
	reaper_adopt(s->context->reaper, &s->worker);
	/* one that has ended may have left its number to another connection */
	if (s->stopping && !s->yielding && !connection_has_ended(s->connection.dev_fd) &&
	    fusectl_abort(s->context->fusectl_fd, minor(s->connection.dev)) < 0)
		log_warning("its connection could not be aborted and ends with it");
	(void)snprintf(s->reason, sizeof(s->reason), "hangs in the kernel");
	worker_gone(s);
}

/* The source is known: the rest of the beginning. */
static int connect_and_start(struct supervisor *s, uint64_t source_magic, struct error *err)
{
	int r = connection_open(&s->config, source_magic, &s->connection, err);

	if (r < 0)
		return r;
	r = ledger_create(&s->config, &s->connection.state, &s->ledger, &s->ledger_fd, err);
	if (r < 0)
		return r;
	s->memory = memory_limit_new(s->context->memory, s->config.id, s->config.memory_limit);
	ledger_header(s->ledger)->dev = s->connection.dev;
	return start_worker(s, err);
}

static void on_probe_exit(void *context, uint32_t events)
{
	struct supervisor *s = context;
	struct error err = ERROR_INIT;
	uint64_t magic;
	siginfo_t info;
	int r;

	LOG_FIELD("VOLUME_ID", s->config.id);
	if (child_reap(&s->probe, &info) < 0)
		return;
	loop_disarm(&s->probe_limit);
	loop_drop(s->context->loop, &s->probe_exit);
	r = source_probe_receive(&s->probe, &magic, &err);
	child_close(&s->probe);
	if (r >= 0)
		r = connect_and_start(s, magic, &err);
	if (r < 0)
		s->context->on_started(s->owner, s, &err);
}

/* Kills the probe and lets it die when it can. */
static void give_up_probe(struct supervisor *s)
{
	loop_disarm(&s->probe_limit);
	loop_drop(s->context->loop, &s->probe_exit);
	child_kill(&s->probe);
	reaper_adopt(s->context->reaper, &s->probe);
}

static void on_probe_limit(void *context)
{
	struct supervisor *s = context;
	struct error err = ERROR_INIT;

	LOG_FIELD("VOLUME_ID", s->config.id);
	give_up_probe(s);
	(void)error_set(&err, ERROR_TIMEOUT, -ETIMEDOUT,
			"the source hangs: its file system did not answer statfs(2) within %llu s",
			(unsigned long long)(PROBE_LIMIT_NS / NSEC_PER_SEC));
	s->context->on_started(s->owner, s, &err);
}

static int start_probe(struct supervisor *s, struct error *err)
{
	int r = source_probe_start(s->source_fd, &s->probe, err);

	if (r < 0)
		return r;
	r = loop_add(s->context->loop, &s->probe_exit, s->probe.pidfd, EPOLLIN, err);
	if (r < 0) {
		give_up_probe(s);
		return r;
	}
	loop_arm(s->context->loop, &s->probe_limit, clock_now_ns() + PROBE_LIMIT_NS);
	return 0;
}

static struct supervisor *supervisor_alloc(const struct supervisor_context *context,
					   const struct volume_config *config, void *owner)
{
	struct supervisor *s = malloc(sizeof(*s));

	if (s)
		*s = (struct supervisor){
			.context = context,
			.owner = owner,
			.config = *config,
			.source_fd = -EBADF,
			.connection = { .dev_fd = -EBADF, .mount_fd = -EBADF },
			.ledger_fd = -EBADF,
			.fresh_fd = -EBADF,
			.state = VOLUME_STARTING,
			.probe = CHILD_NONE,
			.probe_exit = { .fd = -EBADF, .ready = on_probe_exit, .context = s },
			.probe_limit = { .fire = on_probe_limit, .context = s },
			.worker = CHILD_NONE,
			.report = { .fd = -EBADF, .ready = on_report, .context = s },
			.exit = { .fd = -EBADF, .ready = on_exit_event, .context = s },
			.limit = { .fire = on_limit, .context = s },
			.restart = { .fire = on_restart, .context = s },
		};
	return s;
}

DEFINE_CLEANUP(struct supervisor *, supervisor_free);

int supervisor_new(const struct supervisor_context *context, const struct volume_config *config,
		   int source_fd, void *owner, struct supervisor **ret, struct error *err)
{
	_cleanup_close_ int source = source_fd;
	_cleanup_(supervisor_free_cleanup) struct supervisor *s =
		supervisor_alloc(context, config, owner);
	int r;

	if (!s)
		return error_errno(err, -ENOMEM, "add a volume");
	s->source_fd = TAKE_FD(source);
	r = start_probe(s, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

/* Nothing is known of how that worker ended, so no request is to blame. */
static void note_lost_worker(struct supervisor *s)
{
	struct ledger_header *header = ledger_header(s->ledger);

	atomic_fetch_add(&header->restarts, 1);
	atomic_store(&header->ended_ns, clock_now_ns());
	atomic_store(&header->end, LEDGER_END_NONE);
	(void)snprintf(s->reason, sizeof(s->reason), "it went down with its keeper");
}

/* It noted itself how its workers ended (supervisor_announce). */
static void note_handover(struct supervisor *s)
{
	atomic_fetch_add(&ledger_header(s->ledger)->restarts, 1);
	(void)snprintf(s->reason, sizeof(s->reason), "it was replaced with its keeper");
}

int supervisor_adopt(const struct supervisor_context *context, struct adopted *adopted,
		     bool planned, void *owner, struct supervisor **ret, struct error *err)
{
	struct supervisor *s =
		supervisor_alloc(context, &ledger_header(adopted->ledger)->config, owner);

	if (!s)
		return error_errno(err, -ENOMEM, "adopt a volume");
	s->connection = adopted->connection;
	s->ledger = adopted->ledger;
	s->ledger_fd = adopted->ledger_fd;
	s->source_fd = adopted->source_fd;
	s->memory = memory_limit_new(context->memory, s->config.id, s->config.memory_limit);
	*adopted = ADOPTED_NONE;
	if (planned)
		note_handover(s);
	else
		note_lost_worker(s);
	s->state = VOLUME_RESTARTING;
	s->down_since_ns = clock_now_ns();
	on_restart(s);
	*ret = s;
	return 0;
}

const struct child *supervisor_announce(struct supervisor *s)
{
	struct ledger_header *header = ledger_header(s->ledger);

	if (s->worker.pid != 0) {
		atomic_store(&header->ended_ns, clock_now_ns());
		atomic_store(&header->end, LEDGER_END_PLANNED);
	}
	return &s->worker;
}

void supervisor_yield(struct supervisor *s)
{
	s->yielding = s->stopping = true;
	loop_disarm(&s->restart);
	if (supervisor_announce(s)->pid == 0)
		s->context->on_stopped(s->owner, s);
}

void supervisor_stop(struct supervisor *s)
{
	s->stopping = true;
	loop_disarm(&s->restart);
	if (s->probe.pid != 0)
		give_up_probe(s);
	if (s->worker.pid == 0) {
		s->context->on_stopped(s->owner, s);
		return;
	}
	/*
	 * The worker holds the source too. Its copy goes with it and is the last: should the kernel
	 * have to unmount a hung source then, it is the worker's exit that waits, not the keeper.
	 */
	close_fd(&s->source_fd);
	kill_worker(s);
}

int supervisor_replace(struct supervisor *s, bool planned, struct error *err)
{
	if (s->state != VOLUME_SERVING || s->stopping || s->killed)
		return error_set(err, ERROR_BUSY, -EBUSY, "volume '%s' is %s: no worker serves it",
				 s->config.id, volume_state_name(s->state));
	if (planned) {
		int r = standby_open_fresh(s->context->standby, &s->fresh_fd, err);

		if (r < 0)
			return r;
		s->end = LEDGER_END_PLANNED;
	}
	complain(s, -EINTR, planned ? "it was replaced" : "it was killed for a drill");
	kill_worker(s);
	return 0;
}

void supervisor_retire(struct supervisor *s, const char *name)
{
	struct volume_config *config = &ledger_header(s->ledger)->config;

	memset(s->config.id, 0, sizeof(s->config.id));
	(void)snprintf(s->config.id, VOLUME_ID_MAX + 1, "%s", name);
	s->config.flags |= VOLUME_RETIRED;
	*config = s->config; /* for the next worker, and the next keeper */
	close_fd(&s->connection.mount_fd);
}

static void kill_hung(struct supervisor *s, const struct progress_report *report)
{
	char text[160];

	(void)snprintf(text, sizeof(text),
		       "it hung: no progress for %llu ms, thread %d in state %c with request %u",
		       (unsigned long long)(report->age_ns / NSEC_PER_MSEC), report->tid,
		       report->state, report->opcode);
	log_error("worker is killed: %s", text);
	complain(s, -ETIMEDOUT, text);
	s->end = LEDGER_END_CRASH;
	kill_worker(s);
}

static void note_source_wait(struct supervisor *s, uint64_t age_ns)
{
	if (age_ns && !s->source_wait_ns)
		log_warning("the source is slow or hangs: a call to it has been running for "
			    "%llu ms; the worker waits",
			    (unsigned long long)(age_ns / NSEC_PER_MSEC));
	else if (!age_ns && s->source_wait_ns)
		log_info("the source answers again");
	s->source_wait_ns = age_ns;
}

/* Requests that the kernel waits for and no inbox holds: they are sent again, if that can be. */
static void find_lost(struct supervisor *s)
{
	bool can_resend = connection_can_resend(&s->connection.state);

	if (s->lost_since_ns != s->progress.still_since_ns)
		log_error("the kernel waits for requests that the worker does not have: %s",
			  can_resend ? "they are sent again"
				     : "this kernel can't send them again");
	s->lost_since_ns = s->progress.still_since_ns;
	if (!can_resend)
		return;
	if (connection_resend(s->connection.dev_fd) < 0)
		log_error("the kernel could not send them again");
	s->progress.still_since_ns = 0;
}

void supervisor_check(struct supervisor *s, uint64_t limit_ns)
{
	struct progress_view view = {
		.pid = s->worker.pid,
		.dev_fd = s->connection.dev_fd,
		.now_ns = clock_now_ns(),
		.limit_ns = limit_ns,
		.request_max_ns = s->context->request_max_ns,
	};
	struct progress_report report = { .age_ns = 0 };
	enum progress_verdict verdict;

	if (s->state != VOLUME_SERVING || s->stopping || s->killed)
		return;
	LOG_FIELD("VOLUME_ID", s->config.id);
	if (connection_has_ended(s->connection.dev_fd)) {
		complain(s, -ENOTCONN, "the connection was aborted");
		kill_worker(s);
		return;
	}
	if (limit_ns == 0)
		return;
	view.header = ledger_header(s->ledger);
	if (fusectl_waiting(s->context->fusectl_fd, minor(s->connection.dev), &view.waiting) < 0)
		view.waiting = 0;
	(void)progress_expire(&view);
	verdict = progress_look(&s->progress, &view, &report);
	note_source_wait(s, verdict == PROGRESS_SLOW ? report.age_ns : 0);
	if (verdict == PROGRESS_HUNG)
		kill_hung(s, &report);
	else if (verdict == PROGRESS_LOST)
		find_lost(s);
}

void supervisor_free(struct supervisor *s)
{
	if (!s)
		return;
	if (s->probe.pid != 0)
		give_up_probe(s);
	forget_worker_events(s);
	loop_disarm(&s->restart);
	connection_close(&s->connection);
	ledger_unmap(s->ledger);
	close_fd(&s->ledger_fd);
	close_fd(&s->source_fd);
	close_fd(&s->fresh_fd);
	memory_limit_free(s->memory);
	free(s);
}

void supervisor_status(const struct supervisor *s, struct volume_status *ret)
{
	*ret = (struct volume_status){
		.config = s->config,
		.connection = s->connection.state,
		.dev = s->connection.dev,
		.worker_pid = s->worker.pid,
		.state = s->state,
	};
	(void)snprintf(ret->reason, sizeof(ret->reason), "%s", s->reason);
	memory_limit_status(s->memory, ret);
	if (!s->ledger) /* the source is being looked at */
		return;
	ret->restarts = atomic_load(&ledger_header(s->ledger)->restarts);
	ret->source_wait_ms = s->source_wait_ns / NSEC_PER_MSEC;
	ret->poisoned = atomic_load(&ledger_header(s->ledger)->poisoned);
	ret->poison_opcode = atomic_load(&ledger_header(s->ledger)->poison_opcode);
	ret->poison_nodeid = atomic_load(&ledger_header(s->ledger)->poison_nodeid);
	ret->requests = requests_served(s);
	if (fusectl_waiting(s->context->fusectl_fd, minor(s->connection.dev), &ret->waiting) < 0)
		ret->waiting = 0;
}

void supervisor_escrow(const struct supervisor *s, int ret_fds[ESCROW_FDS])
{
	/* a retired one's mount would keep it alive, and nobody needs it */
	ret_fds[ESCROW_MOUNT] = s->config.flags & VOLUME_RETIRED ? s->connection.dev_fd
								 : s->connection.mount_fd;
	ret_fds[ESCROW_DEVICE] = s->connection.dev_fd;
	ret_fds[ESCROW_LEDGER] = s->ledger_fd;
	ret_fds[ESCROW_SOURCE] = s->source_fd;
}

int supervisor_mount(const struct supervisor *s, int *ret_fd, struct error *err)
{
	int fd = -EBADF, r;

	if (s->state == VOLUME_DEAD || connection_has_ended(s->connection.dev_fd))
		return error_set(
			err, ERROR_PRECONDITION, -ENOTCONN,
			"volume '%s' is dead, its connection was aborted: remove it and add "
			"it again",
			s->config.id);
	if (s->config.flags & VOLUME_RETIRED)
		return error_set(err, ERROR_PRECONDITION, -EINVAL,
				 "'%s' is what a volume was before it was swapped: it is not "
				 "mounted any more",
				 s->config.id);
	r = mount_clone(s->connection.mount_fd, "", false, &fd, NULL);
	if (r == -EINVAL) /* before Linux 6.15, no clones of detached mounts */
		r = fd = fd_dup(s->connection.mount_fd);
	if (r < 0)
		return error_errno(err, r, "clone the mount of volume '%s'", s->config.id);
	*ret_fd = fd;
	return 0;
}
