/* SPDX-License-Identifier: Apache-2.0 */

/*
 * NodeStageVolume and NodeUnstageVolume: the volume's FUSE mount, made and mounted once a node at
 * the staging path. Unmounted, it ends.
 */

#include <errno.h>
#include <string.h>
#include <sys/mount.h>

#include "base/fd.h"
#include "base/log.h"
#include "csi/fingerprint.h"
#include "csi/node_places.h"
#include "csi/node_request.h"
#include "csi/node_turn.h"
#include "csi/node_volume.h"
#include "csi/validate.h"
#include "csi.pb-c.h"

static int make_record(const struct node_request *request, struct record **ret, struct error *err)
{
	_cleanup_record_ struct record *record = record_new(request->volume_id);
	int r;

	if (!record)
		return error_errno(err, -ENOMEM, "stage");
	r = node_request_config(request, &record->config, err);
	if (r < 0)
		return r;
	r = fingerprint_stage(&request->attributes, &request->capability, &record->fingerprint,
			      err);
	if (r < 0)
		return r;
	record->state = RECORD_STAGING;
	record->source = strdup(request->attributes.source);
	record->staging_path = strdup(request->staging_path);
	if (!record->source || !record->staging_path)
		return error_errno(err, -ENOMEM, "stage");
	*ret = TAKE_PTR(record);
	return 0;
}

static uint64_t staging_flags(const struct node_request *request, const struct record *record)
{
	return request->capability.options.attr_set |
	       (record->config.flags & VOLUME_READ_ONLY ? MOUNT_ATTR_RDONLY : 0);
}

/* Every step that lasts, in order. What a failure leaves is undone by the caller. */
static int bring_up(struct node_service *s, const struct call *call,
		    const struct node_request *request, struct record *record, int dir_fd,
		    struct error *err)
{
	_cleanup_close_ int mount_fd = -EBADF;
	struct mountpoint m;
	int r = node_volume_start(s, call, record, &mount_fd, err);

	if (r >= 0)
		r = call_check(call, err);
	if (r < 0)
		return r;
	m = node_place(s, record, record->staging_path);
	record->staging_attr = staging_flags(request, record);
	r = mountpoint_attach(&m, mount_fd, dir_fd, record->staging_attr, err);
	if (r < 0)
		return r;
	record->state = RECORD_STAGED;
	r = record_store_save(s->records, record, err);
	return r < 0 ? r : call_check(call, err);
}

static int stage_afresh(struct node_service *s, const struct call *call,
			const struct node_request *request, struct record *record,
			struct error *err)
{
	struct mountpoint m = node_place(s, record, record->staging_path);
	struct error undo = ERROR_INIT;
	_cleanup_close_ int dir_fd = -EBADF;
	bool created;
	int r = mountpoint_prepare(&m, false, &created, &dir_fd, err);

	if (r < 0)
		return r;
	r = bring_up(s, call, request, record, dir_fd, err);
	if (r < 0 && node_volume_end(s, record, &undo) < 0)
		log_error("volume %s could not be taken away after its failed stage: %s",
			  record->config.id, undo.text);
	return r;
}

/* The volume is staged: by the same call, or by another one? */
static int stage_again(struct node_service *s, const struct call *call, const struct record *wanted,
		       struct record *record, struct error *err)
{
	int r;

	if (record->ephemeral)
		return error_set(err, ERROR_EXISTS, -EEXIST,
				 "it is an inline volume of a pod, which is not staged");
	r = fingerprint_compare(record->fingerprint, wanted->fingerprint, err);
	if (r < 0)
		return error_prefix(err, "it is staged with other parameters");
	if (strcmp(record->staging_path, wanted->staging_path) != 0)
		return error_set(err, ERROR_EXISTS, -EEXIST, "it is staged at %s",
				 record->staging_path);
	return node_volume_check(s, call, record, err);
}

static int stage(struct node_service *s, const struct call *call,
		 const struct node_request *request, struct error *err)
{
	_cleanup_record_ struct record *wanted = NULL, *record = NULL;
	int r = make_record(request, &wanted, err);

	if (r < 0)
		return r;
	r = node_volume_load(s, request->volume_id, &record, err);
	if (r < 0)
		return r;
	if (record && record->state == RECORD_STAGED)
		return stage_again(s, call, wanted, record, err);
	if (record) {
		log_warning("volume %s was left half staged or unstaged; that is undone first",
			    request->volume_id);
		r = node_volume_end(s, record, err);
		if (r < 0)
			return r;
	}
	return stage_afresh(s, call, request, wanted, err);
}

NODE_HANDLER(node_stage_volume)
{
	struct node_service *s = context;
	const Csi__V1__NodeStageVolumeRequest *message = (const void *)request;
	_cleanup_node_request_ struct node_request decoded = { 0 };
	_cleanup_node_turn_ struct node_turn turn = { 0 };
	int r = node_request_stage(message, s->config.kubelet_root, &decoded, err);

	if (r < 0)
		return r;
	r = node_turn_take(s, call, decoded.volume_id, decoded.staging_path, &turn, err);
	if (r >= 0)
		r = stage(s, call, &decoded, err);
	return r < 0 ? error_prefix(err, "volume %s", decoded.volume_id) : 0;
}

static int check_unpublished(struct node_service *s, const struct record *record, struct error *err)
{
	const char *path = node_volume_find_target(s, record);

	if (path)
		return error_set(err, ERROR_PRECONDITION, -EBUSY,
				 "it is still published at %s: unpublish it there first", path);
	return 0;
}

static int unstage(struct node_service *s, const char *id, const char *staging_path,
		   struct error *err)
{
	_cleanup_record_ struct record *record = NULL;
	int r = node_volume_load(s, id, &record, err);

	if (r < 0)
		return r;
	if (!record) {
		r = node_volume_clear_unknown(s, id, staging_path, err);
		return r < 0 ? r : 0;
	}
	if (!record->staging_path || strcmp(record->staging_path, staging_path) != 0) {
		log_warning("volume %s is not staged at %s; nothing to do", id, staging_path);
		return 0;
	}
	r = check_unpublished(s, record, err);
	if (r < 0)
		return r;
	record->state = RECORD_UNSTAGING;
	if (record_store_save(s->records, record, NULL) < 0) /* a full disk: go on and make room */
		log_warning("the record of volume %s can't be written", id);
	return node_volume_end(s, record, err);
}

NODE_HANDLER(node_unstage_volume)
{
	struct node_service *s = context;
	const Csi__V1__NodeUnstageVolumeRequest *message = (const void *)request;
	_cleanup_node_turn_ struct node_turn turn = { 0 };
	int r = validate_volume_id(message->volume_id, err);

	if (r >= 0)
		r = validate_path("staging_target_path", s->config.kubelet_root,
				  message->staging_target_path, err);
	if (r < 0)
		return r;
	r = node_turn_take(s, call, message->volume_id, message->staging_target_path, &turn, err);
	if (r >= 0)
		r = unstage(s, message->volume_id, message->staging_target_path, err);
	return r < 0 ? error_prefix(err, "volume %s", message->volume_id) : 0;
}
