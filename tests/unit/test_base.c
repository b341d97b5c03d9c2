/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/log.h"
#include "base/socket.h"
#include "base/strv.h"

static char directory[] = "/tmp/test-base-XXXXXX";

static int make_directory(void **state)
{
	return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
	return rmdir(directory);
}

static void an_error_names_the_call_and_the_cause(void **state)
{
	struct error err = ERROR_INIT;

	assert_int_equal(error_errno(&err, -ENOSPC, "write %s", "record"), -ENOSPC);
	assert_string_equal(err.text, "write record: No space left on device");
	assert_int_equal(err.kind, ERROR_EXHAUSTED);
	assert_int_equal(error_prefix(&err, "volume %s", "a"), -ENOSPC);
	assert_string_equal(err.text, "volume a: write record: No space left on device");
}

static void an_error_that_is_too_long_is_cut(void **state)
{
	struct error err = ERROR_INIT;
	char text[3000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	(void)error_errno(&err, -EIO, "%s", text);
	assert_true(strlen(err.text) < sizeof(err.text));
	(void)error_prefix(&err, "%s", text);
	assert_true(strlen(err.text) < sizeof(err.text));
}

static void a_list_of_strings_grows_and_shrinks(void **state)
{
	_cleanup_strv_ struct strv v = { 0 };

	assert_int_equal(strv_add(&v, "a"), 0);
	assert_int_equal(strv_add(&v, "b"), 0);
	assert_int_equal(strv_add(&v, "a"), 0);
	strv_remove(&v, "a");
	assert_int_equal(v.n, 1);
	assert_string_equal(v.items[0], "b");
	assert_null(v.items[1]);
	assert_true(strv_contains(&v, "b"));
	assert_false(strv_contains(&v, "a"));
}

static void a_file_is_replaced_whole_and_private(void **state)
{
	_cleanup_close_ int dir = open(directory, O_DIRECTORY | O_CLOEXEC);
	_cleanup_free_ char *text = NULL;
	struct error err = ERROR_INIT;
	struct stat st;
	size_t size;

	assert_int_equal(file_replace(dir, "f", "one", 3, &err), 0);
	assert_int_equal(file_replace(dir, "f", "second", 6, &err), 0);
	assert_int_equal(file_load(dir, "f", 6, &text, &size, &err), 0);
	assert_string_equal(text, "second");
	assert_int_equal(fstatat(dir, "f", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(unlinkat(dir, "f", 0), 0);
	/* remove_directory() fails if a temporary file was left */
}

static void a_file_that_is_too_long_or_a_link_is_refused(void **state)
{
	_cleanup_close_ int dir = open(directory, O_DIRECTORY | O_CLOEXEC);
	_cleanup_free_ char *text = NULL;
	struct error err = ERROR_INIT;
	size_t size;

	assert_int_equal(file_replace(dir, "f", "12345", 5, &err), 0);
	assert_int_equal(file_load(dir, "f", 4, &text, &size, &err), -EFBIG);
	assert_int_equal(symlinkat("f", dir, "link"), 0);
	assert_int_equal(file_load(dir, "link", 10, &text, &size, &err), -ELOOP);
	assert_int_equal(file_load(dir, "missing", 10, &text, &size, &err), -ENOENT);
	assert_null(text);
	assert_int_equal(unlinkat(dir, "f", 0), 0);
	assert_int_equal(unlinkat(dir, "link", 0), 0);
}

static void descriptors_travel_with_a_message(void **state)
{
	int pair[2], sent[2], got[SOCKET_FDS_MAX];
	char text[8];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(pipe2(sent, O_CLOEXEC), 0);
	assert_int_equal(socket_send(pair[0], "hello", 5, sent, 2, 0), 0);
	assert_int_equal(socket_recv(pair[1], text, sizeof(text), got, 0), 5);
	assert_true(got[0] >= 0 && got[1] >= 0);
	assert_int_equal(got[2], -EBADF);
	assert_true(fcntl(got[0], F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fd_write_all(got[1], "x", 1), 0);
	assert_int_equal(fd_read_all(sent[0], text, 1), 1);
	for (int i = 0; i < 2; i++) {
		close_fd(&pair[i]);
		close_fd(&sent[i]);
		close_fd(&got[i]);
	}
}

static void a_message_that_is_too_long_is_refused_and_its_descriptors_closed(void **state)
{
	int pair[2], got[SOCKET_FDS_MAX], before, after;
	char text[4];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	before = fd_dup(0);
	close_fd(&before);
	before = fd_dup(0);
	assert_int_equal(socket_send(pair[0], "too long", 8, pair, 1, 0), 0);
	assert_int_equal(socket_recv(pair[1], text, sizeof(text), got, 0), -EMSGSIZE);
	after = fd_dup(0);
	assert_int_equal(after, before + 1);
	close_fd(&before);
	close_fd(&after);
	assert_int_equal(socket_send(pair[0], "", 0, NULL, 0, 0), 0);
	close_fd(&pair[0]);
	assert_int_equal(socket_recv(pair[1], text, sizeof(text), got, 0), 0);
	close_fd(&pair[1]);
}

static void a_stale_socket_is_replaced_and_a_live_one_is_not(void **state)
{
	struct error err = ERROR_INIT;
	char path[64];
	struct stat st;
	int first, second;

	(void)snprintf(path, sizeof(path), "%s/s", directory);
	first = socket_listen(path, &err);
	assert_true(first >= 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(socket_listen(path, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, path));
	close_fd(&first);
	second = socket_listen(path, &err);
	assert_true(second >= 0);
	close_fd(&second);
	assert_int_equal(unlink(path), 0);
}

/* Runs `emit` with stderr in a pipe and returns what came out of it. */
static void capture(void (*emit)(void), char *buf, size_t size)
{
	int out[2], saved = fd_dup(STDERR_FILENO);
	ssize_t n;

	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_true(dup2(out[1], STDERR_FILENO) >= 0);
	(void)unsetenv("JOURNAL_STREAM");
	log_open("test", LOG_LEVEL_INFO);
	emit();
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	log_open("test", LOG_LEVEL_INFO);
	close_fd(&out[1]);
	close_fd(&saved);
	n = fd_read_all(out[0], buf, size - 1);
	assert_true(n >= 0);
	buf[n] = '\0';
	close_fd(&out[0]);
}

static void emit_with_fields(void)
{
	LOG_FIELD("VOLUME_ID", "pv 1");
	log_info("staged \"%s\"\n", "x");
}

static void a_log_line_is_one_line_of_logfmt(void **state)
{
	char text[1024];

	capture(emit_with_fields, text, sizeof(text));
	assert_non_null(strstr(text, " level=info "));
	assert_non_null(strstr(text, " msg=\"staged \\\"x\\\"\\n\" volume_id=\"pv 1\"\n"));
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void emit_too_much(void)
{
	char filler[1024];

	memset(filler, 'x', sizeof(filler) - 1);
	filler[sizeof(filler) - 1] = '\0';
	for (int i = 0; i < 200; i++) /* more than a pipe of 64 KiB holds: must not block */
		log_info("%s", filler);
}

static void emit_one(void)
{
	log_info("after");
}

static void a_reader_that_does_not_keep_up_never_stalls_the_writer(void **state)
{
	static char text[256 * 1024];

	capture(emit_too_much, text, sizeof(text));
	assert_true(strlen(text) > 32 * 1024);
	capture(emit_one, text, sizeof(text));
	assert_non_null(strstr(text, "log lines dropped"));
	assert_non_null(strstr(text, "msg=after"));
}

static void *fill(void *arg)
{
	emit_too_much();
	return NULL;
}

static void emit_from_threads(void)
{
	pthread_t threads[8];

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, fill, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void nor_does_it_stall_several_writers_of_one_pipe(void **state)
{
	static char text[256 * 1024];

	for (int i = 0; i < 100; i++)
		capture(emit_from_threads, text, sizeof(text));
	assert_true(strlen(text) > 32 * 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_error_names_the_call_and_the_cause),
		cmocka_unit_test(an_error_that_is_too_long_is_cut),
		cmocka_unit_test(a_list_of_strings_grows_and_shrinks),
		cmocka_unit_test(a_file_is_replaced_whole_and_private),
		cmocka_unit_test(a_file_that_is_too_long_or_a_link_is_refused),
		cmocka_unit_test(descriptors_travel_with_a_message),
		cmocka_unit_test(a_message_that_is_too_long_is_refused_and_its_descriptors_closed),
		cmocka_unit_test(a_stale_socket_is_replaced_and_a_live_one_is_not),
		cmocka_unit_test(a_log_line_is_one_line_of_logfmt),
		cmocka_unit_test(a_reader_that_does_not_keep_up_never_stalls_the_writer),
		cmocka_unit_test(nor_does_it_stall_several_writers_of_one_pipe),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
