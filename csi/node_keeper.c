/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/node_keeper.h"

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "csi/node_volume.h"
#include "recovery/escrow.h"
#include "recovery/keeper_client.h"

/* The reply found no room for all its descriptors: the mount alone may do. */
static int add_without_escrow(struct node_service *s, int timeout_ms, const char *id,
			      int *ret_mount_fd, struct volume_status *ret)
{
	int r = keeper_mount(s->config.run_dir, timeout_ms, id, ret_mount_fd, ret, NULL);

	if (r >= 0)
		log_warning("volume %s has no escrow and ends with its keeper: too many open "
			    "files, raise LimitNOFILE= (ulimit -Hn)",
			    id);
	return r;
}

int node_keeper_add(struct node_service *s, int timeout_ms, const struct volume_config *config,
		    int source_fd, int *ret_mount_fd, struct volume_status *ret, struct error *err)
{
	uint64_t generation = escrow_generation(s->escrow);
	int fds[ESCROW_FDS];
	int r = keeper_add(s->config.run_dir, timeout_ms, config, source_fd, ret_mount_fd, fds, ret,
			   err);

	if (r == -EMFILE && add_without_escrow(s, timeout_ms, config->id, ret_mount_fd, ret) >= 0)
		return 0;
	if (r < 0)
		return r;
	escrow_put(s->escrow, config->id, (dev_t)ret->dev, generation, fds);
	return 0;
}

int node_keeper_mount(struct node_service *s, int timeout_ms, const char *id, int *ret_mount_fd,
		      struct volume_status *ret, struct error *err)
{
	uint64_t due_ns = clock_now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;

	for (;;) {
		struct error why = ERROR_INIT;
		enum escrow_claim claim = ESCROW_NOT_HELD;
		int r = keeper_mount(s->config.run_dir, clock_left_ms(due_ns), id, ret_mount_fd, ret,
				     &why);

		if (r < 0 && why.kind == ERROR_NOT_FOUND)
			claim = escrow_reclaim(s->escrow, id, clock_left_ms(due_ns));
		if (r >= 0)
			return r;
		if (claim == ESCROW_NOT_HELD)
			return error_set(err, why.kind, r, "%s", why.text);
		if (claim == ESCROW_PENDING || clock_left_ms(due_ns) == 0)
			return error_set(err, ERROR_UNAVAILABLE, -EAGAIN,
					 "the keeper was restarted and is being given its volumes "
					 "back");
	}
}

int node_keeper_remove(struct node_service *s, const char *id, struct error *err)
{
	int r;

	escrow_withdraw(s->escrow, id);
	r = keeper_remove(s->config.run_dir, NODE_KEEPER_END_MS, id, err);
	escrow_forget(s->escrow, id);
	return r;
}
