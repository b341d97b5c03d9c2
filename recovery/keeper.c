/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/keeper.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/epoll.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/notify.h"
#include "mount/fusectl.h"
#include "recovery/control_server.h"
#include "recovery/supervisor/supervisor.h"

#define CLIENTS_MAX 256
#define CHECKS_PER_LIMIT 4
#define CHECK_LIMIT_NS (2 * NSEC_PER_SEC) /* where workers may hang for as long as they like */
#define LISTEN_PATIENCE_MS 1000
/*
 * For a successor to have its workers started. They wait for the locks of ours; not for ever, as
 * one of ours may be stuck in the kernel, but longer than this (fuse/main.c).
 */
#define YIELD_LIMIT_NS NSEC_PER_SEC
#define VOLUME_FDS 8 /* device, mount, ledger, source, pidfd, status; two more at each start */
#define OWN_FDS 32   /* with a worker in store, and two more children at their start */

struct entry {
	struct keeper *keeper;
	struct entry *next;
	uint64_t serial; /* ascending in the list: the cursor of CONTROL_LIST */
	struct supervisor *supervisor;
	struct control_client *adder; /* waits for the first worker; NULL once it was answered */
	bool incoming; /* takes the place of the volume of its name once it is served */
	bool stopping;
};

struct keeper {
	struct loop *loop;
	struct reaper reaper;
	struct standby standby;
	struct supervisor_context context;
	struct control_handler handler;
	struct control_server *server;
	struct keeper_limits limits;
	struct loop_timer check;
	uint64_t hang_limit_ns;
	struct entry *entries;
	size_t n_entries;
	uint64_t last_serial;
	bool ending;
	int lock_fd;
	int oom_score_adj;
	int successor_fd; /* it has all that we had, and is starting its workers; else -EBADF */
	struct loop_source successor;
	struct loop_timer yield_limit;
	bool has_successor;
};

struct keeper_limits keeper_limits_for(uint64_t nofile)
{
	struct keeper_limits limits = { .clients = MIN_OF(MAX_OF(nofile / 4, 1U), CLIENTS_MAX) };

	if (nofile > limits.clients + OWN_FDS)
		limits.volumes = (nofile - limits.clients - OWN_FDS) / VOLUME_FDS;
	return limits;
}

static struct entry *find(struct keeper *k, const char *id)
{
	struct entry *e = k->entries;

	while (e && (e->incoming || strcmp(supervisor_id(e->supervisor), id) != 0))
		e = e->next;
	return e;
}

static void tell_status(const struct keeper *k)
{
	notify_status("%zu volume%s", k->n_entries, k->n_entries == 1 ? "" : "s");
}

/* Appends: the serials stay in order. */
static void link_entry(struct keeper *k, struct entry *entry)
{
	struct entry **link = &k->entries;

	while (*link)
		link = &(*link)->next;
	*link = entry;
	entry->serial = ++k->last_serial;
	k->n_entries++;
	tell_status(k);
}

/* Takes the entry out of the list and closes all that its volume holds. */
static void unlink_entry(struct entry *entry)
{
	struct keeper *k = entry->keeper;
	struct entry **link = &k->entries;

	while (*link != entry)
		link = &(*link)->next;
	*link = entry->next;
	k->n_entries--;
	supervisor_free(TAKE_PTR(entry->supervisor));
	tell_status(k);
}

static void stop_entry(struct entry *entry)
{
	entry->stopping = true;
	supervisor_stop(entry->supervisor);
}

static struct control_client *find_waiting(struct keeper *k, const struct entry *entry)
{
	struct control_client *c = k->server ? control_server_clients(k->server) : NULL;

	while (c && c->waits_for != entry)
		c = c->next;
	return c;
}

static void on_stopped(void *owner, struct supervisor *supervisor)
{
	struct entry *entry = owner;
	struct keeper *k = entry->keeper;
	struct control_client *client;

	unlink_entry(entry);
	log_info(k->ending ? "volume let go" : "volume removed");
	while ((client = find_waiting(k, entry)))
		if (control_client_reply(client, NULL, NULL, 0) < 0)
			log_debug("the client of a removal did not wait for its end");
	free(entry);
	if (k->ending && !k->entries)
		loop_end(k->loop);
}

/*
 * Answers CONTROL_MOUNT with the mount, CONTROL_ADD with what an escrow needs besides: the mount to
 * attach takes the place of the source, which the client has. Returns what control_client_reply
 * does.
 */
static int reply_with_mount(struct entry *entry, struct control_client *client)
{
	_cleanup_close_ int fd = -EBADF;
	int fds[ESCROW_FDS];
	struct error err = ERROR_INIT;
	struct volume_status status;
	int r = supervisor_mount(entry->supervisor, &fd, &err);

	if (r < 0) {
		control_client_fail(client, &err);
		return r;
	}
	supervisor_status(entry->supervisor, &status);
	if (client->request.type == CONTROL_MOUNT)
		return control_client_reply(client, &status, &fd, 1);
	supervisor_escrow(entry->supervisor, fds);
	fds[ESCROW_SOURCE] = fd;
	return control_client_reply(client, &status, fds, ESCROW_FDS);
}

/* The name is free for the new connection: the old one gets "~CONNECTION:NAME", cut off. */
static void retire(struct keeper *k, struct entry *entry)
{
	char id[VOLUME_ID_MAX + 1], name[VOLUME_ID_MAX + 1];
	struct volume_status status;
	struct entry *old;

	(void)snprintf(id, sizeof(id), "%s", supervisor_id(entry->supervisor));
	old = find(k, id);
	entry->incoming = false;
	if (!old || old->stopping)
		return;
	supervisor_status(old->supervisor, &status);
	(void)snprintf(name, sizeof(name), "~%u:%.*s", minor(status.dev), VOLUME_ID_MAX - 12, id);
	supervisor_retire(old->supervisor, name);
	log_notice("the connection before goes on as %s until nobody uses it", name);
}

static void on_started(void *owner, struct supervisor *supervisor, const struct error *failure)
{
	struct entry *entry = owner;
	struct control_client *client = TAKE_PTR(entry->adder);

	if (failure) {
		unlink_entry(entry);
		free(entry);
		log_error("volume not added: %s", failure->text);
		control_client_fail(client, failure);
		return;
	}
	if (reply_with_mount(entry, client) < 0) {
		log_warning("volume not added: its client does not take the mount");
		stop_entry(entry);
		return;
	}
	if (entry->incoming)
		retire(entry->keeper, entry);
	log_info("volume added");
}

/* Tells those who watch. */
static void on_dead(void *owner, struct supervisor *supervisor)
{
	struct entry *entry = owner;
	struct keeper *k = entry->keeper;
	struct volume_status status;
	struct control_client *next;

	supervisor_status(supervisor, &status);
	for (struct control_client *c = k->server ? control_server_clients(k->server) : NULL; c;
	     c = next) {
		next = c->next;
		if (c->watching)
			control_client_tell(c, &status);
	}
	if (status.config.flags & VOLUME_RETIRED)
		stop_entry(entry);
}

static int check_source(const int fds[SOCKET_FDS_MAX], struct error *err)
{
	if (fds[0] < 0 || fds[1] >= 0)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "one descriptor has to come along: the source directory");
	return adopted_check_source(fds[0], err);
}

static int check_limit(const struct keeper *k, struct error *err)
{
	if (k->n_entries >= k->limits.volumes)
		return error_set(
			err, ERROR_EXHAUSTED, -EMFILE,
			"the keeper's limit of open files is enough for %zu volumes: raise "
			"LimitNOFILE= (ulimit -Hn) and restart it",
			k->limits.volumes);
	return 0;
}

static int check_room(struct keeper *k, const char *id, struct error *err)
{
	struct entry *there = find(k, id);

	if (there && there->stopping)
		return error_set(err, ERROR_BUSY, -EBUSY, "volume '%s' is being removed", id);
	if (there)
		return error_set(err, ERROR_EXISTS, -EEXIST, "volume '%s' is there already", id);
	return check_limit(k, err);
}
/* The volume, which is neither coming nor going. */
static int find_settled(struct keeper *k, const char *id, struct entry **ret, struct error *err)
{
	struct entry *entry = find(k, id);

	if (!entry)
		return error_set(err, ERROR_NOT_FOUND, -ENOENT, "there is no volume '%s'", id);
	if (entry->stopping || entry->adder)
		return error_set(err, ERROR_BUSY, -EBUSY, "volume '%s' is being %s", id,
				 entry->stopping ? "removed" : "added");
	*ret = entry;
	return 0;
}

/* For a volume that is to be replaced: it has to be there, and one more may be. */
static int check_replaced(struct keeper *k, const char *id, struct error *err)
{
	struct entry *entry;
	int r = find_settled(k, id, &entry, err);

	for (struct entry *e = k->entries; r >= 0 && e; e = e->next)
		if (e->incoming && strcmp(supervisor_id(e->supervisor), id) == 0)
			return error_set(err, ERROR_BUSY, -EBUSY, "volume '%s' is being replaced",
					 id);
	return r < 0 ? r : check_limit(k, err);
}

static int add(struct keeper *k, struct control_client *client,
	       const struct control_request *request, int fds[SOCKET_FDS_MAX], struct error *err)
{
	const struct volume_config *config = &request->config;
	bool replaces = request->header.type == CONTROL_REPLACE;
	_cleanup_free_ struct entry *entry = NULL;
	int r = replaces ? check_replaced(k, config->id, err) : check_room(k, config->id, err);

	if (r >= 0)
		r = check_source(fds, err);
	if (r < 0)
		return r;
	entry = malloc(sizeof(*entry));
	if (!entry)
		return error_errno(err, -ENOMEM, "add a volume");
	*entry = (struct entry){ .keeper = k, .adder = client, .incoming = replaces };
	r = supervisor_new(&k->context, config, TAKE_FD(fds[0]), entry, &entry->supervisor, err);
	if (r < 0)
		return r;
	client->waits_for = entry;
	link_entry(k, TAKE_PTR(entry));
	return 0;
}

/* Nobody waits for a volume that is adopted: from now on it is like any other. */
static int go_on_with(struct keeper *k, struct adopted *adopted, bool planned, struct entry **ret,
		      struct error *err)
{
	_cleanup_free_ struct entry *entry = malloc(sizeof(*entry));
	int r;

	if (!entry)
		return error_errno(err, -ENOMEM, "adopt a volume");
	*entry = (struct entry){ .keeper = k };
	r = supervisor_adopt(&k->context, adopted, planned, entry, &entry->supervisor, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(entry);
	link_entry(k, *ret);
	return 0;
}

static int adopt(struct keeper *k, struct control_client *client, const char *id,
		 int fds[SOCKET_FDS_MAX], struct error *err)
{
	_cleanup_(adopted_close) struct adopted adopted = ADOPTED_NONE;
	struct volume_status status;
	struct entry *entry;
	int r = check_room(k, id, err);

	if (r >= 0)
		r = adopted_open(id, fds, &adopted, err);
	if (r >= 0)
		r = go_on_with(k, &adopted, false, &entry, err);
	if (r < 0)
		return r;
	supervisor_status(entry->supervisor, &status);
	log_info("volume adopted from escrow");
	if (control_client_reply(client, &status, NULL, 0) < 0)
		log_debug("whoever held the volume in escrow did not wait");
	return 0;
}

static int escrow(struct keeper *k, struct control_client *client, const char *id,
		  struct error *err)
{
	struct volume_status status;
	struct entry *entry;
	int fds[ESCROW_FDS], r = find_settled(k, id, &entry, err);

	if (r < 0)
		return r;
	supervisor_status(entry->supervisor, &status);
	supervisor_escrow(entry->supervisor, fds);
	if (control_client_reply(client, &status, fds, ESCROW_FDS) < 0)
		log_debug("whoever wanted '%s' in escrow did not wait", id);
	return 0;
}

static int mount_again(struct keeper *k, struct control_client *client, const char *id,
		       struct error *err)
{
	struct entry *entry;
	int r = find_settled(k, id, &entry, err);

	if (r < 0)
		return r;
	if (reply_with_mount(entry, client) < 0)
		log_debug("the mount of '%s' was not handed out", id);
	return 0;
}

static void cancel_add(struct entry *entry)
{
	struct control_client *adder = TAKE_PTR(entry->adder);
	struct error err = ERROR_INIT;

	if (!adder)
		return;
	(void)error_set(&err, ERROR_CANCELLED, -ECANCELED,
			"volume '%s' was removed while it was being added",
			supervisor_id(entry->supervisor));
	control_client_fail(adder, &err);
}

static void remove_volume(struct keeper *k, struct control_client *client, const char *id)
{
	struct entry *entry = find(k, id);

	if (!entry) {
		if (control_client_reply(client, NULL, NULL, 0) < 0)
			log_debug("the client of a removal did not wait for its end");
		return;
	}
	cancel_add(entry);
	client->waits_for = entry;
	if (!entry->stopping)
		stop_entry(entry);
}

static int replace(struct keeper *k, struct control_client *client,
		   const struct control_request *request, struct error *err)
{
	struct entry *entry = find(k, request->config.id);
	int r;

	if (!entry)
		return error_set(err, ERROR_NOT_FOUND, -ENOENT, "there is no volume '%s'",
				 request->config.id);
	r = supervisor_replace(entry->supervisor, request->header.type == CONTROL_RESTART, err);
	if (r >= 0 && control_client_reply(client, NULL, NULL, 0) < 0)
		log_debug("the client of a replacement did not wait for its answer");
	return r;
}

/* Nobody waits for anything, but the client that asks; no volume comes or goes. */
static int check_settled(const struct keeper *k, const struct control_client *except,
			 struct error *err)
{
	bool settled = !k->ending && !control_server_holder(k->server) &&
		       control_server_is_idle(k->server, except);

	for (const struct entry *e = k->entries; e; e = e->next)
		settled = settled && !e->adder && !e->stopping;
	if (settled)
		return 0;
	return error_set(err, ERROR_BUSY, -EBUSY, "the keeper is in the middle of something else");
}

static int hand_over(struct keeper *k, struct control_client *client, struct error *err)
{
	int r = check_settled(k, client, err);

	if (r < 0)
		return r;
	log_info("another keeper asks for what there is");
	control_server_hold(k->server, client);
	control_client_list(client);
	return 0;
}

/* Ends all workers, and then the loop. */
static void let_go(struct keeper *k)
{
	loop_disarm(&k->yield_limit);
	loop_drop(k->loop, &k->successor);
	close_fd(&k->successor_fd);
	if (!k->entries)
		loop_end(k->loop);
	for (struct entry *e = k->entries, *next; e; e = next) {
		next = e->next;
		if (!e->stopping)
			stop_entry(e);
	}
}

static void on_successor(void *context, uint32_t events)
{
	let_go(context);
}

static void on_yield_limit(void *context)
{
	log_warning("the next keeper has not started its workers yet; ours end now");
	let_go(context);
}

/* Volumes that were served live on, if anybody else has what they live by. */
static void yield_all(struct keeper *k)
{
	k->ending = true;
	for (struct entry *e = k->entries, *next; e; e = next) {
		next = e->next;
		if (e->adder)
			e->adder = NULL;
		else if (!e->stopping)
			supervisor_yield(e->supervisor);
	}
}

/* From now on all is the successor's; our workers serve until it closes the connection. */
static void yield(struct keeper *k)
{
	struct error err = ERROR_INIT;

	k->has_successor = true;
	k->successor_fd = control_server_leave(TAKE_PTR(k->server));
	memory_limits_leave(k->context.memory);
	yield_all(k);
	loop_arm(k->loop, &k->yield_limit, clock_now_ns() + YIELD_LIMIT_NS);
	if (loop_add(k->loop, &k->successor, k->successor_fd, EPOLLIN, &err) >= 0)
		return;
	log_warning("the next keeper can't be waited for: %s", err.text);
	let_go(k);
}

static int commit_handover(struct keeper *k, struct control_client *client, struct error *err)
{
	int fds[HANDOVER_FDS];

	fds[HANDOVER_LOCK] = k->lock_fd;
	fds[HANDOVER_SOCKET] = control_server_fd(k->server);
	if (control_server_holder(k->server) != client)
		return error_set(err, ERROR_PRECONDITION, -EINVAL,
				 "nothing was asked for that could be committed");
	if (control_client_reply(client, NULL, fds, ARRAY_SIZE(fds)) < 0) {
		log_warning("the next keeper went away; this one goes on");
		return 0;
	}
	log_notice("ending: another keeper goes on with %zu volumes", k->n_entries);
	notify_stopping();
	yield(k);
	return 0;
}

static void on_request(void *context, struct control_client *client,
		       const struct control_request *request, int fds[SOCKET_FDS_MAX])
{
	struct keeper *k = context;
	struct error err = ERROR_INIT;
	int r = 0;

	LOG_FIELD("VOLUME_ID", request->config.id);
	if (request->header.type == CONTROL_ADD || request->header.type == CONTROL_REPLACE)
		r = add(k, client, request, fds, &err);
	else if (request->header.type == CONTROL_MOUNT)
		r = mount_again(k, client, request->config.id, &err);
	else if (request->header.type == CONTROL_ESCROW)
		r = escrow(k, client, request->config.id, &err);
	else if (request->header.type == CONTROL_ADOPT)
		r = adopt(k, client, request->config.id, fds, &err);
	else if (request->header.type == CONTROL_HANDOVER)
		r = hand_over(k, client, &err);
	else if (request->header.type == CONTROL_HANDOVER_COMMIT)
		r = commit_handover(k, client, &err);
	else if (request->header.type == CONTROL_REMOVE)
		remove_volume(k, client, request->config.id);
	else if (request->header.type == CONTROL_HEAL || request->header.type == CONTROL_SWAP)
		r = error_set(&err, ERROR_UNIMPLEMENTED, -EOPNOTSUPP,
			      "the keeper heals and swaps nothing: ask holdfast-csi");
	else if (request->header.type == CONTROL_WATCH)
		control_client_watch(client);
	else
		r = replace(k, client, request, &err);
	if (r < 0) {
		if (err.kind == ERROR_NOT_FOUND) /* an answer like others, to one that asks */
			log_info("request refused: %s", err.text);
		else
			log_warning("request refused: %s", err.text);
		control_client_fail(client, &err);
	}
}

static void on_client_gone(void *context, struct control_client *client)
{
	struct entry *entry = client->waits_for;

	client->waits_for = NULL;
	if (!entry || entry->adder != client)
		return;
	LOG_FIELD("VOLUME_ID", supervisor_id(entry->supervisor));
	log_warning("volume not added: its client went away");
	entry->adder = NULL;
	stop_entry(entry);
}

static bool next_volume(void *context, uint64_t *cursor, struct volume_status *ret,
			int ret_fds[ESCROW_FDS])
{
	struct keeper *k = context;
	struct entry *entry = k->entries;

	while (entry && entry->serial <= *cursor)
		entry = entry->next;
	if (!entry)
		return false;
	*cursor = entry->serial;
	supervisor_status(entry->supervisor, ret);
	supervisor_escrow(entry->supervisor, ret_fds);
	return true;
}

static void open_fusectl(struct keeper *k)
{
	struct error err = ERROR_INIT;

	if (fusectl_open(&k->context.fusectl_fd, &err) < 0)
		log_warning(
			"status shows no waiting requests, and hung workers can't be cut off: %s",
			err.text);
}

static void on_check(void *context)
{
	struct keeper *k = context;

	for (struct entry *e = k->entries; e; e = e->next)
		supervisor_check(e->supervisor, k->hang_limit_ns);
	loop_arm(k->loop, &k->check,
		 clock_now_ns() + (k->hang_limit_ns ?: CHECK_LIMIT_NS) / CHECKS_PER_LIMIT);
}

/* Nobody else is a keeper here (run_dir.h), but one that was killed may not have ended wholly. */
static int listen_patiently(struct keeper *k, const char *path, int listen_fd, struct error *err)
{
	for (int ms = 0;; ms++) {
		int r = control_server_open(k->loop, path, listen_fd, k->limits.clients,
					    &k->handler, &k->server, err);

		if (r != -EADDRINUSE || ms == LISTEN_PATIENCE_MS)
			return r;
		(void)usleep(1000);
	}
}

DEFINE_CLEANUP(struct keeper *, keeper_free);

/* The volumes of the keeper before, all at once, so that its workers can end. */
static void take_over(struct keeper *k, struct handover *from)
{
	const uint64_t due_ns = clock_now_ns() + YIELD_LIMIT_NS;
	size_t n = 0;

	for (size_t i = 0; i < from->n_volumes; i++) {
		struct handover_volume *v = &from->volumes[i];
		struct error err = ERROR_INIT;
		struct entry *entry;

		LOG_FIELD("VOLUME_ID", v->id);
		if (clock_now_ns() > due_ns)
			handover_finish(from, &k->reaper);
		if (go_on_with(k, &v->adopted, true, &entry, &err) >= 0)
			n++;
		else
			log_error("volume not taken over: %s", err.text);
	}
	handover_finish(from, &k->reaper);
	if (n)
		log_notice("%zu volumes taken over from the keeper before", n);
}

static struct keeper *keeper_alloc(struct loop *loop, const struct keeper_params *params)
{
	struct keeper *k = malloc(sizeof(*k));

	if (!k)
		return NULL;
	*k = (struct keeper){
		.loop = loop,
		.reaper = { .loop = loop },
		.context = { .loop = loop,
			     .reaper = &k->reaper,
			     .standby = &k->standby,
			     .fusectl_fd = -EBADF,
			     .request_max_ns = connection_request_max_ns(),
			     .on_started = on_started,
			     .on_dead = on_dead,
			     .on_stopped = on_stopped },
		.handler = { .request = on_request,
			     .gone = on_client_gone,
			     .next_volume = next_volume,
			     .context = k },
		.limits = params->limits,
		.check = { .fire = on_check, .context = k },
		.hang_limit_ns = params->hang_limit_ns,
		.lock_fd = params->lock_fd,
		.oom_score_adj = params->program.oom_score_adj,
		.successor_fd = -EBADF,
		.successor = { .fd = -EBADF, .ready = on_successor, .context = k },
		.yield_limit = { .fire = on_yield_limit, .context = k },
	};
	standby_init(&k->standby, loop, &k->reaper, &params->program);
	return k;
}

int keeper_open(struct loop *loop, const struct keeper_params *params, struct handover *from,
		struct keeper **ret, struct error *err)
{
	_cleanup_(keeper_free_cleanup) struct keeper *k = keeper_alloc(loop, params);
	char path[PATH_MAX];
	int r;

	if (!k)
		return error_errno(err, -ENOMEM, "start the keeper");
	open_fusectl(k);
	r = memory_limits_open(params->run_dir, &k->context.memory, err);
	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/" CONTROL_SOCKET_NAME, params->run_dir);
	r = listen_patiently(k, path, TAKE_FD(from->listen_fd), err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < from->n_clients; i++)
		control_server_welcome(k->server, TAKE_FD(from->clients[i]));
	take_over(k, from);
	on_check(k);
	*ret = TAKE_PTR(k);
	return 0;
}

void keeper_end(struct keeper *k)
{
	if (k->ending)
		return;
	control_server_close(TAKE_PTR(k->server));
	yield_all(k);
	let_go(k);
}

size_t keeper_volumes(const struct keeper *k)
{
	return k->n_entries;
}

bool keeper_has_successor(const struct keeper *k)
{
	return k->has_successor;
}

/* What keeper_collect has together. */
struct collection {
	struct handover handover;
	struct error *err;
	int code;
};

static void collection_done(struct collection *c)
{
	handover_forget(&c->handover);
}

static void collect_child(void *context, const struct child *child)
{
	struct collection *c = context;

	if (c->code >= 0 && child->pid != 0)
		c->code = handover_add_child(&c->handover, child->pid, child->pidfd, c->err);
}

static void collect_volume(struct collection *c, const struct entry *entry)
{
	int fds[ESCROW_FDS];

	supervisor_escrow(entry->supervisor, fds);
	c->code = handover_add(&c->handover, supervisor_id(entry->supervisor), fds, c->err);
	collect_child(c, supervisor_announce(entry->supervisor));
}

int keeper_collect(struct keeper *k, struct handover *ret, struct error *err)
{
	_cleanup_(collection_done) struct collection c = { .handover = HANDOVER_NONE, .err = err };

	c.code = check_settled(k, NULL, err);
	if (c.code < 0)
		return c.code;
	for (const struct entry *e = k->entries; c.code >= 0 && e; e = e->next)
		collect_volume(&c, e);
	for (struct control_client *client = control_server_clients(k->server);
	     c.code >= 0 && client; client = client->next)
		c.code = handover_add_client(&c.handover, client->source.fd, err);
	collect_child(&c, &k->standby.child);
	reaper_each(&k->reaper, collect_child, &c);
	if (c.code < 0)
		return c.code;
	c.handover.lock_fd = k->lock_fd;
	c.handover.listen_fd = control_server_fd(k->server);
	c.handover.oom_score_adj = k->oom_score_adj;
	*ret = c.handover;
	c.handover = HANDOVER_NONE;
	return 0;
}

void keeper_free(struct keeper *k)
{
	if (!k)
		return;
	control_server_close(k->server);
	loop_disarm(&k->check);
	loop_disarm(&k->yield_limit);
	loop_drop(k->loop, &k->successor);
	close_fd(&k->successor_fd);
	for (struct entry *e = k->entries, *next; e; e = next) {
		next = e->next;
		unlink_entry(e);
		free(e);
	}
	standby_done(&k->standby);
	reaper_done(&k->reaper);
	memory_limits_free(k->context.memory);
	close_fd(&k->context.fusectl_fd);
	free(k);
}
