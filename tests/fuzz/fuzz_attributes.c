/* SPDX-License-Identifier: Apache-2.0 */

/* A volume's attributes: keys and values in turn, each ended by a NUL. */

#include <string.h>

#include "csi/attributes.h"
#include "mount/path.h"

#define PAIRS_MAX 300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Cuts `text` into pairs; what is left over is dropped. */
static size_t split(char *text, size_t size, struct attribute list[PAIRS_MAX])
{
	const char *key = NULL;
	size_t n = 0;

	for (char *s = text; n < PAIRS_MAX;) {
		char *end = memchr(s, '\0', size - (size_t)(s - text));

		if (!end)
			break;
		if (key) {
			list[n++] = (struct attribute){ key, s };
			key = NULL;
		} else {
			key = s;
		}
		s = end + 1;
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_attributes_ struct attributes a = { 0 };
	_cleanup_free_ char *text = malloc(size + 1);
	struct attribute list[PAIRS_MAX];
	struct error err = ERROR_INIT;
	int r;

	if (!text)
		abort();
	memcpy(text, data, size);
	r = attributes_decode(list, split(text, size, list), &a, &err);
	if (r < 0 ? err.code != r || !err.text[0]
		  : a.source && path_check("source", a.source, &err) < 0)
		abort();
	return 0;
}
