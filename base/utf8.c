/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

/* The length that the first byte announces; 0 if no character starts with it. `*ret_second` is the
 * lowest and highest value of the second byte, which rules out overlong forms and surrogates. */
static size_t sequence_length(unsigned char first, unsigned char ret_second[2])
{
	ret_second[0] = 0x80;
	ret_second[1] = 0xbf;
	if (first < 0x80)
		return 1;
	if (first < 0xc2 || first > 0xf4)
		return 0;
	if (first < 0xe0)
		return 2;
	if (first == 0xe0)
		ret_second[0] = 0xa0;
	else if (first == 0xed)
		ret_second[1] = 0x9f;
	else if (first == 0xf0)
		ret_second[0] = 0x90;
	else if (first == 0xf4)
		ret_second[1] = 0x8f;
	return first < 0xf0 ? 3 : 4;
}

/* The length of the character at `s`, 0 if there is none. */
static size_t character(const unsigned char *s, size_t n)
{
	unsigned char second[2];
	size_t len = sequence_length(s[0], second);

	if (len == 0 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if (s[i] < (i == 1 ? second[0] : 0x80) || s[i] > (i == 1 ? second[1] : 0xbf))
			return 0;
	return len;
}

size_t utf8_prefix(const char *s, size_t n)
{
	size_t i = 0;

	while (i < n) {
		size_t len = character((const unsigned char *)s + i, n - i);

		if (len == 0)
			break;
		i += len;
	}
	return i;
}

void utf8_clean(char *s)
{
	size_t n = strlen(s);

	for (size_t i = utf8_prefix(s, n); i < n; i += utf8_prefix(s + i, n - i))
		s[i] = '?';
}
