/* SPDX-License-Identifier: Apache-2.0 */

/*
 * NodeGetVolumeStats: asked every minute or so for every volume, and never to block: what may hang
 * is asked by a child, what is known of the volume comes from the keeper.
 */

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "csi/volume_health.h"
#include "csi/message.h"
#include "csi/node_places.h"
#include "csi/node_volume.h"
#include "csi/validate.h"
#include "csi.pb-c.h"

#define DEADLINE_MS 800	    /* for all that is asked: a call is answered within a second */
#define STATFS_MIN_MS 200

static bool is_place_of(const struct record *record, const char *path)
{
	if (record->staging_path && strcmp(record->staging_path, path) == 0)
		return true;
	for (size_t i = 0; i < record->n_targets; i++)
		if (record->targets[i].published && strcmp(record->targets[i].path, path) == 0)
			return true;
	return false;
}

static int load_place(struct node_service *s, const char *id, const char *path, struct record **ret,
		      struct error *err)
{
	_cleanup_record_ struct record *record = NULL;
	int r = node_volume_load(s, id, &record, err);

	if (r < 0)
		return r;
	if (!record)
		return error_set(err, ERROR_NOT_FOUND, -ENOENT, "it is not on this node");
	if (!is_place_of(record, path))
		return error_set(err, ERROR_NOT_FOUND, -ENOENT,
				 "it is neither staged nor published at %s", path);
	*ret = TAKE_PTR(record);
	return 0;
}

/* A number that fits the message's signed field; what does not is as good as unlimited. */
static int64_t to_signed(uint64_t value)
{
	return value > INT64_MAX ? INT64_MAX : (int64_t)value;
}

static int64_t to_bytes(uint64_t blocks, uint64_t block_size)
{
	uint64_t bytes;

	return __builtin_mul_overflow(blocks, block_size, &bytes) ? INT64_MAX : to_signed(bytes);
}

static int add_usage(Csi__V1__NodeGetVolumeStatsResponse *answer, Csi__V1__VolumeUsage__Unit unit,
		     int64_t total, int64_t used, int64_t available)
{
	Csi__V1__VolumeUsage *usage = (void *)message_new(&csi__v1__volume_usage__descriptor);

	if (!usage)
		return -ENOMEM;
	usage->unit = unit;
	usage->total = total;
	usage->used = used;
	usage->available = available;
	answer->usage[answer->n_usage++] = usage;
	return 0;
}

static int fill_usage(Csi__V1__NodeGetVolumeStatsResponse *answer, const struct statfs_report *fs)
{
	uint64_t used = fs->blocks - MIN_OF(fs->blocks_free, fs->blocks);
	uint64_t files_used = fs->files - MIN_OF(fs->files_free, fs->files);
	int r;

	answer->usage = calloc(2, sizeof(*answer->usage));
	if (!answer->usage)
		return -ENOMEM;
	r = add_usage(answer, CSI__V1__VOLUME_USAGE__UNIT__BYTES,
		      to_bytes(fs->blocks, fs->block_size), to_bytes(used, fs->block_size),
		      to_bytes(fs->blocks_available, fs->block_size));
	if (r >= 0)
		r = add_usage(answer, CSI__V1__VOLUME_USAGE__UNIT__INODES, to_signed(fs->files),
			      to_signed(files_used), to_signed(fs->files_free));
	return r;
}

static int fill_condition(Csi__V1__NodeGetVolumeStatsResponse *answer,
			  const struct volume_facts *facts)
{
	struct volume_health health;
	Csi__V1__VolumeCondition *condition =
		(void *)message_new(&csi__v1__volume_condition__descriptor);

	if (!condition)
		return -ENOMEM;
	answer->volume_condition = condition;
	volume_health_judge(facts, &health);
	condition->abnormal = health.state != VOLUME_HEALTH_GOOD;
	condition->message = strdup(health.message);
	return condition->message ? 0 : -ENOMEM;
}

static void ask_keeper(struct node_service *s, const struct call *call, const char *id, int max_ms,
		       struct volume_facts *facts)
{
	_cleanup_close_ int mount_fd = -EBADF;
	int r = node_volume_ask(s, call_remaining_ms(call, max_ms), id, &mount_fd,
				&facts->status, NULL);

	facts->keeper_answers = r >= 0;
}

static int collect(struct node_service *s, const struct call *call, const struct record *record,
		   const char *path, Csi__V1__NodeGetVolumeStatsResponse *answer, struct error *err)
{
	struct mountpoint m = node_place(s, record, path);
	struct volume_facts facts = { .path = path, .healing = record->healing };
	uint64_t due_ns = clock_now_ns() + DEADLINE_MS * NSEC_PER_MSEC;
	struct statfs_report report = { 0 };
	struct error why = ERROR_INIT;
	_cleanup_close_ int fd = -EBADF;
	int r = mountpoint_look(&m, &fd, err);

	if (r < 0)
		return r;
	if (r == MOUNTPOINT_MISSING)
		return error_set(err, ERROR_NOT_FOUND, -ENOENT, "%s does not exist", path);
	facts.mounted = r == MOUNTPOINT_OURS;
	ask_keeper(s, call, record->config.id, DEADLINE_MS - STATFS_MIN_MS, &facts);
	if (facts.mounted) {
		r = stats_read(s->stats, record->config.id, fd,
			       call_remaining_ms(call, clock_left_ms(due_ns)), &report, &why);
		facts.answers = r >= 0;
		if (r < 0)
			log_warning("volume %s: %s", record->config.id, why.text);
	}
	r = facts.answers ? fill_usage(answer, &report) : 0;
	if (r >= 0)
		r = fill_condition(answer, &facts);
	return r < 0 ? error_errno(err, r, "answer") : 0;
}

NODE_HANDLER(node_get_volume_stats)
{
	struct node_service *s = context;
	const Csi__V1__NodeGetVolumeStatsRequest *message = (const void *)request;
	_cleanup_record_ struct record *record = NULL;
	int r = validate_volume_id(message->volume_id, err);

	if (r >= 0)
		r = validate_required("volume_path", message->volume_path, PATH_MAX - 1, err);
	if (r < 0)
		return r;
	r = load_place(s, message->volume_id, message->volume_path, &record, err);
	if (r >= 0)
		r = collect(s, call, record, message->volume_path, (void *)response, err);
	return r < 0 ? error_prefix(err, "volume %s", message->volume_id) : 0;
}
