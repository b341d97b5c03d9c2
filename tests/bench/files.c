/* SPDX-License-Identifier: Apache-2.0 */

/*
 * files MODE DIRECTORY THREADS - the metadata half of a training job's input pipeline, timed.
 *
 *   read     open, read to the end and close every file below DIRECTORY
 *   stat     stat every file
 *   readdir  list every directory
 *
 * The names are collected first and are not timed; "readdir" lists the directories that were found.
 * Each thread takes every THREADS-th name. Prints the seconds that the slowest thread needed.
 */

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/macros.h"
#include "base/parse.h"
#include "base/strv.h"

#define BUFFER_SIZE (1U << 20)
#define THREADS_MAX 64

struct job {
	const struct strv *names;
	int (*run)(const char *name, char *buffer);
	size_t first, step;
	int failed;
};

static int read_file(const char *name, char *buffer)
{
	_cleanup_close_ int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	do
		n = read(fd, buffer, BUFFER_SIZE);
	while (n == BUFFER_SIZE);
	return n < 0 ? -errno : 0;
}

static int stat_file(const char *name, char *buffer)
{
	struct stat st;

	return lstat(name, &st) < 0 ? -errno : 0;
}

static int list_directory(const char *name, char *buffer)
{
	DIR *dir = opendir(name);

	if (!dir)
		return -errno;
	while (readdir(dir))
		;
	return closedir(dir) < 0 ? -errno : 0;
}

static int collect(const char *path, struct strv *files, struct strv *directories)
{
	DIR *dir = opendir(path);
	struct dirent *d;
	int r = dir ? strv_add(directories, path) : -errno;

	while (r >= 0 && (d = readdir(dir))) {
		char child[4096];

		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		(void)snprintf(child, sizeof(child), "%s/%s", path, d->d_name);
		r = d->d_type == DT_DIR ? collect(child, files, directories)
					: strv_add(files, child);
	}
	if (dir)
		(void)closedir(dir);
	return r;
}

static void *work(void *argument)
{
	struct job *job = argument;
	_cleanup_free_ char *buffer = malloc(BUFFER_SIZE);

	if (!buffer)
		job->failed = -ENOMEM;
	for (size_t i = job->first; i < job->names->n && job->failed == 0; i += job->step)
		job->failed = job->run(job->names->items[i], buffer);
	return NULL;
}

static int run_threads(const struct strv *names, int (*run)(const char *, char *), size_t n)
{
	struct job jobs[THREADS_MAX];
	pthread_t threads[THREADS_MAX];
	int failed = 0;

	for (size_t i = 0; i < n; i++) {
		jobs[i] = (struct job){ .names = names, .run = run, .first = i, .step = n };
		if (pthread_create(&threads[i], NULL, work, &jobs[i]) != 0)
			abort();
	}
	for (size_t i = 0; i < n; i++) {
		(void)pthread_join(threads[i], NULL);
		failed = failed ?: jobs[i].failed;
	}
	return failed;
}

int main(int argc, char **argv)
{
	_cleanup_strv_ struct strv files = { 0 }, directories = { 0 };
	int (*run)(const char *, char *) = NULL;
	uint64_t begin;
	uint32_t n;
	int r;

	if (argc == 4 && strcmp(argv[1], "read") == 0)
		run = read_file;
	else if (argc == 4 && strcmp(argv[1], "stat") == 0)
		run = stat_file;
	else if (argc == 4 && strcmp(argv[1], "readdir") == 0)
		run = list_directory;
	if (!run || parse_u32(argv[3], THREADS_MAX, &n) < 0 || n == 0) {
		(void)fprintf(stderr, "usage: files read|stat|readdir DIRECTORY THREADS\n");
		return 2;
	}
	/* relative names: the length of the path to DIRECTORY is not what is measured */
	r = chdir(argv[2]) < 0 ? -errno : collect(".", &files, &directories);
	begin = clock_now_ns();
	if (r >= 0)
		r = run_threads(run == list_directory ? &directories : &files, run, n);
	if (r < 0) {
		(void)fprintf(stderr, "files: %s\n", strerrordesc_np(-r));
		return 1;
	}
	(void)printf("%.6f\n", (double)(clock_now_ns() - begin) / 1e9);
	return 0;
}
