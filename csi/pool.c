/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/pool.h"

#include <errno.h>
#include <pthread.h>

struct pool {
	void (*run)(void *context, struct pool_job *job);
	void *context;
	pthread_mutex_t lock; /* guards the rest; a leaf: nothing is called while it is held */
	pthread_cond_t changed;
	struct pool_job *first, **last;
	bool ending;
	size_t n_threads;
	pthread_t threads[];
};

/* The next job, waiting for one; NULL when the pool ends. */
static struct pool_job *take(struct pool *pool)
{
	struct pool_job *job;

	pthread_mutex_lock(&pool->lock);
	while (!pool->first && !pool->ending)
		pthread_cond_wait(&pool->changed, &pool->lock);
	job = pool->first;
	if (job) {
		pool->first = job->next;
		if (!pool->first)
			pool->last = &pool->first;
	}
	pthread_mutex_unlock(&pool->lock);
	return job;
}

static void *work(void *arg)
{
	struct pool *pool = arg;
	struct pool_job *job;

	while ((job = take(pool)))
		pool->run(pool->context, job);
	return NULL;
}

void pool_submit(struct pool *pool, struct pool_job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&pool->lock);
	*pool->last = job;
	pool->last = &job->next;
	pthread_cond_signal(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->ending = true;
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	for (size_t i = 0; i < pool->n_threads; i++)
		(void)pthread_join(pool->threads[i], NULL);
	(void)pthread_cond_destroy(&pool->changed);
	(void)pthread_mutex_destroy(&pool->lock);
	free(pool);
}

int pool_new(size_t n_threads, void (*run)(void *context, struct pool_job *job), void *context,
	     struct pool **ret, struct error *err)
{
	_cleanup_pool_ struct pool *pool =
		calloc(1, sizeof(*pool) + n_threads * sizeof(pool->threads[0]));

	if (!pool)
		return error_errno(err, -ENOMEM, "make a pool of %zu threads", n_threads);
	pool->run = run;
	pool->context = context;
	pool->last = &pool->first;
	(void)pthread_mutex_init(&pool->lock, NULL);
	(void)pthread_cond_init(&pool->changed, NULL);
	for (; pool->n_threads < n_threads; pool->n_threads++) {
		int e = pthread_create(&pool->threads[pool->n_threads], NULL, work, pool);

		if (e != 0)
			return error_errno(err, -e, "start thread %zu of %zu", pool->n_threads + 1,
					   n_threads);
	}
	*ret = TAKE_PTR(pool);
	return 0;
}
