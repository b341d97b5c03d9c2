/* SPDX-License-Identifier: Apache-2.0 */
#include "mount/path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/fd.h"

#define OPENAT2_RETRIES 64 /* of EAGAIN: a rename or mount raced with the walk (openat2(2)) */

int path_open_at(int dir_fd, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.resolve = resolve | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	for (int i = 0; i < OPENAT2_RETRIES; i++) {
		long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));

		if (fd >= 0)
			return (int)fd;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
	}
	return -EAGAIN;
}

static int check_component(const char *what, const char *path, const char *name, size_t len,
			   struct error *err)
{
	if (len == 0)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "%s '%s' has an empty component: give a normalized absolute path",
				 what, path);
	if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "%s '%s' contains '%.*s': give a normalized absolute path", what,
				 path, (int)len, name);
	if (len > NAME_MAX)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "%s has a component of %zu bytes; %d are possible", what, len,
				 NAME_MAX);
	return 0;
}

int path_check(const char *what, const char *path, struct error *err)
{
	if (!*path)
		return error_set(err, ERROR_INVALID, -EINVAL, "%s is empty: give an absolute path",
				 what);
	if (strnlen(path, PATH_MAX) >= PATH_MAX)
		return error_set(err, ERROR_INVALID, -EINVAL, "%s is longer than %d bytes", what,
				 PATH_MAX - 1);
	for (const char *p = path; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return error_set(err, ERROR_INVALID, -EINVAL,
					 "%s contains a control character (0x%02x)", what,
					 (unsigned char)*p);
	if (*path != '/')
		return error_set(err, ERROR_INVALID, -EINVAL, "%s '%s' is not absolute", what,
				 path);
	if (!path[1])
		return 0;
	for (const char *p = path; *p;) {
		const char *name = p + 1;
		size_t len = strcspn(name, "/");
		int r = check_component(what, path, name, len, err);

		if (r < 0)
			return r;
		p = name + len;
	}
	return 0;
}

void path_strip_slashes(char *path)
{
	size_t len = strlen(path);

	while (len > 1 && path[len - 1] == '/')
		path[--len] = '\0';
}

bool path_is_beneath(const char *root, const char *path)
{
	size_t len = strlen(root);

	if (strcmp(root, "/") == 0)
		return path[0] == '/';
	return strncmp(root, path, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

static int describe_open_error(int code, const char *path, struct error *err)
{
	switch (-code) {
	case ENOENT:
		return error_set(err, ERROR_NOT_FOUND, code, "%s does not exist", path);
	case ELOOP:
	case EXDEV:
		return error_set(
			err, ERROR_INVALID, code,
			"%s leads through a symbolic link; give the path that the link stands for",
			path);
	case ENOTDIR:
		return error_set(err, ERROR_INVALID, code, "%s is not a directory", path);
	default:
		return error_errno(err, code, "open %s", path);
	}
}

int path_open_beneath(const char *root, const char *path, int flags, int *ret_fd, struct error *err)
{
	_cleanup_close_ int root_fd = -EBADF;
	const char *rest;
	int fd;

	if (!path_is_beneath(root, path))
		return error_set(err, ERROR_INVALID, -EXDEV, "%s is not below %s", path, root);
	root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0)
		return describe_open_error(-errno, root, err);
	rest = strcmp(root, "/") == 0 ? path : path + strlen(root);
	while (*rest == '/')
		rest++;
	fd = path_open_at(root_fd, *rest ? rest : ".", flags, RESOLVE_BENEATH);
	if (fd < 0)
		return describe_open_error(fd, path, err);
	*ret_fd = fd;
	return 0;
}

int path_open_parent(const char *root, const char *path, int *ret_fd, const char **ret_name,
		     struct error *err)
{
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *parent = NULL;
	int r;

	if (!slash || !slash[1])
		return error_set(err, ERROR_INVALID, -EINVAL, "%s has no parent directory", path);
	parent = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	if (!parent)
		return error_errno(err, -ENOMEM, "open the directory of %s", path);
	r = path_open_beneath(root, parent, O_PATH | O_DIRECTORY, ret_fd, err);
	if (r < 0)
		return r;
	*ret_name = slash + 1;
	return 0;
}

int path_make_dir(const char *root, const char *path, bool *ret_created, int *ret_fd,
		  struct error *err)
{
	_cleanup_close_ int parent = -EBADF;
	const char *name;
	bool created = true;
	int fd, r;

	r = path_open_parent(root, path, &parent, &name, err);
	if (r < 0)
		return r;
	if (mkdirat(parent, name, 0750) < 0) {
		if (errno != EEXIST)
			return error_errno(err, -errno, "mkdir %s", path);
		created = false;
	}
	fd = path_open_at(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, RESOLVE_BENEATH);
	if (fd < 0) {
		if (created)
			(void)unlinkat(parent, name, AT_REMOVEDIR);
		return describe_open_error(fd, path, err);
	}
	*ret_created = created;
	*ret_fd = fd;
	return 0;
}

int path_remove_dir(const char *root, const char *path, struct error *err)
{
	_cleanup_close_ int parent = -EBADF;
	const char *name;
	int r;

	r = path_open_parent(root, path, &parent, &name, err);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return error_errno(err, -errno, "rmdir %s", path);
	return 0;
}
