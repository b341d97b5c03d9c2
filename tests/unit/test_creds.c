/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuse/creds.h"

#define USER 12345
#define USERS_GROUP 12346
#define OTHER_GROUP 12347

static char dir[] = "/tmp/holdfast-creds-XXXXXX";
static int dir_fd = -EBADF;

static struct request caller(uint32_t uid, uint32_t gid)
{
	return (struct request){ .uid = uid, .gid = gid, .has_groups = true };
}

static struct stat create_as(const struct request *request, mode_t umask, const gid_t *group,
			     mode_t mode)
{
	struct creds creds = CREDS_INIT;
	struct stat st;
	int fd;

	assert_int_equal(creds_enter_caller(&creds, request, umask, group), 0);
	fd = openat(dir_fd, "file", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode);
	creds_leave(&creds);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	close_fd(&fd);
	assert_int_equal(unlinkat(dir_fd, "file", 0), 0);
	return st;
}

static void a_new_file_is_the_callers(void **state)
{
	const struct request r = caller(USER, USERS_GROUP);
	struct stat st = create_as(&r, 0, NULL, 0666);

	assert_int_equal(st.st_uid, USER);
	assert_int_equal(st.st_gid, USERS_GROUP);
	assert_int_equal(st.st_mode & 07777, 0666);
}

static void the_callers_umask_holds_and_ends_with_the_request(void **state)
{
	const struct request r = caller(USER, USERS_GROUP);

	assert_int_equal(create_as(&r, 027, NULL, 0666).st_mode & 07777, 0640);
	assert_int_equal(create_as(&r, 0, NULL, 0666).st_mode & 07777, 0666);
}

static void a_volumes_group_is_the_new_files(void **state)
{
	const struct request user = caller(USER, USERS_GROUP);
	const struct request unknown = caller(REQUEST_NO_ID, REQUEST_NO_ID);
	const gid_t group = OTHER_GROUP;
	struct stat st = create_as(&user, 0, &group, 0666);

	assert_int_equal(st.st_uid, USER);
	assert_int_equal(st.st_gid, OTHER_GROUP);
	st = create_as(&unknown, 0, &group, 0666);
	assert_int_equal(st.st_uid, 0);
	assert_int_equal(st.st_gid, OTHER_GROUP);
}

static void only_members_make_setgid_files_in_a_setgid_directory(void **state)
{
	struct request r = caller(USER, USERS_GROUP);
	struct stat st;

	assert_int_equal(fchown(dir_fd, 0, OTHER_GROUP), 0);
	assert_int_equal(fchmod(dir_fd, 02700), 0);
	st = create_as(&r, 0, NULL, 02770);
	assert_int_equal(st.st_gid, OTHER_GROUP);
	assert_int_equal(st.st_mode & 07777, 0770);
	r.n_groups = 1;
	r.groups[0] = OTHER_GROUP;
	assert_int_equal(create_as(&r, 0, NULL, 02770).st_mode & 07777, 02770);
	assert_int_equal(fchmod(dir_fd, 0700), 0);
}

static int mode_after_write(bool unprivileged)
{
	struct creds creds = CREDS_INIT;
	struct stat st;
	int fd = openat(dir_fd, "suid", O_CREAT | O_WRONLY | O_CLOEXEC, 0700);

	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, 06755), 0);
	assert_int_equal(creds_enter_writer(&creds, unprivileged), 0);
	assert_int_equal(write(fd, "x", 1), 1);
	creds_leave(&creds);
	assert_int_equal(fstat(fd, &st), 0);
	close_fd(&fd);
	assert_int_equal(unlinkat(dir_fd, "suid", 0), 0);
	return st.st_mode & 07777;
}

static void set_id_bits_end_with_a_plain_users_write(void **state)
{
	assert_int_equal(mode_after_write(true), 0755);
	assert_int_equal(mode_after_write(false), 06755);
}

static void *be_the_caller(void *arg)
{
	struct creds *creds = arg;
	const struct request r = caller(USER, USERS_GROUP);

	assert_int_equal(creds_thread_init(), 0);
	assert_int_equal(creds_enter_caller(creds, &r, 077, NULL), 0);
	assert_int_equal(setfsuid((uid_t)-1), USER);
	return NULL;
}

static void other_threads_keep_their_own(void **state)
{
	struct creds creds = CREDS_INIT;
	const struct request root = caller(0, 0);
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, be_the_caller, &creds), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(setfsuid((uid_t)-1), 0);
	assert_int_equal(create_as(&root, 0, NULL, 0666).st_mode & 07777, 0666);
}

/* A child that is in OTHER_GROUP and waits to be killed. */
static pid_t start_member(void)
{
	const gid_t group = OTHER_GROUP;
	int ready[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (setgroups(1, &group) == 0)
			(void)!write(ready[1], "", 1);
		(void)pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	close_fd(&ready[0]);
	close_fd(&ready[1]);
	return pid;
}

static void without_word_from_the_kernel_groups_come_from_the_process(void **state)
{
	struct request r = caller(USER, USERS_GROUP);
	pid_t member = start_member();

	r.has_groups = false;
	r.pid = (uint32_t)member;
	assert_int_equal(fchown(dir_fd, 0, OTHER_GROUP), 0);
	assert_int_equal(fchmod(dir_fd, 02700), 0);
	assert_int_equal(create_as(&r, 0, NULL, 02770).st_mode & 07777, 02770);
	assert_int_equal(kill(member, SIGKILL), 0);
	assert_int_equal(waitpid(member, NULL, 0), member);
	assert_int_equal(create_as(&r, 0, NULL, 02770).st_mode & 07777, 0770);
	assert_int_equal(fchmod(dir_fd, 0700), 0);
}

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir_fd < 0 || creds_process_init() < 0 || creds_thread_init() < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	close_fd(&dir_fd);
	(void)rmdir(dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_file_is_the_callers),
		cmocka_unit_test(the_callers_umask_holds_and_ends_with_the_request),
		cmocka_unit_test(a_volumes_group_is_the_new_files),
		cmocka_unit_test(only_members_make_setgid_files_in_a_setgid_directory),
		cmocka_unit_test(set_id_bits_end_with_a_plain_users_write),
		cmocka_unit_test(other_threads_keep_their_own),
		cmocka_unit_test(without_word_from_the_kernel_groups_come_from_the_process),
	};

	if (geteuid() != 0) {
		(void)printf("needs root: credentials can't be switched\n");
		return 77; /* meson: skipped */
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
