/* SPDX-License-Identifier: Apache-2.0 */

/* holdfast-nsmount: one operation on the mounts of all namespaces (nsmount.h). */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "recovery/nsmount.h"
#include "recovery/surgery/operation.h"
#include "recovery/surgery/users.h"

#define LIFETIME_S 120 /* nobody listens for longer, should our parent have died meanwhile */

static void report(const struct nsmount_report *report)
{
	if (fd_write_all(STDOUT_FILENO, report, sizeof(*report)) < 0)
		_exit(EXIT_FAILURE); /* nobody wants to know: so nobody wants it done */
}

static int read_request(struct nsmount_request **ret, struct error *err)
{
	struct nsmount_request *request;
	struct stat st;

	if (fstat(NSMOUNT_REQUEST_FD, &st) < 0 || st.st_size < (off_t)sizeof(*request))
		return error_set(err, ERROR_INVALID, -EBADMSG,
				 "holdfast-nsmount is started by holdfast-csi");
	request = malloc((size_t)st.st_size);
	if (!request)
		return error_errno(err, -ENOMEM, "read the request");
	if (pread(NSMOUNT_REQUEST_FD, request, (size_t)st.st_size, 0) != st.st_size ||
	    request->version != NSMOUNT_VERSION || request->n_volumes > NSMOUNT_VOLUMES_MAX ||
	    request->n_skips > NSMOUNT_SKIPS_MAX ||
	    (size_t)st.st_size !=
		    sizeof(*request) + request->n_volumes * sizeof(*request->volumes)) {
		free(request);
		return error_set(err, ERROR_INVALID, -EPROTONOSUPPORT,
				 "the request is of another build than holdfast-nsmount");
	}
	*ret = request;
	return 0;
}

static void say_end(const struct error *err)
{
	struct nsmount_report r = {
		.version = NSMOUNT_VERSION,
		.event = NSMOUNT_END,
		.code = err->code,
	};

	(void)snprintf(r.text, sizeof(r.text), "%.*s", (int)sizeof(r.text) - 1, err->text);
	report(&r);
}

static void say_counts(enum nsmount_event event, const struct nsmount_request *request,
		       const struct plan_counts *counts, const uint32_t *files)
{
	for (uint32_t i = 0; i < request->n_volumes; i++)
		report(&(struct nsmount_report){
			.version = NSMOUNT_VERSION,
			.event = event,
			.volume = i,
			.counts = counts[i],
			.files = files[i],
		});
}

static int run(struct nsmount_request *request, int proc_fd, struct error *err)
{
	_cleanup_free_ struct plan_counts *counts = calloc(request->n_volumes + 1, sizeof(*counts));
	_cleanup_free_ uint32_t *files = calloc(request->n_volumes + 1, sizeof(*files));
	_cleanup_free_ int *fds = calloc(request->n_volumes + 1, sizeof(*fds));
	struct operation op = {
		.request = request,
		.mount_fds = fds,
		.proc_fd = proc_fd,
		.report = report,
		.counts = counts,
	};
	int r;

	if (!counts || !files || !fds)
		return error_errno(err, -ENOMEM, "exchange mounts");
	for (uint32_t i = 0; i < request->n_volumes; i++)
		fds[i] = NSMOUNT_REQUEST_FD + 1 + (int)i;
	r = operation_run(&op, err);
	if (r < 0)
		return r;
	say_counts(NSMOUNT_DONE, request, counts, files);
	users_count(proc_fd, request->volumes, request->n_volumes, counts, files);
	say_counts(NSMOUNT_VOLUME, request, counts, files);
	return 0;
}

int main(void)
{
	_cleanup_free_ struct nsmount_request *request = NULL;
	_cleanup_close_ int proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct error err = ERROR_INIT;
	int r = read_request(&request, &err);

	(void)alarm(LIFETIME_S);
	(void)fd_raise_limit(&(int){ 0 });
	if (r >= 0 && proc_fd < 0)
		r = error_errno(&err, -errno, "open /proc");
	if (r >= 0)
		r = run(request, proc_fd, &err);
	say_end(&err);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
