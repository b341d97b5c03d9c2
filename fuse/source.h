/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The source directory, and the file systems mounted below it: who a file is, and how it is found
 * again.
 *
 * A file is (device, inode number, file handle). The device is the index of a ledger record that
 * stands for one mount: two mounts of one superblock are two devices, because they may differ in
 * what is mounted below them and in being read-only. The file handle (name_to_handle_at(2)) tells
 * an inode number that was used again from the file that had it before, and opens the file again
 * after its descriptor was closed. Some file systems have none (overlayfs, FUSE), and some have
 * longer ones than a record has room for: their files are found by name (node.h).
 *
 * Threads: devices are only ever added; a mutex covers adding.
 */

#include <sys/stat.h>

#include "base/error.h"
#include "base/macros.h"
#include "fuse/ledger.h"

struct source;

/* What source_identify finds out about an open file. */
struct source_identity {
	struct stat st;	 /* as the source says it */
	uint32_t dev;	 /* index of the ledger_dev */
	bool dev_is_new; /* recorded by this very call */
	struct ledger_file_handle handle;
};

/*
 * source_new - `root_fd` is the source directory (O_PATH will do; borrowed until source_free). A
 * ledger that has a device 0 already has to agree with it. Returns 0 or -errno with *err set;
 * -ENOSYS (ERROR_PRECONDITION) where /proc is not mounted, as files are reopened through it;
 * -ESTALE (ERROR_PRECONDITION) where root_fd is not the directory that the ledger was made for.
 */
int __must_check source_new(struct ledger *ledger, int root_fd, struct source **ret,
			    struct error *err);
void source_free(struct source *source);
DEFINE_CLEANUP(struct source *, source_free);
#define _cleanup_source_ _cleanup_(source_free_cleanup)

/* source_has_handles - whether files of the source's own file system have file handles. */
bool source_has_handles(const struct source *source);

/* source_root - the source directory, open for reading; borrowed. */
int source_root(const struct source *source);

/*
 * source_identify - who the file open as `fd` (O_PATH will do) is. `parent` and `name` say where it
 * was found: should it be the root of a mount that is not known yet, the device is recorded with
 * them. Returns 0 or -errno; -ENFILE when there are too many devices.
 */
int __must_check source_identify(struct source *source, int fd, uint64_t parent, const char *name,
				 struct source_identity *ret);

/*
 * source_open_handle - open the file that `handle` names on device `dev`. `flags` as for open(2),
 * O_CLOEXEC is added. Returns an owned descriptor or -errno: -ESTALE when the file is gone,
 * -ENODEV when no descriptor of the device is there yet (after a takeover, see source_adopt).
 */
int __must_check source_open_handle(struct source *source, uint32_t dev,
				    const struct ledger_file_handle *handle, int flags);

/*
 * source_dev_place - where the root of device `dev` was found: the directory's node id, and its
 * name in it. Returns 0 or -ENODEV when there is no such record.
 */
int __must_check source_dev_place(struct source *source, uint32_t dev, uint64_t *ret_parent,
				  char ret_name[LEDGER_NAME_MAX + 1]);

/*
 * source_adopt - `fd` (borrowed) was found where source_dev_place said; if it lies on the recorded
 * file system, device `dev` is usable from now on. Returns 0, -ESTALE if it does not, or -errno.
 */
int __must_check source_adopt(struct source *source, uint32_t dev, int fd);

/*
 * source_is - whether `fd` is open on inode `ino` of device `dev`. For files that were found by
 * name again.
 */
bool source_is(struct source *source, int fd, uint32_t dev, uint64_t ino);

/*
 * source_shown_ino - the inode number that the volume shows: the source's own for device 0, with
 * the device mixed into the upper bits for the others, as all share one st_dev.
 */
static inline uint64_t source_shown_ino(uint32_t dev, uint64_t ino)
{
	return ino ^ (uint64_t)dev << 56;
}

/*
 * source_reopen - open the file that `fd` is open on (O_PATH will do) once more, with `flags` of
 * open(2); never a symbolic link. Returns an owned descriptor or -errno.
 */
int __must_check source_reopen(int fd, int flags);
