/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * SIGHUP: the keeper executes its program file anew and stays the same process (handover.h). First
 * the file, as it is now, is started with --check-handover, as a child that asks this keeper for
 * all and gives up before the commit: one that can't go on with what there is, or is no program at
 * all, leaves the keeper as it is. What was checked is what is executed, by way of one descriptor.
 */

#include <limits.h>

#include "base/error.h"
#include "base/macros.h"
#include "recovery/keeper.h"
#include "recovery/loop.h"
#include "recovery/supervisor/child.h"

struct reexec {
	struct loop *loop;
	struct keeper *keeper;
	char *const *argv;
	char path[PATH_MAX]; /* of the program, as it was started: what is there later may be new */
	int fd;		     /* the program file that is being checked; -EBADF: none is */
	struct child check;
	struct loop_source exit;
	struct loop_timer limit; /* of the check */
	struct loop_timer retry; /* while somebody waits for an answer */
	uint64_t due_ns;	 /* no retry after that */
};

/*
 * reexec_init - to be called at start, before anybody replaces the program file; all is borrowed.
 */
void reexec_init(struct reexec *reexec, struct loop *loop, struct keeper *keeper,
		 char *const argv[]);

/* reexec_begin - check, then execute. All that goes wrong is logged. */
void reexec_begin(struct reexec *reexec);

/* reexec_done - give up a check that is under way. */
void reexec_done(struct reexec *reexec);
