/* SPDX-License-Identifier: Apache-2.0 */

/* A helper program for test_helper.c: says what it was started with. */

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void report_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *d;

	if (!dir)
		exit(EXIT_FAILURE);
	while ((d = readdir(dir))) {
		struct stat st;
		int fd;

		if (sscanf(d->d_name, "%d", &fd) == 1 && fd > STDERR_FILENO && fd != dirfd(dir) &&
		    fstat(fd, &st) == 0)
			printf("fd %d %lu\n", fd, (unsigned long)st.st_ino);
	}
	(void)closedir(dir);
}

static void report_signals(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256], name[16];
	unsigned long long set;

	if (!f)
		exit(EXIT_FAILURE);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%15[^:]: %llx", name, &set) == 2 &&
		    (strcmp(name, "SigBlk") == 0 || strcmp(name, "SigIgn") == 0))
			printf("%s %llx\n", name, set);
	(void)fclose(f);
}

int main(int argc, char **argv)
{
	printf("args %d %s %s\n", argc, argv[0], argc > 1 ? argv[1] : "-");
	for (char **e = environ; *e; e++)
		printf("env %s\n", *e);
	report_signals();
	report_fds();
	return 0;
}
