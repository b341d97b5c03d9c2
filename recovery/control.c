/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/control.h"

#include <errno.h>
#include <string.h>

_Static_assert(sizeof(struct control_header) == 24, "the header never changes its layout");

static const char *const state_names[] = {
	[VOLUME_STARTING] = "starting",
	[VOLUME_SERVING] = "serving",
	[VOLUME_RESTARTING] = "restarting",
	[VOLUME_DEAD] = "dead",
};

const char *volume_state_name(enum volume_state state)
{
	return (size_t)state < ARRAY_SIZE(state_names) ? state_names[state] : "unknown";
}

const struct volume_status *volume_status_find(const struct volume_status *list, size_t n,
					       const char *id)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i].config.id, id) == 0)
			return &list[i];
	return NULL;
}

/* What requests and replies have in common; the version comes first, as all else depends on it. */
static int check_header(const void *packet, size_t size, size_t expected, enum error_kind kind,
			struct error *err)
{
	struct control_header header;

	if (size < sizeof(header))
		return error_set(err, kind, -EBADMSG, "control packet of %zu bytes", size);
	memcpy(&header, packet, sizeof(header));
	if (header.magic != CONTROL_MAGIC)
		return error_set(err, kind, -EBADMSG, "control packet with magic 0x%08x",
				 header.magic);
	if (header.version != CONTROL_VERSION)
		return error_set(err, kind, -EPROTONOSUPPORT,
				 "control protocol version %u, this build speaks %u: keeper and "
				 "its clients have to be of one release",
				 header.version, CONTROL_VERSION);
	if (size != expected || header.size != expected)
		return error_set(err, kind, -EBADMSG,
				 "control packet of %zu bytes, says %u, expected %zu", size,
				 header.size, expected);
	if (header.reserved != 0)
		return error_set(err, kind, -EBADMSG, "control packet with reserved bits set");
	return 0;
}

/* The id alone: terminated, not empty, and nothing behind its end. */
static int check_id(const char id[VOLUME_ID_MAX + 8], struct error *err)
{
	size_t len = strnlen(id, VOLUME_ID_MAX + 8);

	if (len == 0 || len > VOLUME_ID_MAX)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "volume id: 1 to %d bytes are possible", VOLUME_ID_MAX);
	for (size_t i = len; i < VOLUME_ID_MAX + 8; i++)
		if (id[i] != '\0')
			return error_set(err, ERROR_INVALID, -EINVAL,
					 "volume id '%s' has bytes behind its end", id);
	return 0;
}

static int check_add(const struct volume_config *config, struct error *err)
{
	int r = check_id(config->id, err);

	if (r < 0)
		return r;
	if (config->reserved != 0)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "volume config with reserved bits set");
	return volume_config_check(config, err);
}

static int check_swap(const struct control_request *request, struct error *err)
{
	if (request->source[0] != '/' || !memchr(request->source, '\0', CONTROL_SOURCE_MAX))
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "the new source has to be an absolute path of at most %d bytes",
				 CONTROL_SOURCE_MAX - 1);
	return check_id(request->config.id, err);
}

int control_check(const void *packet, size_t size, struct error *err)
{
	struct control_request request;
	int r = check_header(packet, size, sizeof(request), ERROR_INVALID, err);

	if (r < 0)
		return r;
	memcpy(&request, packet, sizeof(request));
	if (request.header.flags != 0)
		return error_set(err, ERROR_INVALID, -EBADMSG, "control request with flags 0x%x",
				 request.header.flags);
	switch ((enum control_type)request.header.type) {
	case CONTROL_ADD:
	case CONTROL_REPLACE:
		return check_add(&request.config, err);
	case CONTROL_MOUNT:
	case CONTROL_REMOVE:
	case CONTROL_ESCROW:
	case CONTROL_ADOPT:
	case CONTROL_RESTART:
	case CONTROL_KILL:
		return check_id(request.config.id, err);
	case CONTROL_SWAP:
		return check_swap(&request, err);
	case CONTROL_HEAL:
		return *request.config.id ? check_id(request.config.id, err) : 0;
	case CONTROL_LIST:
	case CONTROL_WATCH:
	case CONTROL_HANDOVER:
	case CONTROL_HANDOVER_COMMIT:
		return 0;
	}
	return error_set(err, ERROR_INVALID, -EBADMSG, "control request of unknown type %u",
			 request.header.type);
}

static void terminate(char *text, size_t size)
{
	text[size - 1] = '\0';
}

int control_check_reply(const void *packet, size_t size, enum control_type type, uint32_t serial,
			struct control_reply *ret, struct error *err)
{
	int r = check_header(packet, size, sizeof(*ret), ERROR_UNAVAILABLE, err);
	struct control_header header;

	if (r < 0)
		return r;
	memcpy(&header, packet, sizeof(header));
	if (header.type != type || header.serial != serial)
		return error_set(
			err, ERROR_UNAVAILABLE, -EBADMSG,
			"the keeper answered request %u of type %u, expected %u of type %u",
			header.serial, header.type, serial, (unsigned int)type);
	memcpy(ret, packet, sizeof(*ret));
	terminate(ret->text, sizeof(ret->text));
	terminate(ret->status.config.id, sizeof(ret->status.config.id));
	terminate(ret->status.reason, sizeof(ret->status.reason));
	return 0;
}
