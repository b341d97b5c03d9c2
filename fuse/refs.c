/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/refs.h"

#include <errno.h>

#include "fuse/crash.h"
#include "fuse/inbox.h"

static void apply(struct ledger *ledger, const struct ledger_update *update)
{
	struct ledger_inbox *inbox = &ledger_inboxes(ledger)[update->inbox];

	if (update->node)
		atomic_store(&ledger_nodes(ledger)[update->node].lookups, update->lookups);
	crash_point("in-record");
	if (update->n_refs)
		inbox->refs[update->n_refs - 1] = update->ref;
	atomic_store(&inbox->n_refs, update->n_refs);
	atomic_store(&inbox->n_forgotten, update->n_forgotten);
}

static void change(struct ledger *ledger, const struct ledger_update *values)
{
	struct ledger_update *update = &ledger_header(ledger)->update;

	update->node = values->node;
	update->inbox = values->inbox;
	update->n_refs = values->n_refs;
	update->n_forgotten = values->n_forgotten;
	update->lookups = values->lookups;
	update->ref = values->ref;
	atomic_store_explicit(&update->valid, 1, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
	apply(ledger, update);
	atomic_store_explicit(&update->valid, 0, memory_order_release);
}

static uint64_t lookups_of(struct ledger *ledger, uint32_t node)
{
	return atomic_load(&ledger_nodes(ledger)[node].lookups);
}

static void set_lookups(struct ledger *ledger, uint32_t node, uint64_t lookups)
{
	if (node)
		atomic_store(&ledger_nodes(ledger)[node].lookups, lookups);
}

/* What a change starts from: nothing is different yet. */
static struct ledger_update as_it_is(struct ledger *ledger, const struct inbox *inbox,
				     uint32_t node)
{
	struct ledger_update update = {
		.node = node,
		.inbox = inbox->index,
		.n_refs = refs_count(),
		.n_forgotten = refs_forgotten(),
		.lookups = lookups_of(ledger, node),
	};

	if (update.n_refs)
		update.ref = refs_last();
	return update;
}

int refs_take(struct ledger *ledger, uint32_t node, uint64_t id)
{
	const struct inbox *inbox = inbox_current();
	struct ledger_update update;

	if (!inbox) {
		set_lookups(ledger, node, lookups_of(ledger, node) + 1);
		return 0;
	}
	update = as_it_is(ledger, inbox, node);
	if (update.n_refs == LEDGER_MAX_REFS)
		return -ENOBUFS;
	update.lookups++;
	update.n_refs++;
	update.ref = id;
	change(ledger, &update);
	return 0;
}

void refs_give_back(struct ledger *ledger, uint32_t node)
{
	const struct inbox *inbox = inbox_current();
	struct ledger_update update;

	if (!inbox || refs_count() == 0)
		return;
	update = as_it_is(ledger, inbox, node);
	if (update.lookups)
		update.lookups--;
	if (--update.n_refs)
		update.ref = inbox->record->refs[update.n_refs - 1];
	change(ledger, &update);
}

void refs_forget(struct ledger *ledger, uint32_t node, uint64_t n)
{
	const struct inbox *inbox = inbox_current();
	uint64_t lookups = lookups_of(ledger, node), left = lookups > n ? lookups - n : 0;
	struct ledger_update update;

	if (!inbox) {
		set_lookups(ledger, node, left);
		return;
	}
	update = as_it_is(ledger, inbox, node);
	update.lookups = left;
	update.n_forgotten++;
	change(ledger, &update);
}

uint32_t refs_count(void)
{
	const struct inbox *inbox = inbox_current();

	return inbox ? MIN_OF(atomic_load(&inbox->record->n_refs), (uint32_t)LEDGER_MAX_REFS) : 0;
}

uint64_t refs_last(void)
{
	return inbox_current()->record->refs[refs_count() - 1];
}

uint32_t refs_forgotten(void)
{
	const struct inbox *inbox = inbox_current();

	return inbox ? atomic_load(&inbox->record->n_forgotten) : 0;
}

void refs_recover(struct ledger *ledger)
{
	struct ledger_update update = ledger_header(ledger)->update;

	if (update.valid == 1 && update.node < LEDGER_MAX_NODES &&
	    update.inbox < LEDGER_MAX_INBOXES && update.n_refs <= LEDGER_MAX_REFS)
		apply(ledger, &update);
	atomic_store(&ledger_header(ledger)->update.valid, 0);
}
