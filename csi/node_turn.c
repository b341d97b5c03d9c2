/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/node_turn.h"

#include <errno.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "csi/node_recover.h"

#define HEALING_PATIENCE_MS 5000
#define CALL_PATIENCE_MS 1000
#define LOOK_AGAIN_US 2000

static void recover(struct node_service *service)
{
	struct error err = ERROR_INIT;

	if (!service->leftovers || pthread_rwlock_trywrlock(&service->gate) != 0)
		return;
	if (service->leftovers && node_recover(service, &err) < 0)
		log_debug("leftovers wait: %s", err.text);
	(void)pthread_rwlock_unlock(&service->gate);
}

/* Whoever has it is soon done, mostly: kubelet would come again only after a pause, which doubles. */
static int take_volume(struct node_service *service, const struct call *call, const char *id,
		       struct volume_lock **ret, struct error *err)
{
	uint64_t began_ns = clock_now_ns();

	for (;;) {
		int r = volume_lock_take(service->locks, id, ret, err);
		uint64_t patience_ms =
			service->healing > 0 ? HEALING_PATIENCE_MS : CALL_PATIENCE_MS;

		if (r != -EBUSY || !call ||
		    clock_now_ns() > began_ns + patience_ms * NSEC_PER_MSEC ||
		    call_check(call, NULL) < 0)
			return r;
		(void)usleep(LOOK_AGAIN_US);
	}
}

int node_turn_take(struct node_service *service, const struct call *call, const char *volume_id,
		   const char *path, struct node_turn *ret, struct error *err)
{
	int r;

	recover(service);
	(void)pthread_rwlock_rdlock(&service->gate);
	*ret = (struct node_turn){ .service = service };
	r = take_volume(service, call, volume_id, &ret->volume, err);
	if (r >= 0 && path)
		r = volume_lock_take(service->locks, path, &ret->path, err);
	return r < 0 || !call ? r : call_check(call, err);
}

void node_turn_end(struct node_turn *turn)
{
	if (!turn->service)
		return;
	volume_lock_release(turn->path);
	volume_lock_release(turn->volume);
	(void)pthread_rwlock_unlock(&turn->service->gate);
}
