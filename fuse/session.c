/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/session.h"

/*
 * libfuse can only begin a connection with an INIT request that it reads itself. Ours was answered
 * by the keeper long ago, so libfuse is shown one that nobody sent, and its answer goes nowhere
 * (attach). From then on it is used as a decoder and for its replies; reading from the device is
 * done here, because the requests' headers say more than libfuse hands on (request.h).
 *
 * FUSE_INTERRUPT is answered -ENOSYS, which turns it off for the connection: a signal then waits
 * for a slow call to end, as on a local disk. No call of ours waits for another application (locks
 * stay in the kernel).
 *
 * Threads share nothing but libfuse's session, which has a lock of its own, and how it all ended:
 * `lock` below protects `ended` and `result`; no other is taken under it.
 */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "fuse/buffer.h"
#include "fuse/crash.h"
#include "fuse/creds.h"
#include "fuse/inbox.h"
#include "fuse/reply.h"
#include "fuse/request.h"
#include "fuse/takeover.h"
#include "fuse/uapi.h"

/* The kernel wants room for a WRITE's header and struct besides its data (fuse_dev_do_read). */
#define BUFFER_HEADER_SIZE 4096
#define TICK_SEC 10
#define INBOX_TOUCHED FUSE_MIN_READ_BUFFER
#define STACK_SIZE (1U << 20) /* touched as far as it is used */

struct thread {
	pthread_t thread;
	struct session *session;
	uint32_t index; /* of its inbox */
	struct inbox inbox;
	void *scratch; /* as large as the inbox, for request_decode */
};

struct session {
	struct session_params params;
	struct fuse_session *fuse;
	struct takeover *takeover;
	size_t buffer_size;
	unsigned int n_started;
	struct thread threads[SESSION_THREADS_MAX];
	pthread_mutex_t lock;
	pthread_cond_t end;
	bool ended;
	int result; /* 0 or -errno, once ended */
};

static _Thread_local bool attaching;

static void log_libfuse(enum fuse_log_level level, const char *fmt, va_list args)
	__attribute__((format(printf, 2, 0)));

static void log_libfuse(enum fuse_log_level level, const char *fmt, va_list args)
{
	char text[512];

	(void)vsnprintf(text, sizeof(text), fmt, args);
	text[strcspn(text, "\n")] = '\0';
	log_at(level <= FUSE_LOG_ERR	  ? LOG_LEVEL_ERROR
	       : level <= FUSE_LOG_NOTICE ? LOG_LEVEL_NOTICE
					  : LOG_LEVEL_DEBUG,
	       "libfuse: %s", text);
}

/* libfuse's way to the device; it never reads by itself. */
static ssize_t device_read(int fd, void *buf, size_t size, void *userdata)
{
	errno = EIO;
	return -1;
}

/*
 * The kernel did not take an answer (out of memory, say): without another the caller would wait for
 * ever. -ENOENT then only says that it had ended the request by itself.
 */
static void answer_instead(int fd, const struct iovec *iov, int code)
{
	struct fuse_out_header out;

	memcpy(&out, iov[0].iov_base, sizeof(out));
	(void)log_error_errno(code, "answer to a request (%u bytes)", out.len);
	out.len = sizeof(out);
	out.error = -EIO;
	if (write(fd, &out, sizeof(out)) < 0 && errno != ENOENT && errno != ENODEV) {
		(void)log_error_errno(-errno, "a request can't be answered; the next worker shall");
		abort();
	}
}

static size_t iov_size(const struct iovec *iov, int count)
{
	size_t size = 0;

	for (int i = 0; i < count; i++)
		size += iov[i].iov_len;
	return size;
}

static ssize_t device_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	ssize_t n;

	if (attaching)
		return (ssize_t)iov_size(iov, count);
	crash_point("before-reply");
	n = writev(fd, iov, count);
	if (n >= 0 || errno == ENOENT || errno == ENODEV)
		return n;
	answer_instead(fd, iov, -errno);
	errno = ENOENT; /* for the operation: nobody got what it answered */
	return -1;
}

/* Shows libfuse an INIT with what was negotiated, so that it believes in no more than that. */
static void attach(struct session *s)
{
	const struct connection_state *state = &ledger_header(s->params.ledger)->connection;
	uint64_t flags = (state->negotiated & ~(uint64_t)FUSE_SETXATTR_EXT) | FUSE_INIT_EXT;
	struct {
		struct fuse_in_header header;
		struct uapi_init_in in;
	} init = {
		.header = { .len = sizeof(init), .opcode = FUSE_INIT, .unique = 2 },
		.in = {
			.major = FUSE_KERNEL_VERSION,
			.minor = MIN_OF(state->minor, FUSE_KERNEL_MINOR_VERSION),
			.max_readahead = state->max_readahead,
			.flags = (uint32_t)flags,
			.flags2 = (uint32_t)(flags >> 32),
		},
	};
	const struct fuse_buf buf = { .size = sizeof(init), .mem = &init };

	attaching = true;
	fuse_session_process_buf(s->fuse, &buf);
	attaching = false;
}

static int make_fuse_session(struct session *s, struct error *err)
{
	static const struct fuse_custom_io io = { .read = device_read, .writev = device_writev };
	char name[] = "holdfast-fuse";
	char *argv[] = { name, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	int fd;

	fuse_set_log_func(log_libfuse);
	s->fuse =
		fuse_session_new(&args, s->params.ops, sizeof(*s->params.ops), s->params.userdata);
	fuse_opt_free_args(&args);
	if (!s->fuse)
		return error_errno(err, -ENOMEM, "fuse_session_new");
	fd = fd_dup(s->params.dev_fd); /* the session closes its own */
	if (fd < 0)
		return error_errno(err, fd, "dup of the FUSE device");
	if (fuse_session_custom_io(s->fuse, &io, fd) < 0) {
		close_fd(&fd);
		return error_errno(err, -ENOMEM, "fuse_session_custom_io");
	}
	attach(s);
	if (fuse_session_exited(s->fuse))
		return error_set(err, ERROR_INTERNAL, -EPROTO,
				 "libfuse refuses what was negotiated");
	return 0;
}

int session_new(const struct session_params *params, struct session **ret, struct error *err)
{
	_cleanup_session_ struct session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_errno(err, -ENOMEM, "session");
	s->params = *params;
	s->buffer_size =
		MAX_OF(ledger_header(params->ledger)->connection.max_write + BUFFER_HEADER_SIZE,
		       (size_t)FUSE_MIN_READ_BUFFER);
	if (s->buffer_size > LEDGER_INBOX_DATA_MAX)
		return error_set(err, ERROR_INTERNAL, -EBADMSG,
				 "requests of %zu bytes have no room in the ledger",
				 s->buffer_size);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->end, NULL);
	r = takeover_new(params->ledger, params->dev_fd, &s->takeover);
	if (r < 0)
		return error_errno(err, r, "session");
	r = make_fuse_session(s, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

void session_free(struct session *s)
{
	if (!s)
		return;
	if (s->fuse)
		fuse_session_destroy(s->fuse);
	takeover_free(s->takeover);
	(void)pthread_cond_destroy(&s->end);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

static void end_session(struct session *s, int result)
{
	(void)pthread_mutex_lock(&s->lock);
	if (!s->ended || s->result == 0)
		s->result = result;
	s->ended = true;
	(void)pthread_cond_signal(&s->end);
	(void)pthread_mutex_unlock(&s->lock);
}

/* Answers what libfuse does not get to see. -ENOENT (the caller is gone) is nobody's problem. */
static void answer_error(const struct session *s, const struct fuse_in_header *in, int code)
{
	struct fuse_out_header out = { .len = sizeof(out), .error = code, .unique = in->unique };

	if (write(s->params.dev_fd, &out, sizeof(out)) < 0 && errno != ENOENT)
		(void)log_warning_errno(-errno, "answer to request %u", in->opcode);
}

static bool has_answer(uint32_t opcode)
{
	return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET;
}

static bool expects_writes(const struct ledger_header *header)
{
	return header->connection.mode == (uint32_t)VOLUME_MODE_WORKER &&
	       !(header->config.flags & VOLUME_READ_ONLY);
}

/* A request's way, for one from the device and for one that an earlier worker left. */
static void serve_request(const struct session *s, struct thread *t, bool again)
{
	struct fuse_in_header *in = (void *)t->inbox.record->data;
	uint64_t negotiated = ledger_header(s->params.ledger)->connection.negotiated;
	struct fuse_buf fuse_buf = { .size = 0 };
	struct request request;
	int r;

	inbox_begin(&t->inbox);
	crash_point("after-read");
	r = request_decode(in, in->len, negotiated, t->scratch, &request, &fuse_buf.mem,
			   &fuse_buf.size);
	request.again = request.again || again;
	if (r < 0) {
		log_error("request %u of node %#" PRIx64 " has %u bytes that make no sense",
			  request.opcode, request.nodeid, in->len);
		if (has_answer(request.opcode))
			answer_error(s, in, -EIO);
	} else if (request.opcode == FUSE_INTERRUPT) {
		answer_error(s, in, -ENOSYS);
	} else {
		request_set_current(&request);
		fuse_session_process_buf(s->fuse, &fuse_buf);
		request_set_current(NULL);
	}
	crash_point("after-reply");
	atomic_fetch_add_explicit(&t->inbox.thread->served, 1, memory_order_relaxed);
	inbox_clear(&t->inbox);
}

static void give_up(const struct session *s, struct thread *t, const struct fuse_in_header *in)
{
	takeover_note_poison(&t->inbox);
	s->params.undo(s->params.userdata, in->unique & ~FUSE_UNIQUE_RESEND, true);
	answer_error(s, in, -EIO);
	inbox_clear(&t->inbox);
}

/* What the last worker left in this inbox. */
static void serve_left(struct session *s, struct thread *t)
{
	const struct fuse_in_header *in = inbox_request(&t->inbox);
	enum takeover_verdict verdict = takeover_judge(s->takeover, &t->inbox);

	if (verdict == TAKEOVER_NOTHING || !in) {
		inbox_clear(&t->inbox);
		if (verdict != TAKEOVER_NOTHING)
			takeover_done(s->takeover);
		return;
	}
	takeover_wait_turn(s->takeover, t->inbox.index);
	if (verdict == TAKEOVER_GIVE_UP) {
		give_up(s, t, in);
	} else {
		if (verdict == TAKEOVER_REPLAY) {
			takeover_wait_for_end(&t->inbox, s->params.lock_fd);
			s->params.undo(s->params.userdata, in->unique & ~FUSE_UNIQUE_RESEND, false);
		}
		serve_request(s, t, true);
	}
	takeover_done(s->takeover);
}

/* The inboxes of this thread: its own, and those of the last worker's threads that are nobody's
 * now. */
static int serve_all_left(struct session *s, struct thread *t, uint32_t index)
{
	const struct ledger_header *header = ledger_header(s->params.ledger);
	size_t touch = expects_writes(header) ? s->buffer_size : INBOX_TOUCHED;

	for (uint32_t i = index + s->params.n_threads; i < LEDGER_MAX_INBOXES;
	     i += s->params.n_threads) {
		if (!takeover_has(s->takeover, i))
			continue;
		if (inbox_open(s->params.ledger, i, s->buffer_size, INBOX_TOUCHED, &t->inbox) == 0)
			serve_left(s, t);
	}
	if (inbox_open(s->params.ledger, index, s->buffer_size, touch, &t->inbox) < 0)
		return -EINVAL;
	serve_left(s, t);
	return 0;
}

/* Returns 0 once the connection has ended, or -errno. */
static int serve(const struct session *s, struct thread *t)
{
	for (;;) {
		ssize_t n = read(s->params.dev_fd, t->inbox.record->data, t->inbox.size);

		if (n >= (ssize_t)sizeof(struct fuse_in_header))
			serve_request(s, t, false);
		else if (n >= 0)
			return -EPROTO;
		else if (errno == ENODEV)
			return 0;
		else if (errno != EINTR && errno != EAGAIN && errno != ENOENT)
			return -errno;
	}
}

static int run_thread(struct session *s, struct thread *t)
{
	int r = creds_thread_init();

	if (r < 0)
		return log_error_errno(r, "unshare(CLONE_FS)");
	t->scratch = mmap(NULL, s->buffer_size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (t->scratch == MAP_FAILED)
		return log_error_errno(-errno, "memory for requests");
	inbox_set_current(&t->inbox);
	r = serve_all_left(s, t, t->index);
	if (r >= 0)
		r = serve(s, t);
	inbox_set_current(NULL);
	(void)munmap(t->scratch, s->buffer_size);
	return r;
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;

	end_session(t->session, run_thread(t->session, t));
	return NULL;
}

static int start_threads(struct session *s)
{
	pthread_attr_t attr;
	int r = pthread_attr_init(&attr);

	if (r == 0)
		r = pthread_attr_setstacksize(&attr, STACK_SIZE);
	while (r == 0 && s->n_started < s->params.n_threads) {
		struct thread *t = &s->threads[s->n_started];

		*t = (struct thread){ .session = s, .index = s->n_started };
		r = pthread_create(&t->thread, &attr, thread_main, t);
		if (r == 0)
			s->n_started++;
	}
	(void)pthread_attr_destroy(&attr);
	return -r;
}

/* The threads get no signal; the caller's mask is as it was afterwards. */
int session_start(struct session *s, struct error *err)
{
	sigset_t all, before;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	r = start_threads(s);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r < 0 ? error_errno(err, r, "start of a thread") : 0;
}

/* Waits for the end, but not longer than to the next tick. */
static bool wait_for_end(struct session *s, int *ret_result)
{
	struct timespec until;
	bool ended;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TICK_SEC;
	(void)pthread_mutex_lock(&s->lock);
	if (!s->ended)
		(void)pthread_cond_clockwait(&s->end, &s->lock, CLOCK_MONOTONIC, &until);
	ended = s->ended;
	*ret_result = s->result;
	(void)pthread_mutex_unlock(&s->lock);
	return ended;
}

int session_wait(struct session *s)
{
	int result;

	while (!wait_for_end(s, &result)) {
		buffer_trim();
		if (s->params.tick)
			s->params.tick(s->params.userdata);
	}
	if (result < 0)
		return result; /* the others still wait for requests */
	for (unsigned int i = 0; i < s->n_started; i++)
		(void)pthread_join(s->threads[i].thread, NULL);
	buffer_free_all();
	return 0;
}
