/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * System calls that must not run twice, made once, however often a worker dies over them. Each
 * looks at the state before, writes down that and that it begins, makes the call, and writes down
 * what came of it (inbox.h: BEGIN, CALL, RESULT). A successor that finds a result gives it again;
 * one that finds that it was begun compares: nobody else changes these names through the volume
 * meanwhile, as the kernel holds the directory's lock until the request is answered (fs/namei.c).
 * Reads, and changes that lead to the same state when they are made again (WRITE at an offset,
 * SETATTR, FALLOCATE), do not come here: they are only ever made again before they were answered.
 *
 * This is what Re-FUSE (Sundararaman et al., EuroSys 2011) did inside the kernel.
 *
 * All work on the request of the calling thread (inbox_current); without one the call is just made.
 */

#include <sys/stat.h>
#include <sys/types.h>

#include "base/macros.h"

/*
 * once_make - make `name` in a directory: `make` calls mkdirat(2) or the like and returns what it
 * is to return, a descriptor, 0, or -errno. `found` is called instead when an earlier worker has
 * made it already, and may be NULL. Returns what they returned, or -EEXIST.
 */
struct once_making {
	int dir_fd;
	const char *name;
	mode_t type;  /* S_IFMT */
	uint64_t ino; /* of the file that is linked to; 0: a new one is made */
	int (*make)(void *context);
	int (*found)(void *context);
	void *context;
};
int __must_check once_make(const struct once_making *what);

/* once_remove - unlinkat(2). Returns 0 or -errno. */
int __must_check once_remove(int dir_fd, const char *name, int flags);

/* once_rename - renameat2(2) by `rename`, which returns 0 or -errno. Returns the same. */
struct once_renaming {
	int from_fd, to_fd;
	const char *name, *new_name;
	unsigned int flags;
	int (*rename)(void *context);
	void *context;
};
int __must_check once_rename(const struct once_renaming *what);

/*
 * once_append - add `size` bytes to the end of a file. `fd` is open for writing; one that can be
 * read is opened where a successor has to compare. Returns how many were added, or -errno.
 */
ssize_t __must_check once_append(int fd, const void *buf, size_t size);

/* once_setxattr, once_removexattr - setxattr(2) and removexattr(2). Return 0 or -errno. */
int __must_check once_setxattr(const char *path, const char *name, const void *value, size_t size,
			       int flags);
int __must_check once_removexattr(const char *path, const char *name);
