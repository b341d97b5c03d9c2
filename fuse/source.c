/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/source.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif

#define OPEN_HANDLE_TRIES 20

/* A device as this process knows it; entries below n_devs are never taken back. */
struct device {
	_Atomic int mount_fd; /* any descriptor on it that is not O_PATH; below 0: none yet */
	_Atomic bool has_handles;
	uint64_t dev;
	_Atomic uint64_t mount_id;
};

struct source {
	int root; /* O_RDONLY */
	struct ledger_dev *records;
	struct device devs[LEDGER_MAX_DEVS];
	_Atomic uint32_t n_devs;
	pthread_mutex_t adding; /* covers adding to records and devs */
};

/* struct file_handle of <fcntl.h> with room for as much as a record holds. */
union handle_buffer {
	struct file_handle handle;
	unsigned char space[sizeof(struct file_handle) + LEDGER_FILE_HANDLE_MAX];
};

static int get_handle(int fd, struct ledger_file_handle *ret)
{
	union handle_buffer buffer = { .handle.handle_bytes = LEDGER_FILE_HANDLE_MAX };
	int mount_id;

	if (name_to_handle_at(fd, "", &buffer.handle, &mount_id, AT_EMPTY_PATH) < 0)
		return -errno;
	*ret = (struct ledger_file_handle){
		.type = buffer.handle.handle_type,
		.size = buffer.handle.handle_bytes,
	};
	memcpy(ret->bytes, buffer.handle.f_handle, ret->size);
	return 0;
}

static int open_handle(int mount_fd, const struct ledger_file_handle *handle, int flags)
{
	union handle_buffer buffer = {
		.handle.handle_bytes = handle->size,
		.handle.handle_type = handle->type,
	};
	int fd;

	memcpy(buffer.handle.f_handle, handle->bytes, handle->size);
	fd = open_by_handle_at(mount_fd, &buffer.handle, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/*
 * Whether files of this file system can be opened again by handle: tried on the descriptor itself.
 * FUSE gives handles out that it does not honour once its inode was evicted.
 */
static bool probe_handles(int mount_fd)
{
	_cleanup_close_ int fd = -EBADF;
	struct ledger_file_handle handle;
	struct statfs fs;

	if (fstatfs(mount_fd, &fs) < 0 || fs.f_type == FUSE_SUPER_MAGIC)
		return false;
	if (get_handle(mount_fd, &handle) < 0)
		return false;
	fd = open_handle(mount_fd, &handle, O_PATH);
	return fd >= 0;
}

static int look(int fd, struct statx *ret)
{
	if (statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
		  STATX_BASIC_STATS | STATX_MNT_ID, ret) < 0)
		return -errno;
	return 0;
}

static struct timespec from_statx_time(const struct statx_timestamp *t)
{
	return (struct timespec){ .tv_sec = t->tv_sec, .tv_nsec = t->tv_nsec };
}

static void from_statx(const struct statx *stx, struct stat *ret)
{
	*ret = (struct stat){
		.st_dev = makedev(stx->stx_dev_major, stx->stx_dev_minor),
		.st_ino = stx->stx_ino,
		.st_mode = stx->stx_mode,
		.st_nlink = stx->stx_nlink,
		.st_uid = stx->stx_uid,
		.st_gid = stx->stx_gid,
		.st_rdev = makedev(stx->stx_rdev_major, stx->stx_rdev_minor),
		.st_size = (off_t)stx->stx_size,
		.st_blksize = (blksize_t)stx->stx_blksize,
		.st_blocks = (blkcnt_t)stx->stx_blocks,
		.st_atim = from_statx_time(&stx->stx_atime),
		.st_mtim = from_statx_time(&stx->stx_mtime),
		.st_ctim = from_statx_time(&stx->stx_ctime),
	};
}

/* A descriptor that holds the mount and that open_by_handle_at(2) takes; what is neither directory
 * nor plain file is not opened, as that may do something. */
static int open_mount_fd(int fd, mode_t mode)
{
	if (S_ISDIR(mode)) {
		int dir = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		return dir < 0 ? -errno : dir;
	}
	return S_ISREG(mode) ? source_reopen(fd, O_RDONLY) : -ENODEV;
}

/* Consumes mount_fd. */
static void device_adopt(struct source *source, uint32_t dev, int mount_fd)
{
	struct device *d = &source->devs[dev];
	int none = -EBADF;

	atomic_store(&d->has_handles, probe_handles(mount_fd));
	if (!atomic_compare_exchange_strong(&d->mount_fd, &none, mount_fd))
		(void)close(mount_fd);
}

static int find_device(struct source *source, uint64_t dev, uint64_t mount_id)
{
	uint32_t n = atomic_load_explicit(&source->n_devs, memory_order_acquire);

	for (uint32_t i = 0; i < n; i++)
		if (source->devs[i].dev == dev &&
		    atomic_load(&source->devs[i].mount_id) == mount_id)
			return (int)i;
	return -ENOENT;
}

/* Called with `adding` held, or before there are threads. */
static int append_device(struct source *source, const struct ledger_dev *what)
{
	uint32_t i = atomic_load(&source->n_devs);
	struct ledger_dev *record = &source->records[i];
	struct device *d = &source->devs[i];

	if (i == LEDGER_MAX_DEVS)
		return -ENFILE;
	record->dev = what->dev;
	record->mount_id = what->mount_id;
	record->parent = what->parent;
	memcpy(record->name, what->name, sizeof(record->name));
	d->dev = what->dev;
	atomic_store(&d->mount_id, what->mount_id);
	atomic_store(&d->mount_fd, -EBADF);
	atomic_store_explicit(&record->state, LEDGER_LIVE, memory_order_release);
	atomic_store_explicit(&source->n_devs, i + 1, memory_order_release);
	return (int)i;
}

static int add_device(struct source *source, const struct ledger_dev *what, bool *ret_is_new)
{
	int dev;

	(void)pthread_mutex_lock(&source->adding);
	dev = find_device(source, what->dev, what->mount_id);
	if (dev < 0) {
		dev = append_device(source, what);
		*ret_is_new = dev >= 0;
	}
	(void)pthread_mutex_unlock(&source->adding);
	if (dev == -ENFILE)
		log_warning("more than %d file systems below the source: '%s' is not shown",
			    LEDGER_MAX_DEVS, what->name);
	return dev;
}

static int identify_device(struct source *source, uint64_t dev, uint64_t mount_id, uint64_t parent,
			   const char *name, bool *ret_is_new)
{
	struct ledger_dev what = { .dev = dev, .mount_id = mount_id, .parent = parent };
	int r = find_device(source, dev, mount_id);

	*ret_is_new = false;
	if (r >= 0)
		return r;
	if (name)
		(void)snprintf(what.name, sizeof(what.name), "%s", name);
	return add_device(source, &what, ret_is_new);
}

int source_identify(struct source *source, int fd, uint64_t parent, const char *name,
		    struct source_identity *ret)
{
	struct statx stx;
	struct device *d;
	int dev, r;

	r = look(fd, &stx);
	if (r < 0)
		return r;
	from_statx(&stx, &ret->st);
	dev = identify_device(source, ret->st.st_dev, stx.stx_mnt_id, parent, name,
			      &ret->dev_is_new);
	if (dev < 0)
		return dev;
	ret->dev = (uint32_t)dev;
	d = &source->devs[dev];
	if (atomic_load(&d->mount_fd) < 0) {
		r = open_mount_fd(fd, ret->st.st_mode);
		if (r >= 0)
			device_adopt(source, ret->dev, r);
	}
	ret->handle.size = 0;
	if (!atomic_load(&d->has_handles))
		return 0;
	r = get_handle(fd, &ret->handle);
	return r == -EOVERFLOW || r == -EOPNOTSUPP ? 0 : r;
}

/*
 * The kernel says ENOMEM where the inode's number is just being given to a new file (iget_locked
 * finds I_CREATING): a moment later that is ESTALE.
 */
static int open_handle_settled(int mount_fd, const struct ledger_file_handle *handle, int flags)
{
	int r = open_handle(mount_fd, handle, flags);

	for (int i = 0; r == -ENOMEM && i < OPEN_HANDLE_TRIES; i++) {
		(void)sched_yield();
		r = open_handle(mount_fd, handle, flags);
	}
	return r;
}

int source_open_handle(struct source *source, uint32_t dev, const struct ledger_file_handle *handle,
		       int flags)
{
	int mount_fd;

	if (dev >= atomic_load(&source->n_devs))
		return -ESTALE;
	if (handle->size == 0 || handle->size > LEDGER_FILE_HANDLE_MAX)
		return -ESTALE;
	mount_fd = atomic_load(&source->devs[dev].mount_fd);
	return mount_fd < 0 ? -ENODEV : open_handle_settled(mount_fd, handle, flags);
}

int source_dev_place(struct source *source, uint32_t dev, uint64_t *ret_parent,
		     char ret_name[LEDGER_NAME_MAX + 1])
{
	if (dev == 0 || dev >= atomic_load(&source->n_devs))
		return -ENODEV;
	*ret_parent = source->records[dev].parent;
	memcpy(ret_name, source->records[dev].name, LEDGER_NAME_MAX + 1);
	ret_name[LEDGER_NAME_MAX] = '\0';
	return 0;
}

int source_adopt(struct source *source, uint32_t dev, int fd)
{
	struct statx stx;
	int r;

	if (dev >= atomic_load(&source->n_devs))
		return -ESTALE;
	r = look(fd, &stx);
	if (r < 0)
		return r;
	if (makedev(stx.stx_dev_major, stx.stx_dev_minor) != source->devs[dev].dev)
		return -ESTALE;
	r = open_mount_fd(fd, stx.stx_mode);
	if (r < 0)
		return r;
	source->records[dev].mount_id = stx.stx_mnt_id;
	atomic_store(&source->devs[dev].mount_id, stx.stx_mnt_id);
	device_adopt(source, dev, r);
	return 0;
}

bool source_is(struct source *source, int fd, uint32_t dev, uint64_t ino)
{
	struct stat st;

	return dev < atomic_load(&source->n_devs) && fstat(fd, &st) == 0 &&
	       st.st_dev == source->devs[dev].dev && st.st_ino == ino;
}

int source_reopen(int fd, int flags)
{
	char path[FD_PATH_MAX];
	int copy = open(fd_path(fd, path), (flags & ~O_NOFOLLOW) | O_CLOEXEC);

	return copy < 0 ? -errno : copy;
}

bool source_has_handles(const struct source *source)
{
	return atomic_load(&source->devs[0].has_handles);
}

int source_root(const struct source *source)
{
	return source->root;
}

/* The devices of the workers before; a record that makes no sense ends the list. */
static void load_devices(struct source *source)
{
	uint32_t n = 0;

	while (n < LEDGER_MAX_DEVS && atomic_load(&source->records[n].state) == LEDGER_LIVE) {
		struct ledger_dev *record = &source->records[n];

		record->name[LEDGER_NAME_MAX] = '\0';
		source->devs[n].dev = record->dev;
		atomic_store(&source->devs[n].mount_id, record->mount_id);
		atomic_store(&source->devs[n].mount_fd, -EBADF);
		n++;
	}
	for (uint32_t i = n; i < LEDGER_MAX_DEVS; i++)
		atomic_store(&source->records[i].state, LEDGER_FREE);
	atomic_store(&source->n_devs, n);
}

static int load_root(struct source *source, struct error *err)
{
	struct statx stx;
	int r = look(source->root, &stx);
	struct ledger_dev what = { 0 };

	if (r < 0)
		return error_errno(err, r, "statx the source directory");
	what.dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	what.mount_id = stx.stx_mnt_id;
	load_devices(source);
	if (atomic_load(&source->n_devs) == 0) {
		r = append_device(source, &what);
		if (r < 0)
			return error_errno(err, r, "source directory");
	}
	r = source_adopt(source, 0, source->root);
	if (r < 0)
		return error_set(err, ERROR_PRECONDITION, r,
				 "the source directory is not on the file system that the ledger "
				 "was made for");
	return 0;
}

static int check_proc(int fd, struct error *err)
{
	_cleanup_close_ int copy = source_reopen(fd, O_PATH);

	if (copy < 0)
		return error_set(err, ERROR_PRECONDITION, -ENOSYS,
				 "/proc/self/fd can't be used: /proc has to be mounted");
	return 0;
}

static int open_root(struct source *source, int root_fd, struct error *err)
{
	source->root = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (source->root < 0)
		return error_errno(err, -errno, "open the source directory");
	return check_proc(source->root, err);
}

int source_new(struct ledger *ledger, int root_fd, struct source **ret, struct error *err)
{
	_cleanup_source_ struct source *source = calloc(1, sizeof(*source));
	int r;

	if (!source)
		return error_errno(err, -ENOMEM, "source");
	source->root = -EBADF;
	source->records = ledger_devs(ledger);
	(void)pthread_mutex_init(&source->adding, NULL);
	r = open_root(source, root_fd, err);
	if (r >= 0)
		r = load_root(source, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(source);
	return 0;
}

void source_free(struct source *source)
{
	if (!source)
		return;
	for (uint32_t i = 0; i < atomic_load(&source->n_devs); i++) {
		int fd = atomic_load(&source->devs[i].mount_fd);

		close_fd(&fd);
	}
	close_fd(&source->root);
	(void)pthread_mutex_destroy(&source->adding);
	free(source);
}
