/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Has holdfast-nsmount exchange the stale mounts of volumes, in all mount namespaces. One process
 * at a time: two would meet in each other's namespaces.
 */

#include "base/error.h"
#include "base/macros.h"
#include "recovery/nsmount.h"

struct nsmount_volume {
	struct plan_volume is;
	int mount_fd; /* a detached mount of the live superblock, for nsmount_exchange; borrowed,
			 and used up by it */
	/* filled in */
	uint32_t exchanged;
	struct plan_counts counts;
	bool uncounted;	   /* `files` and counts.seen are: that came to no end */
	uint32_t files;	   /* open files and directories that stay on what is dead */
	char failure[512]; /* of the last place that failed, or "" */
};

struct nsmount_job {
	struct nsmount_volume *volumes; /* borrowed */
	size_t n;			/* at most NSMOUNT_VOLUMES_MAX */
	/* where it hung, or died for the second time; where it died last */
	struct nsmount_place skips[NSMOUNT_SKIPS_MAX], died_at;
	uint32_t n_skips, n_deaths;
};

struct nsmount_client;

/* nsmount_client_new - NULL when out of memory. */
struct nsmount_client *nsmount_client_new(void);
void nsmount_client_free(struct nsmount_client *client); /* NULL is fine */

/*
 * nsmount_exchange - exchange what is stale of the job's volumes; each place is logged. Any thread
 * may call. Returns 0, or 1 when it hung or died at a place, which the job knows now: to go on,
 * call again with new mounts, which comes to an end; or -errno with *err set. Single places that
 * failed are no error, nor is it one that its counting, after all was exchanged, came to no end.
 */
int __must_check nsmount_exchange(struct nsmount_client *client, struct nsmount_job *job,
				  struct error *err);
