/* SPDX-License-Identifier: Apache-2.0 */
#include "mount/options.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>

#include "base/parse.h"

#define MAX_READ_MIN 4096U
#define MAX_READ_MAX (16U << 20)

/* Flags that are plain bits; `clear` is taken away before `set` is added. */
static const struct {
	const char *name;
	uint64_t set, clear;
} known_flags[] = {
	{ "rw", 0, 0 },
	{ "nosuid", 0, 0 }, /* always on */
	{ "nodev", 0, 0 },  /* always on */
	{ "noexec", MOUNT_ATTR_NOEXEC, 0 },
	{ "exec", 0, MOUNT_ATTR_NOEXEC },
	{ "noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME },
	{ "relatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME },
	{ "strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME },
	{ "nodiratime", MOUNT_ATTR_NODIRATIME, 0 },
	{ "allow_other", 0, 0 },	 /* always on */
	{ "default_permissions", 0, 0 }, /* always on */
};

void mount_options_init(struct mount_options *ret)
{
	*ret = (struct mount_options){ .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV };
}

static int add_max_read(struct mount_options *o, const char *value, struct error *err)
{
	uint32_t bytes;

	if (parse_u32(value, MAX_READ_MAX, &bytes) < 0 || bytes < MAX_READ_MIN)
		return error_set(
			err, ERROR_INVALID, -EINVAL,
			"mount flag 'max_read=%.64s': a number of bytes from %u to %u is possible",
			value, MAX_READ_MIN, MAX_READ_MAX);
	o->max_read = bytes;
	return 0;
}

static int add_one(struct mount_options *o, const char *flag, struct error *err)
{
	if (strcmp(flag, "ro") == 0) {
		o->read_only = true;
		o->attr_set |= MOUNT_ATTR_RDONLY;
		return 0;
	}
	if (strncmp(flag, "max_read=", 9) == 0)
		return add_max_read(o, flag + 9, err);
	for (size_t i = 0; i < ARRAY_SIZE(known_flags); i++)
		if (strcmp(flag, known_flags[i].name) == 0) {
			o->attr_set = (o->attr_set & ~known_flags[i].clear) | known_flags[i].set;
			o->attr_clear |= known_flags[i].clear;
			return 0;
		}
	return error_set(err, ERROR_INVALID, -EINVAL,
			 "mount flag '%.64s' is not served; possible are ro, rw, exec, noexec, "
			 "nosuid, nodev, noatime, "
			 "relatime, strictatime, nodiratime, allow_other, default_permissions, "
			 "max_read=BYTES",
			 flag);
}

int mount_options_add(struct mount_options *o, const char *flag, struct error *err)
{
	while (*flag) {
		size_t len = strcspn(flag, ",");
		_cleanup_free_ char *one = strndup(flag, len);
		int r;

		if (!one)
			return error_errno(err, -ENOMEM, "mount flags");
		r = add_one(o, one, err);
		if (r < 0)
			return r;
		flag += len + (flag[len] == ',');
	}
	return 0;
}
