/* SPDX-License-Identifier: Apache-2.0 */
#include "mount/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/fd.h"

#define SUBTYPE "holdfast"
#define SOURCE_PREFIX "holdfast:" /* and the volume's id */

#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

/* What a filesystem context says about a failure: the last line of its message log (fsopen(2)). */
static void read_context_message(int fs_fd, char *buf, size_t size)
{
	ssize_t n = read(fs_fd, buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
}

static int context_error(int fs_fd, const char *step, const char *key, struct error *err)
{
	int code = -errno;
	char message[256];

	read_context_message(fs_fd, message, sizeof(message));
	return error_errno(err, code, "%s fuse %s%s%s", step, key, *message ? ": " : "", message);
}

static int set_string(int fs_fd, const char *key, const char *value, struct error *err)
{
	if (fsconfig(fs_fd, FSCONFIG_SET_STRING, key, value, 0) < 0)
		return context_error(fs_fd, "fsconfig", key, err);
	return 0;
}

static int set_number(int fs_fd, const char *key, unsigned int value, struct error *err)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%u", value);
	return set_string(fs_fd, key, text, err);
}

static int set_flag(int fs_fd, const char *key, struct error *err)
{
	if (fsconfig(fs_fd, FSCONFIG_SET_FLAG, key, NULL, 0) < 0)
		return context_error(fs_fd, "fsconfig", key, err);
	return 0;
}

static int configure_fuse(int fs_fd, const struct mount_fuse *m, struct error *err)
{
	_cleanup_free_ char *source = NULL;
	int r;

	if (asprintf(&source, SOURCE_PREFIX "%s", m->volume) < 0)
		return error_errno(err, -ENOMEM, "mount");
	r = set_string(fs_fd, "source", source, err);
	if (r >= 0)
		r = set_string(fs_fd, "subtype", SUBTYPE, err);
	if (r >= 0)
		r = set_number(fs_fd, "fd", (unsigned int)m->dev_fd, err);
	if (r >= 0)
		r = set_string(fs_fd, "rootmode", "40000", err);
	if (r >= 0)
		r = set_number(fs_fd, "user_id", 0, err);
	if (r >= 0)
		r = set_number(fs_fd, "group_id", 0, err);
	if (r >= 0)
		r = set_flag(fs_fd, "default_permissions", err);
	if (r >= 0)
		r = set_flag(fs_fd, "allow_other", err);
	if (r >= 0 && m->max_read)
		r = set_number(fs_fd, "max_read", m->max_read, err);
	if (r >= 0 && m->read_only)
		r = set_flag(fs_fd, "ro", err);
	return r;
}

int mount_fuse_create(const struct mount_fuse *m, int *ret_fd, struct error *err)
{
	_cleanup_close_ int fs_fd = fsopen("fuse", FSOPEN_CLOEXEC);
	int fd, r;

	if (fs_fd < 0)
		return error_errno(err, -errno,
				   "fsopen fuse (is the kernel module there, and CAP_SYS_ADMIN?)");
	r = configure_fuse(fs_fd, m, err);
	if (r < 0)
		return r;
	if (fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return context_error(fs_fd, "create", "superblock", err);
	fd = fsmount(fs_fd, FSMOUNT_CLOEXEC,
		     MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (m->read_only ? MOUNT_ATTR_RDONLY : 0));
	if (fd < 0)
		return error_errno(err, -errno, "fsmount fuse");
	*ret_fd = fd;
	return 0;
}

const char *mount_fuse_volume(const char *fstype, const char *source)
{
	if (strcmp(fstype, "fuse." SUBTYPE) != 0 ||
	    strncmp(source, SOURCE_PREFIX, strlen(SOURCE_PREFIX)) != 0)
		return NULL;
	return source + strlen(SOURCE_PREFIX);
}

int mount_clone(int dir_fd, const char *path, bool recursive, int *ret_fd, struct error *err)
{
	int fd = open_tree(dir_fd, path,
			   OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_NO_AUTOMOUNT |
				   AT_SYMLINK_NOFOLLOW | (recursive ? AT_RECURSIVE : 0));

	if (fd < 0)
		return error_errno(err, -errno, "open_tree '%s'", path);
	*ret_fd = fd;
	return 0;
}

bool mount_can_copy_detached(void)
{
	_cleanup_close_ int fs_fd = fsopen("tmpfs", FSOPEN_CLOEXEC), mount_fd = -EBADF;
	_cleanup_close_ int copy = -EBADF;

	if (fs_fd < 0 || fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return false;
	mount_fd = fsmount(fs_fd, FSMOUNT_CLOEXEC, 0);
	return mount_fd >= 0 && mount_clone(mount_fd, "", false, &copy, NULL) >= 0;
}

int mount_set_attr(int mount_fd, uint64_t set, uint64_t clear, uint64_t propagation,
		   struct error *err)
{
	struct mount_attr attr = { .attr_set = set, .attr_clr = clear, .propagation = propagation };

	if (mount_setattr(mount_fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return error_errno(err, -errno, "mount_setattr");
	return 0;
}

int mount_attach(int mount_fd, int target_fd, struct error *err)
{
	if (move_mount(mount_fd, "", target_fd, "",
		       MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return error_errno(err, -errno, "move_mount");
	return 0;
}

int mount_detach(int parent_fd, const char *name, struct error *err)
{
	char path[FD_PATH_MAX + NAME_MAX + 2], fd_buf[FD_PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", fd_path(parent_fd, fd_buf), name);
	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
		return error_errno(err, -errno, "umount2 '%s'", name);
	return 0;
}

int mount_detach_fd(int fd, struct error *err)
{
	char path[FD_PATH_MAX];

	if (umount2(fd_path(fd, path), MNT_DETACH) < 0)
		return error_errno(err, -errno, "umount2 '%s'", path);
	return 0;
}

int mount_make_private(int mount_fd, struct error *err)
{
	struct mount_attr attr = { .propagation = MS_PRIVATE };

	if (mount_setattr(mount_fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0)
		return error_errno(err, -errno, "mount_setattr");
	return 0;
}

int mount_join(int mount_fd, int peer_fd, struct error *err)
{
	if (move_mount(peer_fd, "", mount_fd, "",
		       MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH | MOVE_MOUNT_SET_GROUP) < 0)
		return error_errno(err, -errno, "move_mount (MOVE_MOUNT_SET_GROUP)");
	return 0;
}

int mount_identify(int fd, dev_t *ret_dev, uint64_t *ret_mount_id, bool *ret_is_root)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_MNT_ID,
		  &stx) < 0)
		return -errno;
	*ret_dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	*ret_mount_id = stx.stx_mnt_id;
	*ret_is_root = stx.stx_attributes & STATX_ATTR_MOUNT_ROOT;
	return 0;
}
