/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/volume_lock.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/clock.h"

struct volume_lock {
	struct volume_locks *locks;
	struct volume_lock *next;
	char name[];
};

/* A list in the order of coming: no longer than the server has threads. */
struct volume_locks {
	pthread_mutex_t mutex; /* over `first`; innermost, nothing is called with it */
	pthread_cond_t left;
	struct volume_lock *first;
};

struct volume_locks *volume_locks_new(void)
{
	struct volume_locks *locks = calloc(1, sizeof(*locks));

	if (!locks)
		return NULL;
	(void)pthread_mutex_init(&locks->mutex, NULL);
	(void)pthread_cond_init(&locks->left, NULL);
	return locks;
}

void volume_locks_free(struct volume_locks *locks)
{
	if (!locks)
		return;
	(void)pthread_cond_destroy(&locks->left);
	(void)pthread_mutex_destroy(&locks->mutex);
	free(locks);
}

/* Whether nobody has it who came before. With the mutex held. */
static bool has_its_turn(const struct volume_lock *lock)
{
	const struct volume_lock *l = lock->locks->first;

	while (strcmp(l->name, lock->name) != 0)
		l = l->next;
	return l == lock;
}

int volume_lock_queue(struct volume_locks *locks, const char *name, struct volume_lock **ret,
		      struct error *err)
{
	size_t size = strlen(name) + 1;
	struct volume_lock *lock = malloc(sizeof(*lock) + size), **l;

	if (!lock)
		return error_errno(err, -ENOMEM, "lock %s", name);
	*lock = (struct volume_lock){ .locks = locks };
	memcpy(lock->name, name, size);
	(void)pthread_mutex_lock(&locks->mutex);
	for (l = &locks->first; *l; l = &(*l)->next)
		;
	*l = lock;
	(void)pthread_mutex_unlock(&locks->mutex);
	*ret = lock;
	return 0;
}

bool volume_lock_wait(struct volume_lock *lock, unsigned int timeout_ms)
{
	const struct timespec due = clock_timespec(clock_now_ns() + timeout_ms * NSEC_PER_MSEC);
	struct volume_locks *locks = lock->locks;
	bool mine;
	int r = 0;

	(void)pthread_mutex_lock(&locks->mutex);
	while (!(mine = has_its_turn(lock)) && r == 0)
		r = pthread_cond_clockwait(&locks->left, &locks->mutex, CLOCK_MONOTONIC, &due);
	(void)pthread_mutex_unlock(&locks->mutex);
	return mine;
}

void volume_lock_release(struct volume_lock *lock)
{
	struct volume_locks *locks;
	struct volume_lock **l;

	if (!lock)
		return;
	locks = lock->locks;
	(void)pthread_mutex_lock(&locks->mutex);
	for (l = &locks->first; *l != lock; l = &(*l)->next)
		;
	*l = lock->next;
	(void)pthread_cond_broadcast(&locks->left);
	(void)pthread_mutex_unlock(&locks->mutex);
	free(lock);
}
