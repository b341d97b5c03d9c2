/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/creds.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/parse.h"

/* struct creds.changed */
#define CHANGED_UMASK (1U << 0)
#define CHANGED_GROUPS (1U << 1)
#define CHANGED_GID (1U << 2)
#define CHANGED_UID (1U << 3)
#define CHANGED_CAPS (1U << 4)

#define CAP_BIT(cap) (1ULL << (cap))

/* What a caller other than root must not have from us: these change the outcome of a creation. */
#define CAPS_NOT_FOR_CALLER                                               \
	(CAP_BIT(CAP_CHOWN) | CAP_BIT(CAP_FOWNER) | CAP_BIT(CAP_FSETID) | \
	 CAP_BIT(CAP_LINUX_IMMUTABLE) | CAP_BIT(CAP_SYS_RESOURCE))
#define CAPS_NOT_FOR_WRITER (CAP_BIT(CAP_FSETID) | CAP_BIT(CAP_SYS_RESOURCE))

#define STATUS_MAX 16384 /* of /proc/PID/status: NGROUPS_MAX is not followed to its end */

static struct __user_cap_data_struct own_caps[_LINUX_CAPABILITY_U32S_3];

/* Sets the thread's effective capabilities to ours without `dropped`. */
static int set_caps(uint64_t dropped)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];

	memcpy(caps, own_caps, sizeof(caps));
	caps[0].effective &= ~(uint32_t)dropped;
	caps[1].effective &= ~(uint32_t)(dropped >> 32);
	return syscall(SYS_capset, &header, caps) < 0 ? -errno : 0;
}

/* setfsuid(2) reports nothing: what it returns is the id that was. */
static int set_fsuid(uid_t uid)
{
	(void)setfsuid(uid);
	return (uid_t)setfsuid((uid_t)-1) == uid ? 0 : -EPERM;
}

static int set_fsgid(gid_t gid)
{
	(void)setfsgid(gid);
	return (gid_t)setfsgid((gid_t)-1) == gid ? 0 : -EPERM;
}

static int set_groups(size_t n, const gid_t *groups)
{
	return syscall(SYS_setgroups, n, groups) < 0 ? -errno : 0;
}

int creds_process_init(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };

	if (syscall(SYS_capget, &header, own_caps) < 0)
		return -errno;
	return set_groups(0, NULL);
}

int creds_thread_init(void)
{
	if (unshare(CLONE_FS) < 0)
		return -errno;
	(void)umask(0);
	return 0;
}

static size_t parse_groups(char *line, gid_t *ret, size_t max)
{
	size_t n = 0;
	char *word;

	while (n < max && (word = strsep(&line, " \t"))) {
		uint32_t gid;

		if (parse_u32(word, UINT32_MAX - 1, &gid) >= 0)
			ret[n++] = gid;
	}
	return n;
}

/*
 * What /proc/PID/status says behind `key` ("\nGroups:"), up to the end of the line, in *ret_text,
 * owned by the caller. NULL if the process is gone or not visible.
 */
static char *read_status(uint32_t pid, const char *key, char **ret_text)
{
	_cleanup_close_ int fd = -EBADF;
	char path[32], *line;
	ssize_t n;

	if (pid == 0)
		return NULL;
	(void)snprintf(path, sizeof(path), "/proc/%u/status", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	*ret_text = malloc(STATUS_MAX + 1);
	if (fd < 0 || !*ret_text)
		return NULL;
	n = fd_read_all(fd, *ret_text, STATUS_MAX);
	(*ret_text)[MAX_OF(n, 0)] = '\0';
	line = strstr(*ret_text, key);
	if (!line)
		return NULL;
	line += strlen(key);
	line[strcspn(line, "\n")] = '\0';
	return line;
}

/* The groups of a process, for kernels that do not tell; none if it is gone or not visible. */
static size_t read_groups(uint32_t pid, gid_t *ret, size_t max)
{
	_cleanup_free_ char *text = NULL;
	char *line = read_status(pid, "\nGroups:", &text);

	return line ? parse_groups(line, ret, max) : 0;
}

bool creds_caller_is_admin(const struct request *request)
{
	_cleanup_free_ char *text = NULL;
	const char *line = read_status(request->pid, "\nCapEff:", &text);
	uint64_t caps;

	return line && sscanf(line, "%" SCNx64, &caps) == 1 && caps & CAP_BIT(CAP_SYS_ADMIN);
}

static int enter_groups(struct creds *creds, const struct request *request)
{
	gid_t found[REQUEST_GROUPS_MAX];
	const gid_t *groups = request->groups;
	size_t n = request->n_groups;
	int r;

	if (!request->has_groups) {
		n = read_groups(request->pid, found, ARRAY_SIZE(found));
		groups = found;
	}
	if (n == 0)
		return 0;
	r = set_groups(n, groups);
	if (r >= 0)
		creds->changed |= CHANGED_GROUPS;
	return r;
}

static int enter_gid(struct creds *creds, gid_t gid)
{
	if (gid == 0)
		return 0;
	creds->changed |= CHANGED_GID;
	return set_fsgid(gid);
}

/* Root stays what we are. Anybody else loses the file system capabilities with the fsuid, and gets
 * back those that must not be missing. */
static int enter_uid(struct creds *creds, uid_t uid)
{
	int r;

	if (uid == 0)
		return 0;
	creds->changed |= CHANGED_UID | CHANGED_CAPS;
	r = set_fsuid(uid);
	return r < 0 ? r : set_caps(CAPS_NOT_FOR_CALLER);
}

static void enter_umask(struct creds *creds, mode_t mask)
{
	if (mask == 0)
		return;
	(void)umask(mask);
	creds->changed |= CHANGED_UMASK;
}

int creds_enter_caller(struct creds *creds, const struct request *request, mode_t umask,
		       const gid_t *group)
{
	bool known = request->uid != REQUEST_NO_ID && request->gid != REQUEST_NO_ID;
	int r = 0;

	if (known && request->uid != 0)
		r = enter_groups(creds, request);
	if (r >= 0 && (known || group))
		r = enter_gid(creds, group ? *group : request->gid);
	if (r >= 0 && known)
		r = enter_uid(creds, request->uid);
	if (r < 0) {
		creds_leave(creds);
		return r;
	}
	enter_umask(creds, umask);
	return 0;
}

int creds_enter_writer(struct creds *creds, bool unprivileged)
{
	int r;

	if (!unprivileged)
		return 0;
	r = set_caps(CAPS_NOT_FOR_WRITER);
	if (r >= 0)
		creds->changed |= CHANGED_CAPS;
	return r;
}

void creds_leave(struct creds *creds)
{
	int saved = errno, r = 0;

	if (creds->changed & CHANGED_UMASK)
		(void)umask(0);
	if (creds->changed & CHANGED_UID)
		r = set_fsuid(0);
	if (r >= 0 && creds->changed & CHANGED_CAPS)
		r = set_caps(0);
	if (r >= 0 && creds->changed & CHANGED_GID)
		r = set_fsgid(0);
	if (r >= 0 && creds->changed & CHANGED_GROUPS)
		r = set_groups(0, NULL);
	if (r < 0) {
		(void)log_error_errno(r, "a thread can't be itself again");
		abort();
	}
	creds->changed = 0;
	errno = saved;
}
