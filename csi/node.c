/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/node.h"

#include <errno.h>
#include <sys/eventfd.h>

#include "base/fd.h"
#include "base/log.h"
#include "csi/node_recover.h"
#include "csi/node_service.h"
#include "csi/watchdog.h"
#include "csi.pb-c.h"

#define METHOD(name, message, handler, ...)                                                \
	{                                                                                  \
		.path = "/csi.v1.Node/" name,                                              \
		.request = &csi__v1__##message##_request__descriptor,                      \
		.response = &csi__v1__##message##_response__descriptor, .handle = handler, \
		__VA_ARGS__                                                                \
	}

static const struct method methods[] = {
	METHOD("NodeStageVolume", node_stage_volume, node_stage_volume),
	METHOD("NodeUnstageVolume", node_unstage_volume, node_unstage_volume),
	METHOD("NodePublishVolume", node_publish_volume, node_publish_volume),
	METHOD("NodeUnpublishVolume", node_unpublish_volume, node_unpublish_volume),
	METHOD("NodeGetVolumeStats", node_get_volume_stats, node_get_volume_stats, .quiet = true),
	METHOD("NodeExpandVolume", node_expand_volume, node_expand_volume, .immediate = true),
	METHOD("NodeGetCapabilities", node_get_capabilities, node_get_capabilities,
	       .immediate = true, .quiet = true),
	METHOD("NodeGetInfo", node_get_info, node_get_info, .immediate = true),
};

struct service node_service_methods(struct node_service *service)
{
	return (struct service){ methods, ARRAY_SIZE(methods), service };
}

static int init(struct node_service *s, struct error *err)
{
	int r;

	s->locks = volume_locks_new();
	s->stats = stats_new();
	s->nsmount = nsmount_client_new();
	if (!s->locks || !s->stats || !s->nsmount)
		return error_errno(err, -ENOMEM, "start the node service");
	s->news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->news_fd < 0)
		return error_errno(err, -errno, "eventfd");
	r = escrow_new(s->config.run_dir, s->news_fd, &s->escrow, err);
	return r < 0 ? r : record_store_open(s->config.run_dir, &s->records, err);
}

int node_service_new(const struct node_config *config, struct node_service **ret, struct error *err)
{
	struct node_service *s = calloc(1, sizeof(*s));
	struct error why = ERROR_INIT;
	int r;

	if (!s || pthread_rwlock_init(&s->gate, NULL) != 0) {
		free(s);
		return error_errno(err, -ENOMEM, "start the node service");
	}
	s->config = *config;
	s->news_fd = -EBADF;
	r = init(s, err);
	if (r < 0) {
		node_service_free(s);
		return r;
	}
	if (s->config.allow_source->n == 0)
		log_warning(
			"no source is allowed, so no volume can be staged: name the directories "
			"of datasets with --allow-source");
	if (node_recover(s, &why) < 0)
		log_warning("leftovers of earlier runs are looked for later: %s", why.text);
	r = watchdog_new(s, &s->watchdog, err);
	if (r < 0) {
		node_service_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void node_service_free(struct node_service *s)
{
	if (!s)
		return;
	watchdog_free(s->watchdog);
	escrow_free(s->escrow);
	nsmount_client_free(s->nsmount);
	close_fd(&s->news_fd);
	record_store_close(s->records);
	stats_free(s->stats);
	volume_locks_free(s->locks);
	(void)pthread_rwlock_destroy(&s->gate);
	free(s);
}
