/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/buffer.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#define SIZE_MIN (1U << 20) /* the usual largest request; costs address space only */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct buffer *idle; /* under lock */

static struct buffer *take_idle(size_t size)
{
	struct buffer *found = NULL;

	(void)pthread_mutex_lock(&lock);
	for (struct buffer **p = &idle; *p; p = &(*p)->next) {
		if ((*p)->size < size)
			continue;
		found = *p;
		*p = found->next;
		break;
	}
	(void)pthread_mutex_unlock(&lock);
	return found;
}

static struct buffer *make(size_t size)
{
	_cleanup_free_ struct buffer *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->size = MAX_OF(size, (size_t)SIZE_MIN);
	b->data = mmap(NULL, b->size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return b->data == MAP_FAILED ? NULL : TAKE_PTR(b);
}

int buffer_get(size_t size, struct buffer **ret)
{
	struct buffer *b = take_idle(size) ?: make(size);

	if (!b)
		return -ENOMEM;
	b->used = true;
	*ret = b;
	return 0;
}

void buffer_put(struct buffer *b)
{
	if (!b)
		return;
	(void)pthread_mutex_lock(&lock);
	b->next = idle;
	idle = b;
	(void)pthread_mutex_unlock(&lock);
}

/* Takes all idle buffers out, so that nobody borrows one that loses its content meanwhile. */
static struct buffer *take_all(void)
{
	struct buffer *all;

	(void)pthread_mutex_lock(&lock);
	all = idle;
	idle = NULL;
	(void)pthread_mutex_unlock(&lock);
	return all;
}

void buffer_trim(void)
{
	struct buffer *b = take_all(), *next;

	for (; b; b = next) {
		next = b->next;
		if (!b->used)
			(void)madvise(b->data, b->size, MADV_DONTNEED);
		b->used = false;
		buffer_put(b);
	}
}

void buffer_free_all(void)
{
	struct buffer *b = take_all(), *next;

	for (; b; b = next) {
		next = b->next;
		(void)munmap(b->data, b->size);
		free(b);
	}
}
