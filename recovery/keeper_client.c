/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/keeper_client.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/socket.h"

/* One call: its connection, and when it has to be over. */
struct keeper_call {
	int fd;
	uint64_t due_ns;
	enum control_type type;
	uint32_t serial;
};

static void keeper_call_end(struct keeper_call *call)
{
	close_fd(&call->fd);
}

static int remaining_ms(const struct keeper_call *call)
{
	uint64_t now = clock_now_ns();

	if (now >= call->due_ns)
		return 0;
	/* rounded up, so that a poll does not spin through the last millisecond */
	return (int)MIN_OF((call->due_ns - now) / NSEC_PER_MSEC + 1, (uint64_t)INT_MAX);
}

static int unavailable(const char *run_dir, int code, struct error *err)
{
	(void)error_errno(err, code,
			  "no holdfast-keeper answers at %s/" CONTROL_SOCKET_NAME
			  ": start it with --run-dir %s",
			  run_dir, run_dir);
	if (err)
		err->kind = code == -ETIMEDOUT ? ERROR_TIMEOUT : ERROR_UNAVAILABLE;
	return code;
}

static int timed_out(struct error *err)
{
	return error_set(err, ERROR_TIMEOUT, -ETIMEDOUT,
			 "the keeper did not answer in time; its log says what it waits for");
}

/* Connects and sends the request; `source_fd` goes along unless it is negative. */
static int begin(struct keeper_call *call, const char *run_dir, int timeout_ms,
		 const struct volume_config *config, int source_fd, struct error *err)
{
	static atomic_uint serials;
	struct control_request request = {
		.header = { .magic = CONTROL_MAGIC,
			    .version = CONTROL_VERSION,
			    .type = (uint16_t)call->type,
			    .size = sizeof(request),
			    .serial = atomic_fetch_add(&serials, 1) + 1 },
	};
	char path[PATH_MAX];
	int r;

	if (config)
		request.config = *config;
	call->serial = request.header.serial;
	call->due_ns = clock_now_ns() + (uint64_t)MAX_OF(timeout_ms, 1) * NSEC_PER_MSEC;
	if ((size_t)snprintf(path, sizeof(path), "%s/" CONTROL_SOCKET_NAME, run_dir) >=
	    sizeof(path))
		return unavailable(run_dir, -ENAMETOOLONG, err);
	call->fd = socket_connect_timeout(path, MAX_OF(timeout_ms, 1));
	if (call->fd < 0)
		return unavailable(run_dir, call->fd, err);
	r = socket_send(call->fd, &request, sizeof(request), &source_fd, source_fd >= 0, 0);
	if (r == -EAGAIN)
		return timed_out(err);
	return r < 0 ? unavailable(run_dir, r, err) : 0;
}

static int wait_readable(const struct keeper_call *call, struct error *err)
{
	struct pollfd p = { .fd = call->fd, .events = POLLIN };

	for (;;) {
		int n = poll(&p, 1, remaining_ms(call));

		if (n > 0)
			return 0;
		if (n == 0)
			return timed_out(err);
		if (errno != EINTR)
			return error_errno(err, -errno, "poll the keeper's socket");
	}
}

/* What the keeper says about a failure, as this process's own error. */
static int take_failure(const struct control_reply *reply, struct error *err)
{
	enum error_kind kind =
		reply->kind <= ERROR_OUT_OF_RANGE ? (enum error_kind)reply->kind : ERROR_INTERNAL;
	int code = reply->code > -4096 && reply->code < 0 ? reply->code : -EIO;

	return error_set(err, kind, code, "%s", reply->text);
}

/*
 * Reads one reply. *ret_fd, owned by the caller, is the descriptor that came along, -EBADF if none
 * did. Returns 0, or -errno with *err set, for a reply that is a failure too.
 */
static int read_reply(const struct keeper_call *call, struct control_reply *ret, int *ret_fd,
		      struct error *err)
{
	int fds[SOCKET_FDS_MAX];
	struct control_reply packet;
	ssize_t n;
	int r = wait_readable(call, err);

	if (r < 0)
		return r;
	n = socket_recv(call->fd, &packet, sizeof(packet), fds, MSG_DONTWAIT);
	for (size_t i = 1; i < SOCKET_FDS_MAX; i++)
		close_fd(&fds[i]);
	_cleanup_close_ int fd = fds[0];
	if (n == 0 || n == -ECONNRESET)
		return error_set(err, ERROR_UNAVAILABLE, -ECONNRESET,
				 "the keeper closed the connection: it was restarted, or serves "
				 "only its own user");
	if (n == -EMSGSIZE)
		return error_set(err, ERROR_EXHAUSTED, -EMFILE,
				 "the keeper's reply did not arrive whole: this process may have "
				 "too many open files");
	if (n < 0)
		return error_errno(err, (int)n, "receive from the keeper");
	r = control_check_reply(&packet, (size_t)n, call->type, call->serial, ret, err);
	if (r < 0)
		return r;
	if (ret->code != 0)
		return take_failure(ret, err);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* A call with one reply; *ret_fd: see read_reply. */
static int call_once(struct keeper_call *call, const char *run_dir, int timeout_ms,
		     const struct volume_config *config, int source_fd, struct control_reply *ret,
		     int *ret_fd, struct error *err)
{
	int r = begin(call, run_dir, timeout_ms, config, source_fd, err);

	return r < 0 ? r : read_reply(call, ret, ret_fd, err);
}

/* A call whose reply brings a mount. */
static int call_for_mount(enum control_type type, const char *run_dir, int timeout_ms,
			  const struct volume_config *config, int source_fd, int *ret_mount_fd,
			  struct volume_status *ret, struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = { .fd = -EBADF, .type = type };
	_cleanup_close_ int fd = -EBADF;
	struct control_reply reply;
	int r = call_once(&call, run_dir, timeout_ms, config, source_fd, &reply, &fd, err);

	if (r < 0)
		return r;
	if (fd < 0)
		return error_set(err, ERROR_UNAVAILABLE, -EBADMSG,
				 "the keeper answered without a mount");
	*ret_mount_fd = TAKE_FD(fd);
	*ret = reply.status;
	return 0;
}

int keeper_add(const char *run_dir, int timeout_ms, const struct volume_config *config,
	       int source_fd, int *ret_mount_fd, struct volume_status *ret, struct error *err)
{
	return call_for_mount(CONTROL_ADD, run_dir, timeout_ms, config, source_fd, ret_mount_fd,
			      ret, err);
}

static int config_of_id(const char *id, struct volume_config *ret, struct error *err)
{
	size_t len = strlen(id);

	if (len == 0 || len > VOLUME_ID_MAX)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "volume id: 1 to %d bytes are possible", VOLUME_ID_MAX);
	*ret = (struct volume_config){ 0 };
	memcpy(ret->id, id, len);
	return 0;
}

int keeper_mount(const char *run_dir, int timeout_ms, const char *id, int *ret_mount_fd,
		 struct volume_status *ret, struct error *err)
{
	struct volume_config config;
	int r = config_of_id(id, &config, err);

	if (r < 0)
		return r;
	return call_for_mount(CONTROL_MOUNT, run_dir, timeout_ms, &config, -EBADF, ret_mount_fd,
			      ret, err);
}

/* A call about one volume whose reply brings nothing. */
static int call_about(enum control_type type, const char *run_dir, int timeout_ms, const char *id,
		      struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = { .fd = -EBADF, .type = type };
	_cleanup_close_ int fd = -EBADF;
	struct volume_config config;
	struct control_reply reply;
	int r = config_of_id(id, &config, err);

	if (r < 0)
		return r;
	return call_once(&call, run_dir, timeout_ms, &config, -EBADF, &reply, &fd, err);
}

int keeper_remove(const char *run_dir, int timeout_ms, const char *id, struct error *err)
{
	return call_about(CONTROL_REMOVE, run_dir, timeout_ms, id, err);
}

int keeper_replace(const char *run_dir, int timeout_ms, const char *id, bool planned,
		   struct error *err)
{
	return call_about(planned ? CONTROL_RESTART : CONTROL_KILL, run_dir, timeout_ms, id, err);
}

int keeper_list(const char *run_dir, int timeout_ms, struct volume_status **ret, size_t *ret_n,
		struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = { .fd = -EBADF, .type = CONTROL_LIST };
	_cleanup_free_ struct volume_status *list = NULL;
	size_t n = 0, room = 0;
	int r = begin(&call, run_dir, timeout_ms, NULL, -EBADF, err);

	while (r >= 0) {
		_cleanup_close_ int fd = -EBADF;
		struct control_reply reply;

		r = read_reply(&call, &reply, &fd, err);
		if (r < 0)
			break;
		if (!(reply.header.flags & CONTROL_MORE)) {
			*ret = TAKE_PTR(list);
			*ret_n = n;
			return 0;
		}
		if (n == room) {
			struct volume_status *more;

			room = MAX_OF(room * 2, (size_t)16);
			more = reallocarray(list, room, sizeof(*list));
			if (!more)
				return error_errno(err, -ENOMEM, "list of volumes");
			list = more;
		}
		list[n++] = reply.status;
	}
	return r;
}
