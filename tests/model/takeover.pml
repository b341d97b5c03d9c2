/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model of the ledger and the takeover, for spin(1); tests/model/run_spin.py checks it. It has the kernel, a source with
 * one directory and one file in it, a worker of two threads, and a keeper that kills and replaces the worker between any
 * two steps, those of a takeover included. The steps have the names that fuse/inbox.h gives them.
 *
 * One request, in a thread whose inbox is empty:
 *   READ    the kernel moves a request from `pending` to `processing` and writes it into the inbox, in one step
 *   BEGIN   what must not run twice: the state before is stored, then the intent is BEGUN
 *   CALL    the system call on the source. One step, but for an append: write(2) may be killed half way
 *   RESULT  the result is stored, then the intent is DONE
 *           then references to nodes are taken, each by an update (below), and are in the inbox's list
 *   REPLY   the kernel takes the request off `processing`; the caller goes on, and the kernel holds the references
 *   CLEAR   list and intent are emptied, then the inbox is, and n_forgotten last of all
 *
 * The takeover:
 *   LOCK    the old worker is gone, all of it; the update that it left is finished
 *           and then each thread, with the inbox of its number (one that is empty: n_forgotten := 0):
 *   PROBE   is the request in `processing` still? If not it was answered: CLEAR. A FORGET is in no such list, it goes on
 *           where n_forgotten says
 *   UNDO    the references in the list are given back, the last one first, each by an update
 *   REPLAY  the request runs: DONE gives the stored result again; BEGUN compares the state with the one before, and
 *           makes the call if nothing has changed; NONE begins as a new one does
 * Threads serve new requests while others still replay; a takeover that replays all before anything is read does
 * nothing that is not in here.
 *
 * An update changes a node's count and an inbox's list (or n_forgotten) so that no worker's death comes between: the new
 * values of both are stored, the record is valid, the values are copied, the record is valid no more. One at a time: the
 * node table's lock is held, which is private memory and free in each new worker.
 *
 * What is asserted:
 *  - each changing request has its effect once, or never if it fails, and its answer says which; what it should be is
 *    known, because the caller holds the directory's (file's) lock from before it is sent until it is answered (g_before)
 *  - no answer is refused by the kernel, so none is given twice and none to nobody
 *  - a node's count is never below what the kernel holds, and wherever no update is under way it is exactly that and the
 *    references of unanswered requests and forgets that were not applied (INVARIANT)
 *  - in the end, when nothing can move any more, all is answered and empty, and counts are what the kernel holds
 *  - that end comes (ltl answered): in every run, fair or not, as the number of requests, forgets and kills is bounded
 *
 * What is left out: processes that change the source behind the volume (a name that they make between CALL and a death is
 * taken for ours), the making and freeing of nodes, open handles, requests that kill every worker, an aborted connection.
 *
 * The model has to fail where the protocol is wrong. Each of these macros breaks it in one place, and run_spin.py wants
 * an error for each: NO_INTENT, BEGUN_FIRST, DONE_FIRST, NO_REDO, NO_PROBE, CLEAR_BEFORE_REPLY, FORGOTTEN_FIRST (CLEAR
 * resets n_forgotten before the inbox is empty: a FORGET would be applied again), UNDO_CLOBBERS (an update that shortens
 * the list stores something in place of its new last entry). WEAK leaves INVARIANT out, so that those errors are such that
 * somebody would notice.
 */

#ifndef KILLS
#define KILLS 3
#endif
#ifndef SCENE
#define SCENE 1
#endif
#ifndef EVICTIONS
#define EVICTIONS 2
#endif
#define THREADS 2
#define CALLERS 3

mtype:op = { LOOKUP, LIST, MKDIR, RMDIR, APPEND, FORGET };
mtype:intent = { NONE, BEGUN, DONE };
mtype:kernel = { IDLE, PENDING, PROCESSING };

#define OK 0
#define FAILED 1

#define DIR 0
#define FILE 1
#define NODES 2

/* The source: whether the directory is there, and the file's size. */
bool exists;
byte size;

/* The kernel: each caller has one request at a time; what is left to do for it numbers its requests (`unique`). */
mtype:kernel k_state[CALLERS] = IDLE;
mtype:op k_op[CALLERS] = LOOKUP;
byte k_left[CALLERS] = 1;
byte k_held[NODES];
byte k_forgets[NODES];
bool k_lock[NODES];
byte k_evictions = EVICTIONS;

/* What only the assertions know, of each caller's request: the state when it was sent, effects on the source. */
byte g_before[CALLERS];
byte g_effects[CALLERS];

/* The ledger: inboxes, a count for each node, and the update (r_). What is empty is 0, which spares states. */
typedef inbox_t {
	bool used;
	mtype:op op = LOOKUP;
	byte caller;
	byte unique;
	byte n_items;
	byte items[2];
	mtype:intent intent = NONE;
	byte before;
	byte result;
	byte n_refs;
	byte refs[2];
	byte n_forgotten;
};
inbox_t inbox[THREADS];
byte count[NODES];
bool r_valid;
byte r_node, r_count, r_inbox, r_n_refs, r_ref, r_n_forgotten;

/* The worker: `up` counts threads that a kill has to reach yet; `locked` is the node table's lock. */
bool alive = true;
byte up;
byte kills;
bool locked;
bool ready;

#define in inbox[me]
#ifdef UNDO_CLOBBERS
#define LAST_BUT_ONE 0
#else
#define LAST_BUT_ONE in.refs[0]
#endif
#define changes(o) ((o) == MKDIR || (o) == RMDIR || (o) == APPEND)
#define node_of(o) ((o) == APPEND -> FILE : DIR)
#define state_of(o) ((o) == APPEND -> size : exists)
#define unanswered(t) (inbox[t].used && inbox[t].op != FORGET && \
	k_state[inbox[t].caller] == PROCESSING && k_left[inbox[t].caller] == inbox[t].unique)
#define refs_in(t, n) (unanswered(t) -> \
	(inbox[t].n_refs > 0 && inbox[t].refs[0] == n) + (inbox[t].n_refs > 1 && inbox[t].refs[1] == n) : 0)
#define forgets_in(t, n) (inbox[t].used && inbox[t].op == FORGET -> \
	(inbox[t].n_forgotten < 1 && inbox[t].n_items > 0 && inbox[t].items[0] == n) + \
	(inbox[t].n_forgotten < 2 && inbox[t].n_items > 1 && inbox[t].items[1] == n) : 0)
#define exact(n) (count[n] == k_held[n] + k_forgets[n] + \
	refs_in(0, n) + refs_in(1, n) + forgets_in(0, n) + forgets_in(1, n))
#ifdef WEAK
#define INVARIANT skip
#else
#define INVARIANT assert(r_valid || locked || (exact(DIR) && exact(FILE)))
#endif

#define free(c, n) k_state[c] == IDLE && k_left[c] == n
#define lock_free(node) !k_lock[node]

inline issue(c, operation)
{
	k_op[c] = operation;
	if
	:: changes(operation) ->
		k_lock[node_of(operation)] = true;
		g_before[c] = state_of(operation)
	:: else
	fi;
	k_state[c] = PENDING
}

inline evict(n)
{
	d_step {
		k_held[n] > 0 && k_evictions > 0;
		k_evictions--;
		k_held[n]--;
		k_forgets[n]++
	}
}

active proctype applications()
{
end:	do
#if SCENE == 1 /* a caller whose second request depends on its first, and one that competes */
	:: atomic { free(0, 2) && lock_free(DIR); issue(0, MKDIR) }
	:: atomic { free(0, 1) && lock_free(DIR); issue(0, RMDIR) }
	:: atomic { free(1, 1) && lock_free(DIR); issue(1, MKDIR) }
	:: atomic { free(1, 1) && lock_free(DIR); issue(1, RMDIR) }
#elif SCENE == 2 /* appends beside requests that take references, of which the kernel drops some */
	:: atomic { free(0, 2) && lock_free(FILE); issue(0, APPEND) }
	:: atomic { free(0, 1); issue(0, LOOKUP) }
	:: atomic { free(1, 1); issue(1, LIST) }
#else /* three callers at once */
	:: atomic { free(0, 1) && lock_free(DIR); issue(0, MKDIR) }
	:: atomic { free(1, 1); issue(1, LIST) }
	:: atomic { free(2, 1) && lock_free(FILE); issue(2, APPEND) }
#endif
	:: evict(DIR)
	:: evict(FILE)
	od
}

active proctype keeper()
{
end:	do
	:: d_step { alive && kills < KILLS; kills++; alive = false }
	:: d_step { !alive && up == 0; locked = false; ready = false; alive = true }
	od
}

inline take(c)
{
	d_step {
		k_state[c] == PENDING;
		k_state[c] = PROCESSING;
		in.op = k_op[c];
		in.caller = c;
		in.unique = k_left[c];
		in.used = true
	}
}

inline take_forgets()
{
	d_step {
		k_forgets[DIR] + k_forgets[FILE] > 0;
		in.n_items = 0;
		do
		:: in.n_items < 2 && k_forgets[DIR] > 0 ->
			k_forgets[DIR]--; in.items[in.n_items] = DIR; in.n_items++
		:: in.n_items < 2 && k_forgets[DIR] == 0 && k_forgets[FILE] > 0 ->
			k_forgets[FILE]--; in.items[in.n_items] = FILE; in.n_items++
		:: else -> break
		od;
		in.op = FORGET;
		in.used = true;
	}
}

inline store_count()
{
	d_step {
		count[r_node] = r_count;
		assert(count[r_node] >= k_held[r_node])
	}
}

inline store_list()
{
	d_step {
		if
		:: r_n_refs > 0 -> inbox[r_inbox].refs[r_n_refs - 1] = r_ref
		:: else
		fi
	}
	inbox[r_inbox].n_refs = r_n_refs;
	inbox[r_inbox].n_forgotten = r_n_forgotten;
}

inline update(p_node, p_change, p_listed, p_ref, p_forgotten)
{
	d_step {
		!locked;
		locked = true;
		assert(!r_valid && count[p_node] + p_change >= 0);
		r_node = p_node;
		r_count = count[p_node] + p_change;
		r_inbox = me;
		r_n_refs = p_listed;
		r_ref = p_ref;
		r_n_forgotten = p_forgotten
	}
#ifndef NO_REDO
	r_valid = true;
#endif
	store_count();
	store_list();
	d_step {
		r_valid = false;
		locked = false;
		r_node = 0; r_count = 0; r_inbox = 0; r_n_refs = 0; r_ref = 0; r_n_forgotten = 0;
		INVARIANT
	}
}

inline reply()
{
	d_step {
		assert(k_state[in.caller] == PROCESSING && k_left[in.caller] == in.unique);
		if
		:: in.op == MKDIR ->
			assert(exists && g_effects[in.caller] == (res == OK) && g_before[in.caller] == (res != OK))
		:: in.op == RMDIR ->
			assert(!exists && g_effects[in.caller] == (res == OK) && g_before[in.caller] == (res == OK))
		:: in.op == APPEND ->
			assert(size == g_before[in.caller] + 2 && g_effects[in.caller] == 2 && res == OK)
		:: else
		fi;
		if
		:: in.n_refs > 0 -> k_held[in.refs[0]]++
		:: else
		fi;
		if
		:: in.n_refs > 1 -> k_held[in.refs[1]]++
		:: else
		fi;
		if
		:: changes(in.op) -> k_lock[node_of(in.op)] = false
		:: else
		fi;
		assert(count[DIR] >= k_held[DIR] && count[FILE] >= k_held[FILE]);
		k_state[in.caller] = IDLE;
		k_left[in.caller]--;
		g_before[in.caller] = 0;
		g_effects[in.caller] = 0;
		INVARIANT
	}
}

inline clear()
{
	d_step { in.n_refs = 0; in.refs[0] = 0; in.refs[1] = 0; in.intent = NONE; in.before = 0; in.result = 0 }
#ifdef FORGOTTEN_FIRST
	in.n_forgotten = 0;
#endif
	d_step {
		in.used = false;
		in.op = LOOKUP; in.caller = 0; in.unique = 0;
		in.n_items = 0; in.items[0] = 0; in.items[1] = 0;
#ifndef CLEAR_BEFORE_REPLY
		INVARIANT
#endif
	}
	in.n_forgotten = 0
}

inline effect()
{
	assert(k_state[in.caller] == PROCESSING && k_left[in.caller] == in.unique);
	g_effects[in.caller]++
}

proctype thread(byte me)
{
	byte res;

born:	atomic { alive -> up++ }
	{
		/* LOCK: keeper() waits until nobody of the old worker is up; the first thread does the rest */
		if
		:: me == 0 ->
			if
			:: r_valid ->
				store_count();
				store_list();
				d_step {
					r_valid = false;
					r_node = 0; r_count = 0; r_inbox = 0; r_n_refs = 0; r_ref = 0; r_n_forgotten = 0;
					INVARIANT
				}
			:: else
			fi;
			ready = true
		:: else ->
			ready
		fi;
		if
		:: !in.used -> in.n_forgotten = 0; goto do_read
		:: in.used && in.op == FORGET -> goto do_run
		:: else
		fi;
		/* PROBE */
#ifndef NO_PROBE
		if
		:: unanswered(me)
		:: else -> goto do_clear
		fi;
#endif
		/* UNDO */
		do
		:: in.n_refs > 0 -> update(in.refs[in.n_refs - 1], -1, in.n_refs - 1, LAST_BUT_ONE, 0)
		:: else -> break
		od;
		/* REPLAY */
		goto do_run;

end_read:
do_read:	/* READ */
		if
		:: take(0)
		:: take(1)
		:: take(2)
		:: take_forgets()
		fi;

do_run:
		if
		:: in.op == FORGET -> goto do_forget
		:: in.op == LOOKUP || in.op == LIST -> goto do_refer
		:: changes(in.op) && in.intent == NONE -> goto do_begin
		:: changes(in.op) && in.intent == BEGUN ->
			if
			:: in.op == APPEND && size == in.before + 2 -> res = OK; goto do_result
			:: in.op == APPEND && size == in.before + 1 -> goto append_rest
			:: in.op != APPEND && exists != in.before -> res = OK; goto do_result
			:: else -> goto do_call
			fi
		:: in.intent == DONE -> res = in.result; goto do_refer
		fi;

do_begin:	/* BEGIN */
#ifndef NO_INTENT
#ifdef BEGUN_FIRST
		in.intent = BEGUN;
		in.before = state_of(in.op);
#else
		in.before = state_of(in.op);
		in.intent = BEGUN;
#endif
#endif
do_call:	/* CALL */
		if
		:: in.op == MKDIR -> d_step {
			if
			:: exists -> res = FAILED
			:: else -> exists = true; res = OK; effect()
			fi }
		:: in.op == RMDIR -> d_step {
			if
			:: !exists -> res = FAILED
			:: else -> exists = false; res = OK; effect()
			fi }
		:: in.op == APPEND ->
			d_step { size++; effect() }
append_rest:		atomic { size++; res = OK; effect() }
		fi;
do_result:	/* RESULT */
#ifndef NO_INTENT
#ifdef DONE_FIRST
		in.intent = DONE;
		in.result = res;
#else
		in.result = res;
		in.intent = DONE;
#endif
#endif
do_refer:
		if
		:: in.op == LIST && in.n_refs == 0 -> update(FILE, 1, 1, FILE, 0); goto do_refer
		:: in.op == LIST && in.n_refs == 1 && exists -> update(DIR, 1, 2, DIR, 0)
		:: in.op == LOOKUP && exists -> update(DIR, 1, 1, DIR, 0)
		:: in.op == MKDIR && res == OK -> assert(exists); update(DIR, 1, 1, DIR, 0)
		:: else
		fi;
#ifdef CLEAR_BEFORE_REPLY
		in.used = false;
#endif
		reply(); /* REPLY */
		goto do_clear;

do_forget:		do
		:: in.n_forgotten < in.n_items -> update(in.items[in.n_forgotten], -1, in.n_refs, 0, in.n_forgotten + 1)
		:: else -> break
		od;

do_clear:
		clear(); /* CLEAR */
		res = 0;
		goto do_read
	} unless {
		!alive
	}
	d_step { up--; res = 0 }
	goto born
}

#define quiet (k_state[0] == IDLE && k_state[1] == IDLE && k_state[2] == IDLE && \
	!inbox[0].used && !inbox[1].used && k_forgets[DIR] + k_forgets[FILE] == 0)

init
{
	atomic {
#if SCENE == 1
		k_left[0] = 2; k_left[1] = 1; k_left[2] = 0;
#elif SCENE == 2
		k_left[0] = 2; k_left[1] = 1; k_left[2] = 0;
		exists = true;
#else
		k_left[0] = 1; k_left[1] = 1; k_left[2] = 1;
#endif
		run thread(0); run thread(1)
	}
end:	timeout;
	assert(quiet && !r_valid && count[DIR] == k_held[DIR] && count[FILE] == k_held[FILE]);
	assert(k_left[0] + k_left[1] + k_left[2] == 0)
}

ltl answered { <>[] quiet }
