/* SPDX-License-Identifier: Apache-2.0 */
#include "base/program.h"

#include <limits.h>
#include <unistd.h>

#include "base/version.h"

const char *program_find(const char *name, char *buf, size_t size)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	/* "DIR/holdfast-csi (deleted)" after an upgrade: only DIR counts */
	self[MAX_OF(n, 0)] = '\0';
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
