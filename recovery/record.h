/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What holdfast-csi remembers of a volume: one JSON file a volume, RUN_DIR/volumes/<sha256 of the
 * id>.json, mode 0600, replaced atomically, with a version. A record is written before the first
 * step of a change and again after the last, so that a process that was killed in between leaves a
 * record that says what may be there.
 */

#include <sys/types.h>

#include "base/error.h"
#include "base/macros.h"
#include "base/strv.h"
#include "fuse/volume.h"

#define RECORD_VERSION 1
#define RECORD_OLD_DEVS 16

enum record_state {
	RECORD_STAGING = 0, /* Stage has begun */
	RECORD_STAGED = 1,
	RECORD_UNSTAGING = 2, /* Unstage has begun */
};

struct record_target {
	char *path;
	char *fingerprint; /* of the publish call's parameters: the same call again, or another one
			    */
	bool read_only;
	uint64_t attr;	/* MOUNT_ATTR_* that its mount was given */
	bool published; /* false: Publish or Unpublish has begun and not ended */
	bool created;	/* the directory was made here, and goes with the mount */
};

/* What became of the volume's connections. */
struct record_healing {
	uint64_t deaths;	/* that ended, and nobody had asked for it */
	uint64_t healings;	/* that were replaced */
	uint64_t last_pause_ms; /* of the last healing, from its notice to its end */
	uint64_t stale_mounts;	/* that still show an earlier connection, as last seen */
	uint64_t stale_files;	/* open files and directories on one, which nothing can help */
};

struct record {
	struct volume_config config;
	enum record_state state;
	char *source;	    /* as the attributes gave it, an absolute directory */
	char *staging_path; /* NULL for an ephemeral volume */
	uint64_t staging_attr; /* MOUNT_ATTR_* that its mount there was given */
	char *fingerprint;  /* of the stage call's parameters */
	bool ephemeral;
	dev_t dev; /* st_dev of the FUSE mount, 0 while there is none */
	dev_t old_devs[RECORD_OLD_DEVS]; /* of earlier ones that may still be mounted; 0: none */
	uint64_t dev_since_ns; /* CLOCK_MONOTONIC: when the present one came */
	struct record_healing healing;
	struct record_target *targets;
	size_t n_targets;
};

/* record_new - an empty record for `id`. NULL when out of memory. */
struct record *record_new(const char *id);
void record_free(struct record *record);
DEFINE_CLEANUP(struct record *, record_free);
#define _cleanup_record_ _cleanup_(record_free_cleanup)

/* record_set_dev - the volume has another connection, or none (0), from now on; the one before may
 * still be mounted. */
void record_set_dev(struct record *record, dev_t dev);

/* record_add_old_dev - an earlier one that is still mounted. */
void record_add_old_dev(struct record *record, dev_t dev);

/* record_drop_old_dev - an earlier one is used by nobody any more. */
void record_drop_old_dev(struct record *record, dev_t dev);

/* record_find_target - NULL if the record has no such target. */
struct record_target *record_find_target(struct record *record, const char *path);

/* record_add_target - append an unpublished target; strings are copied. Returns it, or NULL when
 * out of memory. */
struct record_target *record_add_target(struct record *record, const char *path,
					const char *fingerprint);

/* record_drop_target - remove the target `path` if there is one. */
void record_drop_target(struct record *record, const char *path);

/*
 * record_decode, record_encode - the JSON text. decode checks every field; *ret is owned by the
 * caller. Returns 0 or -errno with *err set: -EBADMSG for what is no record, -EPROTONOSUPPORT for
 * another version.
 */
int __must_check record_decode(const char *text, size_t size, struct record **ret,
			       struct error *err);
int __must_check record_encode(const struct record *record, char **ret, size_t *ret_size,
			       struct error *err);

/* The directory of all records. Its calls are safe in several threads as long as each volume is
 * written by one. */
struct record_store;

/*
 * record_store_open - open RUN_DIR/volumes, which is made (0700) if it is missing. What a killed
 * process left half-written there is removed: only who holds run_dir_lock may open it.
 */
int __must_check record_store_open(const char *run_dir, struct record_store **ret,
				   struct error *err);

/*
 * record_store_open_readonly - open RUN_DIR/volumes only to look, next to a process that writes:
 * nothing is made, removed or renamed; save and remove give -EROFS. -ENOENT (ERROR_NOT_FOUND) if
 * there is no such directory.
 */
int __must_check record_store_open_readonly(const char *run_dir, struct record_store **ret,
					    struct error *err);
void record_store_close(struct record_store *store); /* NULL is fine */
DEFINE_CLEANUP(struct record_store *, record_store_close);
#define _cleanup_record_store_ _cleanup_(record_store_close_cleanup)

/* record_store_load - the record of `id`. -ENOENT (ERROR_NOT_FOUND) if there is none. */
int __must_check record_store_load(struct record_store *store, const char *id, struct record **ret,
				   struct error *err);

/* record_store_save, record_store_remove - atomic; removing what is not there is fine. */
int __must_check record_store_save(struct record_store *store, const struct record *record,
				   struct error *err);
int __must_check record_store_remove(struct record_store *store, const char *id, struct error *err);

/*
 * record_store_list - all records; *ret is an array of owned records, itself owned by the caller. A
 * file that can't be read as a record is logged, renamed to NAME.broken (not by a read-only store)
 * so that it is kept for a person to look at, and left out. One of another version is logged and
 * left out, and stays: the release that wrote it may come back.
 */
int __must_check record_store_list(struct record_store *store, struct record ***ret, size_t *ret_n,
				   struct error *err);
void record_list_free(struct record **records, size_t n); /* NULL is fine */
