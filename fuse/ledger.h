/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The ledger: a memfd, mapped by keeper and worker, that holds what must survive a worker.
 *
 * It is created sparse at its full size and sealed, so it never grows or shrinks and is never
 * mapped twice: a page costs memory once it is touched. Every record has a fixed size, and becomes
 * valid by one release store to its `state`; a worker may die between any two instructions, and its
 * successor has to make sense of what it finds. Nothing in it is a pointer. The worker that reads a
 * ledger trusts no number in it: indexes and sizes are checked.
 *
 * The parts, each on a page boundary: header, devices, nodes, open handles, names, inboxes. A node
 * or handle is named by its index; index 0 is never used, so that 0 means none.
 */

#include <stdatomic.h>

#include "base/error.h"
#include "base/macros.h"
#include "fuse/connection.h"
#include "fuse/volume.h"

#define LEDGER_MAGIC 0x5244474c54464c48ULL /* "HLFTLGDR" */
#define LEDGER_VERSION 4

#define LEDGER_MAX_NODES (1U << 24)
#define LEDGER_MAX_HANDLES (1U << 20)
#define LEDGER_MAX_DEVS 256
#define LEDGER_FILE_HANDLE_MAX \
	40		    /* bytes of a struct file_handle's f_handle that a node has room for */
#define LEDGER_NAME_MAX 255 /* NAME_MAX of every file system that can be a source */

/* Threads that serve a volume, and so inboxes, at most. */
#define LEDGER_MAX_INBOXES 64

/* What a thread of the worker is doing, for the keeper, which maps no more than the header. */
struct ledger_thread {
	_Atomic uint64_t unique; /* of the request in hand; 0: none */
	_Atomic uint64_t
		since_ns; /* CLOCK_MONOTONIC, when this worker began it; 0: it did not yet */
	_Atomic uint64_t nodeid;
	_Atomic uint64_t served; /* requests, by all workers */
	_Atomic uint32_t opcode;
	_Atomic uint32_t deaths; /* of workers, in a row, that are laid to this request's charge */
	_Atomic int32_t tid;	 /* of the thread, in the worker's pid namespace; 0: none */
	uint32_t reserved[3];
	_Atomic uint64_t first_ns; /* as since_ns, but of the first worker that had it */
};

/* How the last worker ended, as the keeper saw it. */
enum ledger_end {
	LEDGER_END_NONE = 0,	/* there was none before this one, or the keeper died with it */
	LEDGER_END_CRASH = 1,	/* by itself, out of memory, or killed because it hung */
	LEDGER_END_KILLED = 2,	/* SIGKILL by somebody */
	LEDGER_END_PLANNED = 3, /* the keeper replaced it: says nothing about any request */
};

/*
 * A change of a node's count of references that goes with a change of a request's list of them
 * (refs.h): the values that both shall have, so that a successor can finish what was begun.
 */
struct ledger_update {
	_Atomic uint32_t valid;
	uint32_t node;	/* index; 0: no count is changed */
	uint32_t inbox; /* index */
	uint32_t n_refs, n_forgotten;
	uint32_t reserved;
	uint64_t lookups, ref; /* ref: the last of n_refs, also where the list gets shorter */
};

struct ledger_header {
	uint64_t magic;
	uint32_t version;
	uint32_t node_size, handle_size, dev_size, inbox_size; /* sizeof, so that a foreign layout
								  is noticed */
	struct volume_config config;
	struct connection_state connection;
	_Atomic uint64_t epoch; /* counts workers; raised by each as it attaches */
	_Atomic uint32_t nodes_used,
		handles_used; /* high-water marks: records beyond were never touched */
	/* for the successor of the worker that has just ended, by the keeper */
	_Atomic uint64_t ended_ns; /* CLOCK_MONOTONIC */
	_Atomic uint32_t end;	   /* enum ledger_end */
	/* requests that were answered EIO because they killed worker after worker, and the last */
	_Atomic uint32_t poisoned;
	_Atomic uint32_t poison_opcode;
	_Atomic uint64_t poison_nodeid;
	/* the keeper's, for a keeper that comes after it */
	uint64_t dev;		   /* st_dev of the mount that belongs to this ledger */
	_Atomic uint64_t restarts; /* workers that died */
	struct ledger_update update;
	struct ledger_thread threads[LEDGER_MAX_INBOXES];
};

/* ledger_dev.state, ledger_node.state, ledger_handle.state: what is neither is taken for FREE. */
enum ledger_state {
	LEDGER_FREE = 0,
	LEDGER_LIVE = 1,
};

/*
 * The name of a record outside of this process, a FUSE node id or file handle: the index in the
 * lower half, the record's generation in the upper. The generation is raised when a record is
 * freed, so that no id is ever used twice. FUSE_ROOT_ID (1) is node 1 of generation 0.
 */
static inline uint64_t ledger_id(uint32_t index, uint32_t generation)
{
	return (uint64_t)generation << 32 | index;
}
static inline uint32_t ledger_id_index(uint64_t id)
{
	return (uint32_t)id;
}
static inline uint32_t ledger_id_generation(uint64_t id)
{
	return (uint32_t)(id >> 32);
}

/* What name_to_handle_at(2) says of a file. */
struct ledger_file_handle {
	int32_t type;
	uint32_t size; /* of bytes in use; 0: the source can't name the file like this */
	unsigned char bytes[LEDGER_FILE_HANDLE_MAX];
};

/*
 * A mount below the source directory (or a subvolume with an st_dev of its own). Its root is found
 * again as `name` in the directory that is node `parent`. Device 0 is the source's own.
 */
struct ledger_dev {
	_Atomic uint32_t state;
	uint32_t reserved;
	uint64_t dev;	   /* st_dev */
	uint64_t mount_id; /* stx_mnt_id; tells two mounts of one superblock apart */
	uint64_t parent;   /* node id; 0 for device 0 */
	char name[LEDGER_NAME_MAX + 1];
};

/*
 * A file that the kernel knows by a node id. Found again by its file handle; where the source has
 * none, by the name record of the same index in the directory `parent`.
 */
struct ledger_node {
	_Atomic uint32_t state;
	_Atomic uint32_t generation;
	_Atomic uint64_t lookups; /* references that the kernel holds */
	uint64_t ino;		  /* on the source */
	uint64_t parent;	  /* node id; 0: no name is known */
	_Atomic uint64_t seen;	  /* fingerprint of size and times that the kernel was told last */
	_Atomic uint32_t dev;	  /* index of a ledger_dev */
	_Atomic uint32_t opens;	  /* open handles; counted anew by each worker that attaches */
	uint32_t open_mode;	  /* enum open_mode (policy.h) */
	int32_t backing_id;	  /* above 0: registered with the connection */
	struct ledger_file_handle handle;
};

/* A file or directory that an application has open. */
struct ledger_handle {
	_Atomic uint32_t state;
	uint32_t generation;
	uint64_t node;	 /* node id */
	uint64_t unique; /* of the request that opened it: when that comes again, this is its */
	uint32_t flags;	 /* open(2), those that a reopened descriptor needs again */
	uint32_t mode;	 /* enum open_mode; OPEN_MODE_NONE for a directory */
};

/* The name of a node in its parent, for sources without file handles. */
struct ledger_name {
	char name[LEDGER_NAME_MAX + 1];
};

/* Who a name belonged to at some moment; ino 0: nobody had it. */
struct ledger_identity {
	uint64_t dev, ino;
	int64_t birth_sec;
	uint32_t birth_nsec;
	uint32_t mode; /* the type alone, S_IFMT */
};

enum ledger_intent_state {
	LEDGER_INTENT_NONE = 0,
	LEDGER_INTENT_BEGUN = 1, /* the system call may have been made or not: `before` tells */
	LEDGER_INTENT_DONE = 2,	 /* `result` is its outcome */
};

/* What a request that must not run twice is about to do (once.h). */
struct ledger_intent {
	_Atomic uint32_t state; /* enum ledger_intent_state */
	int32_t result;		/* 0, a count, or -errno */
	struct ledger_identity before[2];
	uint64_t size; /* of the file that is appended to */
};

/*
 * One thread's place for requests: the kernel writes a request right into `data`, so that whatever
 * a worker had taken from the connection when it died is there for its successor (inbox.h). No
 * request is there while the length in its header is 0.
 */
#define LEDGER_MAX_REFS 2040 /* more than the entries of the largest READDIRPLUS reply */
#define LEDGER_INBOX_DATA_MAX (240U << 10)
struct ledger_inbox {
	struct ledger_intent intent;
	_Atomic uint32_t n_refs;	/* references to nodes that the answer hands out */
	_Atomic uint32_t n_forgotten;	/* of a FORGET's nodes: how many were dealt with */
	uint64_t refs[LEDGER_MAX_REFS]; /* node ids */
	_Alignas(4096) unsigned char data[LEDGER_INBOX_DATA_MAX];
};

struct ledger; /* a mapping in this process */

/*
 * ledger_create - make a ledger for a volume and map its header; the records are not mapped, as
 * whoever creates a ledger (the keeper) has no use for them. *ret_fd is the memfd, sealed against
 * growing and shrinking. Returns 0 or -errno with *err set; both results are owned by the caller.
 */
int __must_check ledger_create(const struct volume_config *config,
			       const struct connection_state *connection, struct ledger **ret,
			       int *ret_fd, struct error *err);

/*
 * ledger_map - map all of a ledger that somebody else made. Size, seals, magic, version, layout and
 * config are checked first. Returns 0 or -errno with *err set: -EPROTONOSUPPORT
 * (ERROR_PRECONDITION) for another version, -EBADMSG for what is no ledger.
 */
int __must_check ledger_map(int fd, struct ledger **ret, struct error *err);

/*
 * ledger_map_header - map the header alone, as ledger_create does, of a ledger that another keeper
 * made: after the same checks, with the same errors as ledger_map.
 */
int __must_check ledger_map_header(int fd, struct ledger **ret, struct error *err);

/* ledger_unmap - NULL is fine. The memfd stays as long as anybody holds it. */
void ledger_unmap(struct ledger *ledger);
DEFINE_CLEANUP(struct ledger *, ledger_unmap);
#define _cleanup_ledger_ _cleanup_(ledger_unmap_cleanup)

struct ledger_header *ledger_header(struct ledger *ledger);

/*
 * The records, for mappings that ledger_map made: arrays of LEDGER_MAX_DEVS, LEDGER_MAX_NODES,
 * LEDGER_MAX_HANDLES, and a name for each node.
 */
struct ledger_dev *ledger_devs(struct ledger *ledger);
struct ledger_node *ledger_nodes(struct ledger *ledger);
struct ledger_handle *ledger_handles(struct ledger *ledger);
struct ledger_name *ledger_names(struct ledger *ledger);

/* ledger_inboxes - LEDGER_MAX_INBOXES of them. */
struct ledger_inbox *ledger_inboxes(struct ledger *ledger);
