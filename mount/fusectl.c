/* SPDX-License-Identifier: Apache-2.0 */
#include "mount/fusectl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/parse.h"

int fusectl_open(int *ret_fd, struct error *err)
{
	_cleanup_close_ int fs_fd = fsopen("fusectl", FSOPEN_CLOEXEC);
	int fd;

	if (fs_fd < 0)
		return error_errno(err, -errno, "fsopen fusectl");
	if (fsconfig(fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return error_errno(err, -errno, "create fusectl");
	fd = fsmount(fs_fd, FSMOUNT_CLOEXEC,
		     MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	if (fd < 0)
		return error_errno(err, -errno, "fsmount fusectl");
	*ret_fd = fd;
	return 0;
}

static int open_control(int fusectl_fd, uint32_t number, const char *name, int flags)
{
	char path[48];
	int fd;

	(void)snprintf(path, sizeof(path), "%u/%s", number, name);
	fd = openat(fusectl_fd, path, flags | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

bool fusectl_has(int fusectl_fd, uint32_t number)
{
	char path[16];

	(void)snprintf(path, sizeof(path), "%u", number);
	return faccessat(fusectl_fd, path, F_OK, 0) == 0;
}

int fusectl_waiting(int fusectl_fd, uint32_t number, uint64_t *ret)
{
	_cleanup_close_ int fd = open_control(fusectl_fd, number, "waiting", O_RDONLY);
	char text[32];
	ssize_t n;

	if (fd < 0)
		return fd;
	n = fd_read_all(fd, text, sizeof(text) - 1);
	if (n < 0)
		return (int)n;
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return parse_u64(text, ret);
}

int fusectl_abort(int fusectl_fd, uint32_t number)
{
	_cleanup_close_ int fd = open_control(fusectl_fd, number, "abort", O_WRONLY);

	return fd < 0 ? fd : fd_write_all(fd, "1", 1);
}
