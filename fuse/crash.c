/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/crash.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "fuse/inbox.h"

#define FILE_MAX 4096

/* One thread at a time looks at the file; workers follow each other anyway. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The file's text, empty if there is none. */
static void read_file(const char *path, char text[FILE_MAX])
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, FILE_MAX - 1);

	text[MAX_OF(n, 0)] = '\0';
}

/* Puts `rest` in the place of the file, in one step. */
static bool replace_file(const char *path, const char *rest)
{
	_cleanup_close_ int fd = -EBADF;
	char next[PATH_MAX];
	size_t size = strlen(rest);

	if (size == 0)
		return unlink(path) == 0;
	(void)snprintf(next, sizeof(next), "%s.next", path);
	fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return fd >= 0 && write(fd, rest, size) == (ssize_t)size && rename(next, path) == 0;
}

/* Cuts the first word off *text. */
static const char *next_word(char **text)
{
	char *word = *text + strspn(*text, " ");

	*text = word + strcspn(word, " ");
	if (**text)
		*(*text)++ = '\0';
	return word;
}

/* Takes the first line, if it is about this point. Returns what is to be done, 0 for nothing. */
static int take_line(const char *path, const char *point, uint32_t opcode)
{
	char text[FILE_MAX], number[16], *rest, *line = text;
	const char *wanted, *how;

	read_file(path, text);
	rest = text + strcspn(text, "\n");
	if (*rest)
		*rest++ = '\0';
	if (strcmp(next_word(&line), point) != 0)
		return 0;
	(void)snprintf(number, sizeof(number), "%u", opcode);
	wanted = next_word(&line);
	if ((strcmp(wanted, "*") != 0 && strcmp(wanted, number) != 0) || !replace_file(path, rest))
		return 0;
	how = next_word(&line);
	return strcmp(how, "abort") == 0 ? SIGABRT : strcmp(how, "stop") == 0 ? SIGSTOP : SIGKILL;
}

void crash_point(const char *point)
{
	const char *path = getenv("HOLDFAST_CRASH_FILE");
	const struct inbox *inbox = inbox_current();
	const struct fuse_in_header *in = inbox ? inbox_request(inbox) : NULL;
	int sig;

	if (!path || !in)
		return;
	(void)pthread_mutex_lock(&lock);
	sig = take_line(path, point, in->opcode);
	(void)pthread_mutex_unlock(&lock);
	if (sig == SIGABRT)
		abort();
	else if (sig) /* to this very thread, which so gets no further */
		(void)raise(sig);
}
