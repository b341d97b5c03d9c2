/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The keeper's control protocol: SOCK_SEQPACKET, one fixed-size request a packet, answered by
 * fixed-size replies with the same `serial`. Descriptors travel by SCM_RIGHTS with the packet that
 * names them. Host byte order and the structs' own layout: both ends run on one node, and `version`
 * guards against ends of different builds. Only peers of the keeper's own effective uid are served.
 *
 *   request          descriptors        replies
 *   CONTROL_ADD      source directory   one, once a worker serves; on success with a mount, and
 *                                       with what an escrow holds, without the source
 *   CONTROL_MOUNT    -                  one; on success with a mount
 *   CONTROL_REMOVE   -                  one, once the worker is reaped and the keeper has closed
 *                                       the connection; it ends once the escrow does as well
 *   CONTROL_LIST     -                  one a volume (CONTROL_MORE set), then one without
 *   CONTROL_ESCROW   -                  one; on success with what an escrow holds
 *   CONTROL_ADOPT    what an escrow     one, at once; on success the volume is the keeper's own
 *                    holds              again, and a worker is on its way
 *   CONTROL_RESTART  -                  one, when the worker is about to be replaced by one of the
 *                                       program file as it is now
 *   CONTROL_KILL     -                  one, when the worker was killed as by anybody: for drills
 *   CONTROL_WATCH    -                  one for each volume whose connection ends from now on,
 *                                       without CONTROL_MORE; the client sends nothing more
 *   CONTROL_REPLACE  source directory   as CONTROL_ADD, for a volume that is there: once the new
 *                                       connection is served it has the volume's name, and the old
 *                                       one another (VOLUME_RETIRED), until nobody uses it. After a
 *                                       failure all is as before
 *   CONTROL_HEAL     -                  not the keeper's: holdfast-csi answers it at PLUGIN_SOCKET,
 *                                       once the volume (with an empty id: all) has been looked at
 *                                       and healed
 *   CONTROL_SWAP     -                  holdfast-csi's too, once the volume is mounted everywhere
 *                                       from the directory `source`
 *   CONTROL_HANDOVER -                  one a volume with what an escrow holds, one a client with
 *                                       its connection and no id (CONTROL_MORE set), then one
 *                                       without; for the keeper that is to come
 *   CONTROL_HANDOVER_COMMIT  -          one, with the lock of the run directory and the listening
 *                                       socket
 *
 * A handover is all or nothing. It is refused with ERROR_BUSY while somebody waits for an answer.
 * From the first reply until the same client commits, goes away or is slow the keeper takes no
 * other connection or request: they wait for the one that goes on. Once it has answered the commit
 * the keeper starts no more workers. It ends those that it has when the client closes the
 * connection, which it does as soon as its own wait for their locks, and then itself.
 *
 * The mount is detached, the receiver attaches it. Each reply has one of its own where the kernel
 * clones detached mounts (Linux 6.15); before, it is always the same one, which would move when it
 * is attached again: clone it (mount_clone) where it is attached.
 *
 * What an escrow holds (recovery/escrow.h) is in the order of enum escrow_fd. All of it are
 * duplicates of the keeper's own descriptors: a clone of the device (FUSE_DEV_IOC_CLONE) would have
 * a list of requests of its own, and those that were read by way of the keeper's would end with it
 * (fs/fuse/dev.c).
 *
 * A client sends its next request when it has read the reply to the last. What is no request gets
 * one reply that says so (type 0 where it could not be read), then the connection is closed. A
 * client that goes away before its CONTROL_ADD is answered takes the volume with it.
 */

#include "base/error.h"
#include "base/macros.h"
#include "fuse/connection.h"
#include "fuse/volume.h"

#define CONTROL_SOCKET_NAME "keeper.sock" /* in the run directory */
#define PLUGIN_SOCKET_NAME "plugin.sock"
#define CONTROL_MAGIC 0x54464c48U	  /* "HLFT" */
#define CONTROL_VERSION 4

enum control_type {
	CONTROL_ADD = 1,
	CONTROL_MOUNT = 2,
	CONTROL_REMOVE = 3,
	CONTROL_LIST = 4,
	CONTROL_ESCROW = 5,
	CONTROL_ADOPT = 6,
	CONTROL_RESTART = 7,
	CONTROL_KILL = 8,
	CONTROL_WATCH = 11,
	CONTROL_HEAL = 12,
	CONTROL_REPLACE = 13,
	CONTROL_SWAP = 14,
	CONTROL_HANDOVER = 9,
	CONTROL_HANDOVER_COMMIT = 20,
};

/* The descriptors that a volume's connection lives by, in the order in which they travel. */
enum escrow_fd {
	ESCROW_MOUNT,  /* the keeper's own mount, which keeps the superblock alive */
	ESCROW_DEVICE, /* /dev/fuse */
	ESCROW_LEDGER,
	ESCROW_SOURCE,
	ESCROW_FDS,
};

/* The descriptors of a reply to CONTROL_HANDOVER_COMMIT. */
enum handover_fd {
	HANDOVER_LOCK,
	HANDOVER_SOCKET,
	HANDOVER_FDS,
};

#define ESCROW_NONE                            \
	{                                      \
		-EBADF, -EBADF, -EBADF, -EBADF \
	}

/* control_header.flags of a reply */
#define CONTROL_MORE (1U << 0)

#define CONTROL_SOURCE_MAX 4096

struct control_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
	uint32_t size; /* of the whole packet, this header included */
	uint32_t serial;
	uint32_t flags;
	uint32_t reserved;
};

struct control_request {
	struct control_header header;
	struct volume_config config; /* ADD, REPLACE: all of it; LIST, WATCH, HANDOVER*: unused; else the id */
	char source[CONTROL_SOURCE_MAX]; /* SWAP: an absolute path; else all zero */
};

enum volume_state {
	VOLUME_STARTING = 0,   /* its first worker has not reported yet */
	VOLUME_SERVING = 1,    /* a worker serves */
	VOLUME_RESTARTING = 2, /* the worker died, the next one is on its way */
	VOLUME_DEAD = 3,       /* the connection has ended: unmounted everywhere or aborted */
};

#define VOLUME_REASON_MAX 352
#define VOLUME_OOM_WINDOW_S 600 /* what "recent" means for a kill by the out-of-memory killer */

/* What the keeper knows of a volume. */
struct volume_status {
	struct volume_config config;
	struct connection_state connection;
	uint64_t dev;		   /* st_dev of the mount */
	uint64_t waiting;	   /* requests the kernel waits for */
	uint64_t restarts;	   /* workers that died */
	uint64_t requests;	   /* answered so far */
	uint64_t oom_kills;	   /* workers that the out-of-memory killer killed */
	uint64_t oom_kills_recent; /* of them, those for its own limit lately, up to 16 */
	uint64_t source_wait_ms;   /* how long a call to the source has been running that is slow */
	uint32_t poisoned;	   /* requests answered EIO because they killed workers */
	uint32_t poison_opcode;	   /* of the last of them, and its node */
	uint64_t poison_nodeid;
	int32_t worker_pid;		/* 0: none right now */
	uint32_t state;			/* enum volume_state */
	char reason[VOLUME_REASON_MAX]; /* why the last worker died or could not start, or "" */
};

struct control_reply {
	struct control_header header;
	int32_t code;		     /* 0 or -errno */
	uint32_t kind;		     /* enum error_kind, with code != 0 */
	char text[512];		     /* for the operator, with code != 0 */
	struct volume_status status; /* ADD, MOUNT, LIST, ESCROW, ADOPT, HANDOVER */
};

/* volume_status_find - the volume `id` in a list of `n`, NULL if it is not there. */
const struct volume_status *volume_status_find(const struct volume_status *list, size_t n,
					       const char *id);

/* volume_state_name - "starting", "serving", "restarting", "dead". */
const char *volume_state_name(enum volume_state state);

/*
 * control_check - whether a packet of `size` bytes is a request of our version and layout, of a
 * known type, with a config that makes sense for it. Reads nothing beyond size. Returns 0 or -errno
 * with *err set: -EBADMSG for garbage, -EPROTONOSUPPORT for another version, -EINVAL for the
 * config.
 */
int __must_check control_check(const void *packet, size_t size, struct error *err);

/*
 * control_check_reply - whether a packet of `size` bytes is a reply to the request `type`, `serial`
 * in our version and layout; *ret is a copy whose strings are terminated. Returns 0 or -errno with
 * *err set (ERROR_UNAVAILABLE): -EBADMSG, -EPROTONOSUPPORT. What the reply itself says is not
 * looked at.
 */
int __must_check control_check_reply(const void *packet, size_t size, enum control_type type,
				     uint32_t serial, struct control_reply *ret, struct error *err);
