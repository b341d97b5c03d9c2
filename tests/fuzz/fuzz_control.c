/* SPDX-License-Identifier: Apache-2.0 */

/* What arrives on the keeper's control socket, at both ends. */

#include <string.h>

#include "recovery/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_reply(const uint8_t *data, size_t size)
{
	struct control_reply reply;
	struct control_header header;
	struct error err = ERROR_INIT;

	if (size < sizeof(header))
		return;
	memcpy(&header, data, sizeof(header));
	if (control_check_reply(data, size, (enum control_type)header.type, header.serial, &reply,
				&err) < 0)
		return;
	if (strnlen(reply.text, sizeof(reply.text)) == sizeof(reply.text) ||
	    strnlen(reply.status.config.id, sizeof(reply.status.config.id)) ==
		    sizeof(reply.status.config.id))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error err = ERROR_INIT;
	int r = control_check(data, size, &err);

	if ((r < 0) != (err.text[0] != '\0') || r != err.code)
		abort();
	if (r == 0 && size != sizeof(struct control_request))
		abort();
	check_reply(data, size);
	return 0;
}
