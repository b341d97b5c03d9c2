/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A gRPC server for unary methods, on the C core of libgrpc (grpc/grpc.h). It serves connections
 * that somebody else has accepted, so that who may connect, and when no one may any more, is
 * decided outside.
 *
 * From server_new on the process has threads that are not ours: no fork without exec, no setns(2),
 * chdir(2), umask(2).
 */

#include "csi/method.h"

struct server_config {
	const struct service *services; /* borrowed for the server's life */
	size_t n_services;
	size_t n_threads; /* that run handlers */
	size_t max_calls; /* being handled or waiting for a thread; more are refused with
			     RESOURCE_EXHAUSTED */
	uint64_t tick_ms; /* how often server_heartbeat_ns moves at least; 0: no need */
};

struct server;

/* server_new - start to serve. *ret is owned by the caller. Returns 0 or -errno with *err set. */
int __must_check server_new(const struct server_config *config, struct server **ret,
			    struct error *err);

/* server_add_connection - serve what comes in on the connected, non-blocking socket `fd`, which the
 * server owns from now on. */
void server_add_connection(struct server *server, int fd);

/* server_heartbeat_ns - when the server's own thread last went round (CLOCK_MONOTONIC). */
uint64_t server_heartbeat_ns(struct server *server);

/*
 * server_stop - take no more calls, and wait at most `drain_ms` for those that run; then cancel
 * them and wait `cancel_ms` more. Returns whether all have ended. If they have not, their handlers
 * hang: the process can only _exit(2).
 */
bool server_stop(struct server *server, uint64_t drain_ms, uint64_t cancel_ms);

/* server_free - end the server. Only before server_add_connection, or after server_stop has
 * returned true. NULL is fine. */
void server_free(struct server *server);
DEFINE_CLEANUP(struct server *, server_free);
#define _cleanup_server_ _cleanup_(server_free_cleanup)
