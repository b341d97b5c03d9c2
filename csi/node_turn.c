/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/node_turn.h"

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "csi/node_recover.h"

#define HEALING_PATIENCE_MS 5000
#define CALL_PATIENCE_MS 1000
#define LOOK_AGAIN_MS 20 /* whether the caller still waits */

static void recover(struct node_service *service)
{
	struct error err = ERROR_INIT;

	if (!service->leftovers || pthread_rwlock_trywrlock(&service->gate) != 0)
		return;
	if (service->leftovers && node_recover(service, &err) < 0)
		log_debug("leftovers wait: %s", err.text);
	(void)pthread_rwlock_unlock(&service->gate);
}

static bool may_wait(const struct node_service *service, const struct call *call, uint64_t began_ns)
{
	uint64_t patience_ms = service->healing > 0 ? HEALING_PATIENCE_MS : CALL_PATIENCE_MS;

	return call && clock_now_ns() < began_ns + patience_ms * NSEC_PER_MSEC &&
	       call_check(call, NULL) >= 0;
}

/* Whoever has it is soon done, mostly: kubelet would come again after a pause, which doubles. */
static int take(struct node_service *service, const struct call *call, const char *name,
		struct volume_lock **ret, struct error *err)
{
	uint64_t began_ns = clock_now_ns();
	int r = volume_lock_queue(service->locks, name, ret, err);
	bool waits;

	if (r < 0)
		return r;
	do {
		waits = may_wait(service, call, began_ns);
		if (volume_lock_wait(*ret, waits ? LOOK_AGAIN_MS : 0))
			return 0;
	} while (waits);
	volume_lock_release(TAKE_PTR(*ret));
	return error_set(err, ERROR_BUSY, -EBUSY,
			 "another call on %s is under way: try again when it has ended", name);
}

int node_turn_take(struct node_service *service, const struct call *call, const char *volume_id,
		   const char *path, struct node_turn *ret, struct error *err)
{
	int r;

	recover(service);
	(void)pthread_rwlock_rdlock(&service->gate);
	*ret = (struct node_turn){ .service = service };
	r = take(service, call, volume_id, &ret->volume, err);
	if (r >= 0 && path)
		r = take(service, NULL, path, &ret->path, err);
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
