/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/attributes.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/parse.h"
#include "csi/validate.h"
#include "mount/path.h"

#define KUBELET_PREFIX "csi.storage.k8s.io/"
#define FILE_SCHEME "file://"
#define SHOWN_MAX 64 /* bytes of a wrong value that an error repeats */

static int wrong_value(const char *key, const char *value, const char *possible, struct error *err)
{
	return error_set(err, ERROR_INVALID, -EINVAL, "attribute %s is '%.*s'; possible are %s",
			 key, SHOWN_MAX, value, possible);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -EINVAL;
}

/* Undoes the %XX of a file URI in place (RFC 3986, 2.1). A NUL or a slash can't be written so. */
static int unescape_uri(char *s)
{
	char *to = s;

	for (const char *from = s; *from; from++) {
		char c = *from;

		if (c == '%') {
			int high = hex_digit(from[1]);
			int low = high < 0 ? high : hex_digit(from[2]);

			if (low < 0)
				return -EINVAL;
			c = (char)(high << 4 | low);
			if (c == '\0' || c == '/')
				return -EINVAL;
			from += 2;
		}
		*to++ = c;
	}
	*to = '\0';
	return 0;
}

static int decode_source(struct attributes *a, const char *key, const char *value,
			 struct error *err)
{
	bool is_uri = strncmp(value, FILE_SCHEME, strlen(FILE_SCHEME)) == 0;
	_cleanup_free_ char *path = strdup(is_uri ? value + strlen(FILE_SCHEME) : value);
	int r;

	if (!path)
		return error_errno(err, -ENOMEM, "attribute source");
	if (*path != '/' || (is_uri && unescape_uri(path) < 0))
		return wrong_value(key, value, "an absolute directory and file:///DIRECTORY", err);
	path_strip_slashes(path);
	r = validate_text("attribute source", path, PATH_MAX - 1, err);
	if (r >= 0)
		r = path_check("attribute source", path, err);
	if (r < 0)
		return r;
	a->source = TAKE_PTR(path);
	return 0;
}

static int decode_read_only(struct attributes *a, const char *key, const char *value,
			    struct error *err)
{
	if (parse_bool(value, &a->read_only) < 0)
		return wrong_value(key, value, "\"true\" and \"false\"", err);
	a->has_read_only = true;
	return 0;
}

static int decode_duration(const char *key, const char *value, uint64_t *ret, bool *ret_given,
			   struct error *err)
{
	if (parse_duration(value, ret) < 0)
		return wrong_value(key, value, "durations like \"500ms\", \"1s\" and \"1h30m\"",
				   err);
	*ret_given = true;
	return 0;
}

static int decode_attr_timeout(struct attributes *a, const char *key, const char *value,
			       struct error *err)
{
	return decode_duration(key, value, &a->attr_timeout_ns, &a->has_attr_timeout, err);
}

static int decode_entry_timeout(struct attributes *a, const char *key, const char *value,
				struct error *err)
{
	return decode_duration(key, value, &a->entry_timeout_ns, &a->has_entry_timeout, err);
}

static int decode_mode(struct attributes *a, const char *key, const char *value, struct error *err)
{
	if (volume_mode_parse(value, &a->mode) < 0)
		return wrong_value(key, value, "auto, upcall-free, passthrough and worker", err);
	return 0;
}

static int decode_consistency(struct attributes *a, const char *key, const char *value,
			      struct error *err)
{
	if (volume_consistency_parse(value, &a->consistency) < 0)
		return wrong_value(key, value, "close-to-open and immutable", err);
	return 0;
}

/* "0" is refused too: who wants no limit does not set one. */
static int decode_memory_limit(struct attributes *a, const char *key, const char *value,
			       struct error *err)
{
	char least[QUANTITY_MAX];
	uint64_t bytes;
	int r = parse_quantity(value, &bytes);

	if (r == -EINVAL)
		return wrong_value(key, value,
				   "quantities like \"512Mi\", \"1.5Gi\" and \"200M\", or bytes",
				   err);
	if (r < 0)
		return wrong_value(key, value, "less than 8Ei", err);
	if (bytes < VOLUME_MEMORY_MIN)
		return error_set(
			err, ERROR_INVALID, -EINVAL,
			"attribute %s is '%.*s'; the least is %s, or leave it out for no limit",
			key, SHOWN_MAX, value, quantity_show(VOLUME_MEMORY_MIN, least));
	a->memory_limit = bytes;
	return 0;
}

static const struct {
	const char *key;
	int (*decode)(struct attributes *a, const char *key, const char *value, struct error *err);
} known[] = {
	{ "source", decode_source },
	{ "readOnly", decode_read_only },
	{ "attrTimeout", decode_attr_timeout },
	{ "entryTimeout", decode_entry_timeout },
	{ "mode", decode_mode },
	{ "consistency", decode_consistency },
	{ "memoryLimit", decode_memory_limit },
};

#define NAME_MAX_DISTANCE 32 /* longer keys are compared by their first bytes */

/* Levenshtein's distance by Wagner and Fischer's table, one row at a time. */
static size_t distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	size_t row[NAME_MAX_DISTANCE + 1];

	for (size_t j = 0; j <= b_len; j++)
		row[j] = j;
	for (size_t i = 1; i <= a_len; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= b_len; j++) {
			bool same = tolower((unsigned char)a[i - 1]) ==
				    tolower((unsigned char)b[j - 1]);
			size_t replaced = diagonal + !same;

			diagonal = row[j];
			row[j] = MIN_OF(replaced, MIN_OF(row[j], row[j - 1]) + 1);
		}
	}
	return row[b_len];
}

const char *attributes_nearest(const char *key)
{
	size_t best = 0, best_distance = SIZE_MAX, len = strnlen(key, NAME_MAX_DISTANCE);

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		size_t d = distance(key, len, known[i].key, strlen(known[i].key));

		if (d < best_distance) {
			best = i;
			best_distance = d;
		}
	}
	return known[best].key;
}

static bool is_kubelets(const char *key)
{
	return strncmp(key, KUBELET_PREFIX, strlen(KUBELET_PREFIX)) == 0;
}

static int decode_kubelets(struct attributes *a, const struct attribute *attribute,
			   struct error *err)
{
	int r;

	if (strcmp(attribute->key, KUBELET_PREFIX "ephemeral") != 0)
		return 0;
	r = validate_text(attribute->key, attribute->value, VALIDATE_STRING_MAX, err);
	if (r >= 0 && parse_bool(attribute->value, &a->ephemeral) < 0)
		r = wrong_value(attribute->key, attribute->value, "\"true\" and \"false\"", err);
	return r;
}

static int decode_ours(struct attributes *a, const struct attribute *attribute, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(attribute->key, known[i].key) == 0) {
			int r = validate_text(attribute->key, attribute->value, VALIDATE_MAP_MAX,
					      err);

			if (r < 0)
				return r;
			a->n_given++;
			return known[i].decode(a, attribute->key, attribute->value, err);
		}
	return error_set(err, ERROR_INVALID, -EINVAL,
			 "attribute '%.*s' is not known; the nearest is '%s'", SHOWN_MAX,
			 attribute->key, attributes_nearest(attribute->key));
}

static int check_duplicates(const struct attribute *list, size_t n, struct error *err)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = i + 1; j < n; j++)
			if (strcmp(list[i].key, list[j].key) == 0)
				return error_set(err, ERROR_INVALID, -EINVAL,
						 "attribute '%.*s' is given twice", SHOWN_MAX,
						 list[i].key);
	return 0;
}

static int check_sizes(const struct attribute *list, size_t n, struct error *err)
{
	size_t ours = 0, kubelets = 0;

	for (size_t i = 0; i < n; i++) {
		size_t size = strlen(list[i].key) + strlen(list[i].value);
		int r = validate_required("a key of volume_context", list[i].key, VALIDATE_MAP_MAX,
					  err);

		if (r < 0)
			return r;
		*(is_kubelets(list[i].key) ? &kubelets : &ours) += size;
	}
	if (ours > VALIDATE_MAP_MAX || kubelets > VALIDATE_KUBELET_MAX)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "volume_context is longer than %d bytes", VALIDATE_MAP_MAX);
	return 0;
}

#define ATTRIBUTES_MAX 256 /* entries; more can't be meant */

int attributes_decode(const struct attribute *list, size_t n, struct attributes *ret,
		      struct error *err)
{
	_cleanup_attributes_ struct attributes a = { 0 };
	int r;

	if (n > ATTRIBUTES_MAX)
		return error_set(err, ERROR_INVALID, -EINVAL, "volume_context has %zu entries", n);
	r = check_sizes(list, n, err);
	if (r >= 0)
		r = check_duplicates(list, n, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		r = is_kubelets(list[i].key) ? decode_kubelets(&a, &list[i], err)
					     : decode_ours(&a, &list[i], err);
		if (r < 0)
			return r;
	}
	*ret = a;
	a.source = NULL;
	return 0;
}

void attributes_clear(struct attributes *a)
{
	free(a->source);
	*a = (struct attributes){ 0 };
}
