/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/node_request.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "csi/validate.h"
#include "mount/path.h"

/* protobuf-c gives each map a type of its own, all of this layout. */
struct map_entry {
	ProtobufCMessage base;
	char *key, *value;
};
#define CHECK_ENTRY(type)                                                                 \
	static_assert(sizeof(type) == sizeof(struct map_entry) &&                         \
			      offsetof(type, key) == offsetof(struct map_entry, key) &&   \
			      offsetof(type, value) == offsetof(struct map_entry, value), \
		      "a map entry of another layout")
CHECK_ENTRY(Csi__V1__NodeStageVolumeRequest__VolumeContextEntry);
CHECK_ENTRY(Csi__V1__NodeStageVolumeRequest__PublishContextEntry);
CHECK_ENTRY(Csi__V1__NodeStageVolumeRequest__SecretsEntry);
CHECK_ENTRY(Csi__V1__NodePublishVolumeRequest__VolumeContextEntry);
CHECK_ENTRY(Csi__V1__NodePublishVolumeRequest__PublishContextEntry);
CHECK_ENTRY(Csi__V1__NodePublishVolumeRequest__SecretsEntry);

struct map {
	struct map_entry *const *entries;
	size_t n;
};
#define MAP(message, field) \
	((struct map){ (struct map_entry *const *)(message)->field, (message)->n_##field })

/* The maps that we do not use keep the specification's limit all the same. */
static int check_map(const char *field, struct map map, struct error *err)
{
	size_t size = 0;

	for (size_t i = 0; i < map.n; i++)
		size += strlen(map.entries[i]->key) + strlen(map.entries[i]->value);
	if (size > VALIDATE_MAP_MAX)
		return error_set(err, ERROR_INVALID, -EINVAL, "%s is longer than %d bytes", field,
				 VALIDATE_MAP_MAX);
	return 0;
}

static int decode_context(struct map map, struct attributes *ret, struct error *err)
{
	_cleanup_free_ struct attribute *list = calloc(map.n + 1, sizeof(*list));

	if (!list)
		return error_errno(err, -ENOMEM, "volume_context");
	for (size_t i = 0; i < map.n; i++)
		list[i] = (struct attribute){ map.entries[i]->key, map.entries[i]->value };
	return attributes_decode(list, map.n, ret, err);
}

static int decode_common(struct node_request *request, const Csi__V1__VolumeCapability *capability,
			 struct map volume_context, struct map publish_context, struct map secrets,
			 struct error *err)
{
	int r = capability_decode(capability, &request->capability, err);

	if (r >= 0)
		r = check_map("publish_context", publish_context, err);
	if (r >= 0)
		r = check_map("secrets", secrets, err);
	if (r >= 0)
		r = decode_context(volume_context, &request->attributes, err);
	return r;
}

int node_request_stage(const Csi__V1__NodeStageVolumeRequest *message, const char *kubelet_root,
		       struct node_request *ret, struct error *err)
{
	_cleanup_node_request_ struct node_request request = {
		.volume_id = message->volume_id,
		.staging_path = message->staging_target_path,
		.target_path = "",
	};
	int r = validate_volume_id(message->volume_id, err);

	if (r >= 0)
		r = validate_path("staging_target_path", kubelet_root, message->staging_target_path,
				  err);
	if (r >= 0)
		r = decode_common(&request, message->volume_capability,
				  MAP(message, volume_context), MAP(message, publish_context),
				  MAP(message, secrets), err);
	if (r < 0)
		return r;
	if (request.attributes.ephemeral)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "an inline volume is not staged: publish it");
	*ret = request;
	request.attributes.source = NULL;
	return 0;
}

/* A directory below the staging path would be made on the volume itself. */
static int check_publish_paths(const Csi__V1__NodePublishVolumeRequest *message,
			       const char *kubelet_root, struct error *err)
{
	const char *staging = message->staging_target_path, *target = message->target_path;
	int r = validate_path("staging_target_path", kubelet_root, staging, err);

	if (r < 0)
		return r;
	if (path_is_beneath(staging, target) || path_is_beneath(target, staging))
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "target_path %s and staging_target_path %s lie in each other",
				 target, staging);
	return 0;
}

int node_request_publish(const Csi__V1__NodePublishVolumeRequest *message, const char *kubelet_root,
			 struct node_request *ret, struct error *err)
{
	_cleanup_node_request_ struct node_request request = {
		.volume_id = message->volume_id,
		.staging_path = message->staging_target_path,
		.target_path = message->target_path,
		.read_only = message->readonly,
	};
	int r = validate_volume_id(message->volume_id, err);

	if (r >= 0)
		r = validate_path("target_path", kubelet_root, message->target_path, err);
	if (r >= 0 && *message->staging_target_path)
		r = check_publish_paths(message, kubelet_root, err);
	if (r >= 0)
		r = decode_common(&request, message->volume_capability,
				  MAP(message, volume_context), MAP(message, publish_context),
				  MAP(message, secrets), err);
	if (r < 0)
		return r;
	*ret = request;
	request.attributes.source = NULL;
	return 0;
}

void node_request_clear(struct node_request *request)
{
	attributes_clear(&request->attributes);
}

static bool wants_read_only(const struct node_request *request)
{
	return (request->attributes.has_read_only && request->attributes.read_only) ||
	       request->capability.reader_only || request->capability.options.read_only ||
	       request->read_only;
}

int node_request_config(const struct node_request *request, struct volume_config *ret,
			struct error *err)
{
	const struct attributes *a = &request->attributes;
	struct volume_config config = {
		.flags = (wants_read_only(request) ? VOLUME_READ_ONLY : 0) |
			 (request->capability.has_group ? VOLUME_HAS_GROUP : 0) |
			 (a->has_attr_timeout ? VOLUME_HAS_ATTR_TIMEOUT : 0) |
			 (a->has_entry_timeout ? VOLUME_HAS_ENTRY_TIMEOUT : 0),
		.mode = a->mode,
		.consistency = a->consistency,
		.group = request->capability.group,
		.max_read = request->capability.options.max_read,
		.attr_timeout_ns = a->attr_timeout_ns,
		.entry_timeout_ns = a->entry_timeout_ns,
		.memory_limit = a->memory_limit,
	};
	int r;

	if (!a->source)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "attribute source is missing: name the dataset's directory in "
				 "volumeAttributes of the %s",
				 a->ephemeral ? "pod's inline volume" : "PV");
	(void)snprintf(config.id, sizeof(config.id), "%s", request->volume_id);
	r = volume_config_check(&config, err);
	if (r < 0)
		return r;
	*ret = config;
	return 0;
}
