/* SPDX-License-Identifier: Apache-2.0 */
#include "mount/idmap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/fd.h"
#include "base/helper.h"
#include "mount/uapi.h"

#define STATMOUNT_SIZE 65536 /* with 340 lines in each map, which is what the kernel allows */
#define MAP_SIZE 32768

/* As the files uid_map and gid_map want them. */
struct maps {
	char uid[MAP_SIZE], gid[MAP_SIZE];
};

/* `n` strings one after the other become lines. */
static int join(const char *strings, const char *end, uint32_t n, char ret[MAP_SIZE])
{
	size_t used = 0;

	for (; n > 0; n--) {
		size_t len = strnlen(strings, (size_t)(end - strings));

		if (strings + len >= end || used + len + 2 > MAP_SIZE)
			return -EMSGSIZE;
		memcpy(ret + used, strings, len);
		used += len;
		ret[used++] = '\n';
		strings += len + 1;
	}
	ret[used] = '\0';
	return used > 0 ? 0 : -ENODATA;
}

static int read_maps(int fd, struct uapi_statmount *sm, struct maps *ret)
{
	struct uapi_mnt_id_req request = {
		.size = sizeof(request),
		.param = UAPI_STATMOUNT_MNT_UIDMAP | UAPI_STATMOUNT_MNT_GIDMAP,
	};
	const char *end = (const char *)sm + STATMOUNT_SIZE;
	struct statx stx;
	int r;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, UAPI_STATX_MNT_ID_UNIQUE, &stx) < 0)
		return -errno;
	if (!(stx.stx_mask & UAPI_STATX_MNT_ID_UNIQUE))
		return -EOPNOTSUPP;
	request.mnt_id = stx.stx_mnt_id;
	if (syscall(UAPI_SYS_STATMOUNT, &request, sm, STATMOUNT_SIZE, 0) < 0)
		return -errno;
	if ((sm->mask & request.param) != request.param)
		return -EOPNOTSUPP;
	if (sm->mnt_uidmap >= STATMOUNT_SIZE - sizeof(*sm) ||
	    sm->mnt_gidmap >= STATMOUNT_SIZE - sizeof(*sm))
		return -EPROTO;
	r = join(sm->str + sm->mnt_uidmap, end, sm->mnt_uidmap_num, ret->uid);
	return r < 0 ? r : join(sm->str + sm->mnt_gidmap, end, sm->mnt_gidmap_num, ret->gid);
}

static int write_map(int proc_fd, pid_t pid, const char *name, const char *map)
{
	_cleanup_close_ int fd = -EBADF;
	char path[48];

	(void)snprintf(path, sizeof(path), "%d/%s", (int)pid, name);
	fd = openat(proc_fd, path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fd_write_all(fd, map, strlen(map));
}

static int fill_userns(int proc_fd, pid_t pid, const struct maps *maps, int *ret_fd)
{
	char path[48];
	int fd, r = write_map(proc_fd, pid, "uid_map", maps->uid);

	if (r >= 0)
		r = write_map(proc_fd, pid, "gid_map", maps->gid);
	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%d/ns/user", (int)pid);
	fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

/* The child tells that it is in its namespace, and stays until it is killed. */
static _noreturn_ void be_userns(int out_fd)
{
	char ready = 1;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* who waits for it may be killed */
	if (unshare(CLONE_NEWUSER) == 0 && write(out_fd, &ready, 1) == 1)
		for (;;)
			(void)pause();
	_exit(1);
}

/* A user namespace is made by a process that goes there. */
static int make_userns(int proc_fd, const struct maps *maps, int *ret_fd)
{
	_cleanup_close_ int in = -EBADF, out = -EBADF;
	char ready;
	int r = fd_pipe(&in, &out);
	pid_t pid;

	if (r < 0)
		return r;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		be_userns(out);
	close_fd(&out);
	r = read(in, &ready, 1) == 1 ? fill_userns(proc_fd, pid, maps, ret_fd) : -EPERM;
	(void)kill(pid, SIGKILL);
	helper_wait(pid);
	return r;
}

/* The initial one maps nothing. */
static bool is_initial(int proc_fd, int userns_fd)
{
	struct stat a, b;

	return fstatat(proc_fd, "self/ns/user", &a, 0) < 0 || fstat(userns_fd, &b) < 0 ||
	       a.st_ino == b.st_ino;
}

static int owner_of(int ns_fd, int proc_fd, int *ret_fd)
{
	_cleanup_close_ int fd = ioctl(ns_fd, NS_GET_USERNS);

	if (fd < 0)
		return -errno;
	if (is_initial(proc_fd, fd))
		return -EOPNOTSUPP;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int mount_idmap_of(int fd, int ns_fd, int proc_fd, int *ret_fd, struct error *err)
{
	_cleanup_free_ struct uapi_statmount *sm = malloc(STATMOUNT_SIZE);
	_cleanup_free_ struct maps *maps = malloc(sizeof(*maps));
	int r;

	if (!sm || !maps)
		return error_errno(err, -ENOMEM, "read the mount's id mapping");
	r = read_maps(fd, sm, maps);
	if (r >= 0)
		r = make_userns(proc_fd, maps, ret_fd);
	else
		r = owner_of(ns_fd, proc_fd, ret_fd);
	return r < 0 ? error_errno(err, r, "find the mount's id mapping") : 0;
}

int mount_idmap_set(int mount_fd, int userns_fd, struct error *err)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns_fd };

	if (mount_setattr(mount_fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return error_errno(err, -errno, "mount_setattr MOUNT_ATTR_IDMAP");
	return 0;
}
