/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The command line of holdfast-csi, checked. */

#include "base/error.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/options.h"

struct config {
	/* as given; strings are borrowed from argv or the environment */
	const char *endpoint, *run_dir, *node_id, *driver_name, *registration_socket, *kubelet_root;
	const char *log_level;
	struct strv topology, allow_source;
	bool check_health;
	/* made by config_check */
	const char *endpoint_path;
	const char *registration_path; /* NULL: no registration socket */
	enum log_level level;
};

/* config_read - fill *ret from the environment and the command line (options_parse: --help and a
 * wrong command line end the process). */
void config_read(struct config *ret, int argc, char **argv);

/*
 * config_check - check every value, take slashes off the ends of allow_source's and fill the rest
 * of *config. With check_health only the endpoint counts. Returns 0 or -EINVAL with *err set, which
 * names the flag.
 */
int __must_check config_check(struct config *config, struct error *err);

void config_clear(struct config *config);
#define _cleanup_config_ _cleanup_(config_clear)

/*
 * config_check_driver_name - the CSI spec's rule for plugin names (GetPluginInfoResponse.name) and
 * Kubernetes' for CSIDriver objects together: at most 63 characters, names of letters, digits and
 * dashes between dots. Returns 0 or -EINVAL with *err set.
 */
int __must_check config_check_driver_name(const char *name, struct error *err);

/*
 * config_check_topology - "KEY=VALUE" as the CSI spec (Topology.segments) and Kubernetes' node
 * labels allow it. Returns 0 or -EINVAL with *err set.
 */
int __must_check config_check_topology(const char *text, struct error *err);
