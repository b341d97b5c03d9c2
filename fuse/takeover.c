/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/takeover.h"

#include <errno.h>
#include <pthread.h>
#include <sys/file.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"

#define JUST_BEGUN_NS (5 * NSEC_PER_MSEC)
#define LONG_RUNNING_NS NSEC_PER_SEC

struct takeover {
	enum takeover_verdict verdicts[LEDGER_MAX_INBOXES];
	uint32_t ranks[LEDGER_MAX_INBOXES]; /* how many have to be done before */
	pthread_mutex_t lock;
	pthread_cond_t turn;
	uint32_t n_done;
};

static bool is_forget(uint32_t opcode)
{
	return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET;
}

static bool is_to_blame(const struct ledger_header *header, const struct ledger_thread *thread)
{
	uint64_t since = atomic_load(&thread->since_ns), ended = atomic_load(&header->ended_ns);
	uint64_t age = ended > since ? ended - since : 0;

	if (since == 0) /* that worker did not come to it */
		return false;
	switch ((enum ledger_end)atomic_load(&header->end)) {
	case LEDGER_END_CRASH:
		return true;
	case LEDGER_END_KILLED:
		return age < JUST_BEGUN_NS || age > LONG_RUNNING_NS;
	case LEDGER_END_NONE:
	case LEDGER_END_PLANNED:
		break;
	}
	return false;
}

static enum takeover_verdict judge(struct ledger *ledger, int dev_fd, uint32_t index)
{
	struct ledger_header *header = ledger_header(ledger);
	struct ledger_thread *thread = &header->threads[index];
	const struct inbox inbox = { .ledger = ledger,
				     .thread = thread,
				     .record = &ledger_inboxes(ledger)[index],
				     .index = index,
				     .size = LEDGER_INBOX_DATA_MAX };
	const struct fuse_in_header *in;

	if (!atomic_load(&thread->tid)) /* never used: not even looked at, that costs pages */
		return TAKEOVER_NOTHING;
	in = inbox_request(&inbox);
	if (!in)
		return TAKEOVER_NOTHING;
	if (is_forget(in->opcode))
		return TAKEOVER_GO_ON;
	if (!inbox_is_awaited(dev_fd, in->unique))
		return TAKEOVER_NOTHING;
	if (is_to_blame(header, thread))
		atomic_fetch_add(&thread->deaths, 1);
	atomic_store(&thread->since_ns, 0);
	return atomic_load(&thread->deaths) >= TAKEOVER_DEATHS_MAX ? TAKEOVER_GIVE_UP
								   : TAKEOVER_REPLAY;
}

static bool is_less_suspect(const struct ledger_header *header, uint32_t a, uint32_t b)
{
	uint32_t deaths_a = atomic_load(&header->threads[a].deaths);
	uint32_t deaths_b = atomic_load(&header->threads[b].deaths);

	return deaths_a != deaths_b ? deaths_a < deaths_b : a < b;
}

static uint32_t rank(const struct takeover *t, const struct ledger_header *header, uint32_t index)
{
	uint32_t n = 0;

	if (t->verdicts[index] != TAKEOVER_REPLAY || !atomic_load(&header->threads[index].deaths))
		return 0; /* it need not wait */
	for (uint32_t i = 0; i < LEDGER_MAX_INBOXES; i++)
		n += t->verdicts[i] != TAKEOVER_NOTHING && is_less_suspect(header, i, index);
	return n;
}

int takeover_new(struct ledger *ledger, int dev_fd, struct takeover **ret)
{
	struct takeover *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	(void)pthread_mutex_init(&t->lock, NULL);
	(void)pthread_cond_init(&t->turn, NULL);
	for (uint32_t i = 0; i < LEDGER_MAX_INBOXES; i++)
		t->verdicts[i] = judge(ledger, dev_fd, i);
	for (uint32_t i = 0; i < LEDGER_MAX_INBOXES; i++)
		t->ranks[i] = rank(t, ledger_header(ledger), i);
	*ret = t;
	return 0;
}

void takeover_free(struct takeover *t)
{
	if (!t)
		return;
	(void)pthread_cond_destroy(&t->turn);
	(void)pthread_mutex_destroy(&t->lock);
	free(t);
}

bool takeover_has(const struct takeover *t, uint32_t index)
{
	return t->verdicts[index] != TAKEOVER_NOTHING;
}

enum takeover_verdict takeover_judge(const struct takeover *t, const struct inbox *inbox)
{
	return t->verdicts[inbox->index];
}

static bool may_be_under_way(const struct inbox *inbox)
{
	switch (inbox_request(inbox)->opcode) {
	case FUSE_SETATTR:
	case FUSE_WRITE:
	case FUSE_FALLOCATE:
	case FUSE_COPY_FILE_RANGE:
		return true;
	default:
		return atomic_load(&inbox->record->intent.state) == LEDGER_INTENT_BEGUN;
	}
}

void takeover_wait_for_end(const struct inbox *inbox, int lock_fd)
{
	if (lock_fd < 0 || !may_be_under_way(inbox))
		return;
	while (flock(lock_fd, LOCK_EX) < 0 && errno == EINTR)
		;
}

void takeover_wait_turn(struct takeover *t, uint32_t index)
{
	struct timespec until;
	int r = 0;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec++;
	(void)pthread_mutex_lock(&t->lock);
	while (r == 0 && t->n_done < t->ranks[index])
		r = pthread_cond_clockwait(&t->turn, &t->lock, CLOCK_MONOTONIC, &until);
	(void)pthread_mutex_unlock(&t->lock);
}

void takeover_done(struct takeover *t)
{
	(void)pthread_mutex_lock(&t->lock);
	t->n_done++;
	(void)pthread_cond_broadcast(&t->turn);
	(void)pthread_mutex_unlock(&t->lock);
}

void takeover_note_poison(const struct inbox *inbox)
{
	const struct fuse_in_header *in = inbox_request(inbox);
	struct ledger_header *header = ledger_header(inbox->ledger);

	log_error("a request (opcode %u, node %#llx) was in hand when %d workers died in a row: it "
		  "is "
		  "answered EIO",
		  in->opcode, (unsigned long long)in->nodeid, TAKEOVER_DEATHS_MAX);
	atomic_store(&header->poison_opcode, in->opcode);
	atomic_store(&header->poison_nodeid, in->nodeid);
	atomic_fetch_add(&header->poisoned, 1);
}
