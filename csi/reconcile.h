/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What to do about what a killed predecessor left: decided from the records, the keeper's volumes
 * and the mounts, without touching any of them. The rule is never to break a mount that a pod may
 * be using: only what is half done, or used by nobody, goes.
 */

#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"
#include "recovery/control.h"
#include "recovery/record.h"

struct reconcile_mount {
	dev_t dev;
	char *target;
	const char *volume; /* that it was made for; NULL for all mounts that are not ours */
	bool below_root;    /* it lies where kubelet has volumes mounted */
};

struct reconcile_input { /* all borrowed */
	struct record *const *records;
	size_t n_records;
	const struct volume_status *volumes; /* the keeper's */
	size_t n_volumes;
	const struct reconcile_mount *mounts; /* of this process's namespace */
	size_t n_mounts;
	/* whether the directory above a staging or target path is gone, and kubelet's pod with it */
	bool (*is_gone)(const void *context, const char *path);
	const void *context;
};

enum reconcile_kind {
	RECONCILE_END_VOLUME,  /* nobody can have a use for it: everything of `record` goes */
	RECONCILE_DROP_TARGET, /* as little for this target: `path` is cleared, `record` forgets it
				*/
	RECONCILE_UNMOUNT,     /* `path` shows a connection of volume `id` that nobody serves */
	RECONCILE_END_STRAY,   /* the keeper's volume `id` belongs to no record and is mounted
				  nowhere */
	RECONCILE_KEEP,	       /* nothing to do now, but worth a line in the log */
};

struct reconcile_step {
	enum reconcile_kind kind;
	struct record *record; /* NULL for what has none */
	const char *id, *path; /* borrowed from the input; path may be NULL */
	const char *why;       /* a literal */
};

/*
 * reconcile_plan - the steps, in the order in which to take them. *ret is an array of *ret_n, owned
 * by the caller (free(3)), that borrows from the input. Returns 0 or -ENOMEM with *err set.
 */
int __must_check reconcile_plan(const struct reconcile_input *input, struct reconcile_step **ret,
				size_t *ret_n, struct error *err);
