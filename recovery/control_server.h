/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The keeper's end of the control socket: accepts, checks who is there and what arrives, hands over
 * whole requests, sends replies. It never waits for a client: a client that reads too slowly for
 * one reply is dropped, and a list is sent as fast as it is read. There is a fixed number of
 * clients; the next one takes the place of the one that has been idle for longest.
 *
 * It can be held for one client, the keeper that is to come: then what the others ask for stays
 * unread, and who connects is not accepted, until that client is dropped, or all of it goes to the
 * next keeper with the listening socket.
 */

#include "base/error.h"
#include "base/macros.h"
#include "base/socket.h"
#include "recovery/control.h"
#include "recovery/loop.h"

struct control_server;

/* One connection; owned by the server. */
struct control_client {
	struct control_server *server;
	struct control_client *next;
	struct loop_source source;
	struct control_header request; /* of the request that is not answered yet */
	bool busy;		       /* there is one */
	bool watching;		       /* control_client_watch */
	bool listing;		       /* and is answered with a list */
	uint64_t cursor;	       /* listing: the last volume that was sent, see next_volume */
	bool offered;		       /* to the next keeper, by the holder's list */
	uint64_t since_ns;	       /* when it last came or was answered */
	void *waits_for;	       /* the handler's, NULL at first and after each reply */
};

struct control_handler {
	/*
	 * request - a checked request, other than CONTROL_LIST. The descriptors are the handler's
	 * to take (TAKE_FD); those that are left are closed afterwards. It has to lead to one
	 * control_client_reply or control_client_fail, now or later.
	 */
	void (*request)(void *context, struct control_client *client,
			const struct control_request *request, int fds[SOCKET_FDS_MAX]);

	/* gone - a client with an unanswered request went away; it is freed afterwards. */
	void (*gone)(void *context, struct control_client *client);

	/*
	 * next_volume - for a list: the volume after *cursor, 0 being before the first, and what
	 * an escrow of it holds (borrowed). Returns whether there is one.
	 */
	bool (*next_volume)(void *context, uint64_t *cursor, struct volume_status *ret,
			    int ret_fds[ESCROW_FDS]);

	void *context;
};

/*
 * control_server_open - listen on `path`, or go on listening there with `listen_fd`, which is
 * consumed (-EBADF: there is none); `handler` is borrowed. *ret is owned by the caller. Returns 0
 * or -errno with *err set.
 */
int __must_check control_server_open(struct loop *loop, const char *path, int listen_fd,
				     size_t max_clients, const struct control_handler *handler,
				     struct control_server **ret, struct error *err);

/* control_server_close - drop all clients without a word and remove the socket. NULL is fine. */
void control_server_close(struct control_server *server);

/* control_server_clients - the first client; follow `next`. */
struct control_client *control_server_clients(struct control_server *server);

/* control_server_welcome - serve one more connection, which is consumed. */
void control_server_welcome(struct control_server *server, int client_fd);

/* control_server_fd - the listening socket, borrowed. */
int control_server_fd(const struct control_server *server);

/* control_server_hold - serve `client` alone; it is dropped when that lasts for too long. */
void control_server_hold(struct control_server *server, struct control_client *client);

/* control_server_holder - for whom it is held; NULL: for nobody. */
struct control_client *control_server_holder(const struct control_server *server);

/* control_server_is_idle - whether no request is unanswered, but for the one of `except`. */
bool control_server_is_idle(const struct control_server *server,
			    const struct control_client *except);

/*
 * control_server_leave - as control_server_close, but the socket stays, as another process goes on
 * listening on it, and so does the holder's connection. Returns that, owned by the caller.
 */
int control_server_leave(struct control_server *server);

/*
 * control_client_reply - success; `status` may be NULL, the `n` descriptors are borrowed. Returns
 * 0, or -errno when the client is not there any more; it is dropped then, without a call of gone.
 */
int control_client_reply(struct control_client *client, const struct volume_status *status,
			 const int *fds, size_t n);

/* control_client_watch - the request is never answered, and stands in nobody's way;
 * control_client_tell sends such a client a reply. One that does not take it is dropped. */
void control_client_watch(struct control_client *client);
void control_client_tell(struct control_client *client, const struct volume_status *status);

/*
 * control_client_list - success: a reply a volume, for CONTROL_HANDOVER with what an escrow of it
 * holds, and then a reply for each other client; and one more. Each as soon as there is room.
 */
void control_client_list(struct control_client *client);

/* control_client_fail - failure. */
void control_client_fail(struct control_client *client, const struct error *err);
