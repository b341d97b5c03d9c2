/* SPDX-License-Identifier: Apache-2.0 */

/* The decoder of FUSE requests: headers, extensions, and the rewriting for libfuse. */

#include <string.h>

#include "fuse/request.h"
#include "fuse/uapi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *copy = malloc(size ?: 1);
	struct fuse_in_header *in = (struct fuse_in_header *)copy;
	struct request request;
	size_t left;

	if (!copy)
		abort();
	memcpy(copy, data, size);
	if (size < sizeof(*in))
		return 0;
	in->len = (uint32_t)size; /* else hardly anything gets past the first check */
	/* what the session promises to libfuse: nothing grows, and lengths are true */
	if (request_decode(copy, size, UINT64_MAX, &request, &left) == 0 &&
	    (left > size || left < sizeof(*in) || in->len != left ||
	     request.n_groups > REQUEST_GROUPS_MAX))
		abort();
	return 0;
}
