/* SPDX-License-Identifier: Apache-2.0 */
#include "mount/namespace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/array.h"
#include "base/fd.h"
#include "mount/uapi.h"

#define OWN "self/ns/mnt"
#define NAMESPACES_MAX 65536 /* a node has hundreds */

struct list {
	struct mount_namespace *items;
	size_t n, room;
};

static bool has(const struct list *list, uint64_t id)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->items[i].id == id)
			return true;
	return false;
}

/* Takes the descriptor over. */
static int add(struct list *list, int ns_fd, bool own)
{
	_cleanup_close_ int fd = ns_fd;
	struct stat st;
	void *items;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (has(list, st.st_ino))
		return 0;
	items = array_grow(list->items, list->n, &list->room, sizeof(*list->items));
	if (!items)
		return -ENOMEM;
	list->items = items;
	list->items[list->n++] = (struct mount_namespace){ TAKE_FD(fd), st.st_ino, own };
	return 0;
}

/* The namespaces before or after that of `fd`, one after the other. */
static int walk(struct list *list, int fd, unsigned long request)
{
	while (list->n < NAMESPACES_MAX) {
		struct uapi_mnt_ns_info info = { .size = sizeof(info) };
		int next = ioctl(fd, request, &info), r;
		size_t before = list->n;

		if (next < 0)
			return errno == ENOENT ? 0 : -errno;
		r = add(list, next, false);
		if (r < 0 || list->n == before)
			return r;
		fd = list->items[list->n - 1].fd;
	}
	return 0;
}

static int walk_proc(struct list *list, DIR *dir)
{
	struct dirent *d;

	while ((d = readdir(dir))) {
		char path[64];
		struct stat st;
		int fd, r;

		if (*d->d_name < '0' || *d->d_name > '9')
			continue;
		(void)snprintf(path, sizeof(path), "%.20s/ns/mnt", d->d_name);
		/* without a descriptor as long as it is one that is known already */
		if (fstatat(dirfd(dir), path, &st, 0) < 0 || has(list, st.st_ino))
			continue;
		fd = openat(dirfd(dir), path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue; /* it has just ended */
		r = add(list, fd, false);
		if (r < 0)
			return r;
	}
	return 0;
}

static int find_in_proc(struct list *list, int proc_fd)
{
	int fd = openat(proc_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir) {
		r = -errno;
		close_fd(&fd);
		return r;
	}
	r = walk_proc(list, dir);
	(void)closedir(dir);
	return r;
}

static int find(struct list *list, int proc_fd)
{
	int fd = openat(proc_fd, OWN, O_RDONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : add(list, fd, true);

	if (r < 0)
		return r;
	r = walk(list, list->items[0].fd, UAPI_NS_MNT_GET_NEXT);
	if (r >= 0)
		r = walk(list, list->items[0].fd, UAPI_NS_MNT_GET_PREV);
	if (r == -ENOTTY || r == -EPERM || r == -EINVAL) /* an older kernel, or not allowed */
		r = find_in_proc(list, proc_fd);
	return r;
}

int mount_namespaces_list(int proc_fd, struct mount_namespace **ret, size_t *ret_n,
			  struct error *err)
{
	struct list list = { 0 };
	int r = find(&list, proc_fd);

	if (r < 0) {
		mount_namespaces_free(list.items, list.n);
		return error_errno(err, r, "list the mount namespaces");
	}
	*ret = list.items;
	*ret_n = list.n;
	return 0;
}

void mount_namespaces_free(struct mount_namespace *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close_fd(&list[i].fd);
	free(list);
}

int mount_namespace_enter(int ns_fd)
{
	return setns(ns_fd, CLONE_NEWNS) < 0 ? -errno : 0;
}

int mount_namespace_private(void)
{
	if (unshare(CLONE_NEWNS) < 0)
		return -errno;
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ? -errno : 0;
}
