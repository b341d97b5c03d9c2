/* SPDX-License-Identifier: Apache-2.0 */
#include "mount/mountinfo.h"
#include "mount/tree.h"

#include <errno.h>
#include <libmount/libmount.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#define MOUNTINFO "/proc/self/mountinfo"
#define DELETED "//deleted"

struct mount_table {
	struct libmnt_table *lib;
	struct mount_entry *entries;
	size_t n;
};

/* fs/proc_namespace.c, show_mnt_opts; atime without a word is strictatime */
static const struct {
	const char *option;
	uint64_t attr;
} attr_names[] = {
	{ "ro", MOUNT_ATTR_RDONLY },	     { "nosuid", MOUNT_ATTR_NOSUID },
	{ "nodev", MOUNT_ATTR_NODEV },	     { "noexec", MOUNT_ATTR_NOEXEC },
	{ "noatime", MOUNT_ATTR_NOATIME },   { "nodiratime", MOUNT_ATTR_NODIRATIME },
	{ "relatime", MOUNT_ATTR_RELATIME }, { "nosymfollow", MOUNT_ATTR_NOSYMFOLLOW },
};

static bool has_option(const char *options, const char *name)
{
	return mnt_optstr_get_option(options, name, NULL, NULL) == 0;
}

static uint64_t attr_of(const char *options)
{
	uint64_t attr = 0;

	for (size_t i = 0; i < ARRAY_SIZE(attr_names); i++)
		if (has_option(options, attr_names[i].option))
			attr |= attr_names[i].attr;
	if (!has_option(options, "relatime") && !has_option(options, "noatime"))
		attr |= MOUNT_ATTR_STRICTATIME;
	return attr;
}

/* "shared:7 master:3" */
static uint32_t group_of(const char *optional, const char *tag)
{
	const char *p = optional ? strstr(optional, tag) : NULL;
	uint32_t group = 0;

	while (p && p != optional && p[-1] != ' ') /* the end of another tag */
		p = strstr(p + 1, tag);
	for (p = p ? p + strlen(tag) : ""; *p >= '0' && *p <= '9'; p++)
		group = group * 10 + (uint32_t)(*p - '0');
	return group;
}

static struct mount_entry entry_from_fs(struct libmnt_fs *fs)
{
	const char *options = mnt_fs_get_vfs_options(fs) ?: "";
	const char *optional = mnt_fs_get_optional_fields(fs);

	return (struct mount_entry){
		.id = (uint64_t)mnt_fs_get_id(fs),
		.parent = (uint64_t)mnt_fs_get_parent_id(fs),
		.dev = mnt_fs_get_devno(fs),
		.root = mnt_fs_get_root(fs) ?: "",
		.target = mnt_fs_get_target(fs) ?: "",
		.fstype = mnt_fs_get_fstype(fs) ?: "",
		.source = mnt_fs_get_source(fs) ?: "",
		.super_options = mnt_fs_get_fs_options(fs) ?: "",
		.attr = attr_of(options),
		.shared = group_of(optional, "shared:"),
		.master = group_of(optional, "master:"),
		.idmapped = has_option(options, "idmapped"),
	};
}

/* The kernel marks a root whose name is gone (fs/d_path.c, dentry_path). A volume may have
 * something of that name again, and that is what belongs there. */
static int unmark_root(struct libmnt_fs *fs)
{
	const char *root = mnt_fs_get_root(fs) ?: "";
	size_t len = strlen(root), mark = strlen(DELETED);
	_cleanup_free_ char *name = NULL;

	if (len < mark || strcmp(root + len - mark, DELETED) != 0 ||
	    !mount_fuse_volume(mnt_fs_get_fstype(fs) ?: "", mnt_fs_get_source(fs) ?: ""))
		return 0;
	name = strndup(root, MAX_OF(len - mark, 1U));
	return name && mnt_fs_set_root(fs, name) == 0 ? 0 : -ENOMEM;
}

static int fill_entries(struct mount_table *table)
{
	struct libmnt_iter *iter = mnt_new_iter(MNT_ITER_FORWARD);
	struct libmnt_fs *fs;
	int n = mnt_table_get_nents(table->lib), r = 0;

	if (!iter)
		return -ENOMEM;
	table->entries = calloc((size_t)n + 1, sizeof(*table->entries));
	if (!table->entries) {
		mnt_free_iter(iter);
		return -ENOMEM;
	}
	while (r >= 0 && table->n < (size_t)n && mnt_table_next_fs(table->lib, iter, &fs) == 0) {
		r = unmark_root(fs);
		table->entries[table->n++] = entry_from_fs(fs);
	}
	mnt_free_iter(iter);
	return r;
}

/* With `text` NULL from this process's file. */
static int parse(struct mount_table *table, const char *text, size_t size)
{
	FILE *f;
	int r;

	errno = 0;
	if (!text)
		return mnt_table_parse_file(table->lib, MOUNTINFO);
	f = fmemopen((void *)text, size, "r");
	if (!f)
		return -1;
	r = mnt_table_parse_stream(table->lib, f, MOUNTINFO);
	(void)fclose(f);
	return r;
}

static int load(const char *text, size_t size, struct mount_table **ret, struct error *err)
{
	_cleanup_mount_table_ struct mount_table *table = calloc(1, sizeof(*table));
	int r = 0;

	if (!table)
		return error_errno(err, -ENOMEM, "read mountinfo");
	table->lib = mnt_new_table();
	if (!table->lib)
		return error_errno(err, -ENOMEM, "read mountinfo");
	if (parse(table, text, size) < 0)
		return error_errno(err, errno ? -errno : -EIO, "read " MOUNTINFO);
	r = fill_entries(table);
	if (r < 0)
		return error_errno(err, r, "read mountinfo");
	*ret = TAKE_PTR(table);
	return 0;
}

int mount_table_load(struct mount_table **ret, struct error *err)
{
	return load(NULL, 0, ret, err);
}

int mount_table_parse(const char *text, size_t size, struct mount_table **ret, struct error *err)
{
	return load(text, size, ret, err);
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
