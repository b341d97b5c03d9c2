/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/validate.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/utf8.h"
#include "mount/path.h"

/* The code point of the control character (C0, DEL or C1) that s starts with, 0 if it does not. */
static unsigned int control_character(const char *s)
{
	unsigned char c = (unsigned char)s[0], next = (unsigned char)s[1];

	if (c < ' ' || c == 0x7f)
		return c;
	return c == 0xc2 && next < 0xa0 ? next : 0;
}

int validate_text(const char *field, const char *value, size_t max, struct error *err)
{
	size_t size = strnlen(value, max + 1);

	if (size > max)
		return error_set(err, ERROR_INVALID, -EINVAL, "%s is longer than %zu bytes", field,
				 max);
	if (utf8_prefix(value, size) != size)
		return error_set(err, ERROR_INVALID, -EINVAL, "%s is not valid UTF-8", field);
	for (const char *s = value; *s; s++)
		if (control_character(s))
			return error_set(err, ERROR_INVALID, -EINVAL,
					 "%s contains a control character (0x%02x)", field,
					 control_character(s));
	return 0;
}

int validate_required(const char *field, const char *value, size_t max, struct error *err)
{
	if (!*value)
		return error_set(err, ERROR_INVALID, -EINVAL, "%s is missing", field);
	return validate_text(field, value, max, err);
}

static bool is_plain_component(const char *s, size_t len)
{
	return len > 0 && !(len == 1 && s[0] == '.') && !(len == 2 && s[0] == '.' && s[1] == '.');
}

int validate_volume_id(const char *id, struct error *err)
{
	int r = validate_required("volume_id", id, VALIDATE_STRING_MAX, err);

	if (r < 0)
		return r;
	for (const char *p = id;; p++) {
		size_t len = strcspn(p, "/");

		if (!is_plain_component(p, len))
			return error_set(err, ERROR_INVALID, -EINVAL,
					 "volume_id '%s' looks like a path: slashes at its ends or "
					 "doubled, '.' and '..' are not possible",
					 id);
		p += len;
		if (!*p)
			return 0;
	}
}

int validate_path(const char *field, const char *root, const char *path, struct error *err)
{
	int r = validate_required(field, path, PATH_MAX - 1, err);

	if (r < 0)
		return r;
	r = path_check(field, path, err);
	if (r < 0)
		return r;
	if (!path_is_beneath(root, path) || strcmp(root, path) == 0)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "%s %s is not below %s: start holdfast-csi with --kubelet-root "
				 "where kubelet's own --root-dir is",
				 field, path, root);
	return 0;
}
