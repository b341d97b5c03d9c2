/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Paths that somebody else may swap while we look: a path is checked and opened in one step, and
 * from then on only the descriptor counts. No symbolic link is followed below the root, no magic
 * link, and nothing leads out of it (openat2(2): RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
 * RESOLVE_NO_MAGICLINKS). Opening with O_PATH asks nothing of a FUSE server, so a dead or hung
 * mount at the end of the path does not block.
 */

#include "base/error.h"
#include "base/macros.h"

/*
 * path_open_at - openat2(2) with `flags` (O_CLOEXEC is added) and `resolve` (RESOLVE_*), which no
 * symbolic and no magic link passes. Repeated while a rename races with the walk, or with
 * RESOLVE_CACHED a mount. Returns a descriptor, owned by the caller, or -errno.
 */
int __must_check path_open_at(int dir_fd, const char *path, int flags, uint64_t resolve);

/*
 * path_check - whether `path` is absolute, normalized (no "." or "..", no "//", no slash at the
 * end), at most PATH_MAX - 1 bytes and free of control characters. `what` names the field in the
 * error ("target_path"). Returns 0 or -EINVAL with *err set (ERROR_INVALID).
 */
int __must_check path_check(const char *what, const char *path, struct error *err);

/* path_strip_slashes - take the slashes off the end of `path`, but for the one of "/". */
void path_strip_slashes(char *path);

/*
 * path_is_beneath - whether `path` is `root` or lies below it, by name only; both normalized. "/"
 * holds everything.
 */
bool path_is_beneath(const char *root, const char *path);

/*
 * path_open_beneath - open `path`, which has to lie below `root` by name, with `flags` (open(2);
 * O_CLOEXEC is added). `root` itself may be or contain a symbolic link (the operator chose it);
 * nothing below it may. *ret_fd is owned by the caller. Returns 0 or -errno with *err set: -ENOENT
 * (ERROR_NOT_FOUND), -ELOOP or -EXDEV when a symbolic link is in the way (ERROR_INVALID), -ENOTDIR
 * (ERROR_INVALID).
 */
int __must_check path_open_beneath(const char *root, const char *path, int flags, int *ret_fd,
				   struct error *err);

/*
 * path_open_parent - open the directory that holds `path` (O_PATH), as path_open_beneath does.
 * *ret_name points into `path`, behind its last slash. Returns 0 or -errno with *err set.
 */
int __must_check path_open_parent(const char *root, const char *path, int *ret_fd,
				  const char **ret_name, struct error *err);

/*
 * path_make_dir - make the directory `path` (mode 0750) below `root` unless it is there, and open
 * it (O_PATH). Its parent has to exist. *ret_created says whether it was made here. Returns 0 or
 * -errno with *err set; what is there and is no directory gives -ENOTDIR (ERROR_INVALID).
 */
int __must_check path_make_dir(const char *root, const char *path, bool *ret_created, int *ret_fd,
			       struct error *err);

/*
 * path_remove_dir - remove the empty directory `path` below `root`. Nothing is followed and nothing
 * but this one empty directory is removed. A path or a parent that is not there counts as success.
 * Returns 0 or -errno with *err set; -ENOTEMPTY and -EBUSY mean that something is still in or on
 * it.
 */
int __must_check path_remove_dir(const char *root, const char *path, struct error *err);
