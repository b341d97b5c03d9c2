/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Places where a worker may be made to die, for the tests of takeover: crash.c in builds with
 * -Dcrash_points=true, crash_none.c in all others.
 *
 * The file that HOLDFAST_CRASH_FILE names says where, "POINT OPCODE" or "POINT OPCODE HOW" a line,
 * OPCODE as a number or "*". Only its first line counts: the thread that comes to that point with
 * such a request takes the line out (the file is replaced, and goes with its last line) and then
 * does what HOW says: "kill" sends SIGKILL to the process, which is the default, "abort" calls
 * abort(3), and "stop" stops the process until somebody sends SIGCONT.
 *
 * Points: after-read, after-intent, after-call, after-result, in-record, before-reply, after-reply.
 */

/* crash_point - die here, if that is wanted. */
void crash_point(const char *point);
