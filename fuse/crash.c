/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/crash.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/macros.h"
#include "fuse/inbox.h"

static bool is_wanted(const char *path, const char *point, uint32_t opcode)
{
	char line[64] = "", number[16];
	FILE *file = fopen(path, "re");
	char *blank;

	if (!file)
		return false;
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0';
	(void)fclose(file);
	line[strcspn(line, "\n")] = '\0';
	blank = strchr(line, ' ');
	if (!blank)
		return false;
	*blank++ = '\0';
	(void)snprintf(number, sizeof(number), "%u", opcode);
	return strcmp(line, point) == 0 && (strcmp(blank, "*") == 0 || strcmp(blank, number) == 0);
}

void crash_point(const char *point)
{
	const char *path = getenv("HOLDFAST_CRASH_FILE");
	const struct inbox *inbox = inbox_current();
	const struct fuse_in_header *in = inbox ? inbox_request(inbox) : NULL;

	if (path && in && is_wanted(path, point, in->opcode) && unlink(path) == 0)
		(void)kill(getpid(), SIGKILL);
}
