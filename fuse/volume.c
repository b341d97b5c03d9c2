/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/volume.h"

#include <errno.h>
#include <string.h>

#include "base/parse.h"

static const char *const mode_names[] = {
	[VOLUME_MODE_AUTO] = "auto",
	[VOLUME_MODE_UPCALL_FREE] = "upcall-free",
	[VOLUME_MODE_PASSTHROUGH] = "passthrough",
	[VOLUME_MODE_WORKER] = "worker",
};

static const char *const consistency_names[] = {
	[VOLUME_CLOSE_TO_OPEN] = "close-to-open",
	[VOLUME_IMMUTABLE] = "immutable",
};

static int find_name(const char *const *names, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(names[i], s) == 0)
			return (int)i;
	return -EINVAL;
}

const char *volume_mode_name(enum volume_mode mode)
{
	return (size_t)mode < ARRAY_SIZE(mode_names) ? mode_names[mode] : "unknown";
}

int volume_mode_parse(const char *s, enum volume_mode *ret)
{
	int i = find_name(mode_names, ARRAY_SIZE(mode_names), s);

	if (i < 0)
		return i;
	*ret = (enum volume_mode)i;
	return 0;
}

const char *volume_consistency_name(enum volume_consistency consistency)
{
	return (size_t)consistency < ARRAY_SIZE(consistency_names) ? consistency_names[consistency]
								   : "unknown";
}

int volume_consistency_parse(const char *s, enum volume_consistency *ret)
{
	int i = find_name(consistency_names, ARRAY_SIZE(consistency_names), s);

	if (i < 0)
		return i;
	*ret = (enum volume_consistency)i;
	return 0;
}

static int check_memory(uint64_t limit, struct error *err)
{
	char shown[QUANTITY_MAX], least[QUANTITY_MAX];

	if (limit == 0 || (limit >= VOLUME_MEMORY_MIN && limit <= INT64_MAX))
		return 0;
	return error_set(err, ERROR_INVALID, -EINVAL,
			 "a memory limit of %s is not possible, the least is %s",
			 quantity_show(limit, shown), quantity_show(VOLUME_MEMORY_MIN, least));
}

int volume_config_check(const struct volume_config *c, struct error *err)
{
	if (!c->id[0] || !memchr(c->id, '\0', VOLUME_ID_MAX + 1))
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "volume id: 1 to %d bytes are possible", VOLUME_ID_MAX);
	if (c->flags & ~VOLUME_FLAGS_ALL)
		return error_set(err, ERROR_INVALID, -EINVAL, "volume flags 0x%x are not known",
				 c->flags);
	if (c->mode >= ARRAY_SIZE(mode_names) || c->consistency >= ARRAY_SIZE(consistency_names))
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "volume mode %u or consistency %u is not known", c->mode,
				 c->consistency);
	if (c->consistency == VOLUME_IMMUTABLE && !(c->flags & VOLUME_READ_ONLY))
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "consistency 'immutable' needs a read-only volume: set readOnly "
				 "\"true\" or a "
				 "read-only access mode");
	if (c->mode == VOLUME_MODE_UPCALL_FREE && !(c->flags & VOLUME_READ_ONLY))
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "mode 'upcall-free' needs a read-only volume: set readOnly "
				 "\"true\" or a read-only "
				 "access mode");
	return check_memory(c->memory_limit, err);
}
