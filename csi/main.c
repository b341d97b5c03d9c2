/* SPDX-License-Identifier: Apache-2.0 */

/*
 * holdfast-csi. The order matters: signals are blocked and sockets bound before the first thread
 * starts, and the sockets are gone before the last call is waited for.
 */

#include <signal.h>
#include <stdio.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/version.h"
#include "csi/config.h"
#include "csi/daemon.h"
#include "csi/health.h"
#include "csi/health_client.h"
#include "csi/identity.h"
#include "csi/node.h"
#include "csi/registration.h"
#include "recovery/run_dir.h"

#define USAGE_EXIT 2
#define HANDLER_THREADS 16
#define MAX_CALLS 256
#define CHECK_TIMEOUT_MS 2000
/* Together less than the 30 s that kubelet gives a pod to end. */
#define DRAIN_MS 25000
#define CANCEL_MS 2000
#define LOCK_PATIENCE_MS 1000
#define LOCK_AGAIN_US 100000

static int check_health(const struct config *config)
{
	struct error err = ERROR_INIT;

	if (health_ask(config->endpoint_path, CHECK_TIMEOUT_MS, &err) == 0)
		return EXIT_SUCCESS;
	(void)fprintf(stderr, "holdfast-csi: %s: %s\n", config->endpoint_path, err.text);
	return EXIT_FAILURE;
}

/* Does not return when handlers hang: their threads can't be ended, and what they use can't be
 * freed. */
static void stop(struct server *server, int code)
{
	notify_stopping();
	if (server_stop(server, DRAIN_MS, CANCEL_MS))
		return;
	log_warning("calls are still running %d s after they were cancelled: leaving them",
		    CANCEL_MS / 1000);
	_exit(code);
}

static int listen_all(struct daemon *daemon, const struct config *config, struct error *err)
{
	int r = daemon_listen(daemon, config->endpoint_path, err);

	if (r == 0 && config->registration_path)
		r = daemon_listen(daemon, config->registration_path, err);
	return r;
}

/* The server's threads end before what their handlers use. */
static int serve(const struct config *config, struct daemon *daemon, struct node_service *node,
		 int *ret_exit, struct error *err)
{
	struct identity identity = { config->driver_name, config->topology.n > 0 };
	struct registration registration = { config->driver_name, config->endpoint_path,
					     daemon_quit_fd(daemon) };
	const struct service services[] = {
		identity_service(&identity),
		registration_service(&registration),
		health_service(),
		node_service_methods(node),
	};
	const struct server_config server_config = {
		.services = services,
		.n_services = ARRAY_SIZE(services),
		.n_threads = HANDLER_THREADS,
		.max_calls = MAX_CALLS,
		.tick_ms = notify_watchdog_interval_ms(),
	};
	_cleanup_server_ struct server *server = NULL;
	int r = server_new(&server_config, &server, err);

	if (r < 0)
		return r;
	log_notice("%s %s serves on %s", config->driver_name, HOLDFAST_VERSION,
		   config->endpoint_path);
	notify_ready("serving");
	*ret_exit = daemon_run(daemon, server);
	stop(server, *ret_exit);
	return 0;
}

/*
 * A plugin that serves here ends soon where the pod is being replaced: its node's volumes are not
 * left to nobody meanwhile. A signal ends the wait.
 */
static int wait_for_run_dir(const struct config *config, int *ret_fd, struct error *err)
{
	int r = run_dir_lock(config->run_dir, "plugin", LOCK_PATIENCE_MS, ret_fd, err);

	if (r != -EADDRINUSE)
		return r;
	log_warning("%s; waiting until it ends", err->text);
	while (r == -EADDRINUSE) {
		(void)usleep(LOCK_AGAIN_US);
		r = run_dir_lock(config->run_dir, "plugin", 0, ret_fd, err);
	}
	return r;
}

/* Only who holds the run directory may bind the sockets and touch volumes: so it comes before them,
 * and before the node service, which undoes what a predecessor left. */
static int start(const struct config *config, int *ret_exit, struct error *err)
{
	const struct node_config node_config = {
		.run_dir = config->run_dir,
		.node_id = config->node_id,
		.kubelet_root = config->kubelet_root,
		.topology = &config->topology,
		.allow_source = &config->allow_source,
	};
	_cleanup_close_ int lock_fd = -EBADF;
	_cleanup_(node_service_free_cleanup) struct node_service *node = NULL;
	_cleanup_daemon_ struct daemon *daemon = NULL;
	int r = wait_for_run_dir(config, &lock_fd, err);

	if (r == 0)
		r = daemon_new(&daemon, err);
	if (r == 0)
		r = listen_all(daemon, config, err);
	if (r == 0)
		r = node_service_new(&node_config, &node, err);
	if (r == 0)
		r = serve(config, daemon, node, ret_exit, err);
	return r;
}

static int run(const struct config *config)
{
	struct error err = ERROR_INIT;
	int code = EXIT_FAILURE, r;

	log_open("holdfast-csi", config->level);
	(void)fd_raise_limit(&r); /* for the escrow: four a volume */
	if (r < 0)
		(void)log_warning_errno(r, "the limit of open files stays low");
	if (start(config, &code, &err) < 0)
		log_error("%s", err.text);
	else
		log_notice("ended");
	return code;
}

int main(int argc, char **argv)
{
	_cleanup_config_ struct config config;
	struct error err = ERROR_INIT;

	fd_fill_stdio();
	config_read(&config, argc, argv);
	if (config_check(&config, &err) < 0) {
		(void)fprintf(stderr, "holdfast-csi: %s\nTry 'holdfast-csi --help'.\n", err.text);
		return USAGE_EXIT;
	}
	return config.check_health ? check_health(&config) : run(&config);
}
