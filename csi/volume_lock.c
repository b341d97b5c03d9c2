/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/volume_lock.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

struct volume_lock {
	struct volume_locks *locks;
	struct volume_lock *next;
	char name[];
};

/* A list: no longer than the server has threads. */
struct volume_locks {
	pthread_mutex_t mutex; /* over `held`; innermost, nothing is called with it */
	struct volume_lock *held;
};

struct volume_locks *volume_locks_new(void)
{
	struct volume_locks *locks = calloc(1, sizeof(*locks));

	if (locks && pthread_mutex_init(&locks->mutex, NULL) != 0) {
		free(locks);
		return NULL;
	}
	return locks;
}

void volume_locks_free(struct volume_locks *locks)
{
	if (!locks)
		return;
	(void)pthread_mutex_destroy(&locks->mutex);
	free(locks);
}

static bool insert(struct volume_locks *locks, struct volume_lock *lock)
{
	bool taken = false;

	(void)pthread_mutex_lock(&locks->mutex);
	for (const struct volume_lock *l = locks->held; l && !taken; l = l->next)
		taken = strcmp(l->name, lock->name) == 0;
	if (!taken) {
		lock->next = locks->held;
		locks->held = lock;
	}
	(void)pthread_mutex_unlock(&locks->mutex);
	return !taken;
}

int volume_lock_take(struct volume_locks *locks, const char *name, struct volume_lock **ret,
		     struct error *err)
{
	size_t size = strlen(name) + 1;
	struct volume_lock *lock = malloc(sizeof(*lock) + size);

	if (!lock)
		return error_errno(err, -ENOMEM, "lock %s", name);
	lock->locks = locks;
	memcpy(lock->name, name, size);
	if (!insert(locks, lock)) {
		free(lock);
		return error_set(err, ERROR_BUSY, -EBUSY,
				 "another call on %s is under way: try again when it has ended",
				 name);
	}
	*ret = lock;
	return 0;
}

void volume_lock_release(struct volume_lock *lock)
{
	struct volume_lock **l;

	if (!lock)
		return;
	(void)pthread_mutex_lock(&lock->locks->mutex);
	for (l = &lock->locks->held; *l != lock; l = &(*l)->next)
		;
	*l = lock->next;
	(void)pthread_mutex_unlock(&lock->locks->mutex);
	free(lock);
}
