/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What `holdfastctl status` shows: the volumes of the node as the plugin's records and the keeper
 * see them, matched by id. A volume that only one of the two knows is shown, and said to be so.
 */

#include <stdio.h>

#include "base/error.h"
#include "base/macros.h"
#include "recovery/control.h"
#include "recovery/record.h"

struct ctl_volume {
	const char *id;
	const struct record *record;	    /* NULL: the plugin has none */
	const struct volume_status *status; /* NULL: the keeper does not serve it */
};

/*
 * ctl_merge - *ret, owned by the caller (free(3)), is sorted by id and points into the arrays.
 * Returns 0 or -errno with *err set.
 */
int __must_check ctl_merge(struct record *const *records, size_t n_records,
			   const struct volume_status *statuses, size_t n_statuses,
			   struct ctl_volume **ret, size_t *ret_n, struct error *err);

/* ctl_state - "starting", "serving", "restarting", "dead"; "not served" without the keeper. */
const char *ctl_state(const struct ctl_volume *volume);

/*
 * ctl_print_json - {"volumes":[{"id","source","state","readOnly","workerPid","restarts","targets",
 * "connection","waiting","oomKills","memoryLimit",...}]}; null where the side that would know does
 * not know the volume. Returns 0 or -errno with *err set.
 */
int __must_check ctl_print_json(FILE *out, const struct ctl_volume *volumes, size_t n,
				struct error *err);

/* ctl_print_table - for people; control characters are shown as '?'. */
void ctl_print_table(FILE *out, const struct ctl_volume *volumes, size_t n);
