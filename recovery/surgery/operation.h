/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* All stale mounts of some volumes, in all namespaces, are exchanged: plan, do, look again. */

#include "base/error.h"
#include "base/macros.h"
#include "recovery/nsmount.h"

struct operation {
	struct nsmount_request *request; /* superblocks that turn out to be others' are taken out */
	int *mount_fds; /* of each volume; moved to this process's own namespace, and closed */
	int proc_fd;
	void (*report)(const struct nsmount_report *report);
	struct plan_counts *counts; /* of each volume, filled in */
};

/*
 * operation_run - moves to a mount namespace of its own, and back there in the end. What fails in
 * one place is reported and does not keep the others from being done. Returns 0 or -errno with *err
 * set when nothing could be done.
 */
int __must_check operation_run(struct operation *operation, struct error *err);
