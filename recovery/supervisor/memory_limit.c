/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/memory_limit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/parse.h"
#include "recovery/digest.h"
#include "recovery/supervisor/cgroup.h"

#define CONTROLLER "memory"
#define PREFIX_HASH 8 /* hexadecimal digits */
#define ID_HASH 32
#define PREFIX_SIZE (sizeof("holdfast-") + PREFIX_HASH + 1)
#define NAME_SIZE (PREFIX_SIZE + ID_HASH)
#define LEAF "keeper" /* in the place of a hash */
#define KILLS_REMEMBERED 16

/* What can hold a limit, the best first. */
enum kind {
	KIND_CGROUP2 = 0,
	KIND_CGROUP1 = 1,
	KIND_CGROUPS = 2, /* how many kinds of them there are */
	KIND_RLIMIT = KIND_CGROUPS,
};

/* Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst */
static const struct {
	const char *name;
	const char *controller; /* as cgroup_open_own wants it */
	const char *limit;
	const char *kills, *kills_key; /* processes that the OOM killer killed in the cgroup */
	const char *hits, *hits_key;   /* how often the cgroup's own limit was hit */
} hierarchies[KIND_CGROUPS] = {
	[KIND_CGROUP2] = { "cgroup v2", NULL, "memory.max", "memory.events", "oom_kill",
			   "memory.events", "oom" },
	[KIND_CGROUP1] = { "cgroup v1", CONTROLLER, "memory.limit_in_bytes", "memory.oom_control",
			   "oom_kill", "memory.failcnt", NULL },
};

struct memory_limits {
	int dir_fds[KIND_CGROUPS];	    /* the keeper's own cgroups, or -EBADF */
	struct error missing[KIND_CGROUPS]; /* why there is none */
	char prefix[PREFIX_SIZE];	    /* of the names of our cgroups */
	struct memory_limit *all;
};

struct counters {
	uint64_t kills, hits;
};

struct memory_limit {
	struct memory_limits *limits;
	struct memory_limit *next;
	uint64_t bytes;
	char name[NAME_SIZE];
	enum kind kind;
	struct counters seen;		      /* when they were read last */
	bool own;			      /* the last kill was for the volume's own limit */
	uint64_t explained;		      /* of seen.kills: each death takes one */
	uint64_t kills;			      /* in all */
	uint64_t own_kills;		      /* of them, those for the volume's own limit */
	uint64_t killed_ns[KILLS_REMEMBERED]; /* when: the last of own_kills, in a ring */
};

static void dir_cleanup(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}
#define _cleanup_dir_ _cleanup_(dir_cleanup)

static bool is_in_use(const struct memory_limits *limits, const char *name)
{
	for (const struct memory_limit *l = limits->all; l; l = l->next)
		if (strcmp(l->name, name) == 0)
			return true;
	return strcmp(name + strlen(limits->prefix), LEAF) == 0;
}

/* Removes cgroups of ours that no volume has any more; those with processes stay (EBUSY). */
static void sweep(const struct memory_limits *limits, int dir_fd)
{
	_cleanup_close_ int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_dir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;

	if (!dir)
		return;
	(void)TAKE_FD(fd);
	while ((d = readdir(dir)))
		if (strncmp(d->d_name, limits->prefix, strlen(limits->prefix)) == 0 &&
		    !is_in_use(limits, d->d_name))
			(void)unlinkat(dir_fd, d->d_name, AT_REMOVEDIR);
}

static void sweep_all(const struct memory_limits *limits)
{
	for (size_t i = 0; i < KIND_CGROUPS; i++)
		if (limits->dir_fds[i] >= 0)
			sweep(limits, limits->dir_fds[i]);
}

/* A program that was executed in our place finds itself in the leaf, with the volumes beside it. */
static void leave_leaf(struct memory_limits *limits)
{
	int *dir_fd = &limits->dir_fds[KIND_CGROUP2], above;
	char path[FD_PATH_MAX], own[CGROUP_PATH_MAX], leaf[PREFIX_SIZE + sizeof(LEAF)];
	ssize_t n = readlink(fd_path(*dir_fd, path), own, sizeof(own) - 1);
	const char *name;

	own[MAX_OF(n, 0)] = '\0';
	name = strrchr(own, '/');
	(void)snprintf(leaf, sizeof(leaf), "%s" LEAF, limits->prefix);
	if (!name || strcmp(name + 1, leaf) != 0)
		return;
	above = openat(*dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (above < 0)
		return;
	close_fd(dir_fd);
	*dir_fd = above;
}

int memory_limits_open(const char *run_dir, struct memory_limits **ret, struct error *err)
{
	struct memory_limits *limits = malloc(sizeof(*limits));
	char hash[DIGEST_HEX_SIZE];
	int r = limits ? digest_hex(run_dir, hash, err)
		       : error_errno(err, -ENOMEM, "memory limits");

	if (r < 0) {
		free(limits);
		return r;
	}
	*limits = (struct memory_limits){ .dir_fds = { -EBADF, -EBADF } };
	(void)snprintf(limits->prefix, sizeof(limits->prefix), "holdfast-%.*s-", PREFIX_HASH, hash);
	for (size_t i = 0; i < KIND_CGROUPS; i++)
		if (cgroup_open_own(hierarchies[i].controller, &limits->dir_fds[i],
				    &limits->missing[i]) < 0)
			log_debug("%s: %s", hierarchies[i].name, limits->missing[i].text);
	leave_leaf(limits);
	sweep_all(limits);
	*ret = limits;
	return 0;
}

void memory_limits_leave(struct memory_limits *limits)
{
	for (size_t i = 0; i < KIND_CGROUPS; i++)
		close_fd(&limits->dir_fds[i]);
}

void memory_limits_free(struct memory_limits *limits)
{
	if (!limits)
		return;
	memory_limits_leave(limits);
	free(limits);
}

static int dir_of(const struct memory_limit *limit)
{
	return limit->limits->dir_fds[limit->kind];
}

static int read_counters(const struct memory_limit *limit, struct counters *ret)
{
	struct counters c;
	int r = cgroup_read_counter(dir_of(limit), limit->name, hierarchies[limit->kind].kills,
				    hierarchies[limit->kind].kills_key, &c.kills);

	if (r >= 0)
		r = cgroup_read_counter(dir_of(limit), limit->name, hierarchies[limit->kind].hits,
					hierarchies[limit->kind].hits_key, &c.hits);
	if (r >= 0)
		*ret = c;
	return r;
}

/* Makes the cgroup, or takes the one that is left of an earlier volume of the id. */
static int make_group(struct memory_limit *limit, struct error *err)
{
	char text[24];
	int r = mkdirat(dir_of(limit), limit->name, 0755) < 0 && errno != EEXIST ? -errno : 0;

	if (r < 0)
		return error_errno(err, r, "mkdir");
	if (limit->kind == KIND_CGROUP1 &&
	    cgroup_write(dir_of(limit), limit->name, "memory.oom_control", "0") < 0)
		log_debug("memory.oom_control stays as it was inherited");
	(void)snprintf(text, sizeof(text), "%" PRIu64, limit->bytes);
	r = cgroup_write(dir_of(limit), limit->name, hierarchies[limit->kind].limit, text);
	if (r < 0)
		return error_errno(err, r, "write %s", hierarchies[limit->kind].limit);
	r = read_counters(limit, &limit->seen);
	limit->explained = limit->seen.kills;
	return r < 0 ? error_errno(err, r, "read %s", hierarchies[limit->kind].kills) : 0;
}

static int try_kind(struct memory_limit *limit, enum kind kind, struct error *err)
{
	struct memory_limits *limits = limit->limits;
	char leaf[PREFIX_SIZE + sizeof(LEAF)];
	int r = 0;

	limit->kind = kind;
	if (limits->dir_fds[kind] < 0) {
		*err = limits->missing[kind];
		return err->code;
	}
	if (kind == KIND_CGROUP2) {
		(void)snprintf(leaf, sizeof(leaf), "%s" LEAF, limits->prefix);
		r = cgroup_enable(limits->dir_fds[kind], CONTROLLER, leaf, err);
	}
	if (r >= 0)
		r = make_group(limit, err);
	if (r < 0)
		(void)unlinkat(limits->dir_fds[kind], limit->name, AT_REMOVEDIR);
	return r;
}

/* From the best kind down to the one that is always there. */
static void choose(struct memory_limit *limit)
{
	struct error why[KIND_CGROUPS] = { ERROR_INIT, ERROR_INIT };
	char shown[QUANTITY_MAX];

	(void)quantity_show(limit->bytes, shown);
	for (size_t i = 0; i < KIND_CGROUPS; i++)
		if (try_kind(limit, (enum kind)i, &why[i]) >= 0) {
			log_info("memory limit of %s by %s%s%s", shown, hierarchies[i].name,
				 i ? "; not by cgroup v2: " : "", i ? why[0].text : "");
			return;
		}
	limit->kind = KIND_RLIMIT;
	log_warning("memory limit of %s by RLIMIT_DATA alone, which does not count the ledger, and "
		    "makes requests fail instead of the worker; not by cgroup v2: %.300s; not by "
		    "cgroup v1: %.300s",
		    shown, why[KIND_CGROUP2].text, why[KIND_CGROUP1].text);
}

struct memory_limit *memory_limit_new(struct memory_limits *limits, const char *id, uint64_t bytes)
{
	struct memory_limit *limit;
	char hash[DIGEST_HEX_SIZE];

	if (bytes == 0)
		return NULL;
	limit = malloc(sizeof(*limit));
	if (!limit || digest_hex(id, hash, NULL) < 0) {
		log_warning("no memory limit: out of memory");
		free(limit);
		return NULL;
	}
	*limit = (struct memory_limit){ .limits = limits, .next = limits->all, .bytes = bytes };
	(void)snprintf(limit->name, sizeof(limit->name), "%s%.*s", limits->prefix, ID_HASH, hash);
	limits->all = limit;
	sweep_all(limits);
	choose(limit);
	return limit;
}

void memory_limit_join(struct memory_limit *limit, pid_t pid)
{
	int r;

	if (!limit || limit->kind == KIND_RLIMIT)
		return;
	r = cgroup_enter(dir_of(limit), limit->name, pid);
	if (r >= 0 || r == -ESRCH)
		return;
	(void)log_warning_errno(r, "the worker can't enter its cgroup; memory limit by RLIMIT_DATA "
				   "from now on");
	limit->kind = KIND_RLIMIT;
}

/* What a process has mapped of what RLIMIT_DATA counts, and its stack: proc(5), statm. */
static int read_data_size(pid_t pid, uint64_t *ret)
{
	char name[32], text[CGROUP_TEXT_MAX], *field = text;
	uint64_t pages;
	int r;

	(void)snprintf(name, sizeof(name), "/proc/%d", (int)pid);
	r = cgroup_read(AT_FDCWD, name, "statm", text);
	if (r < 0)
		return r;
	for (int i = 0; i < 5 && field; i++) {
		field = strchr(field, ' ');
		field = field ? field + 1 : NULL;
	}
	if (!field)
		return -EBADMSG;
	field[strcspn(field, " \n")] = '\0';
	r = parse_u64(field, &pages);
	if (r >= 0 && __builtin_mul_overflow(pages, (uint64_t)sysconf(_SC_PAGESIZE), ret))
		r = -ERANGE;
	return r;
}

/*
 * Only now: a worker reserves hundreds of MiB of address space for its tables, of which it touches
 * what it needs, and RLIMIT_DATA counts what is mapped.
 */
void memory_limit_serves(const struct memory_limit *limit, pid_t pid)
{
	struct rlimit rlimit;
	uint64_t mapped;
	int r;

	if (!limit || limit->kind != KIND_RLIMIT)
		return;
	r = read_data_size(pid, &mapped);
	if (r >= 0 && __builtin_add_overflow(mapped, limit->bytes, &mapped))
		return; /* no limit */
	rlimit.rlim_cur = rlimit.rlim_max = mapped;
	if (r >= 0 && prlimit(pid, RLIMIT_DATA, &rlimit, NULL) < 0)
		r = -errno;
	if (r < 0)
		(void)log_warning_errno(r, "no memory limit for the worker: RLIMIT_DATA");
}

/*
 * Reads what the kernel counted. It counts a kill before it sends the signal, whatever ran out:
 * this cgroup, one above it, or the node. Ours ran out if its limit was hit since; in version 1
 * reclaim is counted as a hit too, so there the node may be short instead of a volume that is at
 * its limit often.
 */
static void look(struct memory_limit *limit)
{
	struct counters now;

	if (read_counters(limit, &now) < 0 || now.kills <= limit->seen.kills)
		return;
	limit->own = now.hits > limit->seen.hits;
	limit->seen = now;
}

bool memory_limit_explain(struct memory_limit *limit, char *buf, size_t size)
{
	char shown[QUANTITY_MAX];

	if (!limit || limit->kind == KIND_RLIMIT)
		return false;
	look(limit);
	if (limit->explained >= limit->seen.kills)
		return false;
	limit->explained++;
	limit->kills++;
	if (limit->own)
		limit->killed_ns[limit->own_kills++ % KILLS_REMEMBERED] = clock_now_ns();
	(void)snprintf(buf, size, "killed by the out-of-memory killer %s limit of %s",
		       limit->own ? "at its" : "of node or container, not at its",
		       quantity_show(limit->bytes, shown));
	return true;
}

void memory_limit_status(const struct memory_limit *limit, struct volume_status *ret)
{
	uint64_t now = clock_now_ns(), remembered;

	if (!limit)
		return;
	ret->oom_kills = limit->kills;
	remembered = MIN_OF(limit->own_kills, (uint64_t)KILLS_REMEMBERED);
	for (uint64_t i = 0; i < remembered; i++)
		if (now - limit->killed_ns[i] < VOLUME_OOM_WINDOW_S * NSEC_PER_SEC)
			ret->oom_kills_recent++;
}

void memory_limit_free(struct memory_limit *limit)
{
	struct memory_limit **link;

	if (!limit)
		return;
	link = &limit->limits->all;
	while (*link != limit)
		link = &(*link)->next;
	*link = limit->next;
	sweep_all(limit->limits);
	free(limit);
}
