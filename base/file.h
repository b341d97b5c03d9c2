/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Small files in a directory that only we write: replaced atomically, read whole, with a limit. */

#include "base/error.h"
#include "base/macros.h"

/*
 * file_replace - write `size` bytes to `name` in the directory `dir_fd`, mode 0600: a reader sees
 * the old content or the new one, never a part (a temporary name, fsync, rename(2)). Nothing is
 * left behind on failure. Returns 0 or -errno with *err set.
 */
int __must_check file_replace(int dir_fd, const char *name, const void *data, size_t size,
			      struct error *err);

/*
 * file_load - read a regular file of at most `max` bytes; no symbolic link is followed. *ret is
 * owned by the caller and ends in a NUL that *ret_size does not count. Returns 0 or -errno with
 * *err set: -ENOENT, -EFBIG when it is longer than max.
 */
int __must_check file_load(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_size,
			   struct error *err);
