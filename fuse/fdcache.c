/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/fdcache.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "fuse/ledger.h"
#include "fuse/slots.h"

struct entry {
	uint64_t id; /* 0: free, or dropped while pinned */
	uint64_t used_ns;
	int fd;
	uint32_t pins;
	bool readable;
	bool referenced; /* since the hand came by last */
	bool sticky;
};

struct fdcache {
	pthread_mutex_t lock;
	struct entry *entries; /* 1 to max */
	uint32_t max, n;       /* entries up to n were used */
	uint32_t hand;
	uint32_t *by_index; /* node index to entry, 0: none */
	uint32_t max_index;
};

int fdcache_new(uint32_t max, uint32_t max_index, struct fdcache **ret)
{
	struct fdcache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return -ENOMEM;
	cache->max = max;
	cache->max_index = max_index;
	(void)pthread_mutex_init(&cache->lock, NULL);
	cache->entries = slots_table(max + 1ULL, sizeof(*cache->entries));
	cache->by_index = slots_table(max_index, sizeof(*cache->by_index));
	if (!cache->entries || !cache->by_index) {
		fdcache_free(cache);
		return -ENOMEM;
	}
	*ret = cache;
	return 0;
}

void fdcache_free(struct fdcache *cache)
{
	if (!cache)
		return;
	for (uint32_t i = 1; i <= cache->n; i++)
		if (cache->entries[i].id || cache->entries[i].pins)
			(void)close(cache->entries[i].fd);
	slots_table_free(cache->entries, cache->max + 1ULL, sizeof(*cache->entries));
	slots_table_free(cache->by_index, cache->max_index, sizeof(*cache->by_index));
	(void)pthread_mutex_destroy(&cache->lock);
	free(cache);
}

static struct entry *find(struct fdcache *cache, uint64_t id)
{
	uint32_t i = cache->by_index[ledger_id_index(id)];

	return i && cache->entries[i].id == id ? &cache->entries[i] : NULL;
}

static void pin(struct fdcache *cache, struct entry *e, struct fdcache_pin *ret)
{
	e->pins++;
	e->referenced = true;
	*ret = (struct fdcache_pin){
		.fd = e->fd,
		.entry = (uint32_t)(e - cache->entries),
		.readable = e->readable,
	};
}

/* Takes the entry out of the cache; returns the descriptor to close, if nobody uses it. */
static int detach(struct fdcache *cache, struct entry *e)
{
	if (cache->by_index[ledger_id_index(e->id)] == e - cache->entries)
		cache->by_index[ledger_id_index(e->id)] = 0;
	e->id = 0;
	return e->pins ? -EBADF : TAKE_FD(e->fd);
}

bool fdcache_get(struct fdcache *cache, uint64_t id, struct fdcache_pin *ret)
{
	struct entry *e;

	(void)pthread_mutex_lock(&cache->lock);
	e = find(cache, id);
	if (e)
		pin(cache, e, ret);
	(void)pthread_mutex_unlock(&cache->lock);
	return e;
}

/* A free entry, made by the hand's going round where there is none. *ret_close is the descriptor
 * that had to go. */
static struct entry *take_entry(struct fdcache *cache, int *ret_close)
{
	if (cache->n < cache->max)
		return &cache->entries[++cache->n];
	for (uint64_t step = 0; step < 2ULL * cache->max; step++) {
		struct entry *e;

		cache->hand = cache->hand % cache->max + 1;
		e = &cache->entries[cache->hand];
		if (e->pins || (e->id && e->sticky))
			continue;
		if (e->id && e->referenced) {
			e->referenced = false;
			continue;
		}
		if (e->id)
			*ret_close = detach(cache, e);
		return e;
	}
	return NULL;
}

static int add_locked(struct fdcache *cache, uint64_t id, int *fd, bool readable,
		      struct fdcache_pin *ret, int to_close[2])
{
	struct entry *e = find(cache, id);
	bool sticky = e && e->sticky;

	if (e && (e->readable || !readable)) {
		pin(cache, e, ret);
		return 0;
	}
	if (e)
		to_close[0] = detach(cache, e);
	e = take_entry(cache, &to_close[1]);
	if (!e)
		return -EMFILE;
	*e = (struct entry){ .id = id, .fd = TAKE_FD(*fd), .readable = readable, .sticky = sticky };
	cache->by_index[ledger_id_index(id)] = (uint32_t)(e - cache->entries);
	pin(cache, e, ret);
	return 0;
}

int fdcache_add(struct fdcache *cache, uint64_t id, int fd, bool readable, struct fdcache_pin *ret)
{
	int to_close[2] = { -EBADF, -EBADF };
	int r;

	(void)pthread_mutex_lock(&cache->lock);
	r = add_locked(cache, id, &fd, readable, ret, to_close);
	(void)pthread_mutex_unlock(&cache->lock);
	close_fd(&to_close[0]);
	close_fd(&to_close[1]);
	close_fd(&fd);
	return r;
}

void fdcache_put(struct fdcache *cache, uint32_t entry)
{
	struct entry *e = &cache->entries[entry];
	uint64_t now = clock_now_ns();
	int fd = -EBADF;

	(void)pthread_mutex_lock(&cache->lock);
	e->used_ns = now;
	if (--e->pins == 0 && e->id == 0)
		fd = TAKE_FD(e->fd);
	(void)pthread_mutex_unlock(&cache->lock);
	close_fd(&fd);
}

void fdcache_drop(struct fdcache *cache, uint64_t id)
{
	struct entry *e;
	int fd = -EBADF;

	(void)pthread_mutex_lock(&cache->lock);
	e = find(cache, id);
	if (e)
		fd = detach(cache, e);
	(void)pthread_mutex_unlock(&cache->lock);
	close_fd(&fd);
}

void fdcache_stick(struct fdcache *cache, uint64_t id, bool sticky)
{
	struct entry *e;

	(void)pthread_mutex_lock(&cache->lock);
	e = find(cache, id);
	if (e)
		e->sticky = sticky;
	(void)pthread_mutex_unlock(&cache->lock);
}

/* How long the cache is locked at a time while it is trimmed. */
#define TRIM_BATCH 32

/* Looks at entries from *pos on; returns how many descriptors there are to close. */
static size_t trim_batch(struct fdcache *cache, uint32_t *pos, uint64_t before_ns, bool pressed,
			 int fds[TRIM_BATCH])
{
	size_t n = 0;

	for (; *pos <= cache->n && n < TRIM_BATCH; ++*pos) {
		struct entry *e = &cache->entries[*pos];

		if (!e->id || e->pins || e->sticky)
			continue;
		if (e->used_ns < before_ns || (pressed && *pos % 2))
			fds[n++] = detach(cache, e);
	}
	return n;
}

void fdcache_trim(struct fdcache *cache, uint64_t idle_ns, bool pressed)
{
	uint64_t now = clock_now_ns();
	uint64_t before = now > idle_ns ? now - idle_ns : 0;
	uint32_t pos = 1;
	size_t n;

	do {
		int fds[TRIM_BATCH];

		(void)pthread_mutex_lock(&cache->lock);
		n = trim_batch(cache, &pos, before, pressed, fds);
		(void)pthread_mutex_unlock(&cache->lock);
		for (size_t i = 0; i < n; i++)
			(void)close(fds[i]);
	} while (n > 0);
}
