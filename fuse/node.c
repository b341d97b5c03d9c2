/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/node.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuse/fdcache.h"
#include "fuse/node_index.h"
#include "fuse/refs.h"
#include "fuse/slots.h"

/* How many descriptors are kept where files can be opened again by handle. */
#define KEPT_FDS 4096
#define KEPT_FDS_MIN 64

/* A path that is walked by name is at most this deep, and mounts are nested at most this deep. */
#define WALK_MAX 1024
#define MOUNT_DEPTH_MAX 16

struct node_table {
	struct ledger *ledger;
	struct ledger_node *records;
	struct ledger_name *names;
	struct source *source;
	struct fdcache *fds;
	struct node_index *index;
	struct slots slots;
	pthread_mutex_t lock;
	uint32_t *suspects; /* while attaching: nodes that node_table_sweep has to look at */
	uint32_t n_suspects;
};

/* What a node's file is found by, copied out from under the lock. */
struct place {
	uint64_t ino, parent;
	uint32_t dev;
	struct ledger_file_handle handle;
	char name[LEDGER_NAME_MAX + 1];
};

static uint64_t id_of(const struct node_table *table, uint32_t index)
{
	return ledger_id(index, atomic_load(&table->records[index].generation));
}

static bool is_live(const struct ledger_node *record)
{
	return atomic_load_explicit(&record->state, memory_order_acquire) == LEDGER_LIVE;
}

struct ledger_node *node_record(struct node_table *table, uint64_t id)
{
	uint32_t index = ledger_id_index(id);
	struct ledger_node *record;

	if (index == 0 || index > atomic_load_explicit(table->slots.used, memory_order_acquire))
		return NULL;
	record = &table->records[index];
	if (!is_live(record) || atomic_load(&record->generation) != ledger_id_generation(id))
		return NULL;
	return record;
}

static bool same_handle(const struct ledger_file_handle *a, const struct ledger_file_handle *b)
{
	return a->size == b->size && a->type == b->type && memcmp(a->bytes, b->bytes, a->size) == 0;
}

static uint32_t record_hash(const struct ledger_node *record)
{
	return node_index_hash(atomic_load(&record->dev), record->ino);
}

static uint32_t find_locked(struct node_table *table, const struct source_identity *identity)
{
	uint64_t ino = identity->st.st_ino;
	uint32_t i = node_index_first(table->index, node_index_hash(identity->dev, ino));

	for (; i; i = node_index_next(table->index, i)) {
		const struct ledger_node *record = &table->records[i];

		if (atomic_load(&record->dev) == identity->dev && record->ino == ino &&
		    same_handle(&record->handle, &identity->handle))
			return i;
	}
	return 0;
}

uint64_t node_find(struct node_table *table, const struct source_identity *identity)
{
	uint64_t id = 0;
	uint32_t index;

	(void)pthread_mutex_lock(&table->lock);
	index = find_locked(table, identity);
	if (index)
		id = id_of(table, index);
	(void)pthread_mutex_unlock(&table->lock);
	return id;
}

/* Where a node without a file handle is found; a node without a name is found by its descriptor
 * alone. The parent is set last and cleared first, so that it never goes with half a name. */
static void set_name(struct node_table *table, uint32_t index, uint64_t parent, const char *name)
{
	struct ledger_node *record = &table->records[index];
	struct ledger_name *slot = &table->names[index];

	if (record->handle.size > 0 || index == FUSE_ROOT_ID)
		return;
	if (name && record->parent == parent && strcmp(slot->name, name) == 0)
		return;
	record->parent = 0;
	if (!name)
		return;
	atomic_thread_fence(memory_order_release);
	(void)snprintf(slot->name, sizeof(slot->name), "%s", name);
	atomic_thread_fence(memory_order_release);
	record->parent = parent;
}

/* Its open state is as the last close left it (handle.h): none. */
static uint32_t make_locked(struct node_table *table, const struct source_identity *identity)
{
	uint32_t index = slots_take(&table->slots);
	struct ledger_node *record = &table->records[index];

	if (index == 0)
		return 0;
	record->ino = identity->st.st_ino;
	record->parent = 0;
	atomic_store(&record->seen, 0);
	atomic_store(&record->dev, identity->dev);
	atomic_store(&record->opens, 0);
	record->handle = identity->handle;
	atomic_store(&record->lookups, 0);
	atomic_store_explicit(&record->state, LEDGER_LIVE, memory_order_release);
	node_index_add(table->index, record_hash(record), index);
	return index;
}

static bool is_unused(const struct ledger_node *record)
{
	return atomic_load(&record->lookups) == 0 && atomic_load(&record->opens) == 0;
}

/*
 * Called with the lock held, for a node that nobody refers to. The generation goes up first: should
 * the worker die right here, its successor sees a live node without references under an id that
 * was never told to anybody, and frees it.
 */
static void free_locked(struct node_table *table, uint32_t index)
{
	struct ledger_node *record = &table->records[index];

	node_index_remove(table->index, record_hash(record), index);
	atomic_fetch_add(&record->generation, 1);
	atomic_store_explicit(&record->state, LEDGER_FREE, memory_order_release);
	slots_give(&table->slots, index);
}

/* Returns whether the node went with its last reference. */
static bool free_if_unused(struct node_table *table, uint32_t index)
{
	if (index == FUSE_ROOT_ID || !is_unused(&table->records[index]))
		return false;
	free_locked(table, index);
	return true;
}

static int remember_locked(struct node_table *table, const struct source_identity *identity,
			   uint64_t parent, const char *name, bool *ret_found_again,
			   uint64_t *ret_id)
{
	uint32_t index = find_locked(table, identity);
	int r;

	if (index == 0)
		index = make_locked(table, identity);
	if (index == 0)
		return -ENFILE;
	r = refs_take(table->ledger, index, id_of(table, index));
	if (r < 0) {
		(void)free_if_unused(table, index);
		return r;
	}
	set_name(table, index, parent, name);
	*ret_found_again = table->records[index].handle.size > 0 || name;
	*ret_id = id_of(table, index);
	return 0;
}

/* Consumes fd, the only way to the node's file. */
static void keep_fd(struct node_table *table, uint64_t id, int fd)
{
	struct fdcache_pin pin;

	if (fdcache_add(table->fds, id, fd, false, &pin) < 0)
		return;
	fdcache_stick(table->fds, id, true);
	fdcache_put(table->fds, pin.entry);
}

int node_remember(struct node_table *table, const struct source_identity *identity, uint64_t parent,
		  const char *name, int fd, uint64_t *ret_id)
{
	struct fdcache_pin pin;
	bool found_again = false;
	uint64_t id = 0;
	int r;

	(void)pthread_mutex_lock(&table->lock);
	r = remember_locked(table, identity, parent, name, &found_again, &id);
	(void)pthread_mutex_unlock(&table->lock);
	*ret_id = id;
	if (r < 0 || id == FUSE_ROOT_ID) {
		close_fd(&fd);
		return r;
	}
	if (fd >= 0 && !found_again)
		keep_fd(table, id, fd);
	else if (fd >= 0 && fdcache_add(table->fds, id, fd, false, &pin) >= 0)
		fdcache_put(table->fds, pin.entry);
	return 0;
}

int node_refer(struct node_table *table, uint64_t id)
{
	int r = -ESTALE;

	(void)pthread_mutex_lock(&table->lock);
	if (node_record(table, id))
		r = refs_take(table->ledger, ledger_id_index(id), id);
	(void)pthread_mutex_unlock(&table->lock);
	return r;
}

void node_forget(struct node_table *table, uint64_t id, uint64_t n)
{
	uint32_t index = ledger_id_index(id);
	bool gone = false;

	(void)pthread_mutex_lock(&table->lock);
	if (!node_record(table, id))
		index = 0;
	refs_forget(table->ledger, index, n);
	if (index)
		gone = free_if_unused(table, index);
	(void)pthread_mutex_unlock(&table->lock);
	if (gone)
		fdcache_drop(table->fds, id);
}

/* Gives the last reference back. Returns the id if the node went with it, else 0. */
static uint64_t take_back_one(struct node_table *table)
{
	uint64_t id = refs_last();
	uint32_t index = node_record(table, id) ? ledger_id_index(id) : 0;

	refs_give_back(table->ledger, index);
	return index && free_if_unused(table, index) ? id : 0;
}

void node_take_back(struct node_table *table)
{
	while (refs_count() > 0) {
		uint64_t gone;

		(void)pthread_mutex_lock(&table->lock);
		gone = take_back_one(table);
		(void)pthread_mutex_unlock(&table->lock);
		if (gone)
			fdcache_drop(table->fds, gone);
	}
}

bool node_has_handle(struct node_table *table, uint64_t id)
{
	const struct ledger_node *record;
	bool has;

	(void)pthread_mutex_lock(&table->lock);
	record = node_record(table, id);
	has = !record || record->handle.size > 0;
	(void)pthread_mutex_unlock(&table->lock);
	return has;
}

void node_opened(struct node_table *table, uint64_t id)
{
	struct ledger_node *record;

	(void)pthread_mutex_lock(&table->lock);
	record = node_record(table, id);
	if (record)
		atomic_fetch_add(&record->opens, 1);
	(void)pthread_mutex_unlock(&table->lock);
}

void node_closed(struct node_table *table, uint64_t id)
{
	struct ledger_node *record;
	bool gone = false;

	(void)pthread_mutex_lock(&table->lock);
	record = node_record(table, id);
	if (record && atomic_load(&record->opens) > 0)
		atomic_fetch_sub(&record->opens, 1);
	if (record)
		gone = free_if_unused(table, ledger_id_index(id));
	(void)pthread_mutex_unlock(&table->lock);
	if (gone)
		fdcache_drop(table->fds, id);
}

static int copy_place(struct node_table *table, uint64_t id, struct place *ret)
{
	const struct ledger_node *record;

	(void)pthread_mutex_lock(&table->lock);
	record = node_record(table, id);
	if (record) {
		ret->ino = record->ino;
		ret->parent = record->parent;
		ret->dev = atomic_load(&record->dev);
		ret->handle = record->handle;
		ret->name[0] = '\0';
		if (record->parent)
			memcpy(ret->name, table->names[ledger_id_index(id)].name,
			       sizeof(ret->name));
		ret->name[LEDGER_NAME_MAX] = '\0';
	}
	(void)pthread_mutex_unlock(&table->lock);
	return record ? 0 : -ESTALE;
}

static int get(struct node_table *table, uint64_t id, bool readable, unsigned int depth,
	       struct node_ref *ret);

/* After a takeover: finds the root of a mount again where it was, so that its files can be opened
 * by handle. */
static int adopt_device(struct node_table *table, uint32_t dev, unsigned int depth)
{
	_cleanup_node_ref_ struct node_ref parent = NODE_REF_INIT;
	_cleanup_close_ int fd = -EBADF;
	char name[LEDGER_NAME_MAX + 1];
	uint64_t parent_id;
	int r;

	if (depth >= MOUNT_DEPTH_MAX)
		return -ESTALE;
	r = source_dev_place(table->source, dev, &parent_id, name);
	if (r >= 0)
		r = get(table, parent_id, false, depth + 1, &parent);
	if (r < 0)
		return -ESTALE;
	fd = openat(parent.fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -ESTALE : source_adopt(table->source, dev, fd);
}

static int open_by_handle(struct node_table *table, const struct place *place, bool readable,
			  unsigned int depth)
{
	int flags = O_NOFOLLOW | (readable ? O_RDONLY | O_NONBLOCK : O_PATH);
	int r = source_open_handle(table->source, place->dev, &place->handle, flags);

	if (r != -ENODEV)
		return r;
	r = adopt_device(table, place->dev, depth);
	if (r < 0)
		return r;
	return source_open_handle(table->source, place->dev, &place->handle, flags);
}

/* Whether walking may start at the node: it is there without walking. */
static bool is_anchor(struct node_table *table, uint64_t id, const struct place *place)
{
	struct fdcache_pin pin;

	if (id == FUSE_ROOT_ID || place->handle.size > 0)
		return true;
	if (!fdcache_get(table->fds, id, &pin))
		return false;
	fdcache_put(table->fds, pin.entry);
	return true;
}

/* The ids from the node up to the first one that can be opened without walking. Returns how many,
 * or -errno. */
static int climb(struct node_table *table, uint64_t id, uint64_t ids[WALK_MAX])
{
	struct place place;
	int n = 0;

	for (;;) {
		int r = copy_place(table, id, &place);

		if (r < 0)
			return r;
		if (n == WALK_MAX)
			return -ESTALE;
		ids[n++] = id;
		if (is_anchor(table, id, &place))
			return n;
		if (place.parent == 0)
			return -ESTALE;
		id = place.parent;
	}
}

/* One step of the walk: *fd is a directory and becomes node id, which has to be what it was. */
static int step_down(struct node_table *table, uint64_t id, int dir_fd, int *ret_fd)
{
	_cleanup_close_ int fd = -EBADF;
	struct place place;
	int r;

	r = copy_place(table, id, &place);
	if (r < 0)
		return r;
	if (!place.name[0] || strchr(place.name, '/') || strcmp(place.name, "..") == 0)
		return -ESTALE;
	fd = openat(dir_fd, place.name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? -ESTALE : -errno;
	if (!source_is(table->source, fd, place.dev, place.ino))
		return -ESTALE;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int open_by_name(struct node_table *table, uint64_t id, unsigned int depth)
{
	_cleanup_node_ref_ struct node_ref start = NODE_REF_INIT;
	_cleanup_close_ int dir = -EBADF;
	uint64_t ids[WALK_MAX];
	int n, r;

	n = climb(table, id, ids);
	if (n < 0)
		return n;
	if (n == 1) /* somebody else has opened it meanwhile */
		return -EAGAIN;
	r = get(table, ids[n - 1], false, depth, &start);
	if (r < 0)
		return r;
	for (int i = n - 2; i >= 0; i--) {
		int fd = -EBADF;

		r = step_down(table, ids[i], dir >= 0 ? dir : start.fd, &fd);
		if (r < 0)
			return r;
		close_fd(&dir);
		dir = fd;
	}
	return TAKE_FD(dir);
}

/* An owned descriptor of a node that none is kept of. */
static int open_node(struct node_table *table, uint64_t id, bool readable, unsigned int depth)
{
	_cleanup_close_ int fd = -EBADF;
	struct place place;
	int r;

	r = copy_place(table, id, &place);
	if (r < 0)
		return r;
	if (place.handle.size > 0)
		return open_by_handle(table, &place, readable, depth);
	fd = open_by_name(table, id, depth);
	if (fd < 0 || !readable)
		return TAKE_FD(fd);
	return source_reopen(fd, O_RDONLY | O_NONBLOCK);
}

static void fill_ref(struct node_table *table, const struct fdcache_pin *pin, struct node_ref *ret)
{
	*ret = (struct node_ref){ .fd = pin->fd, .entry = pin->entry, .table = table };
}

static int get_once(struct node_table *table, uint64_t id, bool readable, unsigned int depth,
		    struct node_ref *ret)
{
	struct fdcache_pin pin;
	int fd, r;

	if (fdcache_get(table->fds, id, &pin)) {
		if (pin.readable || !readable) {
			fill_ref(table, &pin, ret);
			return 0;
		}
		fd = source_reopen(pin.fd, O_RDONLY | O_NONBLOCK);
		fdcache_put(table->fds, pin.entry);
	} else {
		fd = open_node(table, id, readable, depth);
	}
	if (fd < 0)
		return fd;
	r = fdcache_add(table->fds, id, fd, readable, &pin);
	if (r < 0)
		return r;
	if (!node_record(table, id)) { /* forgotten meanwhile: nobody would drop it */
		fdcache_drop(table->fds, id);
		fdcache_put(table->fds, pin.entry);
		return -ESTALE;
	}
	fill_ref(table, &pin, ret);
	return 0;
}

static int get(struct node_table *table, uint64_t id, bool readable, unsigned int depth,
	       struct node_ref *ret)
{
	int r;

	if (id == FUSE_ROOT_ID) {
		*ret = (struct node_ref){ .fd = source_root(table->source) };
		return 0;
	}
	if (!node_record(table, id))
		return -ESTALE;
	r = get_once(table, id, readable, depth, ret);
	if (r == -EMFILE)
		node_fds_trim(table, UINT64_MAX, true);
	if (r == -EMFILE || r == -EAGAIN)
		r = get_once(table, id, readable, depth, ret);
	return r == -EAGAIN ? -ESTALE : r;
}

int node_get(struct node_table *table, uint64_t id, bool readable, struct node_ref *ret)
{
	return get(table, id, readable, 0, ret);
}

void node_put(struct node_ref *ref)
{
	if (ref->table)
		fdcache_put(ref->table->fds, ref->entry);
	*ref = (struct node_ref)NODE_REF_INIT;
}

int node_openat(struct node_table *table, int dir_fd, const char *name, int flags, mode_t mode)
{
	int fd = openat(dir_fd, name, flags | O_CLOEXEC, mode);

	if (fd < 0 && errno == EMFILE) {
		node_fds_trim(table, UINT64_MAX, true);
		fd = openat(dir_fd, name, flags | O_CLOEXEC, mode);
	}
	return fd < 0 ? -errno : fd;
}

void node_named(struct node_table *table, const struct source_identity *identity, uint64_t parent,
		const char *name)
{
	uint64_t id = 0;
	uint32_t index;

	if (identity->handle.size > 0)
		return;
	(void)pthread_mutex_lock(&table->lock);
	index = find_locked(table, identity);
	if (index) {
		set_name(table, index, parent, name);
		id = id_of(table, index);
	}
	(void)pthread_mutex_unlock(&table->lock);
	if (id)
		fdcache_stick(table->fds, id, false);
}

static bool is_named(const struct node_table *table, uint32_t index, uint64_t parent,
		     const char *name)
{
	return table->records[index].parent == parent &&
	       strncmp(table->names[index].name, name, sizeof(table->names[index].name)) == 0;
}

void node_unnamed(struct node_table *table, const struct source_identity *identity, uint64_t parent,
		  const char *name, int fd)
{
	uint64_t id = 0;
	uint32_t index;

	(void)pthread_mutex_lock(&table->lock);
	index = identity->handle.size ? 0 : find_locked(table, identity);
	if (index && is_named(table, index, parent, name)) {
		set_name(table, index, 0, NULL);
		id = id_of(table, index);
	}
	(void)pthread_mutex_unlock(&table->lock);
	if (id)
		keep_fd(table, id, fd);
	else
		close_fd(&fd);
}

void node_fds_trim(struct node_table *table, uint64_t idle_ns, bool pressed)
{
	/* without handles a descriptor is worth more than the place it takes */
	if (!source_has_handles(table->source))
		idle_ns = UINT64_MAX;
	fdcache_trim(table->fds, idle_ns, pressed);
}

uint32_t node_count(struct node_table *table)
{
	uint32_t n;

	(void)pthread_mutex_lock(&table->lock);
	n = node_index_count(table->index);
	(void)pthread_mutex_unlock(&table->lock);
	return n;
}

/* A record of the workers before: kept if it makes sense, else free. */
static void load_record(struct node_table *table, uint32_t index)
{
	struct ledger_node *record = &table->records[index];

	if (!is_live(record) || record->handle.size > LEDGER_FILE_HANDLE_MAX) {
		atomic_store(&record->state, LEDGER_FREE);
		if (record->open_mode || record->backing_id)
			record->open_mode = record->backing_id = 0;
		slots_give(&table->slots, index);
		return;
	}
	if (atomic_load(&record->lookups) == 0 || atomic_load(&record->opens) > 0 ||
	    record->open_mode || record->backing_id) {
		table->suspects[table->n_suspects++] = index;
		atomic_store(&record->opens, 0);
	}
	node_index_add(table->index, record_hash(record), index);
}

/* All records in one pass; their pages are mapped ahead in one system call. */
static void load_records(struct node_table *table)
{
	uint32_t used = atomic_load(table->slots.used);
	size_t bytes = (used + 1ULL) * sizeof(struct ledger_node);

#ifdef MADV_POPULATE_READ
	(void)madvise(table->records, bytes, MADV_POPULATE_READ);
#else
	(void)madvise(table->records, bytes, MADV_WILLNEED);
#endif
	node_index_reserve(table->index, used);
	for (uint32_t i = FUSE_ROOT_ID; i <= used; i++)
		load_record(table, i);
}

/* The root is always node 1 of generation 0, whatever the ledger holds. */
static int load_root(struct node_table *table)
{
	struct ledger_node *record = &table->records[FUSE_ROOT_ID];
	struct source_identity identity;
	int r;

	r = source_identify(table->source, source_root(table->source), 0, NULL, &identity);
	if (r < 0)
		return r;
	if (atomic_load(table->slots.used) < FUSE_ROOT_ID)
		atomic_store(table->slots.used, FUSE_ROOT_ID);
	atomic_store(&record->generation, 0);
	record->ino = identity.st.st_ino;
	atomic_store(&record->dev, identity.dev);
	record->handle = identity.handle;
	record->parent = 0;
	atomic_store(&record->lookups, 1);
	atomic_store_explicit(&record->state, LEDGER_LIVE, memory_order_release);
	return 0;
}

static uint32_t default_max_fds(const struct source *source)
{
	struct rlimit limit;
	rlim_t max;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		limit.rlim_cur = 1U << 20;
	max = source_has_handles(source) ? MIN_OF(limit.rlim_cur / 4, KEPT_FDS)
					 : limit.rlim_cur / 4 * 3;
	return (uint32_t)MAX_OF(MIN_OF(max, LEDGER_MAX_NODES), KEPT_FDS_MIN);
}

static int load(struct node_table *table, uint32_t max_fds, struct error *err)
{
	struct ledger_header *header = ledger_header(table->ledger);
	int r;

	r = slots_init(&table->slots, &header->nodes_used, LEDGER_MAX_NODES);
	if (r >= 0)
		r = node_index_new(LEDGER_MAX_NODES, &table->index);
	if (r >= 0)
		r = fdcache_new(max_fds, LEDGER_MAX_NODES, &table->fds);
	table->suspects = slots_table(LEDGER_MAX_NODES, sizeof(*table->suspects));
	if (r >= 0 && !table->suspects)
		r = -ENOMEM;
	if (r < 0)
		return error_errno(err, r, "node table");
	r = load_root(table);
	if (r < 0)
		return error_errno(err, r, "look at the source directory");
	refs_recover(table->ledger);
	load_records(table);
	return 0;
}

int node_table_new(const struct node_table_params *params, struct node_table **ret,
		   struct error *err)
{
	_cleanup_node_table_ struct node_table *table = calloc(1, sizeof(*table));
	int r;

	if (!table)
		return error_errno(err, -ENOMEM, "node table");
	table->ledger = params->ledger;
	table->records = ledger_nodes(params->ledger);
	table->names = ledger_names(params->ledger);
	table->source = params->source;
	(void)pthread_mutex_init(&table->lock, NULL);
	r = load(table, params->max_fds ?: default_max_fds(params->source), err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(table);
	return 0;
}

static void free_suspects(struct node_table *table)
{
	slots_table_free(table->suspects, LEDGER_MAX_NODES, sizeof(*table->suspects));
	table->suspects = NULL;
}

void node_table_sweep(struct node_table *table,
		      void (*settle)(void *context, struct ledger_node *record), void *context)
{
	for (uint32_t i = 0; i < table->n_suspects; i++) {
		uint32_t index = table->suspects[i];

		settle(context, &table->records[index]);
		if (is_unused(&table->records[index]) && index != FUSE_ROOT_ID)
			free_locked(table, index);
	}
	free_suspects(table);
}

void node_table_free(struct node_table *table)
{
	if (!table)
		return;
	free_suspects(table);
	fdcache_free(table->fds);
	node_index_free(table->index);
	slots_destroy(&table->slots);
	(void)pthread_mutex_destroy(&table->lock);
	free(table);
}
