/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/nsmount_client.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/log.h"

#define PROGRAM "holdfast-nsmount"
#define PLACE_MS 2000	 /* for one place: more than that hangs */
#define SILENCE_MS 15000 /* between two reports otherwise */

enum { AGAIN = 1 };

/* A helper that was killed and is not dead yet, in a call that the kernel does not interrupt:
 * nobody else is sent there before it is. */
struct stuck {
	pid_t pid;
	struct nsmount_place place; /* ns_id 0: not at one */
};

struct nsmount_client {
	pthread_mutex_t turn;
	struct stuck *stuck;
	size_t n_stuck;
};

struct nsmount_client *nsmount_client_new(void)
{
	struct nsmount_client *client = calloc(1, sizeof(*client));

	if (client && pthread_mutex_init(&client->turn, NULL) != 0)
		free(TAKE_PTR(client));
	return client;
}

static void sweep(struct nsmount_client *client)
{
	size_t n = 0;

	for (size_t i = 0; i < client->n_stuck; i++)
		if (waitpid(client->stuck[i].pid, NULL, WNOHANG) == 0)
			client->stuck[n++] = client->stuck[i];
	client->n_stuck = n;
}

void nsmount_client_free(struct nsmount_client *client)
{
	if (!client)
		return;
	sweep(client);
	free(client->stuck);
	(void)pthread_mutex_destroy(&client->turn);
	free(client);
}

/* The request in a memfd. Returns it or -errno. */
static int make_request(const struct nsmount_job *job)
{
	_cleanup_close_ int fd = memfd_create("nsmount-request", MFD_CLOEXEC);
	_cleanup_free_ struct nsmount_request *request = calloc(1, sizeof(*request));
	int r;

	if (fd < 0)
		return -errno;
	if (!request)
		return -ENOMEM;
	request->version = NSMOUNT_VERSION;
	request->n_volumes = (uint32_t)job->n;
	request->n_skips = job->n_skips;
	memcpy(request->skips, job->skips, sizeof(request->skips));
	r = fd_write_all(fd, request, sizeof(*request));
	for (size_t i = 0; r >= 0 && i < job->n; i++)
		r = fd_write_all(fd, &job->volumes[i].is, sizeof(job->volumes[i].is));
	return r < 0 ? r : TAKE_FD(fd);
}

static int start(const struct nsmount_job *job, int out_fd, pid_t *ret_pid)
{
	_cleanup_close_ int request_fd = make_request(job);
	_cleanup_free_ int *fds = calloc(job->n + 1, sizeof(*fds));

	if (request_fd < 0)
		return request_fd;
	if (!fds)
		return -ENOMEM;
	fds[0] = request_fd;
	for (size_t i = 0; i < job->n; i++)
		fds[1 + i] = job->volumes[i].mount_fd;
	return spawn_helper(
		&(struct spawn){
			.program = PROGRAM, .fds = fds, .n_fds = 1 + job->n, .out_fd = out_fd },
		ret_pid);
}

static int receive(int fd, int timeout_ms, struct nsmount_report *ret)
{
	int r = helper_receive(fd, timeout_ms, ret, sizeof(*ret));

	if (r < 0)
		return r;
	if (ret->version != NSMOUNT_VERSION)
		return -EPIPE;
	ret->path[sizeof(ret->path) - 1] = '\0';
	ret->text[sizeof(ret->text) - 1] = '\0';
	return 0;
}

static void note_place(struct nsmount_volume *volume, const struct nsmount_report *report)
{
	bool failed = report->event == NSMOUNT_FAILED;

	LOG_FIELD("VOLUME_ID", volume->is.id);
	volume->exchanged += !failed;
	if (*report->text)
		(void)snprintf(volume->failure, sizeof(volume->failure), "%s", report->text);
	if (failed)
		log_error("the stale mount of volume %s at %s in mount namespace %llu stays: %s",
			  volume->is.id, report->path, (unsigned long long)report->place.ns_id,
			  report->text);
	else if (report->lost)
		log_error("volume %s at %s in mount namespace %llu was exchanged; %s",
			  volume->is.id, report->path, (unsigned long long)report->place.ns_id,
			  report->text);
	else
		log_debug("volume %s at %s in mount namespace %llu was exchanged", volume->is.id,
			  report->path, (unsigned long long)report->place.ns_id);
}

/* Returns whether that was the last report. */
static bool take(struct nsmount_job *job, const struct nsmount_report *report, int *ret_code,
		 struct error *err)
{
	struct nsmount_volume *volume;

	if (report->event == NSMOUNT_END) {
		*ret_code = MIN_OF(report->code, 0);
		if (report->code < 0)
			(void)error_set(err, ERROR_INTERNAL, report->code, PROGRAM ": %s",
					report->text);
		return true;
	}
	if (report->volume >= job->n)
		return false;
	volume = &job->volumes[report->volume];
	if (report->event == NSMOUNT_EXCHANGED || report->event == NSMOUNT_FAILED)
		note_place(volume, report);
	if (report->event == NSMOUNT_DONE || report->event == NSMOUNT_VOLUME) {
		volume->uncounted = report->event == NSMOUNT_DONE;
		volume->counts = report->counts;
		volume->files = report->files;
	}
	return false;
}

/* The place is left alone from now on. `why` reads on after "the way to" it. */
static int give_up_place(struct nsmount_job *job, const struct nsmount_report *begun,
			 const char *why, struct error *err)
{
	if (job->n_skips == NSMOUNT_SKIPS_MAX)
		return error_set(err, ERROR_INTERNAL, -EIO,
				 PROGRAM " hangs or dies in more than %d places",
				 NSMOUNT_SKIPS_MAX);
	job->skips[job->n_skips++] = begun->place;
	if (begun->volume < job->n)
		(void)snprintf(job->volumes[begun->volume].failure,
			       sizeof(job->volumes[begun->volume].failure), "the way to %.400s %s",
			       begun->path, why);
	log_error("the way to %s in mount namespace %llu %s; its stale mount stays", begun->path,
		  (unsigned long long)begun->place.ns_id, why);
	return AGAIN;
}

/* Somebody killed it, most likely, and it can go on. Is it the place, all others come first. */
static int note_death(struct nsmount_job *job, const struct nsmount_report *begun,
		      struct error *err)
{
	if (nsmount_is_same(&job->died_at, &begun->place) || job->n_deaths == NSMOUNT_SKIPS_MAX)
		return give_up_place(job, begun, "ends " PROGRAM, err);
	job->died_at = begun->place;
	job->n_deaths++;
	log_warning(PROGRAM " ended early, at %s in mount namespace %llu: once more", begun->path,
		    (unsigned long long)begun->place.ns_id);
	return AGAIN;
}

/* Nothing is left to do but count who has files open. */
static bool is_over(const struct nsmount_job *job, const struct nsmount_report *last)
{
	return last->event == NSMOUNT_VOLUME ||
	       (last->event == NSMOUNT_DONE && last->volume + 1 == job->n);
}

static int note_uncounted(int code)
{
	log_warning("open files on earlier connections can't be counted: " PROGRAM " %s",
		    code == -ETIMEDOUT ? "hangs at it" : "ended early");
	return 0;
}

static int listen_to(struct nsmount_job *job, int fd, bool *ret_hangs, struct error *err)
{
	struct nsmount_report report = { 0 }, last = { 0 };
	int code = 0;

	for (;;) {
		bool is_at_place = last.event == NSMOUNT_BEGIN;
		int r = receive(fd, is_at_place ? PLACE_MS : SILENCE_MS, &report);

		*ret_hangs = r == -ETIMEDOUT;
		if (r < 0 && is_over(job, &last))
			return note_uncounted(r);
		if (r == -ETIMEDOUT && is_at_place)
			return give_up_place(job, &last, "hangs", err);
		if (r == -ETIMEDOUT)
			return error_set(err, ERROR_TIMEOUT, -EIO, PROGRAM " hangs");
		if (r == -EPIPE && is_at_place)
			return note_death(job, &last, err);
		if (r < 0)
			return error_errno(err, r, PROGRAM " ended early");
		if (take(job, &report, &code, err))
			return code;
		last = report;
	}
}

static void kill_hung(struct nsmount_client *client, const struct stuck *hung)
{
	struct stuck *stuck =
		reallocarray(client->stuck, client->n_stuck + 1, sizeof(*client->stuck));

	(void)kill(hung->pid, SIGKILL);
	if (!stuck)
		return; /* a zombie until this process ends */
	client->stuck = stuck;
	client->stuck[client->n_stuck++] = *hung;
}

static void skip_stuck(const struct nsmount_client *client, struct nsmount_job *job)
{
	for (size_t i = 0; i < client->n_stuck && job->n_skips < NSMOUNT_SKIPS_MAX; i++) {
		const struct nsmount_place *place = &client->stuck[i].place;

		if (place->ns_id != 0 && !nsmount_is_among(job->skips, job->n_skips, place))
			job->skips[job->n_skips++] = *place;
	}
}

static int run(struct nsmount_client *client, struct nsmount_job *job, struct error *err)
{
	_cleanup_close_ int in = -EBADF, out = -EBADF;
	int r = fd_pipe(&in, &out);
	struct stuck helper = { 0 };
	bool hangs = false;

	if (r < 0)
		return error_errno(err, r, "pipe");
	r = start(job, out, &helper.pid);
	if (r < 0)
		return error_errno(err, r, "start " PROGRAM);
	close_fd(&out);
	r = listen_to(job, in, &hangs, err);
	if (hangs && r == AGAIN)
		helper.place = job->skips[job->n_skips - 1];
	if (hangs)
		kill_hung(client, &helper);
	else
		helper_wait(helper.pid);
	return r;
}

int nsmount_exchange(struct nsmount_client *client, struct nsmount_job *job, struct error *err)
{
	int r;

	(void)pthread_mutex_lock(&client->turn);
	sweep(client);
	skip_stuck(client, job);
	r = run(client, job, err);
	(void)pthread_mutex_unlock(&client->turn);
	return r;
}
