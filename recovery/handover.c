/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/parse.h"
#include "recovery/keeper_client.h"

#define CALL_MS 5000 /* for a keeper that serves to say all, or to let go */
#define STATE_VARIABLE "HOLDFAST_HANDOVER_FD"
#define STATE_MAGIC 0x45544154534c4648ULL /* "HFLSTATE" */
#define STATE_SIZE_MAX (64U << 20)

/* The state as the next image reads it: this, then volumes, clients (int32_t) and children. */
struct state_header {
	uint64_t magic;
	uint32_t version;	 /* CONTROL_VERSION: it is told in the same terms */
	uint32_t ledger_version; /* LEDGER_VERSION, of all volumes */
	uint32_t n_volumes;
	uint32_t n_clients;
	uint32_t n_children;
	int32_t lock_fd;
	int32_t listen_fd;
	int32_t oom_score_adj;
};

struct state_volume {
	char id[VOLUME_ID_MAX + 8];
	int32_t fds[ESCROW_FDS];
};

_Static_assert(sizeof(struct state_header) == 40, "the header never changes its layout");

int handover_add(struct handover *h, const char *id, const int fds[ESCROW_FDS], struct error *err)
{
	struct handover_volume *more =
		reallocarray(h->volumes, h->n_volumes + 1, sizeof(*h->volumes));
	struct handover_volume *v;

	if (!more)
		return error_errno(err, -ENOMEM, "hand over a volume");
	h->volumes = more;
	v = &h->volumes[h->n_volumes++];
	*v = (struct handover_volume){ .adopted = ADOPTED_NONE };
	(void)snprintf(v->id, sizeof(v->id), "%.*s", VOLUME_ID_MAX, id);
	memcpy(v->fds, fds, sizeof(v->fds));
	return 0;
}

int handover_add_client(struct handover *h, int fd, struct error *err)
{
	int32_t *more = reallocarray(h->clients, h->n_clients + 1, sizeof(*h->clients));

	if (!more)
		return error_errno(err, -ENOMEM, "hand over a client");
	h->clients = more;
	h->clients[h->n_clients++] = fd;
	return 0;
}

int handover_add_child(struct handover *h, pid_t pid, int pidfd, struct error *err)
{
	struct handover_child *more =
		reallocarray(h->children, h->n_children + 1, sizeof(*h->children));

	if (!more)
		return error_errno(err, -ENOMEM, "hand over a process");
	h->children = more;
	h->children[h->n_children++] = (struct handover_child){ .pid = pid, .pidfd = pidfd };
	return 0;
}

static void close_volume(struct handover_volume *v)
{
	for (size_t i = 0; i < ARRAY_SIZE(v->fds); i++)
		close_fd(&v->fds[i]);
	adopted_close(&v->adopted);
}

void handover_forget(struct handover *h)
{
	free(h->volumes);
	free(h->clients);
	free(h->children);
	*h = HANDOVER_NONE;
}

void handover_close(struct handover *h)
{
	for (size_t i = 0; i < h->n_volumes; i++)
		close_volume(&h->volumes[i]);
	for (size_t i = 0; i < h->n_clients; i++)
		close_fd(&h->clients[i]);
	for (size_t i = 0; i < h->n_children; i++)
		close_fd(&h->children[i].pidfd);
	close_fd(&h->lock_fd);
	close_fd(&h->listen_fd);
	close_fd(&h->conn_fd);
	handover_forget(h);
}

/* Closes the volume `i`; the others move up. */
static void leave_behind(struct handover *h, size_t i, const struct error *why)
{
	struct handover_volume *v = &h->volumes[i];

	log_error("volume is left behind by the keeper before: %s", why->text);
	close_volume(v);
	memmove(v, v + 1, (--h->n_volumes - i) * sizeof(*v));
}

/*
 * Makes all volumes fit to be adopted. One whose connection has ended is of no use to anybody and
 * left behind; others that are unfit are so too, unless `strict`: then there is no handover.
 */
static int check(struct handover *h, bool strict, struct error *err)
{
	for (size_t i = 0; i < h->n_volumes;) {
		struct handover_volume *v = &h->volumes[i];
		struct error why = ERROR_INIT;
		int r;

		LOG_FIELD("VOLUME_ID", v->id);
		r = adopted_open(v->id, v->fds, &v->adopted, &why);
		if (r >= 0) {
			i++;
			continue;
		}
		if (strict && r != -ENOTCONN)
			return error_set(err, why.kind, r, "volume '%s': %.700s", v->id, why.text);
		leave_behind(h, i, &why);
	}
	return 0;
}

static int take(void *context, const struct volume_status *status, int fds[SOCKET_FDS_MAX],
		struct error *err)
{
	int r = status->config.id[0] ? handover_add(context, status->config.id, fds, err)
				     : handover_add_client(context, fds[0], err);

	for (size_t i = 0; r >= 0 && i < ESCROW_FDS; i++)
		(void)TAKE_FD(fds[i]);
	return r;
}

int handover_ask(const char *run_dir, size_t max_volumes, struct handover *ret, struct error *err)
{
	_cleanup_(handover_close) struct handover h = HANDOVER_NONE;
	int r = keeper_handover(run_dir, CALL_MS, take, &h, &h.conn_fd, err);

	if (r < 0)
		return r;
	if (h.n_volumes > max_volumes)
		return error_set(err, ERROR_EXHAUSTED, -EMFILE,
				 "its %zu volumes are more than our limit of open files is enough "
				 "for, %zu: raise LimitNOFILE= (ulimit -Hn)",
				 h.n_volumes, max_volumes);
	r = check(&h, true, err);
	if (r < 0)
		return r;
	*ret = h;
	h = HANDOVER_NONE;
	return 0;
}

int handover_commit(struct handover *h, struct error *err)
{
	int fds[HANDOVER_FDS], r = keeper_handover_commit(h->conn_fd, CALL_MS, fds, err);

	if (r < 0)
		return r;
	h->lock_fd = fds[HANDOVER_LOCK];
	h->listen_fd = fds[HANDOVER_SOCKET];
	return 0;
}

int handover_encode(const struct handover *h, void **ret, size_t *ret_size, struct error *err)
{
	const struct state_header header = {
		.magic = STATE_MAGIC,
		.version = CONTROL_VERSION,
		.ledger_version = LEDGER_VERSION,
		.n_volumes = (uint32_t)h->n_volumes,
		.n_clients = (uint32_t)h->n_clients,
		.n_children = (uint32_t)h->n_children,
		.lock_fd = h->lock_fd,
		.listen_fd = h->listen_fd,
		.oom_score_adj = h->oom_score_adj,
	};
	const size_t size = sizeof(header) + h->n_volumes * sizeof(struct state_volume) +
			    h->n_clients * sizeof(*h->clients) +
			    h->n_children * sizeof(*h->children);
	unsigned char *data = malloc(size), *at = data;

	if (!data)
		return error_errno(err, -ENOMEM, "tell the next image of what there is");
	memcpy(at, &header, sizeof(header));
	at += sizeof(header);
	for (size_t i = 0; i < h->n_volumes; i++) {
		struct state_volume v = { .id = "" };

		memcpy(v.id, h->volumes[i].id, sizeof(v.id));
		memcpy(v.fds, h->volumes[i].fds, sizeof(v.fds));
		memcpy(at, &v, sizeof(v));
		at += sizeof(v);
	}
	if (h->n_clients)
		memcpy(at, h->clients, h->n_clients * sizeof(*h->clients));
	at += h->n_clients * sizeof(*h->clients);
	if (h->n_children)
		memcpy(at, h->children, h->n_children * sizeof(*h->children));
	*ret = data;
	*ret_size = size;
	return 0;
}

static int check_state(const struct state_header *header, size_t size, struct error *err)
{
	uint64_t expected = sizeof(*header) +
			    header->n_volumes * (uint64_t)sizeof(struct state_volume) +
			    header->n_clients * (uint64_t)sizeof(int32_t) +
			    header->n_children * (uint64_t)sizeof(struct handover_child);

	if (header->magic != STATE_MAGIC)
		return error_set(err, ERROR_INVALID, -EBADMSG, "this is no keeper's state");
	if (header->version != CONTROL_VERSION || header->ledger_version != LEDGER_VERSION)
		return error_set(err, ERROR_PRECONDITION, -EPROTONOSUPPORT,
				 "the keeper's state is of control protocol %u and ledger %u, this "
				 "build knows %u and %u",
				 header->version, header->ledger_version, CONTROL_VERSION,
				 LEDGER_VERSION);
	if (size != expected)
		return error_set(err, ERROR_INVALID, -EBADMSG,
				 "the keeper's state has %zu bytes instead of %llu", size,
				 (unsigned long long)expected);
	return 0;
}

static int decode_volume(const unsigned char *at, struct handover *h, struct error *err)
{
	struct state_volume v;
	size_t length;

	memcpy(&v, at, sizeof(v));
	length = strnlen(v.id, sizeof(v.id));
	if (length == 0 || length > VOLUME_ID_MAX)
		return error_set(err, ERROR_INVALID, -EBADMSG,
				 "the keeper's state has a volume without a proper id");
	return handover_add(h, v.id, v.fds, err);
}

int handover_decode(const void *data, size_t size, struct handover *ret, struct error *err)
{
	_cleanup_(handover_forget) struct handover h = HANDOVER_NONE;
	const unsigned char *at = data;
	struct state_header header;
	int r;

	if (size < sizeof(header))
		return error_set(err, ERROR_INVALID, -EBADMSG, "the keeper's state is cut off");
	memcpy(&header, at, sizeof(header));
	r = check_state(&header, size, err);
	at += sizeof(header);
	for (size_t i = 0; r >= 0 && i < header.n_volumes; i++, at += sizeof(struct state_volume))
		r = decode_volume(at, &h, err);
	for (size_t i = 0; r >= 0 && i < header.n_clients; i++) {
		int32_t fd;

		memcpy(&fd, at, sizeof(fd));
		at += sizeof(fd);
		r = handover_add_client(&h, fd, err);
	}
	for (size_t i = 0; r >= 0 && i < header.n_children; i++) {
		struct handover_child child;

		memcpy(&child, at, sizeof(child));
		at += sizeof(child);
		r = handover_add_child(&h, child.pid, child.pidfd, err);
	}
	if (r < 0)
		return r;
	h.lock_fd = header.lock_fd;
	h.listen_fd = header.listen_fd;
	h.oom_score_adj = header.oom_score_adj;
	*ret = h;
	h = HANDOVER_NONE;
	return 0;
}

/* Whether all that is handed over closes with the next exec. */
static void set_cloexec(const struct handover *h, int flag)
{
	(void)fcntl(h->lock_fd, F_SETFD, flag);
	(void)fcntl(h->listen_fd, F_SETFD, flag);
	for (size_t i = 0; i < h->n_volumes; i++)
		for (size_t j = 0; j < ESCROW_FDS; j++)
			(void)fcntl(h->volumes[i].fds[j], F_SETFD, flag);
	for (size_t i = 0; i < h->n_clients; i++)
		(void)fcntl(h->clients[i], F_SETFD, flag);
	for (size_t i = 0; i < h->n_children; i++)
		(void)fcntl(h->children[i].pidfd, F_SETFD, flag);
}

/* Returns a memfd that tells all, not close-on-exec, or -errno with *err set. */
static int write_state(const struct handover *h, struct error *err)
{
	_cleanup_close_ int fd = memfd_create("holdfast-handover", 0);
	_cleanup_free_ void *data = NULL;
	size_t size;
	int r = fd < 0 ? error_errno(err, -errno, "memfd_create")
		       : handover_encode(h, &data, &size, err);

	if (r < 0)
		return r;
	r = fd_write_all(fd, data, size);
	if (r >= 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	return r < 0 ? error_errno(err, r, "write the keeper's state") : TAKE_FD(fd);
}

int handover_exec(const struct handover *h, int program_fd, char *const argv[], struct error *err)
{
	_cleanup_close_ int fd = write_state(h, err);
	char number[16];
	int code;

	if (fd < 0)
		return fd;
	(void)snprintf(number, sizeof(number), "%d", fd);
	if (setenv(STATE_VARIABLE, number, 1) < 0)
		return error_errno(err, -errno, "setenv");
	set_cloexec(h, 0);
	(void)execveat(program_fd, "", argv, environ, AT_EMPTY_PATH);
	code = -errno;
	set_cloexec(h, FD_CLOEXEC);
	(void)unsetenv(STATE_VARIABLE);
	return error_errno(err, code, "execute the program file");
}

static int read_state(int fd, struct handover *ret, struct error *err)
{
	_cleanup_free_ unsigned char *data = NULL;
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "fstat the keeper's state");
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > (off_t)STATE_SIZE_MAX)
		return error_set(err, ERROR_INVALID, -EBADMSG,
				 STATE_VARIABLE " names no keeper's state");
	data = malloc((size_t)st.st_size);
	if (!data)
		return error_errno(err, -ENOMEM, "read the keeper's state");
	n = fd_read_all(fd, data, (size_t)st.st_size);
	if (n < 0)
		return error_errno(err, (int)n, "read the keeper's state");
	return handover_decode(data, (size_t)n, ret, err);
}

int handover_inherit(struct handover *ret, struct error *err)
{
	_cleanup_(handover_close) struct handover h = HANDOVER_NONE;
	const char *number = getenv(STATE_VARIABLE);
	_cleanup_close_ int fd = -EBADF;
	uint32_t value;
	int r;

	if (!number)
		return 0;
	if (parse_u32(number, INT_MAX, &value) < 0)
		return error_set(err, ERROR_INVALID, -EINVAL, STATE_VARIABLE " is no descriptor");
	(void)unsetenv(STATE_VARIABLE);
	fd = (int)value;
	r = read_state(fd, &h, err);
	if (r < 0)
		return r;
	set_cloexec(&h, FD_CLOEXEC);
	r = check(&h, false, err);
	if (r < 0)
		return r;
	*ret = h;
	h = HANDOVER_NONE;
	return 1;
}

void handover_finish(struct handover *h, struct reaper *reaper)
{
	for (size_t i = 0; i < h->n_children; i++) {
		struct child child = { .pid = h->children[i].pid,
				       .pidfd = h->children[i].pidfd,
				       .report_fd = -EBADF };

		child_kill(&child);
		reaper_adopt(reaper, &child);
	}
	h->n_children = 0;
	close_fd(&h->conn_fd);
}
