/* SPDX-License-Identifier: Apache-2.0 */
#include "base/program.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/version.h"

/* "DIR/holdfast-csi (deleted)" after an upgrade: what is there now is at the path before that. */
void program_path(char *buf, size_t size)
{
	static const char suffix[] = " (deleted)";
	ssize_t n = MAX_OF(readlink("/proc/self/exe", buf, size - 1), 0);
	ssize_t path = n - (ssize_t)strlen(suffix);

	buf[n] = '\0';
	if (path > 0 && strcmp(buf + path, suffix) == 0)
		buf[path] = '\0';
}

const char *program_find(const char *name, char *buf, size_t size)
{
	char self[PATH_MAX];
	char *slash;

	program_path(self, sizeof(self));
	slash = strrchr(self, '/');
	if (slash) {
		*slash = '\0';
		if ((size_t)snprintf(buf, size, "%s/%s", self, name) < size &&
		    access(buf, X_OK) == 0)
			return buf;
	}
	(void)snprintf(buf, size, HOLDFAST_LIBEXEC_DIR "/%s", name);
	return buf;
}
