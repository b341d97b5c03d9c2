/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/node_places.h"

#include <errno.h>
#include <sys/mount.h>

#include "base/fd.h"
#include "base/log.h"
#include "mount/tree.h"

struct mountpoint node_place(const struct node_service *s, const struct record *record,
			     const char *path)
{
	return (struct mountpoint){
		.root = s->config.kubelet_root,
		.path = path,
		.volume_id = record->config.id,
		.dev = record->dev,
	};
}

/* The staging path is place 0, if there is one; then come the targets. NULL: nothing belongs
 * there. */
static const char *place_path(const struct record *record, size_t i)
{
	const struct record_target *target = i == 0 ? NULL : &record->targets[i - 1];

	if (!target)
		return record->staging_path;
	return target->published ? target->path : NULL;
}

static uint64_t place_flags(const struct record *record, size_t i)
{
	uint64_t read_only = record->config.flags & VOLUME_READ_ONLY ? MOUNT_ATTR_RDONLY : 0;

	return read_only | (i == 0 ? record->staging_attr : record->targets[i - 1].attr);
}

int node_places_clone(const struct node_service *s, const struct record *record, int *ret_mount_fd)
{
	for (size_t i = 0; i <= record->n_targets; i++) {
		const char *path = place_path(record, i);
		_cleanup_close_ int fd = -EBADF;
		struct mountpoint m;

		if (!path)
			continue;
		m = node_place(s, record, path);
		if (mountpoint_look(&m, &fd, NULL) == MOUNTPOINT_OURS &&
		    mount_clone(fd, "", false, ret_mount_fd, NULL) >= 0)
			return 0;
	}
	return -ENOENT;
}

/* An enum mountpoint_state or -errno; MISSING where nothing belongs. ret_fd: mountpoint_look. */
static int look_at(const struct node_service *s, const struct record *record, size_t i, int *ret_fd)
{
	const char *path = place_path(record, i);
	struct mountpoint m;

	if (!path)
		return MOUNTPOINT_MISSING;
	m = node_place(s, record, path);
	return mountpoint_look(&m, ret_fd, NULL);
}

void node_places_note_stale(const struct node_service *s, struct record *record)
{
	for (size_t i = 0; i <= record->n_targets; i++) {
		_cleanup_close_ int fd = -EBADF;
		bool is_root;
		uint64_t mount_id;
		dev_t dev;

		if (look_at(s, record, i, &fd) == MOUNTPOINT_STALE &&
		    mount_identify(fd, &dev, &mount_id, &is_root) >= 0)
			record_add_old_dev(record, dev);
	}
}

size_t node_places_missing(const struct node_service *s, const struct record *record)
{
	size_t n = 0;

	for (size_t i = 0; i <= record->n_targets; i++)
		switch (look_at(s, record, i, NULL)) {
		case MOUNTPOINT_PLAIN:
		case MOUNTPOINT_STALE:
			n++;
		}
	return n;
}

/* The mount is used up, and *mount_fd closed, unless the place is not fit for any. */
static int mount_at(const struct node_service *s, const struct record *record, size_t i,
		    int *mount_fd, struct error *err)
{
	struct mountpoint m = node_place(s, record, place_path(record, i));
	_cleanup_close_ int dir_fd = -EBADF;
	bool created;
	int r = mountpoint_prepare(&m, false, &created, &dir_fd, err);

	if (r < 0)
		return r;
	log_warning("volume %s was not mounted at %s any more and is mounted again",
		    record->config.id, m.path);
	r = mountpoint_attach(&m, *mount_fd, dir_fd, place_flags(record, i), err);
	close_fd(mount_fd);
	return r;
}

/* The next mount to use up: a copy, or what there is while the volume is mounted nowhere. */
static int take_mount(const struct node_service *s, const struct record *record, int *mount_fd)
{
	int fd = -EBADF;

	return node_places_clone(s, record, &fd) >= 0 ? fd : TAKE_FD(*mount_fd);
}

/* At `max` places at most. */
static int mount_missing(const struct node_service *s, const struct record *record, size_t max,
			 int *mount_fd, struct error *err)
{
	int r = 0;

	for (size_t i = 0; i <= record->n_targets && max > 0; i++) {
		_cleanup_close_ int fd = -EBADF;
		int code;

		if (look_at(s, record, i, NULL) != MOUNTPOINT_PLAIN)
			continue;
		fd = take_mount(s, record, mount_fd);
		code = mount_at(s, record, i, &fd, err);
		if (fd >= 0 && *mount_fd < 0)
			*mount_fd = TAKE_FD(fd);
		r = code < 0 ? code : r;
		max -= code >= 0;
	}
	if (*mount_fd < 0 && node_places_clone(s, record, mount_fd) < 0 && r >= 0)
		r = error_set(err, ERROR_INTERNAL, -ENOENT, "volume %s is mounted nowhere",
			      record->config.id);
	return r;
}

int node_places_mount(const struct node_service *s, const struct record *record, int *mount_fd,
		      struct error *err)
{
	return mount_missing(s, record, SIZE_MAX, mount_fd, err);
}

static bool is_exchanged_somewhere(const struct node_service *s, const struct record *record)
{
	for (size_t i = 0; i <= record->n_targets; i++)
		if (look_at(s, record, i, NULL) == MOUNTPOINT_STALE)
			return true;
	return false;
}

int node_places_seed(const struct node_service *s, const struct record *record, int *mount_fd,
		     struct error *err)
{
	int fd = -EBADF;

	if (mount_can_copy_detached())
		return 0;
	if (node_places_clone(s, record, &fd) >= 0) {
		close_fd(mount_fd);
		*mount_fd = fd;
		return 0;
	}
	/* one that was mounted, and is not any more, belongs to no namespace: it can't be changed
	 * (fs/namespace.c, do_mount_setattr) */
	if (mount_set_attr(*mount_fd, 0, 0, MS_PRIVATE, NULL) < 0)
		return error_set(err, ERROR_PRECONDITION, -ENOTCONN,
				 "volume %s is mounted nowhere any more", record->config.id);
	return is_exchanged_somewhere(s, record) ? 0 : mount_missing(s, record, 1, mount_fd, err);
}
