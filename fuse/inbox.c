/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/inbox.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"

#define INTERRUPT_BIT 1ULL /* FUSE_INT_REQ_BIT, fs/fuse/fuse_i.h */

_Static_assert(sizeof(struct fuse_in_header) == 40, "a request's header has its length first");

static _Thread_local struct inbox *current;

struct inbox *inbox_current(void)
{
	return current;
}

void inbox_set_current(struct inbox *inbox)
{
	current = inbox;
}

/* Kernels before 5.14 have no MADV_POPULATE_WRITE: each page is written with what it holds. */
static void touch_pages(struct ledger_inbox *record, size_t size)
{
	long page = sysconf(_SC_PAGESIZE);

	if (madvise(record, offsetof(struct ledger_inbox, data) + size, MADV_POPULATE_WRITE) == 0)
		return;
	for (size_t at = 0; at < size; at += (size_t)page) {
		volatile unsigned char *p = &record->data[at];

		*p = *p;
	}
}

int inbox_open(struct ledger *ledger, uint32_t index, size_t size, size_t touch, struct inbox *ret)
{
	struct ledger_header *header = ledger_header(ledger);

	if (index >= LEDGER_MAX_INBOXES || size > LEDGER_INBOX_DATA_MAX || touch > size)
		return -EINVAL;
	*ret = (struct inbox){
		.ledger = ledger,
		.thread = &header->threads[index],
		.record = &ledger_inboxes(ledger)[index],
		.index = index,
		.size = size,
	};
	touch_pages(ret->record, touch);
	atomic_store(&ret->thread->tid, (int32_t)syscall(SYS_gettid));
	return 0;
}

static struct fuse_in_header *header_of(const struct inbox *inbox)
{
	return (struct fuse_in_header *)(void *)inbox->record->data;
}

const struct fuse_in_header *inbox_request(const struct inbox *inbox)
{
	const struct fuse_in_header *in = header_of(inbox);

	return in->len >= sizeof(*in) && in->len <= inbox->size ? in : NULL;
}

void inbox_begin(struct inbox *inbox)
{
	const struct fuse_in_header *in = header_of(inbox);
	struct ledger_thread *thread = inbox->thread;
	uint64_t now = clock_now_ns();

	atomic_store_explicit(&thread->opcode, in->opcode, memory_order_relaxed);
	atomic_store_explicit(&thread->nodeid, in->nodeid, memory_order_relaxed);
	atomic_store_explicit(&thread->since_ns, now, memory_order_relaxed);
	if (!atomic_load_explicit(&thread->first_ns, memory_order_relaxed))
		atomic_store_explicit(&thread->first_ns, now, memory_order_relaxed);
	atomic_store_explicit(&thread->unique, in->unique ?: 1, memory_order_release);
}

/*
 * The length goes when all else is gone that belongs to an answered request, of which the kernel
 * will say that it was answered. Nobody can say that of a FORGET: how much of it was done goes
 * after the request itself, so that it is never begun again; a successor clears what it finds in an
 * empty inbox.
 */
void inbox_clear(struct inbox *inbox)
{
	struct ledger_thread *thread = inbox->thread;

	atomic_store_explicit(&inbox->record->n_refs, 0, memory_order_relaxed);
	atomic_store_explicit(&inbox->record->intent.state, LEDGER_INTENT_NONE,
			      memory_order_relaxed);
	atomic_store_explicit(&thread->deaths, 0, memory_order_relaxed);
	atomic_store_explicit(&thread->since_ns, 0, memory_order_relaxed);
	atomic_store_explicit(&thread->first_ns, 0, memory_order_relaxed);
	atomic_store_explicit(&thread->unique, 0, memory_order_release);
	__atomic_store_n(&header_of(inbox)->len, 0, __ATOMIC_RELEASE);
	atomic_store_explicit(&inbox->record->n_forgotten, 0, memory_order_release);
}

bool inbox_is_awaited(int dev_fd, uint64_t unique)
{
	const struct fuse_out_header out = { .len = sizeof(out), .unique = unique | INTERRUPT_BIT };

	return write(dev_fd, &out, sizeof(out)) == sizeof(out);
}
