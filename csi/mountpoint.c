/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/mountpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "mount/mountinfo.h"
#include "mount/path.h"
#include "mount/tree.h"

#define LAYERS_MAX 256 /* more are not ours, whatever they are */

/* Whether a mount whose superblock we do not know was made for this volume: mountinfo says so. */
static int state_by_mountinfo(const struct mountpoint *m, uint64_t mount_id, struct error *err)
{
	_cleanup_mount_table_ struct mount_table *table = NULL;
	int r = mount_table_load(&table, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < mount_table_size(table); i++) {
		const struct mount_entry *e = mount_table_get(table, i);
		const char *volume = mount_fuse_volume(e->fstype, e->source);

		if (e->id == mount_id && volume && strcmp(volume, m->volume_id) == 0)
			return MOUNTPOINT_STALE;
	}
	return MOUNTPOINT_FOREIGN;
}

static int state_of(const struct mountpoint *m, int fd, struct error *err)
{
	uint64_t mount_id;
	bool is_root;
	dev_t dev;
	int r = mount_identify(fd, &dev, &mount_id, &is_root);

	if (r < 0)
		return error_errno(err, r, "statx %s", m->path);
	if (!is_root)
		return MOUNTPOINT_PLAIN;
	if (m->dev != 0 && dev == m->dev)
		return MOUNTPOINT_OURS;
	return state_by_mountinfo(m, mount_id, err);
}

int mountpoint_look(const struct mountpoint *m, int *ret_fd, struct error *err)
{
	_cleanup_close_ int fd = -EBADF;
	struct error open_err = ERROR_INIT;
	int r = path_open_beneath(m->root, m->path, O_PATH | O_DIRECTORY, &fd, &open_err);

	if (r == -ENOENT) {
		if (ret_fd)
			*ret_fd = -EBADF;
		return MOUNTPOINT_MISSING;
	}
	if (r < 0)
		return error_set(err, open_err.kind, r, "%s", open_err.text);
	r = state_of(m, fd, err);
	if (r >= 0 && ret_fd)
		*ret_fd = TAKE_FD(fd);
	return r;
}

int mountpoint_clear(const struct mountpoint *m, struct error *err)
{
	for (int layers = 0; layers < LAYERS_MAX; layers++) {
		_cleanup_close_ int fd = -EBADF;
		int state = mountpoint_look(m, &fd, err);
		int r;

		if (state != MOUNTPOINT_OURS && state != MOUNTPOINT_STALE)
			return state;
		r = mount_detach_fd(fd, err);
		if (r < 0 && r != -EINVAL) /* somebody else has just unmounted it */
			return error_prefix(err, "%s", m->path);
	}
	return error_set(err, ERROR_PRECONDITION, -EBUSY,
			 "%s has more than %d mounts stacked on it: unmount them by hand", m->path,
			 LAYERS_MAX);
}

/* `dir_fd` has nothing mounted on it: reading it asks only the file system of kubelet's root. */
static int check_empty(const struct mountpoint *m, int dir_fd, struct error *err)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool empty = true;
	struct dirent *d;
	DIR *dir;

	if (fd < 0)
		return error_errno(err, -errno, "open %s", m->path);
	dir = fdopendir(fd);
	if (!dir) {
		int r = -errno;

		(void)close(fd);
		return error_errno(err, r, "open %s", m->path);
	}
	while (empty && (d = readdir(dir)))
		empty = strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0;
	(void)closedir(dir);
	if (!empty)
		return error_set(err, ERROR_PRECONDITION, -ENOTEMPTY,
				 "%s is not empty, and a mount would hide what is in it: move that "
				 "away first",
				 m->path);
	return 0;
}

static int open_dir(const struct mountpoint *m, bool make, bool *ret_created, int *ret_fd,
		    struct error *err)
{
	struct error open_err = ERROR_INIT;
	int r;

	*ret_created = false;
	r = make ? path_make_dir(m->root, m->path, ret_created, ret_fd, &open_err)
		 : path_open_beneath(m->root, m->path, O_PATH | O_DIRECTORY, ret_fd, &open_err);
	if (r == -ENOENT)
		return error_set(err, ERROR_INVALID, r,
				 "%s does not exist: kubelet makes it first%s", m->path,
				 make ? ", or its parent" : "");
	if (r < 0)
		return error_set(err, open_err.kind, r, "%s", open_err.text);
	return 0;
}

int mountpoint_prepare(const struct mountpoint *m, bool make, bool *ret_created, int *ret_fd,
		       struct error *err)
{
	_cleanup_close_ int fd = -EBADF;
	bool created = false;
	int r;

	r = mountpoint_clear(m, err);
	if (r < 0)
		return r;
	r = open_dir(m, make, &created, &fd, err);
	if (r < 0)
		return r;
	r = state_of(m, fd, err);
	if (r >= 0 && r != MOUNTPOINT_PLAIN)
		r = error_set(err, ERROR_PRECONDITION, -EBUSY,
			      "%s has something else mounted on it: unmount that first", m->path);
	if (r >= 0)
		r = check_empty(m, fd, err);
	if (r < 0 && created && path_remove_dir(m->root, m->path, NULL) < 0)
		log_warning("%s was made and can't be removed", m->path);
	if (r < 0)
		return r;
	*ret_created = created;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Whether the path leads to the mount `mount_fd`, and to nothing on top of it. */
static int check_attached(const struct mountpoint *m, int mount_fd, struct error *err)
{
	_cleanup_close_ int fd = -EBADF;
	uint64_t wanted = 0, found = 0;
	bool is_root;
	dev_t dev;
	int r = mountpoint_look(m, &fd, err);

	if (r < 0)
		return r;
	if (fd >= 0) {
		r = mount_identify(mount_fd, &dev, &wanted, &is_root);
		if (r >= 0)
			r = mount_identify(fd, &dev, &found, &is_root);
		if (r < 0)
			return error_errno(err, r, "statx %s", m->path);
	}
	if (fd < 0 || wanted != found)
		return error_set(err, ERROR_INVALID, -ESTALE,
				 "%s was replaced during the call: something else than kubelet "
				 "works there",
				 m->path);
	return 0;
}

int mountpoint_attach(const struct mountpoint *m, int mount_fd, int dir_fd, uint64_t flags,
		      struct error *err)
{
	struct error undo = ERROR_INIT;
	int r = mount_set_attr(mount_fd, flags | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
			       MOUNT_ATTR_ALL & ~(uint64_t)MOUNT_ATTR_NOSYMFOLLOW, 0, err);

	if (r >= 0)
		r = mount_attach(mount_fd, dir_fd, err);
	if (r == -EPERM)
		return error_set(err, ERROR_PRECONDITION, r,
				 "holdfast-csi may not mount: run it as root with CAP_SYS_ADMIN");
	if (r < 0)
		return error_prefix(err, "%s", m->path);
	r = check_attached(m, mount_fd, err);
	if (r < 0 && mount_detach_fd(mount_fd, &undo) < 0)
		log_error("%s was swapped, and its mount stays: %s", m->path, undo.text);
	return r;
}

/* One mount that mountinfo shows: it is opened again, and unmounted if it still is the one. */
static int clear_entry(const struct mountpoint *m, const char *root, const struct mount_entry *e,
		       struct error *err)
{
	_cleanup_close_ int fd = -EBADF;
	uint64_t mount_id;
	bool is_root;
	dev_t dev;
	int r;

	if (e->dev != m->dev || !mount_fuse_volume(e->fstype, e->source) ||
	    !path_is_beneath(root, e->target))
		return 0;
	r = path_open_beneath(root, e->target, O_PATH | O_DIRECTORY, &fd, err);
	if (r == -ENOENT)
		return 0;
	if (r >= 0 && mount_identify(fd, &dev, &mount_id, &is_root) >= 0 && mount_id == e->id)
		r = mount_detach_fd(fd, err);
	return r == -EINVAL ? 0 : r; /* somebody else has just unmounted it */
}

int mountpoint_clear_all(const struct mountpoint *m,
			 bool (*spare)(const void *context, const char *path), const void *context,
			 struct error *err)
{
	_cleanup_mount_table_ struct mount_table *table = NULL;
	_cleanup_free_ char *root = realpath(m->root, NULL); /* as mountinfo shows it */
	int r = m->dev == 0 || !root ? 0 : mount_table_load(&table, err);

	if (r < 0 || !table)
		return r;
	for (size_t i = mount_table_size(table); i > 0; i--) {
		const struct mount_entry *e = mount_table_get(table, i - 1);

		if (spare && path_is_beneath(root, e->target) &&
		    spare(context, e->target + strlen(root)))
			continue;
		r = clear_entry(m, root, e, err);
		if (r < 0)
			return r;
	}
	return 0;
}
