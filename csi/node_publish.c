/* SPDX-License-Identifier: Apache-2.0 */

/*
 * NodePublishVolume and NodeUnpublishVolume: one more mount of a staged volume, at a pod's target
 * path. An inline volume (csi.storage.k8s.io/ephemeral) is staged by its only Publish, and ends
 * with its only Unpublish.
 *
 * kubelet gives a call up after its deadline and then calls Unpublish, while the handler of the
 * first may still run: so the two exclude each other, and a handler looks whether somebody still
 * waits before and after each step that lasts.
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
#include "mount/path.h"

/* A Publish call on its way. */
struct publish {
	struct node_service *service;
	const struct call *call;
	const struct node_request *request;
	char *fingerprint;     /* owned */
	struct record *record; /* owned; NULL before there is one */
};

static void publish_clear(struct publish *p)
{
	free(p->fingerprint);
	record_free(p->record);
}

static bool is_read_only(const struct publish *p)
{
	return p->request->read_only || p->request->capability.options.read_only ||
	       p->record->config.flags & VOLUME_READ_ONLY;
}

static uint64_t target_flags(const struct publish *p)
{
	return p->request->capability.options.attr_set | (is_read_only(p) ? MOUNT_ATTR_RDONLY : 0);
}

/* Mounts at the target path; `mount_fd` is consumed if it is given (not negative). */
static int attach(struct publish *p, struct record_target *target, int mount_fd, struct error *err)
{
	_cleanup_close_ int fd = mount_fd, dir_fd = -EBADF;
	struct mountpoint m;
	int r = 0;

	if (fd < 0)
		r = node_volume_mount(p->service, p->call, p->record, &fd, err);
	m = node_place(p->service, p->record, target->path);
	if (r >= 0)
		r = call_check(p->call, err);
	if (r >= 0)
		r = mountpoint_prepare(&m, true, &target->created, &dir_fd, err);
	if (r >= 0)
		r = call_check(p->call, err);
	if (r >= 0)
		r = mountpoint_attach(&m, fd, dir_fd, target_flags(p), err);
	if (r < 0)
		return r;
	target->published = true;
	target->attr = target_flags(p);
	target->read_only = is_read_only(p);
	p->record->state = RECORD_STAGED;
	r = record_store_save(p->service->records, p->record, err);
	return r < 0 ? r : call_check(p->call, err);
}

/* Takes back what a failed first publish did; the record then no longer knows the target. */
static void undo(struct publish *p)
{
	const char *path = p->request->target_path;
	struct record_target *target = record_find_target(p->record, path);
	struct mountpoint m = node_place(p->service, p->record, path);
	struct error err = ERROR_INIT;
	int r = mountpoint_clear(&m, &err);

	if (target && target->created)
		r = path_remove_dir(p->service->config.kubelet_root, path, &err);
	record_drop_target(p->record, path);
	if (r >= 0)
		r = p->record->ephemeral ? node_volume_end(p->service, p->record, &err)
					 : record_store_save(p->service->records, p->record, &err);
	if (r < 0)
		log_error("volume %s: a failed publish could not be taken back: %s",
			  p->record->config.id, err.text);
}

static int publish_first(struct publish *p, struct error *err)
{
	struct record_target *target =
		record_add_target(p->record, p->request->target_path, p->fingerprint);
	int mount_fd = -EBADF, r;

	if (!target)
		return error_errno(err, -ENOMEM, "publish");
	r = p->record->ephemeral ? node_volume_start(p->service, p->call, p->record, &mount_fd, err)
				 : record_store_save(p->service->records, p->record, err);
	if (r >= 0)
		r = attach(p, target, mount_fd, err);
	if (r < 0)
		undo(p);
	return r;
}

/*
 * The same target again: kubelet does so after its own restart, and every minute where the
 * CSIDriver asks for it. A mount that is there is good enough, even while the keeper does not
 * answer.
 */
static int publish_again(struct publish *p, struct record_target *target, struct error *err)
{
	_cleanup_close_ int mount_fd = -EBADF;
	struct error why = ERROR_INIT;
	struct mountpoint m;
	int r, state;

	r = fingerprint_compare(target->fingerprint, p->fingerprint, err);
	if (r < 0)
		return error_prefix(err, "it is published at %s with other parameters",
				    target->path);
	r = node_volume_mount(p->service, p->call, p->record, &mount_fd, &why);
	m = node_place(p->service, p->record, target->path);
	state = mountpoint_look(&m, NULL, err);
	if (state < 0 || state == MOUNTPOINT_OURS)
		return state < 0 ? state : 0;
	if (r < 0)
		return error_set(err, why.kind, r, "%s", why.text);
	log_warning("volume %s was not mounted at %s any more and is mounted again",
		    p->record->config.id, target->path);
	return attach(p, target, TAKE_FD(mount_fd), err);
}

/* The call has to fit what was staged. */
static int check_staged(const struct publish *p, struct error *err)
{
	const struct node_request *request = p->request;
	const struct record *record = p->record;
	const struct capability *c = &request->capability;
	_cleanup_free_ char *attributes = NULL;
	int r;

	if (!*request->staging_path)
		return error_set(err, ERROR_PRECONDITION, -EINVAL,
				 "staging_target_path is missing: stage the volume first");
	if (!record || record->state != RECORD_STAGED || record->ephemeral ||
	    strcmp(record->staging_path, request->staging_path) != 0)
		return error_set(err, ERROR_PRECONDITION, -ENOENT,
				 "it is not staged at %s: stage it there first",
				 request->staging_path);
	if (request->attributes.n_given > 0) {
		r = fingerprint_attributes(&request->attributes, &attributes, err);
		if (r >= 0)
			r = fingerprint_compare(record->fingerprint, attributes, err);
		if (r < 0)
			return error_prefix(err, "it is staged with other attributes");
	}
	if (c->has_group &&
	    (!(record->config.flags & VOLUME_HAS_GROUP) || record->config.group != c->group))
		return error_set(err, ERROR_PRECONDITION, -EINVAL,
				 "it is staged for pods of another fsGroup than %u: a volume shows "
				 "one group on a node",
				 c->group);
	return 0;
}

/*
 * The specification's second table of "NodePublishVolume" says who may publish a second target. No
 * target lies below another one: its directory would be made on the volume.
 */
static int check_other_targets(const struct publish *p, struct error *err)
{
	const struct capability *c = &p->request->capability;
	const char *wanted = p->request->target_path;
	const char *other = node_volume_find_target(p->service, p->record);

	if (other && (c->single_target || p->record->ephemeral))
		return error_set(err, ERROR_PRECONDITION, -EBUSY,
				 "it is published at %s, and access mode %s allows one target on a "
				 "node",
				 other, capability_mode_name(c->access_mode));
	for (size_t i = 0; i < p->record->n_targets; i++) {
		const char *path = p->record->targets[i].path;

		if (path_is_beneath(path, wanted) || path_is_beneath(wanted, path))
			return error_set(err, ERROR_INVALID, -EINVAL,
					 "target_path %s and its other target %s lie in each other",
					 wanted, path);
	}
	return 0;
}

static int check_access_mode(const struct publish *p, struct error *err)
{
	_cleanup_free_ char *now = NULL;
	int r = fingerprint_access_mode(&p->request->capability, &now, err);

	if (r < 0)
		return r;
	r = fingerprint_compare(p->record->fingerprint, now, err);
	if (r == -EEXIST && err)
		err->kind = ERROR_PRECONDITION;
	return r < 0 ? error_prefix(err, "it is staged for another use") : 0;
}

static int make_inline_record(struct publish *p, struct error *err)
{
	const struct node_request *request = p->request;
	_cleanup_record_ struct record *record = record_new(request->volume_id);
	int r;

	if (!record)
		return error_errno(err, -ENOMEM, "publish");
	r = node_request_config(request, &record->config, err);
	if (r >= 0)
		r = fingerprint_stage(&request->attributes, &request->capability,
				      &record->fingerprint, err);
	if (r < 0)
		return r;
	record->state = RECORD_STAGING;
	record->ephemeral = true;
	record->source = strdup(request->attributes.source);
	if (!record->source)
		return error_errno(err, -ENOMEM, "publish");
	p->record = TAKE_PTR(record);
	return 0;
}

/* A publish or stage that a killed predecessor did not end, and that nobody has undone yet. */
static int drop_leftover(struct publish *p, struct error *err)
{
	struct record_target *target;
	int r = 0;

	if (!p->record)
		return 0;
	if (p->record->ephemeral && p->record->state != RECORD_STAGED) {
		r = node_volume_end(p->service, p->record, err);
		record_free(TAKE_PTR(p->record));
		return r;
	}
	target = record_find_target(p->record, p->request->target_path);
	if (target && !target->published) {
		r = node_volume_clear_target(p->service, p->record, target->path, err);
		record_drop_target(p->record, p->request->target_path);
	}
	return r;
}

static int publish(struct publish *p, struct error *err)
{
	bool inline_volume = p->request->attributes.ephemeral;
	struct record_target *target;
	int r;

	r = node_volume_load(p->service, p->request->volume_id, &p->record, err);
	if (r >= 0)
		r = drop_leftover(p, err);
	if (r < 0)
		return r;
	if (inline_volume && p->record && !p->record->ephemeral)
		return error_set(err, ERROR_EXISTS, -EEXIST, "it is staged as a persistent volume");
	if (!inline_volume) {
		r = check_staged(p, err);
		if (r < 0)
			return r;
	}
	target = p->record ? record_find_target(p->record, p->request->target_path) : NULL;
	if (target)
		return publish_again(p, target, err);
	if (!p->record)
		r = make_inline_record(p, err);
	if (r >= 0)
		r = check_other_targets(p, err);
	if (r >= 0)
		r = check_access_mode(p, err);
	return r < 0 ? r : publish_first(p, err);
}

NODE_HANDLER(node_publish_volume)
{
	struct node_service *s = context;
	const Csi__V1__NodePublishVolumeRequest *message = (const void *)request;
	_cleanup_node_request_ struct node_request decoded = { 0 };
	_cleanup_node_turn_ struct node_turn turn = { 0 };
	_cleanup_(publish_clear) struct publish p = { .service = s,
						      .call = call,
						      .request = &decoded };
	int r = node_request_publish(message, s->config.kubelet_root, &decoded, err);

	if (r < 0)
		return r;
	r = fingerprint_publish(decoded.attributes.ephemeral ? &decoded.attributes : NULL,
				&decoded.capability, decoded.read_only, &p.fingerprint, err);
	if (r >= 0)
		r = node_turn_take(s, call, decoded.volume_id, decoded.target_path, &turn, err);
	if (r >= 0)
		r = publish(&p, err);
	return r < 0 ? error_prefix(err, "volume %s", decoded.volume_id) : 0;
}

/* No record tells of this target: what of the volume is mounted there goes, and an empty directory.
 */
static int unpublish_unknown(struct node_service *s, const char *id, const char *path,
			     struct error *err)
{
	int r = node_volume_clear_unknown(s, id, path, err);

	if (r == MOUNTPOINT_PLAIN && path_remove_dir(s->config.kubelet_root, path, NULL) < 0)
		log_warning("%s is not empty and stays", path);
	return r < 0 ? r : 0;
}

static int unpublish(struct node_service *s, const char *id, const char *path, struct error *err)
{
	_cleanup_record_ struct record *record = NULL;
	struct error why = ERROR_INIT;
	int r = node_volume_load(s, id, &record, err);

	if (r < 0)
		return r;
	r = record && record_find_target(record, path)
		    ? node_volume_clear_target(s, record, path, err)
		    : unpublish_unknown(s, id, path, err);
	if (r < 0 || !record)
		return r;
	record_drop_target(record, path);
	if (record->ephemeral && record->n_targets == 0)
		return node_volume_end(s, record, err);
	/* the mount is gone, and a record that still tells of it does no harm: a full disk does not
	 * keep a pod from ending */
	if (record_store_save(s->records, record, &why) < 0)
		log_warning("the record of volume %s: %s", id, why.text);
	return 0;
}

NODE_HANDLER(node_unpublish_volume)
{
	struct node_service *s = context;
	const Csi__V1__NodeUnpublishVolumeRequest *message = (const void *)request;
	_cleanup_node_turn_ struct node_turn turn = { 0 };
	int r = validate_volume_id(message->volume_id, err);

	if (r >= 0)
		r = validate_path("target_path", s->config.kubelet_root, message->target_path, err);
	if (r < 0)
		return r;
	r = node_turn_take(s, call, message->volume_id, message->target_path, &turn, err);
	if (r >= 0)
		r = unpublish(s, message->volume_id, message->target_path, err);
	return r < 0 ? error_prefix(err, "volume %s", message->volume_id) : 0;
}
