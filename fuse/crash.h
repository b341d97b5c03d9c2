/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Places where a worker may be made to die, for the tests of takeover: crash.c in builds with
 * -Dcrash_points=true, crash_none.c in all others.
 *
 * The file that HOLDFAST_CRASH_FILE names says where: "POINT OPCODE", one line, OPCODE as a number
 * or
 * "*". The first thread that comes to that point with such a request removes the file and kills the
 * process with SIGKILL.
 *
 * Points: after-read, after-intent, after-call, after-result, after-reply, in-record.
 */

/* crash_point - die here, if that is wanted. */
void crash_point(const char *point);
