/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/adopted.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/fd.h"
#include "base/parse.h"
#include "mount/tree.h"

#define FUSE_DEVICE makedev(10, 229) /* Documentation/admin-guide/devices.txt */
#define FDINFO_MAX 1024
#define FDINFO_CONNECTION "\nfuse_connection:\t" /* fs/fuse/dev.c, fuse_dev_show_fdinfo */

void adopted_close(struct adopted *a)
{
	connection_close(&a->connection);
	ledger_unmap(a->ledger);
	close_fd(&a->ledger_fd);
	close_fd(&a->source_fd);
	*a = ADOPTED_NONE;
}

int adopted_check_source(int fd, struct error *err)
{
	struct statx stx;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || !(flags & O_PATH))
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "the source's descriptor was not opened with O_PATH");
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) < 0)
		return error_errno(err, -errno, "statx of the source");
	if (!S_ISDIR(stx.stx_mode))
		return error_set(err, ERROR_INVALID, -ENOTDIR, "the source is not a directory");
	return 0;
}

static int check_device(int fd, struct error *err)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || (flags & (O_ACCMODE | O_PATH)) != O_RDWR || fstat(fd, &st) < 0 ||
	    !S_ISCHR(st.st_mode) || st.st_rdev != FUSE_DEVICE)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "the second descriptor is no /dev/fuse, open for reading and "
				 "writing");
	if (connection_has_ended(fd))
		return error_set(err, ERROR_PRECONDITION, -ENOTCONN,
				 "the FUSE connection has ended");
	return 0;
}

/* The number below /sys/fs/fuse/connections; -ENODATA on kernels that do not tell. */
static int read_connection(int fd, uint32_t *ret)
{
	char path[48], text[FDINFO_MAX + 1], *number;
	_cleanup_close_ int info = -EBADF;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	n = info < 0 ? -errno : fd_read_all(info, text, FDINFO_MAX);
	text[MAX_OF(n, 0)] = '\0';
	number = strstr(text, FDINFO_CONNECTION);
	if (!number)
		return -ENODATA;
	number += strlen(FDINFO_CONNECTION);
	number[strcspn(number, "\n")] = '\0';
	return parse_u32(number, UINT32_MAX, ret) < 0 ? -ENODATA : 0;
}

/* Device and ledger belong to the mount `fd`, whose superblock *ret names. */
static int check_mount(int fd, int dev_fd, struct ledger *ledger, dev_t *ret, struct error *err)
{
	uint64_t mount_id;
	uint32_t number;
	bool is_root;
	int r = mount_identify(fd, ret, &mount_id, &is_root);

	if (r < 0)
		return error_errno(err, r, "statx of the mount");
	if (!is_root || ledger_header(ledger)->dev != *ret)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "the first descriptor is not the mount that the ledger tells of");
	if (read_connection(dev_fd, &number) == 0 && number != minor(*ret))
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "the FUSE device is of another connection than the mount");
	return 0;
}

static int check_id(const char *id, struct ledger *ledger, struct error *err)
{
	if (strcmp(ledger_header(ledger)->config.id, id) != 0)
		return error_set(err, ERROR_INVALID, -EINVAL, "the ledger is of another volume");
	return 0;
}

static bool all_came(const int fds[SOCKET_FDS_MAX])
{
	for (size_t i = 0; i < ESCROW_FDS; i++)
		if (fds[i] < 0)
			return false;
	return true;
}

int adopted_open(const char *id, int fds[SOCKET_FDS_MAX], struct adopted *ret, struct error *err)
{
	_cleanup_ledger_ struct ledger *ledger = NULL;
	dev_t dev;
	int r;

	if (!all_came(fds))
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "four descriptors have to come along: mount, device, ledger, "
				 "source");
	r = check_device(fds[ESCROW_DEVICE], err);
	if (r >= 0)
		r = adopted_check_source(fds[ESCROW_SOURCE], err);
	if (r >= 0)
		r = ledger_map_header(fds[ESCROW_LEDGER], &ledger, err);
	if (r >= 0)
		r = check_id(id, ledger, err);
	if (r >= 0 && ledger_header(ledger)->config.flags & VOLUME_RETIRED) {
		dev = ledger_header(ledger)->dev; /* it has no mount any more */
		close_fd(&fds[ESCROW_MOUNT]);
	} else if (r >= 0)
		r = check_mount(fds[ESCROW_MOUNT], fds[ESCROW_DEVICE], ledger, &dev, err);
	if (r < 0)
		return r;
	*ret = (struct adopted){ .connection = { .dev_fd = TAKE_FD(fds[ESCROW_DEVICE]),
						 .mount_fd = TAKE_FD(fds[ESCROW_MOUNT]),
						 .dev = dev,
						 .state = ledger_header(ledger)->connection },
				 .ledger_fd = TAKE_FD(fds[ESCROW_LEDGER]),
				 .source_fd = TAKE_FD(fds[ESCROW_SOURCE]) };
	ret->ledger = TAKE_PTR(ledger);
	return 0;
}
