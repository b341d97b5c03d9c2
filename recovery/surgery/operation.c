/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/surgery/operation.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "mount/exchange.h"
#include "mount/path.h"
#include "mount/tree.h"
#include "recovery/surgery/scan.h"

/* Containers come and go, and mounts that were propagated meanwhile are only seen by looking. */
#define ROUNDS_MAX 16
#define TRIES_MAX 3
#define PLACE "/proc/sys"

struct failure {
	struct nsmount_place place;
	unsigned int tries;
};

/* One round. */
struct round {
	struct operation *op;
	struct scan *scan;
	struct plan plan;
	int *new_fds; /* of each step, for those that follow it too; owned */
	int home_fd;  /* our own namespace */
	int place_fd; /* PLACE there */
	int *pins; /* PLAN_OLD_MAX of each volume: a descriptor on each superblock that is known to
		      be dead, whose number can't become another's so */
	struct failure *failures;
	size_t n_failures;
};

static struct nsmount_place place_of(const struct round *round, const struct plan_step *step)
{
	return (struct nsmount_place){ round->scan->namespaces[step->table].id, step->old->id };
}

static void say(const struct round *round, const struct plan_step *step, enum nsmount_event event,
		uint32_t lost, const struct error *err)
{
	struct nsmount_report report = {
		.version = NSMOUNT_VERSION,
		.event = event,
		.volume = (uint32_t)step->volume,
		.code = event == NSMOUNT_FAILED ? err->code : 0,
		.lost = lost,
		.place = place_of(round, step),
	};

	(void)snprintf(report.path, sizeof(report.path), "%s", step->old->target);
	if (event == NSMOUNT_FAILED || lost)
		(void)snprintf(report.text, sizeof(report.text), "%.*s",
			       (int)sizeof(report.text) - 1, err->text);
	round->op->report(&report);
}

static struct failure *find_failure(const struct round *round, const struct nsmount_place *place)
{
	for (size_t i = 0; i < round->n_failures; i++)
		if (nsmount_is_same(&round->failures[i].place, place))
			return &round->failures[i];
	return NULL;
}

/* Whether the step is left alone: it hung an earlier process, or was tried often enough. */
static bool is_given_up(const struct round *round, const struct plan_step *step)
{
	const struct nsmount_request *request = round->op->request;
	struct nsmount_place place = place_of(round, step);
	const struct failure *failure = find_failure(round, &place);

	return nsmount_is_among(request->skips, request->n_skips, &place) ||
	       (failure && failure->tries >= TRIES_MAX);
}

/* Counts a failure; said once, when it is not tried again. */
static void note_failure(struct round *round, const struct plan_step *step, const struct error *err)
{
	struct nsmount_place place = place_of(round, step);
	struct failure *failure = find_failure(round, &place);

	if (!failure) {
		void *more = reallocarray(round->failures, round->n_failures + 1,
					  sizeof(*round->failures));

		if (!more) {
			say(round, step, NSMOUNT_FAILED, 0, err);
			return;
		}
		round->failures = more;
		failure = &round->failures[round->n_failures++];
		*failure = (struct failure){ .place = place };
	}
	if (++failure->tries == TRIES_MAX)
		say(round, step, NSMOUNT_FAILED, 0, err);
}

/* The directory or file of the superblock that the old mount showed: `root` as in mountinfo, which
 * is `base`, where the new mount's root is, or below it. */
static int open_root(int mount_fd, const char *base, const char *root)
{
	const char *rest = root + strlen(base);

	rest += *rest == '/';
	return path_open_at(mount_fd, *rest ? rest : ".", O_PATH | O_NOFOLLOW,
			    RESOLVE_BENEATH | RESOLVE_NO_XDEV);
}

/* A detached mount of it. In the namespace of `mount_fd`. */
static int clone_root(int mount_fd, const char *base, const char *root, int *ret_fd,
		      struct error *err)
{
	_cleanup_close_ int fd = open_root(mount_fd, base, root);

	if (fd < 0)
		return error_errno(err, fd, "'%s' can't be opened in the new mount", root);
	return mount_clone(fd, "", false, ret_fd, err);
}

static int clone_for(const struct round *round, size_t volume, const char *root, int *ret_fd,
		     struct error *err)
{
	return clone_root(round->op->mount_fds[volume], "/", root, ret_fd, err);
}

static int go_home(const struct round *round, struct error *err)
{
	int r = mount_namespace_enter(round->home_fd);

	return r < 0 ? error_errno(err, r, "come back to the own mount namespace") : 0;
}

static bool is_a_volume(const struct mount_entry *e)
{
	return mount_fuse_volume(e->fstype, e->source) != NULL;
}

/* Whether the way to the mount leads through a Holdfast volume, which may be dead. */
static bool is_in_a_volume(const struct plan_table *t, const struct mount_entry *e)
{
	for (size_t i = 0; i < t->n; i++)
		if (is_a_volume(&t->entries[i]) &&
		    path_is_beneath(t->entries[i].target, e->target) &&
		    strcmp(t->entries[i].target, e->target) != 0)
			return true;
	return false;
}

/* A copy of the directory or file that `lost` shows, by way of the mount `e`. */
static int clone_by(const struct round *round, size_t table, const struct mount_entry *e,
		    const struct mount_entry *lost)
{
	bool asks = is_a_volume(e) && strcmp(e->root, lost->root) != 0;
	_cleanup_close_ int fd = -EBADF;
	int copy = -EBADF;

	if (mount_namespace_enter(round->scan->namespaces[table].fd) < 0)
		return -EBADF;
	fd = exchange_open(e);
	if (fd < 0 || (asks && exchange_is_dead(fd)))
		return -EBADF;
	return clone_root(fd, e->root, lost->root, &copy, NULL) < 0 ? -EBADF : copy;
}

/* By those mounts of the same file system that have just this root, or by those of one above. */
static int find_by(const struct round *round, const struct mount_entry *lost, bool same_root)
{
	for (size_t t = 0; t < round->scan->n; t++) {
		const struct plan_table *table = &round->scan->tables[t];

		for (size_t i = 0; i < table->n; i++) {
			const struct mount_entry *e = &table->entries[i];
			int fd;

			/* a copy would have its mapping of ids */
			if (e->dev != lost->dev || e->idmapped ||
			    (strcmp(e->root, lost->root) == 0) != same_root ||
			    !path_is_beneath(e->root, lost->root) || is_in_a_volume(table, e))
				continue;
			fd = clone_by(round, t, e, lost);
			if (fd >= 0)
				return fd;
		}
	}
	return -EBADF;
}

/*
 * The way through a dead mount is lost once the kernel has to ask whether it is still good
 * (mount/exchange.c). What lay below is a bind of a directory of the node, as a rule, or another
 * volume, so another mount of the same file system leads there too. Returns a detached mount, or
 * -EBADF.
 */
static int find_elsewhere(const struct round *round, const struct mount_entry *lost)
{
	int fd = find_by(round, lost, true);

	return fd < 0 ? find_by(round, lost, false) : fd;
}

/* One that can't be mounted anew may still be copied. Ends in any namespace. */
static void prepare_carries(const struct round *round, const struct plan_step *step,
			    struct exchange_carry *carries)
{
	const struct plan_carry *planned = &round->plan.carries[step->first_carry];

	for (size_t i = 0; i < step->n_carries; i++) {
		const struct plan_carry *carry = &planned[i];

		carries[i] = (struct exchange_carry){
			.entry = carry->entry,
			.where = carry->where,
			.fd = -EBADF,
			.spare_fd = -EBADF,
			.within = carry->within < 0 ? NULL : &carries[carry->within],
			.drop = carry->drop,
		};
		carries[i].anew = !carry->drop && carry->volume >= 0 &&
				  clone_for(round, (size_t)carry->volume, carry->entry->root,
					    &carries[i].fd, NULL) >= 0;
	}
	for (size_t i = 0; i < step->n_carries; i++)
		if (!planned[i].drop && planned[i].volume < 0 && *planned[i].where)
			carries[i].spare_fd = find_elsewhere(round, planned[i].entry);
}

static void close_carries(struct exchange_carry *carries, size_t n)
{
	for (size_t i = 0; carries && i < n; i++) {
		close_fd(&carries[i].fd);
		close_fd(&carries[i].spare_fd);
	}
	free(carries);
}

/*
 * The new mount is propagated to this namespace, beneath the old one, when it was mounted in
 * another one that this one's mounts are peers or slaves of; the old one goes from here as well,
 * but not if something is mounted below it. The next look sees what there is to do.
 */
static int check_parent(const struct round *round, const struct plan_step *step)
{
	uint64_t parent;
	int r;

	if (step->below || step->n_carries == 0)
		return 0;
	r = scan_parent(round->op->proc_fd, step->old->id, &parent);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	return parent == step->old->parent ? 0 : -ESTALE;
}

/* Whether it is known of the k-th of a volume's earlier superblocks that it is the volume's. */
static bool is_known(const struct round *round, size_t volume, int k)
{
	return round->pins[volume * PLAN_OLD_MAX + (size_t)k] >= 0 ||
	       (round->op->request->volumes[volume].living & (1U << k)) != 0;
}

static bool is_verified(const struct round *round, const struct plan_step *step)
{
	const struct plan_volume *volume = &round->op->request->volumes[step->volume];
	int k = plan_old_index(volume, step->old->dev);

	return k >= 0 && is_known(round, step->volume, k);
}

static int operate(struct round *round, size_t i, struct error *err)
{
	const struct plan_step *step = &round->plan.steps[i];
	struct exchange_carry *carries = calloc(step->n_carries + 1, sizeof(*carries));
	int ns_fd = round->scan->namespaces[step->table].fd;
	struct exchange x = {
		.old = step->old,
		.below = step->below,
		.carries = carries,
		.n_carries = step->n_carries,
		.new_fd = -EBADF,
		.ns_fd = ns_fd,
		.home_fd = round->home_fd,
		.place_fd = round->place_fd,
		.proc_fd = round->op->proc_fd,
		.group_fd = step->leader >= 0 ? round->new_fds[step->leader] : -EBADF,
		.is_peer = step->is_peer,
		.may_live = !is_verified(round, step),
	};
	int r = carries ? 0 : -ENOMEM;

	for (size_t k = 0; carries && k < step->n_carries; k++)
		carries[k].fd = carries[k].spare_fd = -EBADF;
	if (r >= 0 && !step->below)
		r = clone_for(round, step->volume, step->old->root, &x.new_fd, err);
	if (r >= 0) {
		prepare_carries(round, step, carries);
		r = go_home(round, err);
	}
	if (r >= 0) {
		r = mount_namespace_enter(ns_fd);
		if (r < 0)
			(void)error_errno(err, r, "enter the mount namespace");
	}
	if (r >= 0) {
		r = check_parent(round, step);
		if (r >= 0)
			r = mount_exchange(&x, err);
		if (r == -ESTALE && err->code == 0)
			(void)error_set(err, ERROR_INTERNAL, r,
					"it is covered by something else, or was moved");
	}
	if (r >= 0) {
		round->new_fds[i] = TAKE_FD(x.new_fd);
		say(round, step, NSMOUNT_EXCHANGED, (uint32_t)x.lost, err);
	}
	close_fd(&x.new_fd);
	close_carries(carries, step->n_carries);
	return r;
}

enum fate { UNKNOWN, DEAD, ALIVE };

/* Asked by way of the mount `e`, where its path leads there. *ret_fd is on one that is dead. */
static enum fate ask(const struct round *round, size_t table, const struct mount_entry *e,
		     int *ret_fd)
{
	_cleanup_close_ int fd = -EBADF;

	if (mount_namespace_enter(round->scan->namespaces[table].fd) < 0)
		return UNKNOWN;
	fd = exchange_open(e);
	if (fd < 0)
		return UNKNOWN;
	if (!exchange_is_dead(fd))
		return ALIVE;
	close_fd(ret_fd);
	*ret_fd = TAKE_FD(fd);
	return DEAD;
}

/* The fate of the step's old mount. One that lies below another of its volume's, which was mounted
 * over it because it is locked, shares that one's; *ret_dev is of what could be asked, and *ret_fd
 * on it if it is dead. */
static enum fate ask_about(const struct round *round, const struct plan_step *step, dev_t *ret_dev,
			   int *ret_fd)
{
	enum fate fate = ask(round, step->table, step->old, ret_fd);

	*ret_dev = step->old->dev;
	for (size_t i = step->n_carries; fate == UNKNOWN && i > 0; i--) {
		const struct plan_carry *carry = &round->plan.carries[step->first_carry + i - 1];

		if (!carry->drop)
			continue;
		fate = ask(round, step->table, carry->entry, ret_fd);
		*ret_dev = carry->entry->dev;
	}
	return fate;
}

/*
 * The kernel gives the number of a superblock that is gone to a new one, which may be a volume of
 * the same name of another installation: what lives and is not known to is none of our business.
 * Returns whether something was taken out, and a new plan is needed; -errno if nothing more can be
 * done.
 */
static int verify(struct round *round, struct error *err)
{
	bool changed = false;

	for (size_t i = 0; i < round->plan.n_steps; i++) {
		const struct plan_step *step = &round->plan.steps[i];
		struct plan_volume *volume = &round->op->request->volumes[step->volume];
		int k = plan_old_index(volume, step->old->dev), r;
		_cleanup_close_ int fd = -EBADF;
		struct error none = ERROR_INIT;
		enum fate fate;
		dev_t asked;

		if (k < 0 || is_known(round, step->volume, k) || is_given_up(round, step))
			continue;
		say(round, step, NSMOUNT_BEGIN, 0, &none);
		fate = ask_about(round, step, &asked, &fd);
		r = go_home(round, err);
		if (r < 0)
			return r;
		if (fate == DEAD && asked == step->old->dev)
			round->pins[step->volume * PLAN_OLD_MAX + (size_t)k] = TAKE_FD(fd);
		if (fate == ALIVE && plan_old_index(volume, asked) >= 0)
			volume->old[plan_old_index(volume, asked)] = 0;
		changed = changed || fate == ALIVE;
	}
	return changed;
}

/* Returns how many steps there were to try, or -errno if nothing more can be done. */
static int run_steps(struct round *round, struct error *err)
{
	int tried = 0;

	for (size_t i = 0; i < round->plan.n_steps; i++) {
		const struct plan_step *step = &round->plan.steps[i];
		struct error why = ERROR_INIT;
		int r;

		if (is_given_up(round, step))
			continue;
		tried++;
		say(round, step, NSMOUNT_BEGIN, 0, &why);
		if (operate(round, i, &why) < 0)
			note_failure(round, step, &why);
		r = go_home(round, err);
		if (r < 0)
			return r;
	}
	return tried;
}

static int run_round(struct round *round, struct error *err)
{
	size_t n = round->plan.n_steps;
	int r;

	round->new_fds = calloc(n + 1, sizeof(*round->new_fds));
	if (!round->new_fds)
		return error_errno(err, -ENOMEM, "exchange mounts");
	for (size_t i = 0; i < n; i++)
		round->new_fds[i] = -EBADF;
	r = run_steps(round, err);
	for (size_t i = 0; i < n; i++)
		close_fd(&round->new_fds[i]);
	free(round->new_fds);
	round->new_fds = NULL;
	return r;
}

/* Their mounts have to lie in a namespace to be copied (fs/namespace.c, __do_loopback): this one is
 * only ours. */
static int settle_in(struct operation *op, int *ret_place_fd, struct error *err)
{
	int place, r = mount_namespace_private();

	if (r < 0)
		return error_errno(err, r, "make a mount namespace");
	/* a directory that nobody looks into; "/" would be where setns(2) leads to */
	place = open(PLACE, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (place < 0)
		return error_errno(err, -errno, "open " PLACE);
	*ret_place_fd = place;
	for (uint32_t i = 0; r >= 0 && i < op->request->n_volumes; i++) {
		r = mount_set_attr(op->mount_fds[i], 0, 0, MS_PRIVATE, err);
		if (r >= 0)
			r = mount_attach(op->mount_fds[i], place, err);
	}
	return r;
}

static int run_rounds(struct round *round, struct error *err)
{
	struct operation *op = round->op;

	for (int i = 0;; i++) {
		struct scan scan = { 0 };
		int r = scan_all(op->proc_fd, &scan, err);

		if (r < 0)
			return r;
		round->scan = &scan;
		r = plan_make(scan.tables, scan.n, op->request->volumes, op->request->n_volumes,
			      &round->plan, err);
		if (r >= 0)
			r = verify(round, err);
		if (r == 0 && i < ROUNDS_MAX)
			r = run_round(round, err);
		if (r == 0) /* what is still stale */
			r = plan_count(scan.tables, scan.n, op->request->volumes,
				       op->request->n_volumes, op->counts, err);
		plan_free(&round->plan);
		scan_free(&scan);
		if (r <= 0)
			return r;
	}
}

int operation_run(struct operation *op, struct error *err)
{
	_cleanup_close_ int home = -EBADF, place = -EBADF;
	size_t n_pins = op->request->n_volumes * PLAN_OLD_MAX;
	_cleanup_free_ int *pins = calloc(n_pins + 1, sizeof(*pins));
	struct round round = { .op = op, .pins = pins };
	int r = pins ? settle_in(op, &place, err) : error_errno(err, -ENOMEM, "exchange mounts");

	if (r < 0)
		return r;
	for (size_t i = 0; i < n_pins; i++)
		pins[i] = -EBADF;
	home = openat(op->proc_fd, "self/ns/mnt", O_RDONLY | O_CLOEXEC);
	if (home < 0)
		return error_errno(err, -errno, "open the own mount namespace");
	round.home_fd = home;
	round.place_fd = place;
	r = run_rounds(&round, err);
	for (size_t i = 0; i < n_pins; i++)
		close_fd(&pins[i]);
	free(round.failures);
	return r;
}
