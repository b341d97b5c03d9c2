/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/surgery/users.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "mount/fusectl.h"

struct users {
	const struct plan_volume *volumes;
	size_t n;
	int fusectl_fd; /* -errno: not to be had, and all numbers count */
	struct plan_counts *counts;
	uint32_t *found;
};

/* The directory of a connection stays as long as its superblock, aborted or not (fs/fuse/control.c,
 * fuse_ctl_remove_conn). */
static bool is_there(const struct users *u, size_t volume, size_t i)
{
	if (u->counts[volume].reused & (1U << i))
		return false;
	return u->fusectl_fd < 0 || fusectl_has(u->fusectl_fd, minor(u->volumes[volume].old[i]));
}

static void count_dev(struct users *u, dev_t dev)
{
	for (size_t v = 0; v < u->n; v++) {
		int i = plan_old_index(&u->volumes[v], dev);

		if (i >= 0 && is_there(u, v, (size_t)i)) {
			u->counts[v].seen |= 1U << i;
			u->found[v]++;
		}
	}
}

/* The magic links of procfs lead to the file itself, whose server is not asked. */
static void count_link(struct users *u, int dir_fd, const char *name)
{
	struct statx stx;

	if (statx(dir_fd, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &stx) == 0)
		count_dev(u, makedev(stx.stx_dev_major, stx.stx_dev_minor));
}

static DIR *open_dir(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir && fd >= 0)
		(void)close(fd);
	return dir;
}

static void count_process(struct users *u, int proc_fd, const char *pid)
{
	static const char *const links[] = { "cwd", "root" };
	char path[64];
	struct dirent *d;
	DIR *dir;

	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		(void)snprintf(path, sizeof(path), "%.20s/%s", pid, links[i]);
		count_link(u, proc_fd, path);
	}
	(void)snprintf(path, sizeof(path), "%.20s/fd", pid);
	dir = open_dir(proc_fd, path);
	if (!dir)
		return;
	while ((d = readdir(dir)))
		if (*d->d_name != '.')
			count_link(u, dirfd(dir), d->d_name);
	(void)closedir(dir);
}

void users_count(int proc_fd, const struct plan_volume *volumes, size_t n_volumes,
		 struct plan_counts *counts, uint32_t *ret)
{
	_cleanup_close_ int fusectl_fd = -EBADF;
	struct users u = { volumes, n_volumes, -EBADF, counts, ret };
	struct dirent *d;
	DIR *dir = open_dir(proc_fd, ".");

	for (size_t v = 0; v < n_volumes; v++)
		ret[v] = 0;
	if (!dir)
		return;
	if (fusectl_open(&fusectl_fd, NULL) >= 0)
		u.fusectl_fd = fusectl_fd;
	while ((d = readdir(dir)))
		if (*d->d_name >= '0' && *d->d_name <= '9')
			count_process(&u, proc_fd, d->d_name);
	(void)closedir(dir);
}
