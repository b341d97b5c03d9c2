/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A Publish request from bytes to what is done with it: what is accepted keeps the rules that the
 * rest of the program relies on.
 */

#include <errno.h>

#include "csi/fingerprint.h"
#include "csi/message.h"
#include "csi/node_request.h"
#include "mount/path.h"

#define ROOT "/k"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct node_request *request)
{
	_cleanup_free_ char *first = NULL, *second = NULL;
	struct volume_config config;
	struct error err = ERROR_INIT;

	if (path_check("target_path", request->target_path, &err) < 0 ||
	    !path_is_beneath(ROOT, request->target_path))
		abort();
	if (request->attributes.source &&
	    path_check("source", request->attributes.source, &err) < 0)
		abort();
	if (node_request_config(request, &config, &err) >= 0 &&
	    volume_config_check(&config, &err) < 0)
		abort();
	if (fingerprint_publish(&request->attributes, &request->capability, request->read_only,
				&first, &err) < 0 ||
	    fingerprint_stage(&request->attributes, &request->capability, &second, &err) < 0)
		abort();
	if (fingerprint_compare(first, first, &err) < 0 ||
	    fingerprint_compare(first, second, &err) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_message_ ProtobufCMessage *message = NULL;
	_cleanup_node_request_ struct node_request request = { 0 };
	struct error err = ERROR_INIT;
	int r = message_decode(&csi__v1__node_publish_volume_request__descriptor, data, size,
			       &message, &err);

	if (r >= 0)
		r = node_request_publish((const void *)message, ROOT, &request, &err);
	if (r < 0) {
		if (err.code != r || !err.text[0])
			abort();
		return 0;
	}
	check(&request);
	return 0;
}
