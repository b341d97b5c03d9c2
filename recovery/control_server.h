/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The keeper's end of the control socket: accepts, checks who is there and what arrives, hands over
 * whole requests, sends replies. It never waits for a client: a client that reads too slowly for
 * one reply is dropped, and a list is sent as fast as it is read. There is a fixed number of
 * clients; the next one takes the place of the one that has been idle for longest.
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
	bool listing;		       /* it is CONTROL_LIST */
	uint64_t cursor;	       /* listing: the last volume that was sent, see next_status */
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
	 * next_status - for CONTROL_LIST: the volume after *cursor, 0 being before the first.
	 * Returns whether there is one.
	 */
	bool (*next_status)(void *context, uint64_t *cursor, struct volume_status *ret);

	void *context;
};

/*
 * control_server_open - listen on `path`; `handler` is borrowed. *ret is owned by the caller.
 * Returns 0 or -errno with *err set.
 */
int __must_check control_server_open(struct loop *loop, const char *path, size_t max_clients,
				     const struct control_handler *handler,
				     struct control_server **ret, struct error *err);

/* control_server_close - drop all clients without a word and remove the socket. NULL is fine. */
void control_server_close(struct control_server *server);

/* control_server_clients - the first client; follow `next`. */
struct control_client *control_server_clients(struct control_server *server);

/*
 * control_client_reply - success; `status` may be NULL, the `n` descriptors are borrowed. Returns
 * 0, or -errno when the client is not there any more; it is dropped then, without a call of gone.
 */
int control_client_reply(struct control_client *client, const struct volume_status *status,
			 const int *fds, size_t n);

/* control_client_tell - one reply of several: the request stays unanswered. A client that does not
 * take it is dropped. */
void control_client_tell(struct control_client *client, const struct volume_status *status);

/* control_client_fail - failure. */
void control_client_fail(struct control_client *client, const struct error *err);
