/* SPDX-License-Identifier: Apache-2.0 */

/* The decoder of FUSE requests: headers, extensions, and the rewriting for libfuse. */

#include <string.h>

#include "fuse/request.h"
#include "fuse/uapi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ unsigned char *copy = malloc(MAX_OF(size, (size_t)1));
	_cleanup_free_ unsigned char *before = malloc(MAX_OF(size, (size_t)1));
	_cleanup_free_ void *scratch = malloc(MAX_OF(size, (size_t)1));
	struct fuse_in_header *in = (struct fuse_in_header *)copy;
	struct request request;
	void *left_buf;
	size_t left;

	if (!copy || !before || !scratch)
		abort();
	memcpy(copy, data, size);
	if (size < sizeof(*in))
		return 0;
	in->len = (uint32_t)size; /* else hardly anything gets past the first check */
	memcpy(before, copy, size);
	/* what the session promises to libfuse: nothing grows, and lengths are true; and to the next
	 * worker: the request stays as it came */
	if (request_decode(copy, size, UINT64_MAX, scratch, &request, &left_buf, &left) == 0 &&
	    (left > size || left < sizeof(*in) ||
	     ((struct fuse_in_header *)left_buf)->len != left ||
	     request.n_groups > REQUEST_GROUPS_MAX))
		abort();
	if (memcmp(before, copy, size) != 0)
		abort();
	return 0;
}
