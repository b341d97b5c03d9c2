/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/endpoint.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/socket.h"
#include "mount/path.h"

#define SCHEME "unix:"
#define SOCKET_PATH_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1) /* unix(7) */

int endpoint_path(const char *what, const char *text, const char **ret, struct error *err)
{
	const char *path = text;
	size_t len;
	int r;

	if (strncmp(path, SCHEME, strlen(SCHEME)) == 0)
		path += strlen(SCHEME);
	if (path != text && strncmp(path, "//", 2) == 0)
		path += 2;
	if (*path != '/')
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "%s '%s' is no unix socket: give unix:///PATH", what, text);
	r = path_check(what, path, err);
	if (r < 0)
		return r;
	len = strlen(path);
	if (len > SOCKET_PATH_MAX)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "%s has a path of %zu bytes; a socket's may have %zu", what, len,
				 SOCKET_PATH_MAX);
	*ret = path;
	return 0;
}

static int make_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *parent = slash ? strndup(path, (size_t)(slash - path)) : NULL;

	return parent && mkdir(parent, 0750) == 0 ? 0 : -ENOENT;
}

int endpoint_listen(const char *path, int *ret_fd, struct error *err)
{
	int fd = socket_listen_stream(path, err);

	/* kubelet makes "plugins", and each plugin its own directory in it */
	if (fd == -ENOENT && make_parent(path) >= 0)
		fd = socket_listen_stream(path, err);
	if (fd == -ENOENT || fd == -ENOTDIR)
		return error_set(err, ERROR_PRECONDITION, fd,
				 "%s: the socket's directory does not exist; create it, or mount "
				 "it into the container",
				 path);
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}
