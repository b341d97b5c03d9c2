/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Control groups, as far as a process has to know that makes some below its own: where its own is,
 * and the small files of theirs. Nothing is assumed of where the hierarchies are mounted: the
 * process's /proc/self/cgroup and mountinfo say so (cgroups(7)).
 */

#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"
#include "mount/mountinfo.h"

#define CGROUP_PATH_MAX 4096
#define CGROUP_TEXT_MAX 4096 /* more than any file of ours that is not a list of processes */

/*
 * cgroup_own_path - from the text of /proc/self/cgroup, the process's path in the version 1
 * hierarchy that has `controller`, in that of version 2 if it is NULL. Returns 0, -ENOENT if there
 * is none, -ENAMETOOLONG.
 */
int __must_check cgroup_own_path(const char *text, const char *controller,
				 char ret[CGROUP_PATH_MAX]);

/*
 * cgroup_below_mount - where the cgroup `own` lies below the mount point of a mount of that
 * hierarchy, which may show a part only: a relative path, "" for the mount point itself, NULL if it
 * can't be reached (outside of the mount or of the cgroup namespace). Points into `own`.
 */
const char *cgroup_below_mount(const struct mount_entry *mount, const char *own);

/* cgroup_is_hierarchy - whether `mount` is of the hierarchy that has `controller` (version 1), of
 * version 2 if it is NULL. */
bool cgroup_is_hierarchy(const struct mount_entry *mount, const char *controller);

/*
 * cgroup_open_own - the directory of this process's cgroup, as an owned descriptor. Returns 0 or
 * -errno with *err set (-ENOENT: there is no such hierarchy, or it is not mounted where this
 * process sees it).
 */
int __must_check cgroup_open_own(const char *controller, int *ret_fd, struct error *err);

/* cgroup_has_word - whether `word` is one of those in `list`, which blanks or commas separate. */
bool cgroup_has_word(const char *list, const char *word);

/*
 * cgroup_parse_counter - the number behind "KEY " at the start of a line, or with `key` NULL the
 * number that is the first line. Returns 0 or -EBADMSG.
 */
int __must_check cgroup_parse_counter(const char *text, const char *key, uint64_t *ret);

/*
 * cgroup_read, cgroup_write - a small file of the cgroup `name` below `dir_fd` ("." for itself).
 * What is longer than CGROUP_TEXT_MAX is cut. Return 0 or -errno.
 */
int __must_check cgroup_read(int dir_fd, const char *name, const char *file,
			     char ret[CGROUP_TEXT_MAX]);
int __must_check cgroup_write(int dir_fd, const char *name, const char *file, const char *text);

/* cgroup_read_counter - cgroup_read, then cgroup_parse_counter. Returns 0 or -errno. */
int __must_check cgroup_read_counter(int dir_fd, const char *name, const char *file,
				     const char *key, uint64_t *ret);

/* cgroup_enter - move a process to the cgroup `name` below `dir_fd`. Returns 0 or -errno. */
int __must_check cgroup_enter(int dir_fd, const char *name, pid_t pid);

/*
 * cgroup_enable - let the cgroups below our own one `dir_fd` have `controller` (version 2). As a
 * cgroup with processes can't pass on controllers (the rule of no internal processes), we and our
 * children move to the cgroup `leaf` below it, which is made: but only if nobody else's process is
 * there. What a container runtime executes in our container later lands beside us: runc and crun do
 * so where the container's own cgroup refuses. Returns 0 or -errno with *err set; on failure we are
 * where we were.
 */
int __must_check cgroup_enable(int dir_fd, const char *controller, const char *leaf,
			       struct error *err);
