/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How a volume is, in one place: from what is known to what an orchestrator is told. Pure, so that
 * volume_condition and whatever the specification puts in its place say the same.
 */

#include "base/macros.h"
#include "recovery/control.h"
#include "recovery/record.h"

/* What could be found out. */
struct volume_facts {
	const char *path;    /* where the volume was looked at */
	bool mounted;	     /* the volume's present superblock is mounted there */
	bool keeper_answers; /* else `status` says nothing */
	bool answers; /* the volume answered statfs in time; false also if it was not asked */
	struct volume_status status;
	struct record_healing healing;
};

enum volume_health_state {
	VOLUME_HEALTH_GOOD = 0,
	VOLUME_HEALTH_DEGRADED = 1,	/* it works, or will by itself in a moment */
	VOLUME_HEALTH_INACCESSIBLE = 2, /* applications get errors, or wait */
};

struct volume_health {
	enum volume_health_state state;
	char message[512];
};

/* volume_health_judge - fills *ret, the worst finding first. */
void volume_health_judge(const struct volume_facts *facts, struct volume_health *ret);
