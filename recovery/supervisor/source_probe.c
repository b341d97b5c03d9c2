/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/source_probe.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/vfs.h>

#include "base/socket.h"

#define SOURCE_FD CHILD_FD_FIRST
#define ANSWER_FD (CHILD_FD_FIRST + 1)

struct answer {
	int32_t code;
	uint64_t magic;
};

static void ask(const void *context)
{
	struct answer answer = { 0 };
	struct statfs fs;

	if (fstatfs(SOURCE_FD, &fs) < 0)
		answer.code = -errno;
	else
		answer.magic = (uint64_t)fs.f_type;
	if (socket_send(ANSWER_FD, &answer, sizeof(answer), NULL, 0, MSG_DONTWAIT) < 0)
		return; /* the end of the process is an answer too */
}

int source_probe_start(int source_fd, struct child *ret, struct error *err)
{
	if (child_start(&source_fd, 1, ask, NULL, ret, err) < 0)
		return error_prefix(err, "look at the source");
	return 0;
}

int source_probe_receive(const struct child *probe, uint64_t *ret, struct error *err)
{
	struct answer answer;
	int r = child_receive(probe, &answer, sizeof(answer));

	if (r == -EAGAIN)
		return r;
	if (r >= 0)
		r = answer.code;
	if (r < 0) {
		(void)error_errno(err, r, "statfs of the source");
		if (err)
			err->kind = ERROR_PRECONDITION;
		return r;
	}
	*ret = answer.magic;
	return 0;
}
