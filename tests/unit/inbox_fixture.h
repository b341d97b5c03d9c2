/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A request in an inbox of the fixture's ledger, served by this thread. Include unit.h and
 * volume_fixture.h first. */

#include "fuse/inbox.h"
#include "fuse/uapi.h"

static struct inbox test_inbox;

static inline struct ledger_inbox *inbox_record(struct volume_fixture *v, uint32_t index)
{
	return &ledger_inboxes(v->ledger)[index];
}

/* What the kernel has written there. */
static inline void inbox_fill(struct volume_fixture *v, uint32_t index, uint32_t opcode)
{
	struct fuse_in_header *in = (void *)inbox_record(v, index)->data;

	*in = (struct fuse_in_header){
		.len = sizeof(*in), .opcode = opcode, .unique = 100 + 2 * index, .nodeid = 1
	};
}

/* This thread serves the request in inbox `index`, from now on or after a takeover. */
static inline void inbox_serve(struct volume_fixture *v, uint32_t index)
{
	assert_int_equal(inbox_open(v->ledger, index, 8192, 8192, &test_inbox), 0);
	inbox_set_current(&test_inbox);
}

/* A request is taken up in inbox 3. */
static inline void inbox_take(struct volume_fixture *v, uint32_t opcode)
{
	inbox_fill(v, 3, opcode);
	inbox_serve(v, 3);
}

/* The worker dies over it, the next one takes it up. */
static inline void inbox_take_over(struct volume_fixture *v)
{
	inbox_set_current(NULL);
	volume_take_over(v);
	inbox_serve(v, 3);
}

static inline int inbox_teardown(void **state)
{
	inbox_set_current(NULL);
	return volume_teardown(state);
}
