/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/volume_health.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/parse.h"

#define OOM_KILLS_ABNORMAL 2 /* within VOLUME_OOM_WINDOW_S */

static void say(struct volume_health *h, enum volume_health_state state, const char *fmt, ...)
	_printf_(3, 4);
static void say(struct volume_health *h, enum volume_health_state state, const char *fmt, ...)
{
	va_list ap;

	h->state = state;
	va_start(ap, fmt);
	(void)vsnprintf(h->message, sizeof(h->message), fmt, ap);
	va_end(ap);
}

/* One kill is one takeover; who is killed again and again needs more than it may have. */
static bool is_short_of_memory(const struct volume_status *s)
{
	return s->config.memory_limit && s->oom_kills_recent >= OOM_KILLS_ABNORMAL;
}

static void say_short_of_memory(const struct volume_facts *f, struct volume_health *ret)
{
	const struct volume_status *s = &f->status;
	char now[QUANTITY_MAX];

	say(ret, f->answers ? VOLUME_HEALTH_DEGRADED : VOLUME_HEALTH_INACCESSIBLE,
	    "the volume's worker was killed for want of memory %" PRIu64
	    " times within %d minutes%s: raise memoryLimit (now %s)",
	    s->oom_kills_recent, VOLUME_OOM_WINDOW_S / 60,
	    s->state == VOLUME_SERVING ? "" : " and is being started again",
	    quantity_show(s->config.memory_limit, now));
}

static void judge_serving(const struct volume_facts *f, struct volume_health *ret)
{
	const struct volume_status *s = &f->status;

	if (s->source_wait_ms)
		say(ret, f->answers ? VOLUME_HEALTH_DEGRADED : VOLUME_HEALTH_INACCESSIBLE,
		    "the source is slow or hangs: a call to it has been running for %" PRIu64
		    " s; look at what is mounted there",
		    s->source_wait_ms / 1000);
	else if (!f->answers)
		say(ret, VOLUME_HEALTH_INACCESSIBLE,
		    "the volume does not answer: %" PRIu64 " requests wait for worker %d",
		    s->waiting, s->worker_pid);
	else if (s->poisoned)
		say(ret, VOLUME_HEALTH_DEGRADED,
		    "%u requests were answered EIO because they killed worker after worker, the "
		    "last "
		    "one was FUSE opcode %u: please report it, with the log of holdfast-fuse",
		    s->poisoned, s->poison_opcode);
	else if (f->healing.stale_files)
		say(ret, VOLUME_HEALTH_GOOD,
		    "serving; %" PRIu64 " open files and directories are on an earlier connection",
		    f->healing.stale_files);
	else if (s->restarts > 0)
		say(ret, VOLUME_HEALTH_GOOD,
		    "serving; its worker was restarted %" PRIu64 " times, last because: %s",
		    s->restarts, *s->reason ? s->reason : "it ended");
	else
		say(ret, VOLUME_HEALTH_GOOD, "serving");
}

void volume_health_judge(const struct volume_facts *f, struct volume_health *ret)
{
	const struct volume_status *s = &f->status;

	if (!f->mounted)
		say(ret, VOLUME_HEALTH_INACCESSIBLE,
		    "the volume is not mounted at %s any more: publishing it again mounts it",
		    f->path);
	else if (!f->keeper_answers)
		say(ret, VOLUME_HEALTH_INACCESSIBLE,
		    "holdfast-keeper does not answer: nobody restarts this volume's worker");
	else if (s->state == VOLUME_DEAD)
		say(ret, VOLUME_HEALTH_INACCESSIBLE,
		    "the volume's FUSE connection has ended and is about to be replaced; the log of "
		    "holdfast-csi tells what keeps it");
	else if (is_short_of_memory(s))
		say_short_of_memory(f, ret);
	else if (s->state != VOLUME_SERVING)
		say(ret, f->answers ? VOLUME_HEALTH_DEGRADED : VOLUME_HEALTH_INACCESSIBLE,
		    "the volume's worker is being started: %s",
		    *s->reason ? s->reason : "for the first time");
	else if (f->healing.stale_mounts)
		say(ret, VOLUME_HEALTH_DEGRADED,
		    "%" PRIu64 " mounts of the volume still show a connection that has ended, and "
		    "could not be exchanged: restart the pods that see ENOTCONN",
		    f->healing.stale_mounts);
	else
		judge_serving(f, ret);
}
