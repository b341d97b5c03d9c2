/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What holdfast-csi and holdfast-nsmount say to each other. The latter is started for one
 * operation: it has one thread, as setns(CLONE_NEWNS) wants it, and nobody else waits for it should
 * a path of some container hang.
 *
 * Descriptors: NSMOUNT_REQUEST_FD is a memfd with a struct nsmount_request, its volumes and the
 * places to leave alone; after it comes a detached mount for each volume. Standard output gets one
 * struct nsmount_report for each event, at once.
 */

#include "base/macros.h"
#include "base/helper.h"
#include "recovery/plan.h"

#define NSMOUNT_REQUEST_FD SPAWN_FIRST_FD
#define NSMOUNT_VERSION 3
#define NSMOUNT_VOLUMES_MAX 1024
#define NSMOUNT_SKIPS_MAX 256

struct nsmount_place {
	uint64_t ns_id; /* the namespace's inode number */
	uint64_t mount_id;
};

static inline bool nsmount_is_same(const struct nsmount_place *a, const struct nsmount_place *b)
{
	return a->ns_id == b->ns_id && a->mount_id == b->mount_id;
}

static inline bool nsmount_is_among(const struct nsmount_place *places, size_t n,
				    const struct nsmount_place *place)
{
	for (size_t i = 0; i < n; i++)
		if (nsmount_is_same(&places[i], place))
			return true;
	return false;
}

struct nsmount_request {
	uint32_t version;
	uint32_t n_volumes, n_skips;
	uint32_t reserved;
	struct nsmount_place skips[NSMOUNT_SKIPS_MAX]; /* where an earlier process hung or died */
	struct plan_volume volumes[];
};

enum nsmount_event {
	NSMOUNT_BEGIN = 1,     /* it is about to touch `place` */
	NSMOUNT_EXCHANGED = 2, /* the new mount was seen there */
	NSMOUNT_FAILED = 3,    /* it stays stale: `code`, `text` */
	NSMOUNT_DONE = 4,   /* all of one volume's mounts are exchanged that could be: `counts` */
	NSMOUNT_VOLUME = 5, /* its `files`, and `counts` with those seen */
	NSMOUNT_END = 6,    /* `code`, `text` if it could not do its work at all */
};

struct nsmount_report {
	uint32_t version, event;
	uint32_t volume; /* its index */
	int32_t code;
	uint32_t lost; /* EXCHANGED: what was mounted below and could not be brought along */
	struct nsmount_place place;
	struct plan_counts counts; /* DONE, VOLUME */
	uint32_t files; /* VOLUME: open files, working and root directories that stay stale */
	char path[512]; /* in the namespace */
	char text[512];
};
