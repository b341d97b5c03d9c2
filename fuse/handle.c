/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "fuse/reply.h"
#include "fuse/slots.h"
#include "fuse/uapi.h"

#define SHARDS 64

/* What a reopened descriptor needs again. O_APPEND travels with each WRITE, O_DIRECT would want
 * aligned buffers, and O_TRUNC, O_CREAT and O_EXCL are done once. O_DIRECTORY is for directories
 * alone: O_TMPFILE, which has that bit as well, opens a file. */
#define KEPT_FLAGS (O_ACCMODE | O_SYNC | O_DSYNC | O_NOATIME | O_APPEND)

/* A handle's descriptor in this worker. */
struct descriptor {
	int fd; /* valid if `open` */
	uint32_t pins;
	bool open;
	bool released; /* closed and freed with the last pin */
};

struct handle_table {
	struct ledger_handle *records;
	const struct connection_state *state;
	const struct volume_config *config;
	struct node_table *nodes;
	int dev_fd;
	struct descriptor *descriptors;
	struct slots slots;
	uint32_t n_live;
	_Atomic uint32_t n_cached;		  /* open files that are not in passthrough */
	_Atomic bool no_backing[LEDGER_MAX_DEVS]; /* by device: backing_open has said no */
	_Atomic bool no_path_backing;		  /* backing_open takes no O_PATH descriptor */
	pthread_mutex_t table;
	pthread_mutex_t inode[SHARDS];
};

static pthread_mutex_t *inode_lock(struct handle_table *table, uint64_t node)
{
	return &table->inode[ledger_id_index(node) % SHARDS];
}

static bool is_live(const struct ledger_handle *record)
{
	return atomic_load_explicit(&record->state, memory_order_acquire) == LEDGER_LIVE;
}

static struct ledger_handle *find_record(struct handle_table *table, uint64_t fh)
{
	uint32_t index = ledger_id_index(fh);
	struct ledger_handle *record;

	if (index == 0 || index > atomic_load_explicit(table->slots.used, memory_order_acquire))
		return NULL;
	record = &table->records[index];
	if (!is_live(record) || record->generation != ledger_id_generation(fh))
		return NULL;
	return record;
}

static uint64_t fh_of(const struct handle_table *table, uint32_t index)
{
	return ledger_id(index, table->records[index].generation);
}

/*
 * The source's file with the flags that the application gave. O_APPEND is left to each write, as
 * fcntl(2) may take it away without our knowing; only files that can't be written otherwise
 * (append-only, chattr(1)) get it.
 */
static int open_file(int node_fd, uint32_t flags)
{
	int plain = (int)flags & KEPT_FLAGS & ~O_APPEND;
	int fd = source_reopen(node_fd, plain);

	if (fd == -EPERM && (flags & O_APPEND))
		fd = source_reopen(node_fd, plain | O_APPEND);
	return fd;
}

/* What tells a file that was changed since from one that was not; never 0. */
static uint64_t fingerprint(const struct stat *st)
{
	const uint64_t parts[] = {
		(uint64_t)st->st_size,	       (uint64_t)st->st_mtim.tv_sec,
		(uint64_t)st->st_mtim.tv_nsec, (uint64_t)st->st_ctim.tv_sec,
		(uint64_t)st->st_ctim.tv_nsec,
	};
	uint64_t h = 1;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		h = (h ^ parts[i]) * 0x9e3779b97f4a7c15ULL;
		h ^= h >> 32;
	}
	return h ?: 1;
}

/* What to look at before an inode is locked. */
struct look {
	int fd; /* the file; O_PATH or not */
	struct stat st;
	bool known; /* st is */
};

static bool immutable(const struct handle_table *table)
{
	return table->config->consistency == VOLUME_IMMUTABLE;
}

/* Older kernels want a file that is open for more than its path. The first ones that are not are
 * opened right here, under the inode's lock; the others before it is taken (handle_new). */
static int open_backing(struct handle_table *table, int fd)
{
	_cleanup_close_ int file = -EBADF;
	int id = backing_open(table->dev_fd, fd);

	if (id != -EBADF)
		return id;
	atomic_store(&table->no_path_backing, true);
	file = source_reopen(fd, O_RDONLY | O_NONBLOCK);
	return file < 0 ? file : backing_open(table->dev_fd, file);
}

static void note_no_backing(struct handle_table *table, uint32_t dev, int code)
{
	if (code != -ELOOP && code != -EOPNOTSUPP && code != -EPERM)
		return; /* of this file, this time */
	if (!atomic_exchange(&table->no_backing[dev], true))
		log_warning_errno(code, "a file system of the source can't be passed through; its "
					"files are read by the worker");
}

static bool wants_flush(const struct handle_table *table, uint32_t flags)
{
	return table->state->flush_on_close && (flags & O_ACCMODE) != O_RDONLY;
}

/* Registers the file unless it is; falls back to the page cache where it can't be. */
static enum open_mode register_backing(struct handle_table *table, struct ledger_node *node,
				       const struct look *look)
{
	uint32_t dev = atomic_load(&node->dev);
	int id;

	if (node->backing_id > 0)
		return OPEN_MODE_PASSTHROUGH;
	id = open_backing(table, look->fd);
	if (id <= 0) {
		note_no_backing(table, dev, id);
		return OPEN_MODE_CACHED;
	}
	node->backing_id = id;
	return OPEN_MODE_PASSTHROUGH;
}

/* Called with the inode locked. */
static void decide(struct handle_table *table, struct ledger_node *node, const struct look *look,
		   struct handle_open *open)
{
	bool is_open = atomic_load(&node->opens) > 0;
	uint32_t dev = atomic_load(&node->dev);
	uint64_t seen = look->known ? fingerprint(&look->st) : 0;
	struct policy_open policy = {
		.mode = (enum volume_mode)table->state->mode,
		.regular = true,
		.can_back = table->dev_fd >= 0 && dev < LEDGER_MAX_DEVS &&
			    !atomic_load(&table->no_backing[dev]),
		.current = is_open ? (enum open_mode)node->open_mode : OPEN_MODE_NONE,
		.flush = wants_flush(table, (uint32_t)open->flags),
		.unchanged = immutable(table) || (seen && atomic_load(&node->seen) == seen),
	};
	enum open_mode mode = policy_open_mode(&policy);

	if (mode == OPEN_MODE_PASSTHROUGH)
		mode = register_backing(table, node, look);
	/* close-to-open: size and times are new from here on as well, whatever their timeout */
	if (!policy.unchanged && table->dev_fd >= 0)
		(void)notify_inval_attr(table->dev_fd, open->node);
	node->open_mode = mode;
	atomic_store(&node->seen, seen);
	open->fopen_flags = policy_open_flags(&policy, mode);
	open->backing_id = mode == OPEN_MODE_PASSTHROUGH ? node->backing_id : 0;
}

void handle_note_attr(struct handle_table *table, uint64_t id, const struct stat *st)
{
	pthread_mutex_t *lock = inode_lock(table, id);
	struct ledger_node *node;

	if (!S_ISREG(st->st_mode) || immutable(table))
		return;
	(void)pthread_mutex_lock(lock);
	node = node_record(table->nodes, id);
	if (node)
		atomic_store(&node->seen, fingerprint(st));
	(void)pthread_mutex_unlock(lock);
}

/* The node is open once more; in which mode is settled with it. */
static int open_inode(struct handle_table *table, struct handle_open *open, const struct look *look,
		      uint32_t *ret_mode)
{
	pthread_mutex_t *lock = inode_lock(table, open->node);
	struct ledger_node *node;

	(void)pthread_mutex_lock(lock);
	node = node_record(table->nodes, open->node);
	if (node) {
		decide(table, node, look, open);
		*ret_mode = node->open_mode;
		node_opened(table->nodes, open->node);
	}
	(void)pthread_mutex_unlock(lock);
	return node ? 0 : -ESTALE;
}

/* The last one out has the connection forget the file; the record forgets after the kernel, so that
 * a worker that dies in between leaves an id that its successor finds. */
static void close_inode(struct handle_table *table, uint64_t id)
{
	pthread_mutex_t *lock = inode_lock(table, id);
	struct ledger_node *node;

	(void)pthread_mutex_lock(lock);
	node = node_record(table->nodes, id);
	if (node && atomic_load(&node->opens) == 1) {
		if (node->backing_id > 0 && table->dev_fd >= 0)
			(void)backing_close(table->dev_fd, node->backing_id);
		node->backing_id = 0;
		node->open_mode = OPEN_MODE_NONE;
	}
	if (node)
		node_closed(table->nodes, id);
	(void)pthread_mutex_unlock(lock);
}

/* The record of an open file, valid from its last line on. `fd` is consumed. */
static int publish(struct handle_table *table, struct handle_open *open, uint32_t mode, int fd)
{
	struct ledger_handle *record;
	uint32_t index;

	(void)pthread_mutex_lock(&table->table);
	index = slots_take(&table->slots);
	if (index) {
		record = &table->records[index];
		record->node = open->node;
		record->unique = open->unique;
		record->flags =
			(uint32_t)(open->flags & KEPT_FLAGS) | (open->directory ? O_DIRECTORY : 0);
		record->mode = mode;
		table->descriptors[index] = (struct descriptor){ .open = fd >= 0, .fd = fd };
		table->n_live++;
		if (mode == OPEN_MODE_CACHED)
			atomic_fetch_add(&table->n_cached, 1);
		atomic_store_explicit(&record->state, LEDGER_LIVE, memory_order_release);
		open->fh = fh_of(table, index);
	}
	(void)pthread_mutex_unlock(&table->table);
	if (index == 0)
		close_fd(&fd);
	return index ? 0 : -ENFILE;
}

static int new_directory(struct handle_table *table, struct handle_open *open, int fd)
{
	int r;

	open->fopen_flags = policy_opendir_flags(table->state, table->config);
	open->backing_id = 0;
	node_opened(table->nodes, open->node);
	r = publish(table, open, OPEN_MODE_NONE, fd);
	if (r < 0)
		node_closed(table->nodes, open->node);
	return r;
}

/* `fd` and look->fd may be the same. */
static int new_file(struct handle_table *table, struct handle_open *open, struct look *look,
		    int file_fd)
{
	_cleanup_close_ int fd = file_fd;
	uint32_t mode;
	int r;

	look->known = !immutable(table) && fstat(look->fd, &look->st) == 0;
	r = open_inode(table, open, look, &mode);
	if (r < 0)
		return r;
	if (mode == OPEN_MODE_PASSTHROUGH) {
		close_fd(&fd); /* the kernel opens its own */
	} else if (fd < 0) {
		fd = open_file(look->fd, (uint32_t)open->flags);
		r = fd < 0 ? fd : 0;
	}
	if (r >= 0)
		r = publish(table, open, mode, TAKE_FD(fd));
	if (r < 0)
		close_inode(table, open->node);
	return r;
}

int handle_new(struct handle_table *table, struct handle_open *open, int fd)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	bool readable = atomic_load(&table->no_path_backing);
	struct look look = { .fd = fd };
	int r;

	if (open->directory)
		return new_directory(table, open, fd);
	if (fd < 0) {
		r = node_get(table->nodes, open->node, readable, &node);
		if (r < 0)
			return r;
		look.fd = node.fd;
	}
	return new_file(table, open, &look, fd);
}

/* The answers that a handle was opened with. */
static void describe(struct handle_table *table, uint32_t index, const struct ledger_node *node,
		     struct handle_open *ret)
{
	const struct ledger_handle *record = &table->records[index];
	struct policy_open policy = {
		.mode = (enum volume_mode)table->state->mode,
		.regular = true,
		.can_back = true,
		.current = (enum open_mode)record->mode,
		.flush = wants_flush(table, record->flags),
	};

	ret->node = record->node;
	ret->fh = fh_of(table, index);
	ret->directory = record->flags & O_DIRECTORY;
	ret->backing_id = 0;
	if (ret->directory)
		ret->fopen_flags = policy_opendir_flags(table->state, table->config);
	else
		ret->fopen_flags = policy_open_flags(&policy, policy.current);
	if (!ret->directory && policy.current == OPEN_MODE_PASSTHROUGH)
		ret->backing_id = node->backing_id;
}

static bool find_locked(struct handle_table *table, uint64_t unique, struct handle_open *ret)
{
	uint32_t used = atomic_load(table->slots.used);

	for (uint32_t i = 1; i <= used; i++) {
		const struct ledger_handle *record = &table->records[i];
		const struct ledger_node *node;

		if (!is_live(record) || record->unique != unique)
			continue;
		node = node_record(table->nodes, record->node);
		if (!node)
			continue;
		describe(table, i, node, ret);
		return true;
	}
	return false;
}

bool handle_find(struct handle_table *table, uint64_t unique, struct handle_open *ret)
{
	bool found;

	(void)pthread_mutex_lock(&table->table);
	found = find_locked(table, unique, ret);
	(void)pthread_mutex_unlock(&table->table);
	return found;
}

/* Called with the table locked; the record is of no use from here on. */
static void free_record(struct handle_table *table, uint32_t index)
{
	struct ledger_handle *record = &table->records[index];

	record->generation++;
	atomic_store_explicit(&record->state, LEDGER_FREE, memory_order_release);
	table->n_live--;
	if (record->mode == OPEN_MODE_CACHED)
		atomic_fetch_sub(&table->n_cached, 1);
}

/* Called with the table locked; the slot may be taken again afterwards. */
static int free_descriptor(struct handle_table *table, uint32_t index)
{
	struct descriptor *d = &table->descriptors[index];
	int fd = d->open ? d->fd : -EBADF;

	*d = (struct descriptor){ .open = false };
	slots_give(&table->slots, index);
	return fd;
}

void handle_release(struct handle_table *table, uint64_t fh)
{
	uint32_t index = ledger_id_index(fh);
	_cleanup_close_ int fd = -EBADF;
	struct ledger_handle *record;
	bool directory = false;
	uint64_t node = 0;

	(void)pthread_mutex_lock(&table->table);
	record = find_record(table, fh);
	if (record) {
		node = record->node;
		directory = record->flags & O_DIRECTORY;
		free_record(table, index);
		if (table->descriptors[index].pins)
			table->descriptors[index].released = true;
		else
			fd = free_descriptor(table, index);
	}
	(void)pthread_mutex_unlock(&table->table);
	if (record && directory)
		node_closed(table->nodes, node);
	else if (record)
		close_inode(table, node);
}

/* Pins the handle. *ret is what to open it by, if it has no descriptor here. */
static int pin(struct handle_table *table, uint64_t fh, struct handle_ref *ref,
	       struct ledger_handle *ret)
{
	uint32_t index = ledger_id_index(fh);
	const struct ledger_handle *record;
	struct descriptor *d;

	(void)pthread_mutex_lock(&table->table);
	record = find_record(table, fh);
	if (record) {
		ret->node = record->node;
		ret->flags = record->flags;
		d = &table->descriptors[index];
		d->pins++;
		*ref = (struct handle_ref){ .fd = d->open ? d->fd : -EBADF,
					    .index = index,
					    .table = table };
	}
	(void)pthread_mutex_unlock(&table->table);
	return record ? 0 : -EBADF;
}

static int reopen(struct handle_table *table, const struct ledger_handle *record)
{
	_cleanup_node_ref_ struct node_ref node = NODE_REF_INIT;
	int r = node_get(table->nodes, record->node, false, &node);

	if (r < 0)
		return r;
	if (record->flags & O_DIRECTORY)
		return node_openat(table->nodes, node.fd, ".", O_RDONLY | O_DIRECTORY, 0);
	return open_file(node.fd, record->flags);
}

/* Keeps `fd` as the pinned handle's, unless another thread was faster. */
static void install(struct handle_table *table, struct handle_ref *ref, int fd)
{
	struct descriptor *d = &table->descriptors[ref->index];

	(void)pthread_mutex_lock(&table->table);
	if (!d->open) {
		d->open = true;
		d->fd = TAKE_FD(fd);
	}
	ref->fd = d->fd;
	(void)pthread_mutex_unlock(&table->table);
	close_fd(&fd);
}

int handle_get(struct handle_table *table, uint64_t fh, struct handle_ref *ret)
{
	_cleanup_handle_ref_ struct handle_ref ref = HANDLE_REF_INIT;
	struct ledger_handle record;
	int r;

	r = pin(table, fh, &ref, &record);
	if (r < 0)
		return r;
	if (ref.fd < 0) {
		r = reopen(table, &record);
		if (r < 0)
			return r;
		install(table, &ref, r);
	}
	*ret = ref;
	ref.table = NULL;
	return 0;
}

void handle_put(struct handle_ref *ref)
{
	struct handle_table *table = ref->table;
	_cleanup_close_ int fd = -EBADF;
	struct descriptor *d;

	if (!table)
		return;
	d = &table->descriptors[ref->index];
	(void)pthread_mutex_lock(&table->table);
	if (--d->pins == 0 && d->released)
		fd = free_descriptor(table, ref->index);
	(void)pthread_mutex_unlock(&table->table);
	*ref = (struct handle_ref)HANDLE_REF_INIT;
}

bool handle_wants_anchors(struct handle_table *table)
{
	return table->dev_fd >= 0 && (table->state->negotiated & FUSE_PASSTHROUGH) &&
	       atomic_load(&table->n_cached) > 0;
}

void handle_anchor(struct handle_table *table, uint64_t id, int fd)
{
	_cleanup_close_ int file = source_reopen(fd, O_RDONLY | O_NONBLOCK);
	pthread_mutex_t *lock = inode_lock(table, id);
	struct ledger_node *node;

	if (file < 0)
		return;
	(void)pthread_mutex_lock(lock);
	node = node_record(table->nodes, id);
	if (node && atomic_load(&node->opens) > 0 && node->backing_id <= 0) {
		int backing_id = backing_open(table->dev_fd, file);

		if (backing_id > 0)
			node->backing_id = backing_id;
	}
	(void)pthread_mutex_unlock(lock);
}

uint32_t handle_count(struct handle_table *table)
{
	uint32_t n;

	(void)pthread_mutex_lock(&table->table);
	n = table->n_live;
	(void)pthread_mutex_unlock(&table->table);
	return n;
}

/* A record of the workers before: kept if its node is there, else free. */
static void load_record(struct handle_table *table, uint32_t index)
{
	struct ledger_handle *record = &table->records[index];

	if (!is_live(record) || !node_record(table->nodes, record->node) ||
	    record->mode > OPEN_MODE_PASSTHROUGH) {
		atomic_store(&record->state, LEDGER_FREE);
		slots_give(&table->slots, index);
		return;
	}
	node_opened(table->nodes, record->node);
	table->n_live++;
	if (record->mode == OPEN_MODE_CACHED)
		atomic_fetch_add(&table->n_cached, 1);
}

/* What a worker registered, or left registered when it died, and no handle refers to any more. */
static void close_lost_backing(void *context, struct ledger_node *node)
{
	struct handle_table *table = context;

	if (atomic_load(&node->opens) > 0)
		return;
	if (node->backing_id > 0 && table->dev_fd >= 0)
		(void)backing_close(table->dev_fd, node->backing_id);
	node->backing_id = 0;
	node->open_mode = OPEN_MODE_NONE;
}

static int load(struct handle_table *table, struct ledger *ledger, struct error *err)
{
	struct ledger_header *header = ledger_header(ledger);
	int r;

	r = slots_init(&table->slots, &header->handles_used, LEDGER_MAX_HANDLES);
	if (r < 0)
		return error_errno(err, r, "handle table");
	table->descriptors = slots_table(LEDGER_MAX_HANDLES, sizeof(*table->descriptors));
	if (!table->descriptors)
		return error_errno(err, -ENOMEM, "handle table");
	for (uint32_t i = 1; i <= atomic_load(&header->handles_used); i++)
		load_record(table, i);
	node_table_sweep(table->nodes, close_lost_backing, table);
	return 0;
}

int handle_table_new(const struct handle_table_params *params, struct handle_table **ret,
		     struct error *err)
{
	_cleanup_handle_table_ struct handle_table *table = calloc(1, sizeof(*table));
	int r;

	if (!table)
		return error_errno(err, -ENOMEM, "handle table");
	table->records = ledger_handles(params->ledger);
	table->state = &ledger_header(params->ledger)->connection;
	table->config = &ledger_header(params->ledger)->config;
	table->nodes = params->nodes;
	table->dev_fd = params->dev_fd;
	(void)pthread_mutex_init(&table->table, NULL);
	for (size_t i = 0; i < SHARDS; i++)
		(void)pthread_mutex_init(&table->inode[i], NULL);
	r = load(table, params->ledger, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(table);
	return 0;
}

void handle_table_free(struct handle_table *table)
{
	if (!table)
		return;
	for (uint32_t i = 1; table->descriptors && i <= atomic_load(table->slots.used); i++)
		if (table->descriptors[i].open)
			(void)close(table->descriptors[i].fd);
	slots_table_free(table->descriptors, LEDGER_MAX_HANDLES, sizeof(*table->descriptors));
	if (table->slots.free)
		slots_destroy(&table->slots);
	(void)pthread_mutex_destroy(&table->table);
	for (size_t i = 0; i < SHARDS; i++)
		(void)pthread_mutex_destroy(&table->inode[i]);
	free(table);
}
