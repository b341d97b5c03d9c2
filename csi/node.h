/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The CSI Node service: the calls by which kubelet brings volumes to pods and takes them away. */

#include "base/error.h"
#include "base/macros.h"
#include "base/strv.h"
#include "csi/method.h"

struct node_config { /* checked (csi/config.h), and borrowed for as long as the service lives */
	const char *run_dir; /* records, and the keeper's socket */
	const char *node_id;
	const char *kubelet_root;	 /* staging and target paths lie below it */
	const struct strv *topology;	 /* "KEY=VALUE" each */
	const struct strv *allow_source; /* prefixes below which sources may lie */
};

struct node_service;

/*
 * node_service_new - open the records, and undo what a killed predecessor left half done. Without a
 * keeper it starts all the same, and catches up once there is one. *ret is owned by the caller.
 * Returns 0 or -errno with *err set: a run directory that can't be used.
 */
int __must_check node_service_new(const struct node_config *config, struct node_service **ret,
				  struct error *err);

/* node_service_free - once no handler runs any more. Volumes stay. NULL is fine. */
void node_service_free(struct node_service *service);
DEFINE_CLEANUP(struct node_service *, node_service_free);

/* node_service_methods - the methods of csi.v1.Node, for the server. */
struct service node_service_methods(struct node_service *service);
