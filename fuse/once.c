/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/once.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuse/crash.h"
#include "fuse/inbox.h"

/* The current request's intent; one of nobody's where there is no request. */
static struct ledger_intent *intent(void)
{
	static _Thread_local struct ledger_intent none;
	struct inbox *inbox = inbox_current();

	if (inbox)
		return &inbox->record->intent;
	none = (struct ledger_intent){ .state = LEDGER_INTENT_NONE };
	return &none;
}

static uint32_t state_of(const struct ledger_intent *in)
{
	return atomic_load_explicit(&in->state, memory_order_acquire);
}

/* `in->before` and `size` are what they are to be: BEGIN. */
static void begin(struct ledger_intent *in)
{
	atomic_store_explicit(&in->state, LEDGER_INTENT_BEGUN, memory_order_release);
	crash_point("after-intent");
}

/* RESULT. A descriptor is not kept: a successor opens it itself. */
static int finish(struct ledger_intent *in, int result)
{
	crash_point("after-call");
	in->result = result;
	atomic_store_explicit(&in->state, LEDGER_INTENT_DONE, memory_order_release);
	crash_point("after-result");
	return result;
}

static int look(int dir_fd, const char *name, struct ledger_identity *ret)
{
	struct statx stx;

	*ret = (struct ledger_identity){ .ino = 0 };
	if (statx(dir_fd, name, AT_SYMLINK_NOFOLLOW, STATX_TYPE | STATX_INO | STATX_BTIME, &stx) <
	    0)
		return errno == ENOENT ? 0 : -errno;
	*ret = (struct ledger_identity){
		.dev = makedev(stx.stx_dev_major, stx.stx_dev_minor),
		.ino = stx.stx_ino,
		.mode = stx.stx_mode & S_IFMT,
	};
	if (stx.stx_mask & STATX_BTIME) {
		ret->birth_sec = stx.stx_btime.tv_sec;
		ret->birth_nsec = stx.stx_btime.tv_nsec;
	}
	return 0;
}

static bool same(const struct ledger_identity *a, const struct ledger_identity *b)
{
	return a->ino == b->ino && a->dev == b->dev && a->birth_sec == b->birth_sec &&
	       a->birth_nsec == b->birth_nsec;
}

static int found(const struct once_making *what)
{
	return what->found ? what->found(what->context) : 0;
}

/* Whether what is there now can be what was made. */
static bool is_made(const struct once_making *what, const struct ledger_identity *now)
{
	return now->ino && now->mode == what->type && (!what->ino || now->ino == what->ino);
}

int once_make(const struct once_making *what)
{
	struct ledger_intent *in = intent();
	uint32_t state = state_of(in);
	struct ledger_identity now;
	int r;

	if (state == LEDGER_INTENT_DONE)
		return in->result < 0 ? in->result : found(what);
	r = look(what->dir_fd, what->name, &now);
	if (r < 0)
		return r;
	if (state == LEDGER_INTENT_NONE) {
		if (now.ino)
			return -EEXIST;
		begin(in);
	} else if (is_made(what, &now)) {
		(void)finish(in, 0);
		return found(what);
	}
	r = what->make(what->context);
	(void)finish(in, MIN_OF(r, 0));
	return r;
}

int once_remove(int dir_fd, const char *name, int flags)
{
	struct ledger_intent *in = intent();
	uint32_t state = state_of(in);
	struct ledger_identity now;
	int r;

	if (state == LEDGER_INTENT_DONE)
		return in->result;
	r = look(dir_fd, name, &now);
	if (r < 0)
		return r;
	if (state == LEDGER_INTENT_NONE) {
		in->before[0] = now;
		begin(in);
	} else if (!same(&now, &in->before[0])) {
		return finish(in, 0);
	}
	return finish(in, unlinkat(dir_fd, name, flags) < 0 ? -errno : 0);
}

static int look_at_both(const struct once_renaming *what, struct ledger_identity ret[2])
{
	int r = look(what->from_fd, what->name, &ret[0]);

	return r < 0 ? r : look(what->to_fd, what->new_name, &ret[1]);
}

/* Two names of one file: rename(2) does nothing, so it may be called again. */
static bool is_renamed(const struct once_renaming *what, const struct ledger_identity before[2],
		       const struct ledger_identity now[2])
{
	if (same(&before[0], &before[1]) || !same(&now[1], &before[0]))
		return false;
	if (what->flags & RENAME_EXCHANGE)
		return same(&now[0], &before[1]);
	return !same(&now[0], &before[0]);
}

int once_rename(const struct once_renaming *what)
{
	struct ledger_intent *in = intent();
	uint32_t state = state_of(in);
	struct ledger_identity now[2];
	int r;

	if (state == LEDGER_INTENT_DONE)
		return in->result;
	r = look_at_both(what, now);
	if (r < 0)
		return r;
	if (state == LEDGER_INTENT_NONE) {
		memcpy(in->before, now, sizeof(now));
		begin(in);
	} else if (is_renamed(what, in->before, now)) {
		return finish(in, 0);
	}
	return finish(in, what->rename(what->context));
}

static ssize_t file_size(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? -errno : (ssize_t)st.st_size;
}

/* How much of `buf` stands behind `from`, up to the end of the file: the beginning, or all of it.
 */
static ssize_t appended(int fd, const char *buf, size_t size, uint64_t from)
{
	_cleanup_close_ int file = -EBADF;
	char path[FD_PATH_MAX], there[4096];
	size_t done = 0;

	file = open(fd_path(fd, path), O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return -errno;
	while (done < size) {
		size_t want = MIN_OF(size - done, sizeof(there));
		ssize_t n = pread(file, there, want, (off_t)(from + done));

		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		if (memcmp(there, buf + done, (size_t)n) != 0)
			return 0; /* somebody else's */
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* A worker has begun to append; the rest of it, if any. */
static ssize_t append_rest(struct ledger_intent *in, int fd, const char *buf, size_t size)
{
	ssize_t done = appended(fd, buf, size, in->size), n = 0;

	if (done < 0)
		return done;
	if ((size_t)done < size)
		n = fd_write_at(fd, buf + done, size - (size_t)done, 0, RWF_APPEND);
	if (n < 0 && done == 0)
		return finish(in, (int)n);
	return finish(in, (int)(done + MAX_OF(n, 0)));
}

ssize_t once_append(int fd, const void *buf, size_t size)
{
	struct ledger_intent *in = intent();
	uint32_t state = state_of(in);
	ssize_t at;

	if (state == LEDGER_INTENT_DONE)
		return in->result;
	if (state == LEDGER_INTENT_BEGUN)
		return append_rest(in, fd, buf, size);
	at = file_size(fd);
	if (at < 0)
		return at;
	in->size = (uint64_t)at;
	begin(in);
	return finish(in, (int)fd_write_at(fd, buf, size, 0, RWF_APPEND));
}

static bool has_xattr(const char *path, const char *name)
{
	return getxattr(path, name, NULL, 0) >= 0;
}

/* One that is to be made must not have been there; one that is to be replaced, or may be either,
 * can be set again. */
int once_setxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
	struct ledger_intent *in = intent();
	uint32_t state = state_of(in);

	if (state == LEDGER_INTENT_DONE)
		return in->result;
	if (state == LEDGER_INTENT_NONE) {
		if ((flags & XATTR_CREATE) && has_xattr(path, name))
			return -EEXIST;
		begin(in);
	} else {
		flags &= ~XATTR_CREATE;
	}
	return finish(in, setxattr(path, name, value, size, flags) < 0 ? -errno : 0);
}

int once_removexattr(const char *path, const char *name)
{
	struct ledger_intent *in = intent();
	uint32_t state = state_of(in);

	if (state == LEDGER_INTENT_DONE)
		return in->result;
	if (state == LEDGER_INTENT_NONE && has_xattr(path, name))
		begin(in);
	else if (state == LEDGER_INTENT_BEGUN && !has_xattr(path, name))
		return finish(in, 0);
	return finish(in, removexattr(path, name) < 0 ? -errno : 0);
}
