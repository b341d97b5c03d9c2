/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/node_swap.h"

#include <errno.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "csi/node_heal.h"
#include "csi/node_turn.h"
#include "csi/node_volume.h"
#include "csi/source.h"
#include "mount/path.h"
#include "recovery/keeper_client.h"

/* The new connection has the volume's name afterwards. */
static int replace_connection(struct node_service *s, struct record *record, const char *source,
			      struct error *err)
{
	_cleanup_close_ int source_fd = -EBADF, mount_fd = -EBADF;
	_cleanup_free_ char *copy = strdup(source);
	struct volume_status status;
	int r;

	if (!copy)
		return error_errno(err, -ENOMEM, "swap");
	r = source_open(s->config.allow_source, source, &source_fd, err);
	if (r >= 0)
		r = keeper_swap(s->config.run_dir, NODE_KEEPER_START_MS, &record->config,
				source_fd, &mount_fd, &status, err);
	if (r < 0)
		return r;
	/* both of them are in escrow before the old one's descriptors there are closed */
	escrow_refresh(s->escrow, NODE_KEEPER_LOOK_MS);
	free(record->source);
	record->source = TAKE_PTR(copy);
	record_set_dev(record, (dev_t)status.dev);
	return record_store_save(s->records, record, err);
}

int node_swap(struct node_service *s, const char *id, const char *source, struct error *err)
{
	_cleanup_node_turn_ struct node_turn turn = { 0 };
	_cleanup_record_ struct record *record = NULL;
	int r = path_check("--source", source, err);

	if (r >= 0)
		r = node_turn_take(s, NULL, id, NULL, &turn, err);
	if (r >= 0)
		r = node_volume_load(s, id, &record, err);
	if (r < 0)
		return r;
	if (!record || record->state != RECORD_STAGED)
		return error_set(err, ERROR_NOT_FOUND, -ENOENT, "there is no staged volume '%s'",
				 id);
	r = replace_connection(s, record, source, err);
	if (r < 0)
		return error_prefix(err, "volume %s", id);
	log_notice("volume %s is served from %s now", id, source);
	return node_heal(s, NULL, &record, 1, err);
}
