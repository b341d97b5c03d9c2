/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/capability.h"

#include <errno.h>
#include <string.h>

#include "base/parse.h"
#include "csi/validate.h"

#define MODE(name) CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__##name

static const struct {
	const char *name;
	bool reader_only, single_target;
} modes[] = {
	[MODE(SINGLE_NODE_WRITER)] = { "SINGLE_NODE_WRITER", false, true },
	[MODE(SINGLE_NODE_READER_ONLY)] = { "SINGLE_NODE_READER_ONLY", true, true },
	[MODE(MULTI_NODE_READER_ONLY)] = { "MULTI_NODE_READER_ONLY", true, false },
	[MODE(MULTI_NODE_SINGLE_WRITER)] = { "MULTI_NODE_SINGLE_WRITER", false, false },
	[MODE(MULTI_NODE_MULTI_WRITER)] = { "MULTI_NODE_MULTI_WRITER", false, false },
	[MODE(SINGLE_NODE_SINGLE_WRITER)] = { "SINGLE_NODE_SINGLE_WRITER", false, true },
	[MODE(SINGLE_NODE_MULTI_WRITER)] = { "SINGLE_NODE_MULTI_WRITER", false, false },
};

static const char *const fs_types[] = { "", "fuse", "fuse.holdfast", "holdfast" };

const char *capability_mode_name(uint32_t access_mode)
{
	const char *name = access_mode < ARRAY_SIZE(modes) ? modes[access_mode].name : NULL;

	return name ?: "UNKNOWN";
}

static int decode_access_mode(const Csi__V1__VolumeCapability__AccessMode *message,
			      struct capability *c, struct error *err)
{
	uint32_t mode = message ? (uint32_t)message->mode : 0;

	if (mode >= ARRAY_SIZE(modes) || !modes[mode].name)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "volume_capability.access_mode %u is not supported: give the PV "
				 "one of ReadOnlyMany, ReadWriteOnce, ReadWriteOncePod, "
				 "ReadWriteMany",
				 mode);
	c->access_mode = mode;
	c->reader_only = modes[mode].reader_only;
	c->single_target = modes[mode].single_target;
	return 0;
}

static int decode_fs_type(const char *fs_type, struct error *err)
{
	int r = validate_text("volume_capability.mount.fs_type", fs_type, VALIDATE_STRING_MAX, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(fs_types); i++)
		if (strcmp(fs_type, fs_types[i]) == 0)
			return 0;
	return error_set(err, ERROR_INVALID, -EINVAL,
			 "volume_capability.mount.fs_type '%s' is not possible: leave fsType out "
			 "of the PV",
			 fs_type);
}

static int decode_group(const char *group, struct capability *c, struct error *err)
{
	if (!*group)
		return 0;
	if (parse_u32(group, UINT32_MAX - 1, &c->group) < 0)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "volume_capability.mount.volume_mount_group '%.*s' is not a group "
				 "number",
				 VALIDATE_STRING_MAX, group);
	c->has_group = true;
	return 0;
}

static int decode_flags(char *const *flags, size_t n, struct capability *c, struct error *err)
{
	size_t total = 0;

	for (size_t i = 0; i < n; i++) {
		int r = validate_text("volume_capability.mount.mount_flags", flags[i],
				      VALIDATE_MAP_MAX, err);

		if (r < 0)
			return r;
		total += strlen(flags[i]);
		if (total > VALIDATE_MAP_MAX)
			return error_set(err, ERROR_INVALID, -EINVAL,
					 "volume_capability.mount.mount_flags are longer than %d "
					 "bytes",
					 VALIDATE_MAP_MAX);
		r = mount_options_add(&c->options, flags[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int decode_mount(const Csi__V1__VolumeCapability__MountVolume *mount, struct capability *c,
			struct error *err)
{
	int r = decode_fs_type(mount->fs_type, err);

	if (r < 0)
		return r;
	r = validate_text("volume_capability.mount.volume_mount_group", mount->volume_mount_group,
			  VALIDATE_STRING_MAX, err);
	if (r >= 0)
		r = decode_group(mount->volume_mount_group, c, err);
	if (r >= 0)
		r = decode_flags(mount->mount_flags, mount->n_mount_flags, c, err);
	return r;
}

int capability_decode(const Csi__V1__VolumeCapability *message, struct capability *ret,
		      struct error *err)
{
	struct capability c = { 0 };
	int r;

	mount_options_init(&c.options);
	if (!message)
		return error_set(err, ERROR_INVALID, -EINVAL, "volume_capability is missing");
	if (message->access_type_case == CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_BLOCK)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "block volumes are not served: set volumeMode: Filesystem in the "
				 "PV and the PVC");
	if (message->access_type_case != CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT ||
	    !message->mount)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "volume_capability has no access type: mount is the one possible");
	r = decode_access_mode(message->access_mode, &c, err);
	if (r >= 0)
		r = decode_mount(message->mount, &c, err);
	if (r < 0)
		return r;
	*ret = c;
	return 0;
}
