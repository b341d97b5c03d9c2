/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "recovery/nsmount.h"

#define REPORTS_MAX 8

/* What the program said, and how it ended. */
struct outcome {
	struct nsmount_report reports[REPORTS_MAX];
	size_t n;
	int status;
};

static const char *program(void)
{
	static char path[4096];
	const char *build = getenv("HOLDFAST_BUILD");

	assert_non_null(build);
	(void)snprintf(path, sizeof(path), "%s/holdfast-nsmount", build);
	return path;
}

/* In the child. `request_fd` is -1 where there is none. */
static void start(int request_fd, int out_fd)
{
	int lifted = request_fd >= 0 ? fcntl(request_fd, F_DUPFD, 100) : -1;

	if (dup2(out_fd, STDOUT_FILENO) < 0)
		_exit(99);
	if (request_fd >= 0 && dup2(lifted, NSMOUNT_REQUEST_FD) < 0)
		_exit(99);
	(void)close_range(request_fd >= 0 ? NSMOUNT_REQUEST_FD + 1 : NSMOUNT_REQUEST_FD, ~0U, 0);
	(void)execl(program(), "holdfast-nsmount", NULL);
	_exit(99);
}

static void run(int request_fd, struct outcome *ret)
{
	int fds[2];
	ssize_t size;
	pid_t pid;

	*ret = (struct outcome){ 0 };
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	(void)fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		start(request_fd, fds[1]);
	(void)close(fds[1]);
	size = fd_read_all(fds[0], ret->reports, sizeof(ret->reports));
	(void)close(fds[0]);
	assert_int_equal(waitpid(pid, &ret->status, 0), pid);
	assert_true(size >= 0 && (size_t)size % sizeof(ret->reports[0]) == 0);
	ret->n = (size_t)size / sizeof(ret->reports[0]);
}

/* It says so, once, and has not begun with anything. */
static void assert_refused(int request_fd, int code)
{
	struct outcome outcome;

	run(request_fd, &outcome);
	assert_true(WIFEXITED(outcome.status));
	assert_int_equal(WEXITSTATUS(outcome.status), EXIT_FAILURE);
	assert_int_equal(outcome.n, 1);
	assert_int_equal(outcome.reports[0].version, NSMOUNT_VERSION);
	assert_int_equal(outcome.reports[0].event, NSMOUNT_END);
	assert_int_equal(outcome.reports[0].code, code);
	assert_true(outcome.reports[0].text[0] != '\0');
}

static int request_with(const struct nsmount_request *request, size_t size)
{
	int fd = memfd_create("request", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, request, MIN_OF(size, sizeof(*request))), 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static void assert_request_refused(const struct nsmount_request *request, size_t size, int code)
{
	_cleanup_close_ int fd = request_with(request, size);

	assert_refused(fd, code);
}

static void started_by_hand_it_does_nothing(void **state)
{
	_cleanup_close_ int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	assert_refused(-1, -EBADMSG);
	assert_refused(null, -EBADMSG);
	assert_refused(dir, -EBADMSG);
	assert_refused(file, -EPROTONOSUPPORT);
}

static void a_cut_request_is_refused(void **state)
{
	struct nsmount_request request = { .version = NSMOUNT_VERSION, .n_volumes = 2 };
	size_t size = sizeof(request) + 2 * sizeof(struct plan_volume);

	assert_request_refused(&request, 0, -EBADMSG);
	assert_request_refused(&request, 1, -EBADMSG);
	assert_request_refused(&request, sizeof(request) - 1, -EBADMSG);
	assert_request_refused(&request, sizeof(request), -EPROTONOSUPPORT);
	assert_request_refused(&request, size - 1, -EPROTONOSUPPORT);
	assert_request_refused(&request, size + 1, -EPROTONOSUPPORT);
}

static void another_version_is_refused(void **state)
{
	struct nsmount_request request = { .version = NSMOUNT_VERSION + 1 };

	assert_request_refused(&request, sizeof(request), -EPROTONOSUPPORT);
	request.version = 0;
	assert_request_refused(&request, sizeof(request), -EPROTONOSUPPORT);
}

static void absurd_counts_are_refused(void **state)
{
	struct nsmount_request request = { .version = NSMOUNT_VERSION };
	uint32_t too_many = NSMOUNT_VOLUMES_MAX + 1;

	request.n_volumes = too_many;
	assert_request_refused(&request, sizeof(request) + too_many * sizeof(struct plan_volume),
			       -EPROTONOSUPPORT);
	request.n_volumes = UINT32_MAX;
	assert_request_refused(&request, sizeof(request), -EPROTONOSUPPORT);
	request.n_volumes = 0;
	request.n_skips = NSMOUNT_SKIPS_MAX + 1;
	assert_request_refused(&request, sizeof(request), -EPROTONOSUPPORT);
	request.n_skips = UINT32_MAX;
	assert_request_refused(&request, sizeof(request), -EPROTONOSUPPORT);
	/* a sparse file, and no memory for it */
	request.n_skips = 0;
	request.n_volumes = NSMOUNT_VOLUMES_MAX;
	assert_request_refused(&request, sizeof(request) + (1ULL << 40), -ENOMEM);
}

/* What is at its number is no mount, and nothing was begun. */
static void a_mount_that_did_not_come_is_an_error(void **state)
{
	struct nsmount_request request = { .version = NSMOUNT_VERSION, .n_volumes = 3 };
	_cleanup_close_ int fd =
		request_with(&request, sizeof(request) + 3 * sizeof(struct plan_volume));
	struct outcome outcome;

	run(fd, &outcome);
	assert_true(WIFEXITED(outcome.status));
	assert_int_equal(WEXITSTATUS(outcome.status), EXIT_FAILURE);
	assert_int_equal(outcome.n, 1);
	assert_int_equal(outcome.reports[0].event, NSMOUNT_END);
	assert_true(outcome.reports[0].code < 0);
}

static void a_request_for_nothing_ends_well(void **state)
{
	struct nsmount_request request = { .version = NSMOUNT_VERSION };
	_cleanup_close_ int fd = request_with(&request, sizeof(request));
	struct outcome outcome;

	if (geteuid() != 0)
		skip();
	run(fd, &outcome);
	assert_int_equal(outcome.status, 0);
	assert_int_equal(outcome.n, 1);
	assert_int_equal(outcome.reports[0].event, NSMOUNT_END);
	assert_int_equal(outcome.reports[0].code, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(started_by_hand_it_does_nothing),
		cmocka_unit_test(a_cut_request_is_refused),
		cmocka_unit_test(another_version_is_refused),
		cmocka_unit_test(absurd_counts_are_refused),
		cmocka_unit_test(a_mount_that_did_not_come_is_an_error),
		cmocka_unit_test(a_request_for_nothing_ends_well),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
