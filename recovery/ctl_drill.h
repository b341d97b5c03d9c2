/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What an operator does to a worker by hand: replace it, kill it, and try out what applications see
 * of that (`holdfastctl restart`, `kill` and `drill`).
 */

#include <stdio.h>

#include "base/error.h"
#include "base/macros.h"

/*
 * ctl_replace - have the keeper replace the volume's worker by one of the program file as it is now
 * (`planned`) or kill it, and wait until the next one serves. Says so on `out`. Returns 0 or -errno
 * with *err set.
 */
int __must_check ctl_replace(const char *run_dir, const char *id, bool planned, FILE *out,
			     struct error *err);

/*
 * ctl_drill - kill the volume's worker `kills` times while a canary reads: calls that go to the
 * worker (statx(2) of the root) and, where there is a file in the root directory, open, read and
 * close of it. Prints how many calls failed and how long they took. Returns 0, -EIO
 * (ERROR_INTERNAL) when a call failed, or -errno with *err set.
 */
int __must_check ctl_drill(const char *run_dir, const char *id, uint32_t kills, FILE *out,
			   struct error *err);
