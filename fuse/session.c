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
 * stay in the kernel), and interrupts that are sent again after a takeover would name requests that
 * are long gone.
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
#include "fuse/creds.h"
#include "fuse/reply.h"
#include "fuse/request.h"
#include "fuse/uapi.h"

/* The kernel wants room for a WRITE's header and struct besides its data (fuse_dev_do_read). */
#define BUFFER_HEADER_SIZE 4096
#define TICK_SEC 10
#define INBOX_TOUCHED FUSE_MIN_READ_BUFFER
#define STACK_SIZE (1U << 20) /* touched as far as it is used */

struct session {
	struct session_params params;
	struct fuse_session *fuse;
	size_t buffer_size;
	unsigned int n_started;
	pthread_t threads[SESSION_THREADS_MAX];
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
	const struct connection_state *state = &s->params.header->connection;
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
	s->buffer_size = MAX_OF(params->header->connection.max_write + BUFFER_HEADER_SIZE,
				(size_t)FUSE_MIN_READ_BUFFER);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->end, NULL);
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

static void serve_request(const struct session *s, void *buf, size_t size)
{
	struct ledger_header *header = s->params.header;
	struct fuse_buf fuse_buf = { .mem = buf };
	struct request request;
	int r;

	atomic_fetch_add_explicit(&header->requests_read, 1, memory_order_relaxed);
	r = request_decode(buf, size, header->connection.negotiated, &request, &fuse_buf.size);
	if (r < 0) {
		log_error("request %u of node %#" PRIx64 " has %zu bytes that make no sense",
			  request.opcode, request.nodeid, size);
		if (has_answer(request.opcode))
			answer_error(s, buf, -EIO);
	} else if (request.opcode == FUSE_INTERRUPT) {
		answer_error(s, buf, -ENOSYS);
	} else {
		request_set_current(&request);
		fuse_session_process_buf(s->fuse, &fuse_buf);
		request_set_current(NULL);
	}
	atomic_fetch_add_explicit(&header->requests_answered, 1, memory_order_relaxed);
}

/*
 * A thread's place for requests. A worker that is killed while the kernel has to make a page for a
 * request fails that request with EIO instead of leaving it to the next worker (fuse_dev_do_read).
 * So the pages are there before anything is read: the first ones, where most requests fit, and all
 * of them where large writes come here.
 */
struct inbox {
	void *data;
	size_t size;
};

static int inbox_open(struct inbox *inbox, size_t size, bool expect_writes)
{
	void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (data == MAP_FAILED)
		return -errno;
	memset(data, 0, expect_writes ? size : INBOX_TOUCHED);
	*inbox = (struct inbox){ .data = data, .size = size };
	return 0;
}

static void inbox_close(struct inbox *inbox)
{
	if (inbox->data)
		(void)munmap(inbox->data, inbox->size);
}

static bool expects_writes(const struct session *s)
{
	const struct ledger_header *header = s->params.header;

	return header->connection.mode == (uint32_t)VOLUME_MODE_WORKER &&
	       !(header->config.flags & VOLUME_READ_ONLY);
}

/* Returns 0 once the connection has ended, or -errno. */
static int serve(const struct session *s, const struct inbox *inbox)
{
	for (;;) {
		ssize_t n = read(s->params.dev_fd, inbox->data, inbox->size);

		if (n >= (ssize_t)sizeof(struct fuse_in_header))
			serve_request(s, inbox->data, (size_t)n);
		else if (n >= 0)
			return -EPROTO;
		else if (errno == ENODEV)
			return 0;
		else if (errno != EINTR && errno != EAGAIN && errno != ENOENT)
			return -errno;
	}
}

static void *serve_thread(void *arg)
{
	_cleanup_(inbox_close) struct inbox inbox = { .data = NULL };
	struct session *s = arg;
	int r = creds_thread_init();

	if (r < 0) {
		end_session(s, log_error_errno(r, "unshare(CLONE_FS)"));
		return NULL;
	}
	r = inbox_open(&inbox, s->buffer_size, expects_writes(s));
	if (r < 0) {
		end_session(s, log_error_errno(r, "memory for requests"));
		return NULL;
	}
	end_session(s, serve(s, &inbox));
	return NULL;
}

static int start_threads(struct session *s)
{
	pthread_attr_t attr;
	int r = pthread_attr_init(&attr);

	if (r == 0)
		r = pthread_attr_setstacksize(&attr, STACK_SIZE);
	while (r == 0 && s->n_started < s->params.n_threads) {
		r = pthread_create(&s->threads[s->n_started], &attr, serve_thread, s);
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
		(void)pthread_join(s->threads[i], NULL);
	buffer_free_all();
	return 0;
}
