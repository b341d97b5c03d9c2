/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/fd.h"
#include "base/parse.h"

#define PROCS_MAX 65536 /* bytes; where there are so many processes, they are not all ours */

bool cgroup_has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	while (*list) {
		size_t n = strcspn(list, " ,\n");

		if (n == len && memcmp(list, word, n) == 0)
			return true;
		list += n;
		list += *list != '\0';
	}
	return false;
}

/* Whether the line "ID:CONTROLLERS:PATH" is of the hierarchy; *ret_path is what is behind. */
static bool is_line_of(const char *line, const char *controller, const char **ret_path)
{
	const char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
	char controllers[256];
	size_t len;

	if (!path || path > line + strcspn(line, "\n"))
		return false;
	*ret_path = path + 1;
	len = (size_t)(path - list - 1);
	if (!controller)
		return len == 0 && line[0] == '0' && line + 1 == list;
	if (len >= sizeof(controllers))
		return false;
	memcpy(controllers, list + 1, len);
	controllers[len] = '\0';
	return cgroup_has_word(controllers, controller);
}

int cgroup_own_path(const char *text, const char *controller, char ret[CGROUP_PATH_MAX])
{
	for (const char *line = text; *line; line += *line == '\n') {
		const char *path;
		size_t len;

		if (is_line_of(line, controller, &path)) {
			len = strcspn(path, "\n");
			if (len >= CGROUP_PATH_MAX)
				return -ENAMETOOLONG;
			memcpy(ret, path, len);
			ret[len] = '\0';
			return 0;
		}
		line += strcspn(line, "\n");
	}
	return -ENOENT;
}

/* A path above the root of the cgroup namespace. */
static bool leads_up(const char *path)
{
	return strncmp(path, "/..", 3) == 0 && (path[3] == '/' || path[3] == '\0');
}

const char *cgroup_below_mount(const struct mount_entry *mount, const char *own)
{
	const char *root = strcmp(mount->root, "/") == 0 ? "" : mount->root;
	size_t len = strlen(root);

	if (own[0] != '/' || leads_up(own) || leads_up(root) || strncmp(own, root, len) != 0)
		return NULL;
	own += len;
	if (*own != '\0' && *own != '/')
		return NULL;
	return own + strspn(own, "/");
}

bool cgroup_is_hierarchy(const struct mount_entry *mount, const char *controller)
{
	if (!controller)
		return strcmp(mount->fstype, "cgroup2") == 0;
	return strcmp(mount->fstype, "cgroup") == 0 &&
	       cgroup_has_word(mount->super_options, controller);
}

/* Returns an owned descriptor, or -errno: -ENOENT if something else lies on the mount point. */
static int open_below(const struct mount_entry *mount, const char *below, bool v2)
{
	_cleanup_close_ int top = open(mount->target, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct statfs fs;
	int fd;

	if (top < 0 || fstatfs(top, &fs) < 0)
		return -errno;
	if (fs.f_type != (v2 ? CGROUP2_SUPER_MAGIC : CGROUP_SUPER_MAGIC))
		return -ENOENT;
	fd = openat(top, *below ? below : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

/* The first mount that shows the cgroup `own`. */
static int find_mount(const char *controller, const char *own, int *ret_fd, struct error *err)
{
	_cleanup_mount_table_ struct mount_table *table = NULL;
	int r = mount_table_load(&table, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < mount_table_size(table); i++) {
		const struct mount_entry *mount = mount_table_get(table, i);
		const char *below = cgroup_below_mount(mount, own);

		if (!below || !cgroup_is_hierarchy(mount, controller))
			continue;
		r = open_below(mount, below, !controller);
		if (r >= 0) {
			*ret_fd = r;
			return 0;
		}
	}
	return error_set(err, ERROR_PRECONDITION, -ENOENT, "it is not mounted where %s can be seen",
			 own);
}

int cgroup_open_own(const char *controller, int *ret_fd, struct error *err)
{
	char text[CGROUP_TEXT_MAX], own[CGROUP_PATH_MAX];
	int r = cgroup_read(AT_FDCWD, "/proc/self", "cgroup", text);

	if (r < 0)
		return error_errno(err, r, "read /proc/self/cgroup");
	r = cgroup_own_path(text, controller, own);
	if (r < 0)
		return error_set(err, ERROR_PRECONDITION, r, "there is no such hierarchy");
	return find_mount(controller, own, ret_fd, err);
}

/* The number of `n` digits at `s`. */
static int parse_number(const char *s, size_t n, uint64_t *ret)
{
	char number[24];

	if (n >= sizeof(number))
		return -EBADMSG;
	memcpy(number, s, n);
	number[n] = '\0';
	return parse_u64(number, ret) < 0 ? -EBADMSG : 0;
}

int cgroup_parse_counter(const char *text, const char *key, uint64_t *ret)
{
	size_t len = key ? strlen(key) : 0;

	if (!key)
		return parse_number(text, strcspn(text, "\n"), ret);
	for (const char *line = text; *line; line += *line == '\n') {
		size_t end = strcspn(line, "\n");

		if (strncmp(line, key, len) == 0 && line[len] == ' ')
			return parse_number(line + len + 1, end - len - 1, ret);
		line += end;
	}
	return -EBADMSG;
}

static int open_file(int dir_fd, const char *name, const char *file, int flags)
{
	char path[CGROUP_PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s/%s", name, file), fd;

	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENAMETOOLONG;
	fd = openat(dir_fd, path, flags | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int cgroup_read(int dir_fd, const char *name, const char *file, char ret[CGROUP_TEXT_MAX])
{
	_cleanup_close_ int fd = open_file(dir_fd, name, file, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = fd_read_all(fd, ret, CGROUP_TEXT_MAX - 1);
	if (n < 0)
		return (int)n;
	ret[n] = '\0';
	return 0;
}

int cgroup_write(int dir_fd, const char *name, const char *file, const char *text)
{
	_cleanup_close_ int fd = open_file(dir_fd, name, file, O_WRONLY);

	return fd < 0 ? fd : fd_write_all(fd, text, strlen(text));
}

int cgroup_read_counter(int dir_fd, const char *name, const char *file, const char *key,
			uint64_t *ret)
{
	char text[CGROUP_TEXT_MAX];
	int r = cgroup_read(dir_fd, name, file, text);

	return r < 0 ? r : cgroup_parse_counter(text, key, ret);
}

int cgroup_enter(int dir_fd, const char *name, pid_t pid)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%d", (int)pid);
	return cgroup_write(dir_fd, name, "cgroup.procs", text);
}

static bool is_child(pid_t pid)
{
	char name[32], text[CGROUP_TEXT_MAX];
	const char *parent;
	uint64_t value;

	(void)snprintf(name, sizeof(name), "/proc/%d", (int)pid);
	if (cgroup_read(AT_FDCWD, name, "status", text) < 0)
		return false;
	parent = strstr(text, "\nPPid:\t");
	return parent && cgroup_parse_counter(parent + 7, NULL, &value) == 0 &&
	       value == (uint64_t)getpid();
}

/* Calls each(pid) for the processes of the cgroup `name`, up to the first negative result. */
static int for_each_process(int dir_fd, const char *name,
			    int (*each)(int dir_fd, pid_t pid, const char *to), const char *to)
{
	_cleanup_close_ int fd = open_file(dir_fd, name, "cgroup.procs", O_RDONLY);
	_cleanup_free_ char *text = calloc(1, PROCS_MAX);
	ssize_t n = fd < 0 ? fd : !text ? -ENOMEM : fd_read_all(fd, text, PROCS_MAX - 1);

	if (n < 0)
		return (int)n;
	if (n == PROCS_MAX - 1)
		return -EBUSY;
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
		uint32_t pid;
		int r;

		*end = '\0';
		r = parse_u32(line, INT32_MAX, &pid);
		if (r >= 0)
			r = each(dir_fd, (pid_t)pid, to);
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_ours(int dir_fd, pid_t pid, const char *to)
{
	return pid == getpid() || is_child(pid) ? 0 : -EBUSY;
}

/* A process that has ended meanwhile need not move. */
static int move(int dir_fd, pid_t pid, const char *to)
{
	int r = cgroup_enter(dir_fd, to, pid);

	return r == -ESRCH ? 0 : r;
}

static int enable(int dir_fd, const char *controller)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "+%s", controller);
	return cgroup_write(dir_fd, ".", "cgroup.subtree_control", text);
}

/* We and our children go to the leaf, to make room; back if it does not help. */
static int enable_from_leaf(int dir_fd, const char *controller, const char *leaf)
{
	int r = mkdirat(dir_fd, leaf, 0755) < 0 && errno != EEXIST ? -errno : 0;

	if (r >= 0)
		r = for_each_process(dir_fd, ".", move, leaf);
	if (r >= 0)
		r = enable(dir_fd, controller);
	if (r < 0) {
		(void)for_each_process(dir_fd, leaf, move, ".");
		(void)unlinkat(dir_fd, leaf, AT_REMOVEDIR);
	}
	return r;
}

int cgroup_enable(int dir_fd, const char *controller, const char *leaf, struct error *err)
{
	char text[CGROUP_TEXT_MAX];
	int r = cgroup_read(dir_fd, ".", "cgroup.controllers", text);

	if (r >= 0 && !cgroup_has_word(text, controller))
		return error_set(err, ERROR_PRECONDITION, -EOPNOTSUPP,
				 "the keeper's cgroup is not given the %s controller", controller);
	if (r >= 0)
		r = cgroup_read(dir_fd, ".", "cgroup.subtree_control", text);
	if (r >= 0 && cgroup_has_word(text, controller))
		return 0;
	if (r >= 0)
		r = enable(dir_fd, controller);
	if (r == -EBUSY && for_each_process(dir_fd, ".", check_ours, NULL) < 0)
		return error_set(err, ERROR_PRECONDITION, r,
				 "processes of others are in the keeper's cgroup");
	if (r == -EBUSY)
		r = enable_from_leaf(dir_fd, controller, leaf);
	return r < 0 ? error_errno(err, r, "pass on the %s controller", controller) : 0;
}
