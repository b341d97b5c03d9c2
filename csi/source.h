/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A volume's source directory: only what the operator allowed, and only while nobody swaps it. */

#include "base/error.h"
#include "base/macros.h"
#include "base/strv.h"

/*
 * source_open - a private clone of the mount tree at the directory `path`. `allowed` are the
 * prefixes below which sources may lie (normalized); no symbolic link is followed below a prefix.
 * *ret_fd, owned by the caller, is the clone's root (O_PATH): it may be sent to a process in any
 * mount namespace and stays valid whatever is unmounted here. What is mounted below the source
 * later is not in it. Returns 0 or -errno with *err set: not allowed, a symbolic link in the way or
 * no directory (ERROR_INVALID), not there (ERROR_NOT_FOUND), no CAP_SYS_ADMIN (ERROR_PRECONDITION).
 */
int __must_check source_open(const struct strv *allowed, const char *path, int *ret_fd,
			     struct error *err);
