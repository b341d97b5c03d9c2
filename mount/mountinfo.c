/* SPDX-License-Identifier: Apache-2.0 */
#include "mount/mountinfo.h"

#include <errno.h>
#include <libmount/libmount.h>
#include <string.h>
#include <sys/mount.h>

struct mount_table {
	struct libmnt_table *lib;
	struct mount_entry *entries;
	size_t n;
};

static struct mount_entry entry_from_fs(struct libmnt_fs *fs)
{
	unsigned long flags = 0;

	(void)mnt_optstr_get_flags(mnt_fs_get_vfs_options(fs) ?: "", &flags,
				   mnt_get_builtin_optmap(MNT_LINUX_MAP));
	return (struct mount_entry){
		.id = (uint64_t)mnt_fs_get_id(fs),
		.parent = (uint64_t)mnt_fs_get_parent_id(fs),
		.dev = mnt_fs_get_devno(fs),
		.root = mnt_fs_get_root(fs) ?: "",
		.target = mnt_fs_get_target(fs) ?: "",
		.fstype = mnt_fs_get_fstype(fs) ?: "",
		.source = mnt_fs_get_source(fs) ?: "",
		.super_options = mnt_fs_get_fs_options(fs) ?: "",
		.read_only = flags & MS_RDONLY,
	};
}

static int fill_entries(struct mount_table *table)
{
	struct libmnt_iter *iter = mnt_new_iter(MNT_ITER_FORWARD);
	struct libmnt_fs *fs;
	int n = mnt_table_get_nents(table->lib);

	if (!iter)
		return -ENOMEM;
	table->entries = calloc((size_t)n + 1, sizeof(*table->entries));
	if (!table->entries) {
		mnt_free_iter(iter);
		return -ENOMEM;
	}
	while (table->n < (size_t)n && mnt_table_next_fs(table->lib, iter, &fs) == 0)
		table->entries[table->n++] = entry_from_fs(fs);
	mnt_free_iter(iter);
	return 0;
}

int mount_table_load(struct mount_table **ret, struct error *err)
{
	_cleanup_mount_table_ struct mount_table *table = calloc(1, sizeof(*table));
	int r = 0;

	if (!table)
		return error_errno(err, -ENOMEM, "read mountinfo");
	table->lib = mnt_new_table();
	if (!table->lib)
		return error_errno(err, -ENOMEM, "read mountinfo");
	errno = 0;
	if (mnt_table_parse_file(table->lib, "/proc/self/mountinfo") < 0)
		return error_errno(err, errno ? -errno : -EIO, "read /proc/self/mountinfo");
	r = fill_entries(table);
	if (r < 0)
		return error_errno(err, r, "read mountinfo");
	*ret = TAKE_PTR(table);
	return 0;
}

void mount_table_free(struct mount_table *table)
{
	if (!table)
		return;
	free(table->entries);
	mnt_unref_table(table->lib);
	free(table);
}

size_t mount_table_size(const struct mount_table *table)
{
	return table->n;
}

const struct mount_entry *mount_table_get(const struct mount_table *table, size_t i)
{
	return &table->entries[i];
}

/* Of several mounts on one mount point the topmost one is nobody else's parent there. */
const struct mount_entry *mount_table_top(const struct mount_table *table, const char *target)
{
	const struct mount_entry *top = NULL;

	for (size_t i = 0; i < table->n; i++) {
		const struct mount_entry *e = &table->entries[i];

		if (strcmp(e->target, target) == 0 &&
		    (!top || e->parent == top->id || e->id != top->parent))
			top = e;
	}
	return top;
}

const struct mount_entry *mount_table_find_dev(const struct mount_table *table, dev_t dev)
{
	for (size_t i = 0; i < table->n; i++)
		if (table->entries[i].dev == dev)
			return &table->entries[i];
	return NULL;
}
