/* SPDX-License-Identifier: Apache-2.0 */
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Reads the decimal digits at *s, moves *s behind them. */
static int take_digits(const char **s, uint64_t *ret)
{
	const char *p = *s;
	uint64_t value = 0;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return -ERANGE;
	*s = p;
	*ret = value;
	return 0;
}

int parse_u64(const char *s, uint64_t *ret)
{
	uint64_t value;
	int r = take_digits(&s, &value);

	if (r < 0)
		return r;
	if (*s)
		return -EINVAL;
	*ret = value;
	return 0;
}

int parse_u32(const char *s, uint32_t max, uint32_t *ret)
{
	uint64_t value;
	int r = parse_u64(s, &value);

	if (r < 0)
		return r;
	if (value > max)
		return -ERANGE;
	*ret = (uint32_t)value;
	return 0;
}

int parse_bool(const char *s, bool *ret)
{
	if (strcmp(s, "true") == 0)
		*ret = true;
	else if (strcmp(s, "false") == 0)
		*ret = false;
	else
		return -EINVAL;
	return 0;
}

static const struct {
	const char *name;
	uint64_t ns;
} duration_units[] = {
	/* the longer of two units with a common prefix comes first */
	{ "ns", 1 },	   { "us", 1000 },	{ "\xc2\xb5s", 1000 }, { "\xce\xbcs", 1000 },
	{ "ms", 1000000 }, { "s", 1000000000 }, { "m", 60000000000 },  { "h", 3600000000000 },
};

static int take_unit(const char **s, uint64_t *ret_ns)
{
	for (size_t i = 0; i < ARRAY_SIZE(duration_units); i++) {
		size_t len = strlen(duration_units[i].name);

		if (strncmp(*s, duration_units[i].name, len) == 0) {
			*s += len;
			*ret_ns = duration_units[i].ns;
			return 0;
		}
	}
	return -EINVAL;
}

/* Reads the digits behind a decimal point: value/scale is the fraction. Digits below 10^-18 are
 * cut. */
static size_t take_fraction(const char **s, uint64_t *ret_value, uint64_t *ret_scale)
{
	uint64_t value = 0, scale = 1;
	const char *p = *s;

	for (; *p >= '0' && *p <= '9'; p++)
		if (scale < 1000000000000000000ULL) {
			value = value * 10 + (uint64_t)(*p - '0');
			scale *= 10;
		}
	*ret_value = value;
	*ret_scale = scale;
	size_t digits = (size_t)(p - *s);
	*s = p;
	return digits;
}

/* One "NUMBER UNIT" of a duration. */
static int take_duration_part(const char **s, uint64_t *ret_ns)
{
	uint64_t whole = 0, fraction = 0, scale = 1, unit, ns;
	size_t digits = 0;
	bool has_whole = **s >= '0' && **s <= '9';

	if (has_whole) {
		int r = take_digits(s, &whole);

		if (r < 0)
			return r;
	}
	if (**s == '.') {
		(*s)++;
		digits = take_fraction(s, &fraction, &scale);
	}
	if (!has_whole && digits == 0)
		return -EINVAL;
	int r = take_unit(s, &unit);
	if (r < 0)
		return r;
	if (__builtin_mul_overflow(whole, unit, &ns) ||
	    __builtin_add_overflow(ns, (uint64_t)((unsigned __int128)fraction * unit / scale), &ns))
		return -ERANGE;
	*ret_ns = ns;
	return 0;
}

int parse_duration(const char *s, uint64_t *ret_ns)
{
	uint64_t total = 0;

	if (strcmp(s, "0") == 0) {
		*ret_ns = 0;
		return 0;
	}
	if (!*s)
		return -EINVAL;
	while (*s) {
		uint64_t part;
		int r = take_duration_part(&s, &part);

		if (r < 0)
			return r;
		if (__builtin_add_overflow(total, part, &total))
			return -ERANGE;
	}
	if (total > INT64_MAX)
		return -ERANGE;
	*ret_ns = total;
	return 0;
}

static const struct {
	const char *suffix;
	uint64_t factor;
} quantity_suffixes[] = {
	{ "", 1 },
	{ "k", 1000 },
	{ "M", 1000000 },
	{ "G", 1000000000 },
	{ "T", 1000000000000 },
	{ "P", 1000000000000000 },
	{ "E", 1000000000000000000 },
	{ "Ki", 1ULL << 10 },
	{ "Mi", 1ULL << 20 },
	{ "Gi", 1ULL << 30 },
	{ "Ti", 1ULL << 40 },
	{ "Pi", 1ULL << 50 },
	{ "Ei", 1ULL << 60 },
};

static int find_factor(const char *suffix, uint64_t *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(quantity_suffixes); i++)
		if (strcmp(suffix, quantity_suffixes[i].suffix) == 0) {
			*ret = quantity_suffixes[i].factor;
			return 0;
		}
	return -EINVAL;
}

int parse_quantity(const char *s, uint64_t *ret)
{
	uint64_t whole, fraction = 0, scale = 1, factor;
	unsigned __int128 part;
	int r = take_digits(&s, &whole);

	if (r < 0)
		return r;
	if (*s == '.') {
		s++;
		if (take_fraction(&s, &fraction, &scale) == 0)
			return -EINVAL;
	}
	r = find_factor(s, &factor);
	if (r < 0)
		return r;
	part = ((unsigned __int128)fraction * factor + scale - 1) / scale; /* rounded up */
	if (__builtin_mul_overflow(whole, factor, &whole) ||
	    __builtin_add_overflow(whole, (uint64_t)part, &whole) || whole > INT64_MAX)
		return -ERANGE;
	*ret = whole;
	return 0;
}

const char *quantity_show(uint64_t value, char buf[QUANTITY_MAX])
{
	static const char *const units[] = { "", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei" };
	size_t i = 0;

	for (; value != 0 && value % 1024 == 0 && i + 1 < ARRAY_SIZE(units); i++)
		value /= 1024;
	(void)snprintf(buf, QUANTITY_MAX, "%" PRIu64 "%s", value, units[i]);
	return buf;
}
