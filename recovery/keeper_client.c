/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/keeper_client.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/array.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/socket.h"

/* One call: its connection, when it has to be over, and what the last reply brought. */
struct keeper_call {
	int fd;
	uint64_t due_ns;
	enum control_type type;
	const char *source; /* CONTROL_SWAP */
	uint32_t serial;
	int fds[SOCKET_FDS_MAX];
};

#define KEEPER_CALL(kind)                                                               \
	{                                                                               \
		.fd = -EBADF, .type = (kind), .fds = { -EBADF, -EBADF, -EBADF, -EBADF } \
	}

static void close_all(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close_fd(&fds[i]);
}

static void keeper_call_end(struct keeper_call *call)
{
	close_all(call->fds, ARRAY_SIZE(call->fds));
	close_fd(&call->fd);
}

/* Who answers at which socket. */
struct peer {
	const char *name, *socket_name;
};
static const struct peer keeper_peer = { "holdfast-keeper", CONTROL_SOCKET_NAME };
static const struct peer plugin_peer = { "holdfast-csi", PLUGIN_SOCKET_NAME };

static int unavailable(const struct peer *peer, const char *run_dir, int code, struct error *err)
{
	(void)error_errno(err, code, "no %s answers at %s/%s: start it with --run-dir %s",
			  peer->name, run_dir, peer->socket_name, run_dir);
	if (err)
		err->kind = code == -ETIMEDOUT ? ERROR_TIMEOUT : ERROR_UNAVAILABLE;
	return code;
}

static int timed_out(struct error *err)
{
	return error_set(err, ERROR_TIMEOUT, -ETIMEDOUT,
			 "the keeper did not answer in time; its log says what it waits for");
}

static int connect_to(const struct peer *peer, const char *run_dir, int timeout_ms,
		      struct error *err)
{
	char path[PATH_MAX];
	int fd;

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", run_dir, peer->socket_name) >=
	    sizeof(path))
		return unavailable(peer, run_dir, -ENAMETOOLONG, err);
	fd = socket_connect_timeout(path, MAX_OF(timeout_ms, 1));
	return fd < 0 ? unavailable(peer, run_dir, fd, err) : fd;
}

static const struct peer *peer_of(const struct keeper_call *call)
{
	return call->type == CONTROL_HEAL || call->type == CONTROL_SWAP ? &plugin_peer
								      : &keeper_peer;
}

/* Sends the request with `n_fds` descriptors on the call's connection. */
static int send_request(struct keeper_call *call, const struct volume_config *config,
			const int *fds, size_t n_fds)
{
	static atomic_uint serials;
	struct control_request request = {
		.header = { .magic = CONTROL_MAGIC,
			    .version = CONTROL_VERSION,
			    .type = (uint16_t)call->type,
			    .size = sizeof(request),
			    .serial = atomic_fetch_add(&serials, 1) + 1 },
	};

	if (config)
		request.config = *config;
	if (call->source)
		(void)snprintf(request.source, sizeof(request.source), "%s", call->source);
	call->serial = request.header.serial;
	return socket_send(call->fd, &request, sizeof(request), fds, n_fds, 0);
}

/* Connects and sends the request. */
static int begin(struct keeper_call *call, const char *run_dir, int timeout_ms,
		 const struct volume_config *config, const int *fds, size_t n_fds,
		 struct error *err)
{
	int r;

	call->due_ns = clock_now_ns() + (uint64_t)MAX_OF(timeout_ms, 1) * NSEC_PER_MSEC;
	call->fd = connect_to(peer_of(call), run_dir, timeout_ms, err);
	if (call->fd < 0)
		return call->fd;
	r = send_request(call, config, fds, n_fds);
	if (r == -EAGAIN)
		return timed_out(err);
	return r < 0 ? unavailable(peer_of(call), run_dir, r, err) : 0;
}

static int wait_readable(const struct keeper_call *call, struct error *err)
{
	struct pollfd p = { .fd = call->fd, .events = POLLIN };

	for (;;) {
		int n = poll(&p, 1, clock_left_ms(call->due_ns));

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
 * Reads one reply; the descriptors that came along are the call's. Returns 0, or -errno with *err
 * set, for a reply that is a failure too.
 */
static int read_reply(struct keeper_call *call, struct control_reply *ret, struct error *err)
{
	struct control_reply packet;
	ssize_t n;
	int r = wait_readable(call, err);

	if (r < 0)
		return r;
	close_all(call->fds, ARRAY_SIZE(call->fds));
	n = socket_recv(call->fd, &packet, sizeof(packet), call->fds, MSG_DONTWAIT);
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
	return ret->code != 0 ? take_failure(ret, err) : 0;
}

static int check_fds(const struct keeper_call *call, size_t n_wanted, struct error *err)
{
	for (size_t i = 0; i < n_wanted; i++)
		if (call->fds[i] < 0)
			return error_set(err, ERROR_UNAVAILABLE, -EBADMSG,
					 "the keeper answered without the descriptors that belong "
					 "to it");
	return 0;
}

/* A call with one reply, which has to bring `n_wanted` descriptors. */
static int call_once(struct keeper_call *call, const char *run_dir, int timeout_ms,
		     const struct volume_config *config, const int *fds, size_t n_fds,
		     size_t n_wanted, struct control_reply *ret, struct error *err)
{
	int r = begin(call, run_dir, timeout_ms, config, fds, n_fds, err);

	if (r >= 0)
		r = read_reply(call, ret, err);
	return r < 0 ? r : check_fds(call, n_wanted, err);
}

int keeper_add(const char *run_dir, int timeout_ms, const struct volume_config *config,
	       int source_fd, int *ret_mount_fd, int ret_escrow[ESCROW_FDS],
	       struct volume_status *ret, struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = KEEPER_CALL(CONTROL_ADD);
	struct control_reply reply;
	int copy, r = call_once(&call, run_dir, timeout_ms, config, &source_fd, 1, ESCROW_FDS,
				&reply, err);

	if (r < 0)
		return r;
	copy = fd_dup(source_fd);
	if (copy < 0)
		return error_set(err, ERROR_EXHAUSTED, copy,
				 "this process has too many open files");
	*ret_mount_fd = TAKE_FD(call.fds[ESCROW_SOURCE]); /* in the source's place */
	for (size_t i = 0; i < ESCROW_FDS; i++)
		ret_escrow[i] = i == ESCROW_SOURCE ? copy : TAKE_FD(call.fds[i]);
	*ret = reply.status;
	return 0;
}

int keeper_swap(const char *run_dir, int timeout_ms, const struct volume_config *config,
		int source_fd, int *ret_mount_fd, struct volume_status *ret, struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = KEEPER_CALL(CONTROL_REPLACE);
	struct control_reply reply;
	int r = call_once(&call, run_dir, timeout_ms, config, &source_fd, 1, ESCROW_FDS, &reply,
			  err);

	if (r < 0)
		return r;
	*ret_mount_fd = TAKE_FD(call.fds[ESCROW_SOURCE]); /* in the source's place */
	*ret = reply.status;
	return 0;
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

/* A call that is about one volume. */
static int call_about(struct keeper_call *call, const char *run_dir, int timeout_ms, const char *id,
		      const int *fds, size_t n_fds, size_t n_wanted, struct control_reply *ret,
		      struct error *err)
{
	struct volume_config config;
	int r = config_of_id(id, &config, err);

	return r < 0 ? r
		     : call_once(call, run_dir, timeout_ms, &config, fds, n_fds, n_wanted, ret,
				 err);
}

int keeper_mount(const char *run_dir, int timeout_ms, const char *id, int *ret_mount_fd,
		 struct volume_status *ret, struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = KEEPER_CALL(CONTROL_MOUNT);
	struct control_reply reply;
	int r = call_about(&call, run_dir, timeout_ms, id, NULL, 0, 1, &reply, err);

	if (r < 0)
		return r;
	*ret_mount_fd = TAKE_FD(call.fds[0]);
	*ret = reply.status;
	return 0;
}

int keeper_escrow(const char *run_dir, int timeout_ms, const char *id, int ret_fds[ESCROW_FDS],
		  struct volume_status *ret, struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = KEEPER_CALL(CONTROL_ESCROW);
	struct control_reply reply;
	int r = call_about(&call, run_dir, timeout_ms, id, NULL, 0, ESCROW_FDS, &reply, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ESCROW_FDS; i++)
		ret_fds[i] = TAKE_FD(call.fds[i]);
	*ret = reply.status;
	return 0;
}

int keeper_adopt(const char *run_dir, int timeout_ms, const char *id, const int fds[ESCROW_FDS],
		 struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = KEEPER_CALL(CONTROL_ADOPT);
	struct control_reply reply;

	return call_about(&call, run_dir, timeout_ms, id, fds, ESCROW_FDS, 0, &reply, err);
}

int keeper_remove(const char *run_dir, int timeout_ms, const char *id, struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = KEEPER_CALL(CONTROL_REMOVE);
	struct control_reply reply;

	return call_about(&call, run_dir, timeout_ms, id, NULL, 0, 0, &reply, err);
}

int keeper_replace(const char *run_dir, int timeout_ms, const char *id, bool planned,
		   struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call =
		KEEPER_CALL(planned ? CONTROL_RESTART : CONTROL_KILL);
	struct control_reply reply;

	return call_about(&call, run_dir, timeout_ms, id, NULL, 0, 0, &reply, err);
}

int keeper_watch(const char *run_dir, int timeout_ms, struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = KEEPER_CALL(CONTROL_WATCH);
	int r = begin(&call, run_dir, timeout_ms, NULL, NULL, 0, err);

	return r < 0 ? r : TAKE_FD(call.fd);
}

int keeper_watch_read(int watch_fd, struct volume_status *ret)
{
	struct control_reply packet;
	int fds[SOCKET_FDS_MAX];
	ssize_t n = socket_recv(watch_fd, &packet, sizeof(packet), fds, MSG_DONTWAIT);

	if (n == 0)
		return -ECONNRESET;
	if (n < 0)
		return (int)n;
	close_all(fds, ARRAY_SIZE(fds));
	if ((size_t)n != sizeof(packet) || packet.header.version != CONTROL_VERSION ||
	    packet.header.type != CONTROL_WATCH || packet.code != 0)
		return -EPROTO;
	*ret = packet.status;
	return 0;
}

int plugin_heal(const char *run_dir, int timeout_ms, const char *id, struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = KEEPER_CALL(CONTROL_HEAL);
	struct volume_config config = { 0 };
	struct control_reply reply;
	int r = *id ? config_of_id(id, &config, err) : 0;

	return r < 0 ? r
		     : call_once(&call, run_dir, timeout_ms, &config, NULL, 0, 0, &reply, err);
}

int plugin_swap(const char *run_dir, int timeout_ms, const char *id, const char *source,
		struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = KEEPER_CALL(CONTROL_SWAP);
	struct control_reply reply;

	if (strlen(source) >= CONTROL_SOURCE_MAX)
		return error_set(err, ERROR_INVALID, -ENAMETOOLONG, "the source's path is too long");
	call.source = source;
	return call_about(&call, run_dir, timeout_ms, id, NULL, 0, 0, &reply, err);
}

int keeper_list(const char *run_dir, int timeout_ms, struct volume_status **ret, size_t *ret_n,
		struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = KEEPER_CALL(CONTROL_LIST);
	_cleanup_free_ struct volume_status *list = NULL;
	size_t n = 0, room = 0;
	int r = begin(&call, run_dir, timeout_ms, NULL, NULL, 0, err);

	while (r >= 0) {
		struct control_reply reply;
		void *more;

		r = read_reply(&call, &reply, err);
		if (r < 0)
			break;
		if (!(reply.header.flags & CONTROL_MORE)) {
			*ret = TAKE_PTR(list);
			*ret_n = n;
			return 0;
		}
		more = array_grow(list, n, &room, sizeof(*list));
		if (!more)
			return error_errno(err, -ENOMEM, "list of volumes");
		list = more;
		list[n++] = reply.status;
	}
	return r;
}

int keeper_handover(const char *run_dir, int timeout_ms,
		    int (*take)(void *context, const struct volume_status *status,
				int fds[SOCKET_FDS_MAX], struct error *err),
		    void *context, int *ret_fd, struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = KEEPER_CALL(CONTROL_HANDOVER);
	int r = begin(&call, run_dir, timeout_ms, NULL, NULL, 0, err);

	while (r >= 0) {
		struct control_reply reply;

		r = read_reply(&call, &reply, err);
		if (r >= 0 && !(reply.header.flags & CONTROL_MORE)) {
			*ret_fd = TAKE_FD(call.fd);
			return 0;
		}
		if (r >= 0)
			r = take(context, &reply.status, call.fds, err);
	}
	return r;
}

int keeper_handover_commit(int fd, int timeout_ms, int ret_fds[HANDOVER_FDS], struct error *err)
{
	_cleanup_(keeper_call_end) struct keeper_call call = KEEPER_CALL(CONTROL_HANDOVER_COMMIT);
	struct control_reply reply;
	int r;

	call.due_ns = clock_now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
	call.fd = fd_dup(fd);
	if (call.fd < 0)
		return error_errno(err, call.fd, "duplicate the keeper's connection");
	r = send_request(&call, NULL, NULL, 0);
	if (r < 0)
		return error_set(err, ERROR_UNAVAILABLE, r, "the keeper went away");
	r = read_reply(&call, &reply, err);
	if (r >= 0)
		r = check_fds(&call, HANDOVER_FDS, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < HANDOVER_FDS; i++)
		ret_fds[i] = TAKE_FD(call.fds[i]);
	return 0;
}
