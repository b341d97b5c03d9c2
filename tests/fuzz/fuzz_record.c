/* SPDX-License-Identifier: Apache-2.0 */

/* The decoder of state records: what passes can be written again and means the same. */

#include <string.h>

#include "recovery/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_record_ struct record *record = NULL, *again = NULL;
	_cleanup_free_ char *text = NULL, *second = NULL;
	struct error err = ERROR_INIT;
	size_t text_size, second_size;
	int r = record_decode((const char *)data, size, &record, &err);

	if (r < 0) {
		if (!err.text[0] || err.code != r)
			abort();
		return 0;
	}
	if (record_encode(record, &text, &text_size, &err) < 0 ||
	    record_decode(text, text_size, &again, &err) < 0 ||
	    record_encode(again, &second, &second_size, &err) < 0)
		abort();
	if (text_size != second_size || memcmp(text, second, text_size) != 0)
		abort();
	return 0;
}
