/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/control_server.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#define ACCEPT_PAUSE_NS (100 * NSEC_PER_MSEC) /* after accept(2) failed for want of something */
#define HOLD_LIMIT_NS (10 * NSEC_PER_SEC)

struct control_server {
	struct loop *loop;
	const struct control_handler *handler;
	char *path;
	int fd;
	struct loop_source listen;
	struct loop_timer pause;
	struct control_client *holder; /* NULL: all clients are served */
	struct loop_timer hold_limit;
	struct control_client *clients;
	size_t n_clients, max_clients;
};

struct control_client *control_server_clients(struct control_server *server)
{
	return server->clients;
}

int control_server_fd(const struct control_server *server)
{
	return server->fd;
}

struct control_client *control_server_holder(const struct control_server *server)
{
	return server->holder;
}

static bool is_served(const struct control_client *client)
{
	return !client->server->holder || client->server->holder == client;
}

static void listen_again(struct control_server *server)
{
	loop_change(server->loop, &server->listen, server->holder ? 0 : EPOLLIN);
}

/* After a change of the holder: who is heard now. */
static void hear(struct control_server *server)
{
	listen_again(server);
	for (struct control_client *c = server->clients; c; c = c->next)
		if (!c->busy)
			loop_change(server->loop, &c->source, is_served(c) ? EPOLLIN : 0);
}

void control_server_hold(struct control_server *server, struct control_client *client)
{
	server->holder = client;
	hear(server);
	loop_arm(server->loop, &server->hold_limit, clock_now_ns() + HOLD_LIMIT_NS);
}

static void end_hold(struct control_server *server)
{
	server->holder = NULL;
	loop_disarm(&server->hold_limit);
	hear(server);
}

/* Forgets and frees a client; `gone` is not called. */
static void drop(struct control_client *client)
{
	struct control_server *server = client->server;
	struct control_client **link = &server->clients;
	int fd = client->source.fd;

	while (*link != client)
		link = &(*link)->next;
	*link = client->next;
	server->n_clients--;
	loop_drop(server->loop, &client->source);
	close_fd(&fd);
	if (server->holder == client)
		end_hold(server);
	free(client);
}

static void on_hold_limit(void *context)
{
	struct control_server *server = context;

	log_warning("control socket: the next keeper does not come to an end and is turned away");
	drop(server->holder);
}

static void client_gone(struct control_client *client)
{
	if (client->busy && !client->listing)
		client->server->handler->gone(client->server->handler->context, client);
	drop(client);
}

static struct control_reply reply_to(const struct control_header *request)
{
	return (struct control_reply){
		.header = { .magic = CONTROL_MAGIC,
			    .version = CONTROL_VERSION,
			    .type = request->type,
			    .size = sizeof(struct control_reply),
			    .serial = request->serial },
	};
}

static void describe_failure(struct control_reply *reply, const struct error *err)
{
	reply->code = err->code < 0 ? err->code : -EIO;
	reply->kind = err->kind;
	(void)snprintf(reply->text, sizeof(reply->text), "%.*s", (int)sizeof(reply->text) - 1,
		       err->text);
}

static void client_idle(struct control_client *client)
{
	client->busy = client->listing = false;
	client->waits_for = NULL;
	client->since_ns = clock_now_ns();
	loop_change(client->server->loop, &client->source, is_served(client) ? EPOLLIN : 0);
}

static int answer(struct control_client *client, const struct control_reply *reply, const int *fds,
		  size_t n)
{
	int r = socket_send(client->source.fd, reply, sizeof(*reply), fds, n, MSG_DONTWAIT);

	if (r < 0) {
		drop(client);
		return r;
	}
	client_idle(client);
	return 0;
}

int control_client_reply(struct control_client *client, const struct volume_status *status,
			 const int *fds, size_t n)
{
	struct control_reply reply = reply_to(&client->request);

	if (status)
		reply.status = *status;
	return answer(client, &reply, fds, n);
}

void control_client_watch(struct control_client *client)
{
	client->watching = true;
}

void control_client_tell(struct control_client *client, const struct volume_status *status)
{
	struct control_reply reply = reply_to(&client->request);

	reply.status = *status;
	if (socket_send(client->source.fd, &reply, sizeof(reply), NULL, 0, MSG_DONTWAIT) < 0)
		drop(client);
}

void control_client_fail(struct control_client *client, const struct error *err)
{
	struct control_reply reply = reply_to(&client->request);

	describe_failure(&reply, err);
	(void)answer(client, &reply, NULL, 0);
}

/* What is next in a list: a volume, another client, or nothing. */
struct item {
	uint64_t cursor;
	struct control_client *client;
	int fds[ESCROW_FDS];
	size_t n_fds;
};

static bool next_item(const struct control_client *client, struct item *ret,
		      struct volume_status *ret_status)
{
	const struct control_handler *handler = client->server->handler;
	bool all = client->request.type == CONTROL_HANDOVER;
	struct control_client *c = all ? client->server->clients : NULL;

	*ret = (struct item){ .cursor = client->cursor };
	if (handler->next_volume(handler->context, &ret->cursor, ret_status, ret->fds)) {
		ret->n_fds = all ? ESCROW_FDS : 0;
		return true;
	}
	/* one that watches has to notice that the keeper is another */
	while (c && (c == client || c->offered || c->watching))
		c = c->next;
	if (!c)
		return false;
	ret->client = c;
	ret->fds[0] = c->source.fd;
	ret->n_fds = 1;
	return true;
}

/* Sends as much of the list as the client takes now. */
static void go_on_listing(struct control_client *client)
{
	bool more = true;

	while (more) {
		struct control_reply reply = reply_to(&client->request);
		struct item item;
		int r;

		more = next_item(client, &item, &reply.status);
		reply.header.flags = more ? CONTROL_MORE : 0;
		r = socket_send(client->source.fd, &reply, sizeof(reply), item.fds, item.n_fds,
				MSG_DONTWAIT);
		if (r == -EAGAIN) {
			loop_change(client->server->loop, &client->source, EPOLLOUT);
			return;
		}
		if (r < 0) {
			drop(client);
			return;
		}
		client->cursor = item.cursor;
		if (item.client)
			item.client->offered = true;
	}
	client_idle(client);
}

void control_client_list(struct control_client *client)
{
	client->listing = true;
	client->cursor = 0;
	for (struct control_client *c = client->server->clients; c; c = c->next)
		c->offered = false;
	go_on_listing(client);
}

/* Something that is no request: one reply, and the end. */
static void refuse(struct control_client *client, const void *packet, size_t size,
		   const struct error *err)
{
	struct control_header header = { 0 };
	struct control_reply reply;

	if (err->code != -EBADMSG && size >= sizeof(header))
		memcpy(&header, packet, sizeof(header));
	reply = reply_to(&header);
	describe_failure(&reply, err);
	log_warning("control socket: %s", err->text);
	if (socket_send(client->source.fd, &reply, sizeof(reply), NULL, 0, MSG_DONTWAIT) < 0)
		log_debug("control socket: it does not listen");
	drop(client);
}

static void take_request(struct control_client *client, const struct control_request *request,
			 int fds[SOCKET_FDS_MAX])
{
	const struct control_handler *handler = client->server->handler;

	client->request = request->header;
	client->busy = true;
	if (request->header.type == CONTROL_LIST) {
		control_client_list(client);
		return;
	}
	loop_change(client->server->loop, &client->source, 0); /* the next one has to wait */
	handler->request(handler->context, client, request, fds);
}

static void receive(struct control_client *client)
{
	struct control_request request;
	struct error err = ERROR_INIT;
	int fds[SOCKET_FDS_MAX];
	ssize_t n = socket_recv(client->source.fd, &request, sizeof(request), fds, MSG_DONTWAIT);

	if (n == -EAGAIN)
		return;
	if (n == -EMSGSIZE) {
		(void)error_set(&err, ERROR_INVALID, -EBADMSG,
				"control packet that is too long or has too many descriptors");
		refuse(client, NULL, 0, &err);
	} else if (n <= 0) {
		drop(client);
	} else if (control_check(&request, (size_t)n, &err) < 0) {
		refuse(client, &request, (size_t)n, &err);
	} else {
		take_request(client, &request, fds);
	}
	for (size_t i = 0; i < SOCKET_FDS_MAX; i++)
		close_fd(&fds[i]);
}

static void on_client(void *context, uint32_t events)
{
	struct control_client *client = context;

	if (client->listing && (events & EPOLLOUT))
		go_on_listing(client);
	else if (!client->busy && (events & EPOLLIN))
		receive(client);
	else if (events & (EPOLLHUP | EPOLLERR))
		client_gone(client);
}

static bool has_unread_data(const struct control_client *client)
{
	char byte;

	return recv(client->source.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

bool control_server_is_idle(const struct control_server *server,
			    const struct control_client *except)
{
	for (const struct control_client *c = server->clients; c; c = c->next)
		if (c != except && c->busy && !c->watching)
			return false;
	return true;
}

/* Drops the client that has waited for longest without anything to do, or to read its list. */
static bool drop_one_idle(struct control_server *server)
{
	struct control_client *oldest = NULL;

	for (struct control_client *c = server->clients; c; c = c->next)
		if ((!c->busy || c->listing) && (!oldest || c->since_ns < oldest->since_ns) &&
		    (c->listing || !has_unread_data(c)))
			oldest = c;
	if (!oldest)
		return false;
	log_debug("control socket: an idle client was dropped to make room");
	drop(oldest);
	return true;
}

void control_server_welcome(struct control_server *server, int client_fd)
{
	_cleanup_close_ int fd = client_fd;
	_cleanup_free_ struct control_client *client = NULL;
	struct error err = ERROR_INIT;
	uid_t uid;

	if (socket_peer_uid(fd, &uid) < 0 || uid != geteuid()) {
		log_warning("control socket: a peer of another user was turned away");
		return;
	}
	client = malloc(sizeof(*client));
	if (!client)
		return;
	*client = (struct control_client){
		.server = server,
		.next = server->clients,
		.source = { .fd = -EBADF, .ready = on_client, .context = client },
		.since_ns = clock_now_ns(),
	};
	if (loop_add(server->loop, &client->source, fd, EPOLLIN, &err) < 0) {
		log_warning("control socket: %s", err.text);
		return;
	}
	(void)TAKE_FD(fd);
	server->clients = TAKE_PTR(client);
	server->n_clients++;
}

static void pause_accepting(struct control_server *server)
{
	loop_change(server->loop, &server->listen, 0);
	loop_arm(server->loop, &server->pause, clock_now_ns() + ACCEPT_PAUSE_NS);
}

static void on_pause_over(void *context)
{
	listen_again(context);
}

static void on_connect(void *context, uint32_t events)
{
	struct control_server *server = context;
	int fd;

	if (server->n_clients >= server->max_clients && !drop_one_idle(server)) {
		pause_accepting(server);
		return;
	}
	fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0) {
		control_server_welcome(server, fd);
		return;
	}
	if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
		return;
	(void)log_warning_errno(-errno, "control socket: accept");
	if (!drop_one_idle(server))
		pause_accepting(server);
}

DEFINE_CLEANUP(struct control_server *, control_server_close);

int control_server_open(struct loop *loop, const char *path, int listen_fd, size_t max_clients,
			const struct control_handler *handler, struct control_server **ret,
			struct error *err)
{
	_cleanup_(control_server_close_cleanup) struct control_server *server =
		malloc(sizeof(*server));
	_cleanup_close_ int inherited = listen_fd;
	int r;

	if (!server)
		return error_errno(err, -ENOMEM, "control socket");
	*server = (struct control_server){
		.loop = loop,
		.handler = handler,
		.fd = -EBADF,
		.listen = { .fd = -EBADF, .ready = on_connect, .context = server },
		.pause = { .fire = on_pause_over, .context = server },
		.hold_limit = { .fire = on_hold_limit, .context = server },
		.max_clients = max_clients,
	};
	server->fd = inherited >= 0 ? TAKE_FD(inherited) : socket_listen(path, err);
	if (server->fd < 0)
		return server->fd;
	server->path = strdup(path);
	if (!server->path)
		return error_errno(err, -ENOMEM, "control socket");
	r = loop_add(loop, &server->listen, server->fd, EPOLLIN, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(server);
	return 0;
}

/* All but the socket's file. */
static void shut(struct control_server *server)
{
	while (server->clients)
		drop(server->clients);
	loop_disarm(&server->pause);
	loop_drop(server->loop, &server->listen);
	close_fd(&server->fd);
	free(server->path);
	free(server);
}

int control_server_leave(struct control_server *server)
{
	struct loop_source *source = &server->holder->source;
	int fd = source->fd;

	loop_drop(server->loop, source);
	shut(server);
	return fd;
}

void control_server_close(struct control_server *server)
{
	if (!server)
		return;
	if (server->path)
		(void)unlink(server->path);
	shut(server);
}
