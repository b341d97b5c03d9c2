/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/fingerprint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#include "base/parse.h"

#define ACCESS_MODE "access mode"
#define SHOWN_MAX 200 /* bytes of each of two different values that an error repeats */

static void print_duration(FILE *f, const char *name, bool given, uint64_t ns)
{
	if (given)
		(void)fprintf(f, "%s=%" PRIu64 "ns\n", name, ns);
	else
		(void)fprintf(f, "%s=default\n", name);
}

static void print_attributes(FILE *f, const struct attributes *a)
{
	const char *read_only = !a->has_read_only ? "default" : a->read_only ? "true" : "false";
	char memory[QUANTITY_MAX];

	(void)fprintf(f, "source=%s\nreadOnly=%s\nmode=%s\nconsistency=%s\n", a->source ?: "",
		      read_only, volume_mode_name(a->mode),
		      volume_consistency_name(a->consistency));
	print_duration(f, "attrTimeout", a->has_attr_timeout, a->attr_timeout_ns);
	print_duration(f, "entryTimeout", a->has_entry_timeout, a->entry_timeout_ns);
	(void)fprintf(f, "memoryLimit=%s\n",
		      a->memory_limit ? quantity_show(a->memory_limit, memory) : "none");
}

static const struct {
	uint64_t mask, value; /* of MOUNT_ATTR_* */
	const char *name;
} flag_names[] = {
	{ MOUNT_ATTR_RDONLY, MOUNT_ATTR_RDONLY, "ro" },
	{ MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOEXEC, "noexec" },
	{ MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, "noatime" },
	{ MOUNT_ATTR__ATIME, MOUNT_ATTR_STRICTATIME, "strictatime" },
	{ MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NODIRATIME, "nodiratime" },
};

static void print_flags(FILE *f, uint64_t attr_set)
{
	const char *separator = "";

	(void)fputs("mount flags=", f);
	for (size_t i = 0; i < ARRAY_SIZE(flag_names); i++)
		if ((attr_set & flag_names[i].mask) == flag_names[i].value) {
			(void)fprintf(f, "%s%s", separator, flag_names[i].name);
			separator = ",";
		}
	(void)fputc('\n', f);
}

static void print_capability(FILE *f, const struct capability *c)
{
	(void)fprintf(f, ACCESS_MODE "=%s\n", capability_mode_name(c->access_mode));
	print_flags(f, c->options.attr_set);
	(void)fprintf(f, "max_read=%u\n", c->options.max_read);
	if (c->has_group)
		(void)fprintf(f, "volume_mount_group=%u\n", c->group);
	else
		(void)fprintf(f, "volume_mount_group=none\n");
}

struct fingerprint_input {
	const struct attributes *attributes; /* or NULL */
	const struct capability *capability; /* or NULL */
	const bool *read_only;		     /* or NULL */
};

static int print(const struct fingerprint_input *in, char **ret, struct error *err)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	bool failed;

	if (!f)
		return error_errno(err, -ENOMEM, "compare parameters");
	if (in->attributes)
		print_attributes(f, in->attributes);
	if (in->capability)
		print_capability(f, in->capability);
	if (in->read_only)
		(void)fprintf(f, "readonly=%s\n", *in->read_only ? "true" : "false");
	failed = ferror(f);
	if (fclose(f) != 0 || failed) {
		free(text);
		return error_errno(err, -ENOMEM, "compare parameters");
	}
	*ret = text;
	return 0;
}

int fingerprint_stage(const struct attributes *attributes, const struct capability *capability,
		      char **ret, struct error *err)
{
	struct fingerprint_input in = { .attributes = attributes, .capability = capability };

	return print(&in, ret, err);
}

int fingerprint_publish(const struct attributes *attributes, const struct capability *capability,
			bool read_only, char **ret, struct error *err)
{
	struct fingerprint_input in = {
		.attributes = attributes,
		.capability = capability,
		.read_only = &read_only,
	};

	return print(&in, ret, err);
}

int fingerprint_attributes(const struct attributes *attributes, char **ret, struct error *err)
{
	struct fingerprint_input in = { .attributes = attributes };

	return print(&in, ret, err);
}

int fingerprint_access_mode(const struct capability *capability, char **ret, struct error *err)
{
	char *text;

	if (asprintf(&text, ACCESS_MODE "=%s\n", capability_mode_name(capability->access_mode)) < 0)
		return error_errno(err, -ENOMEM, "compare parameters");
	*ret = text;
	return 0;
}

/* The value of `name` (of `len` bytes) in a fingerprint, up to the end of its line; NULL if it is
 * not there. */
static const char *find_value(const char *text, const char *name, size_t len)
{
	while (*text) {
		if (strncmp(text, name, len) == 0 && text[len] == '=')
			return text + len + 1;
		text += strcspn(text, "\n");
		text += *text == '\n';
	}
	return NULL;
}

int fingerprint_compare(const char *before, const char *now, struct error *err)
{
	while (*now) {
		size_t name_len = strcspn(now, "=\n"), line_len = strcspn(now, "\n");
		const char *old = find_value(before, now, name_len);

		if (old && now[name_len] == '=') {
			const char *value = now + name_len + 1;
			size_t value_len = line_len - name_len - 1;
			size_t old_len = strcspn(old, "\n");

			if (old_len != value_len || memcmp(old, value, old_len) != 0)
				return error_set(err, ERROR_EXISTS, -EEXIST,
						 "%.*s is '%.*s', this call says '%.*s'",
						 (int)name_len, now,
						 (int)MIN_OF(old_len, SHOWN_MAX), old,
						 (int)MIN_OF(value_len, SHOWN_MAX), value);
		}
		now += line_len;
		now += *now == '\n';
	}
	return 0;
}
