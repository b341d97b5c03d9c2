/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/helper.h"

#define PROGRAM "spawn-report"
#define MANY 1025
#define GLIBC_OWN (3ULL << 31) /* signals 32 and 33, which posix_spawn(3) ignores in the child */

static int make_file(void)
{
	int fd = memfd_create("test", 0); /* of those without close-on-exec nothing is inherited */

	assert_true(fd >= 0);
	return fd;
}

/* A file at that very number, whatever was there. */
static int file_at(int number)
{
	int fd = make_file();

	if (fd != number) {
		assert_int_equal(dup2(fd, number), number);
		(void)close(fd);
	}
	return number;
}

static unsigned long inode(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static size_t count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

/* What the program says; to be freed. `out_at` is the number of its standard output here. */
static char *report(const char *argument, const int *fds, size_t n, int out_at)
{
	struct spawn spawn = { .program = PROGRAM, .argument = argument, .fds = fds, .n_fds = n };
	size_t before = count_fds(), room = 1U << 20;
	char *text = calloc(1, room);
	int pipe_fds[2], status;
	ssize_t size;
	pid_t pid;

	assert_non_null(text);
	assert_int_equal(pipe(pipe_fds), 0);
	for (int i = 0; i < 2; i++) { /* out of the way */
		int fd = fcntl(pipe_fds[i], F_DUPFD, 300);

		assert_true(fd >= 0);
		(void)close(pipe_fds[i]);
		pipe_fds[i] = fd;
	}
	spawn.out_fd = out_at < 0 ? pipe_fds[1] : dup2(pipe_fds[1], out_at);
	assert_int_equal(spawn_helper(&spawn, &pid), 0);
	(void)close(pipe_fds[1]);
	if (out_at >= 0)
		(void)close(out_at);
	size = fd_read_all(pipe_fds[0], text, room - 1);
	assert_true(size > 0);
	(void)close(pipe_fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(count_fds(), before);
	return text;
}

/* That these files are there from SPAWN_FIRST_FD on, and nothing else. */
static void assert_fds(const char *text, const unsigned long *inodes, size_t n)
{
	_cleanup_free_ bool *seen = calloc(n + 1, sizeof(*seen));
	size_t found = 0;

	assert_non_null(seen);
	for (const char *p = strstr(text, "fd "); p; p = strstr(p + 1, "\nfd ")) {
		unsigned long ino;
		int fd;

		assert_int_equal(sscanf(p + (*p == '\n'), "fd %d %lu", &fd, &ino), 2);
		fd -= SPAWN_FIRST_FD;
		assert_in_range(fd, 0, n - 1);
		assert_false(seen[fd]);
		assert_int_equal(ino, inodes[fd]);
		seen[fd] = true;
		found++;
	}
	assert_int_equal(found, n);
}

static void assert_arrive(const int *fds, size_t n, int out_at)
{
	_cleanup_free_ unsigned long *inodes = calloc(n + 1, sizeof(*inodes));
	_cleanup_free_ char *text = NULL;

	assert_non_null(inodes);
	for (size_t i = 0; i < n; i++)
		inodes[i] = inode(fds[i]);
	text = report(NULL, fds, n, out_at);
	assert_fds(text, inodes, n);
	for (size_t i = 0; i < n; i++) /* borrowed: still the same */
		assert_int_equal(inode(fds[i]), inodes[i]);
}

static void descriptors_get_their_numbers(void **state)
{
	static const int cases[][4] = {
		{ 3, 4, 5, 6 }, { 4, 3, 6, 5 },	 { 6, 5, 4, 3 },   { 4, 5, 6, 3 },
		{ 6, 3, 4, 5 }, { 7, 8, 9, 10 }, { 10, 9, 8, 7 },  { 5, 6, 7, 8 },
		{ 6, 7, 3, 4 }, { 3, 3, 3, 3 },	 { 4, 4, 30, 30 }, { 100, 3, 50, 4 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (size_t n = 0; n <= ARRAY_SIZE(cases[0]); n++) {
			for (size_t k = 0; k < n; k++)
				(void)file_at(cases[i][k]);
			assert_arrive(cases[i], n, -1);
			for (size_t k = 0; k < n; k++)
				(void)close(cases[i][k]);
		}
}

static void standard_output_may_have_any_number(void **state)
{
	static const int fds[] = { 4, 7 }, outs[] = { 3, 5, 6, 60 };

	for (size_t i = 0; i < ARRAY_SIZE(outs); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(fds); k++)
			(void)file_at(fds[k]);
		assert_arrive(fds, ARRAY_SIZE(fds), outs[i]);
		for (size_t k = 0; k < ARRAY_SIZE(fds); k++)
			(void)close(fds[k]);
	}
}

static void it_may_be_standard_output_already(void **state)
{
	_cleanup_free_ char *text = NULL;
	int saved = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 200);

	assert_true(saved >= 0);
	(void)fflush(stdout);
	(void)close(STDOUT_FILENO);
	text = report("x", NULL, 0, STDOUT_FILENO);
	assert_int_equal(dup2(saved, STDOUT_FILENO), STDOUT_FILENO);
	(void)close(saved);
	assert_non_null(strstr(text, "args 2 " PROGRAM " x\n"));
}

static void nothing_else_is_inherited(void **state)
{
	int extra[50], fds[] = { file_at(40) };

	for (size_t i = 0; i < ARRAY_SIZE(extra); i++)
		extra[i] = make_file();
	assert_int_equal(setenv("LD_DEBUG_OUTPUT", "/nowhere", 1), 0);
	assert_arrive(fds, 1, -1);
	assert_arrive(NULL, 0, -1);
	for (size_t i = 0; i < ARRAY_SIZE(extra); i++)
		(void)close(extra[i]);
	(void)close(fds[0]);
	assert_int_equal(unsetenv("LD_DEBUG_OUTPUT"), 0);
}

static void many_descriptors_arrive(void **state)
{
	_cleanup_free_ int *fds = calloc(MANY, sizeof(*fds));
	int code;

	if (fd_raise_limit(&code) < (uint64_t)(3 * MANY))
		skip();
	assert_non_null(fds);
	for (size_t i = 0; i < MANY; i++)
		fds[i] = make_file();
	assert_arrive(fds, MANY, -1);
	for (size_t i = 0; i < MANY; i++)
		(void)close(fds[i]);
}

static void an_argument_and_no_environment(void **state)
{
	_cleanup_free_ char *without = report(NULL, NULL, 0, -1),
			    *with = report("a b", NULL, 0, -1);

	assert_non_null(strstr(without, "args 1 " PROGRAM " -\n"));
	assert_non_null(strstr(with, "args 2 " PROGRAM " a b\n"));
	assert_null(strstr(without, "env "));
}

static void signals_are_the_default_ones(void **state)
{
	_cleanup_free_ char *text = NULL;
	unsigned long long ignored;
	const char *line;
	sigset_t set, old;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGRTMAX);
	assert_int_equal(sigprocmask(SIG_BLOCK, &set, &old), 0);
	text = report(NULL, NULL, 0, -1);
	assert_int_equal(sigprocmask(SIG_SETMASK, &old, NULL), 0);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)signal(SIGINT, SIG_DFL);
	assert_non_null(strstr(text, "SigBlk 0\n"));
	line = strstr(text, "SigIgn ");
	assert_non_null(line);
	assert_int_equal(sscanf(line, "SigIgn %llx", &ignored), 1);
	assert_int_equal(ignored & ~GLIBC_OWN, 0);
}

static void what_can_not_be_started_is_an_error(void **state)
{
	const int closed = 999, good = file_at(30);
	size_t before = count_fds();
	pid_t pid = -1;

	assert_int_equal(spawn_helper(&(struct spawn){ .program = "no-such-helper",
						       .fds = &good,
						       .n_fds = 1,
						       .out_fd = STDOUT_FILENO },
				      &pid),
			 -ENOENT);
	assert_int_equal(spawn_helper(&(struct spawn){ .program = PROGRAM,
						       .fds = (const int[]){ good, closed },
						       .n_fds = 2,
						       .out_fd = STDOUT_FILENO },
				      &pid),
			 -EBADF);
	assert_int_equal(
		spawn_helper(&(struct spawn){ .program = PROGRAM, .out_fd = closed }, &pid),
		-EBADF);
	assert_int_equal(count_fds(), before);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child was left */
	assert_int_equal(errno, ECHILD);
	(void)close(good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(descriptors_get_their_numbers),
		cmocka_unit_test(standard_output_may_have_any_number),
		cmocka_unit_test(it_may_be_standard_output_already),
		cmocka_unit_test(nothing_else_is_inherited),
		cmocka_unit_test(many_descriptors_arrive),
		cmocka_unit_test(an_argument_and_no_environment),
		cmocka_unit_test(signals_are_the_default_ones),
		cmocka_unit_test(what_can_not_be_started_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
