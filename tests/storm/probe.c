/* SPDX-License-Identifier: Apache-2.0 */

/*
 * storm-probe CALL FILE OUTPUT - one small call again and again, and how long each took.
 *
 *   statx  statx of FILE with AT_STATX_FORCE_SYNC: one request to the worker each time
 *   open   open, read of 4 KiB and close
 *   read   pread of 4 KiB of FILE, which was opened at the start
 *
 * Until standard input ends. OUTPUT gets two 64-bit numbers per call in this machine's order: when
 * it began (CLOCK_MONOTONIC) and how long it took, in nanoseconds. A call that fails ends the probe
 * with exit code 1 and its name on stderr.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/macros.h"

#define BLOCK 4096
#define BLOCKS 64
#define NAP_NS 50000

struct probe {
	const char *path;
	int fd; /* of FILE, for "read" */
	unsigned int n;
	char buffer[BLOCK];
};

static int call_statx(struct probe *p)
{
	struct statx stx;

	return statx(AT_FDCWD, p->path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx);
}

static int call_open(struct probe *p)
{
	_cleanup_close_ int fd = open(p->path, O_RDONLY | O_CLOEXEC);

	return fd < 0 || read(fd, p->buffer, BLOCK) < 0 ? -1 : 0;
}

static int call_read(struct probe *p)
{
	return pread(p->fd, p->buffer, BLOCK, (off_t)(p->n++ % BLOCKS) * BLOCK) == BLOCK ? 0 : -1;
}

static bool go_on(void)
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };

	return poll(&p, 1, 0) == 0;
}

static int measure(struct probe *p, int (*call)(struct probe *), FILE *out)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };

	while (go_on()) {
		uint64_t sample[2] = { clock_now_ns() };

		if (call(p) < 0)
			return -errno;
		sample[1] = clock_now_ns() - sample[0];
		if (fwrite(sample, sizeof(sample), 1, out) != 1)
			return -EIO;
		(void)nanosleep(&nap, NULL);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*call)(struct probe *p);
	} calls[] = { { "statx", call_statx }, { "open", call_open }, { "read", call_read } };
	int (*call)(struct probe *) = NULL;
	struct probe p = { .fd = -EBADF };
	FILE *out;
	int r;

	for (size_t i = 0; argc == 4 && i < ARRAY_SIZE(calls); i++)
		if (strcmp(argv[1], calls[i].name) == 0)
			call = calls[i].call;
	if (!call) {
		(void)fprintf(stderr, "usage: storm-probe statx|open|read FILE OUTPUT\n");
		return 2;
	}
	p.path = argv[2];
	p.fd = open(p.path, O_RDONLY | O_CLOEXEC);
	out = fopen(argv[3], "we");
	r = p.fd < 0 || !out ? -errno : measure(&p, call, out);
	close_fd(&p.fd);
	if (out && fclose(out) != 0 && r == 0)
		r = -errno;
	if (r < 0)
		(void)fprintf(stderr, "%s %s: %s\n", argv[1], p.path, strerrordesc_np(-r));
	return r < 0;
}
