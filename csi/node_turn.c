/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/node_turn.h"

#include "base/log.h"
#include "csi/node_recover.h"

static void recover(struct node_service *service)
{
	struct error err = ERROR_INIT;

	if (!service->leftovers || pthread_rwlock_trywrlock(&service->gate) != 0)
		return;
	if (service->leftovers && node_recover(service, &err) < 0)
		log_debug("leftovers wait: %s", err.text);
	(void)pthread_rwlock_unlock(&service->gate);
}

int node_turn_take(struct node_service *service, const struct call *call, const char *volume_id,
		   const char *path, struct node_turn *ret, struct error *err)
{
	int r;

	recover(service);
	(void)pthread_rwlock_rdlock(&service->gate);
	*ret = (struct node_turn){ .service = service };
	r = volume_lock_take(service->locks, volume_id, &ret->volume, err);
	if (r >= 0)
		r = volume_lock_take(service->locks, path, &ret->path, err);
	return r < 0 ? r : call_check(call, err);
}

void node_turn_end(struct node_turn *turn)
{
	if (!turn->service)
		return;
	volume_lock_release(turn->path);
	volume_lock_release(turn->volume);
	(void)pthread_rwlock_unlock(&turn->service->gate);
}
