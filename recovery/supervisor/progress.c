/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/supervisor/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "fuse/worker.h"

#define KERNEL_CHECK_NS (15 * NSEC_PER_SEC) /* FUSE_TIMEOUT_TIMER_FREQ */

enum progress_call progress_parse_call(const char *line)
{
	static const int own[] = { SYS_futex,		SYS_writev,
				   SYS_write,		SYS_ioctl,
				   SYS_nanosleep,	SYS_clock_nanosleep,
				   SYS_restart_syscall, SYS_sched_yield,
				   SYS_rt_sigsuspend,	SYS_exit,
				   SYS_exit_group };
	unsigned long long first;
	int number;

	if (sscanf(line, "%d %llx", &number, &first) != 2 || number < 0)
		return PROGRESS_CALL_NONE;
	if (number == SYS_read && (first == WORKER_FD_DEV || first == WORKER_FD_STATUS))
		return PROGRESS_CALL_OWN;
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		if (number == own[i])
			return PROGRESS_CALL_OWN;
	return PROGRESS_CALL_SOURCE;
}

/* The first bytes of a file of the worker's in /proc, as a string. */
static bool read_proc(pid_t pid, int32_t tid, const char *name, char *ret, size_t size)
{
	_cleanup_close_ int fd = -EBADF;
	char path[64];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", (int)pid, (int)tid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : fd_read_all(fd, ret, size - 1);
	ret[MAX_OF(n, 0)] = '\0';
	return n > 0;
}

/* The fields of /proc/.../stat behind the name, which may hold anything. */
static const char *stat_fields(const char *text)
{
	const char *end = strrchr(text, ')');

	return end && end[1] == ' ' ? end + 2 : NULL;
}

static char thread_state(pid_t pid, int32_t tid)
{
	char text[512];
	const char *fields;

	if (!read_proc(pid, tid, "stat", text, sizeof(text)))
		return '?';
	fields = stat_fields(text);
	return fields ? fields[0] : '?';
}

/* CPU time of the whole process: utime and stime, the 14th and 15th field of its stat. */
static uint64_t cpu_time_ns(pid_t pid)
{
	unsigned long long user, system;
	char path[32], text[512];
	_cleanup_close_ int fd = -EBADF;
	const char *fields;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : fd_read_all(fd, text, sizeof(text) - 1);
	text[MAX_OF(n, 0)] = '\0';
	fields = stat_fields(text);
	if (!fields || sscanf(fields, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
			      &user, &system) != 2)
		return 0;
	return (user + system) * (NSEC_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t served(const struct ledger_header *header)
{
	uint64_t n = 0;

	for (size_t i = 0; i < LEDGER_MAX_INBOXES; i++)
		n += atomic_load_explicit(&header->threads[i].served, memory_order_relaxed);
	return n;
}

/* Since when the thread has had its request in hand, 0: it has none. The worker goes on while we look. */
static uint64_t in_hand_since(const struct ledger_thread *thread)
{
	uint64_t since_ns = 0;

	if (atomic_load_explicit(&thread->unique, memory_order_acquire) != 0)
		since_ns = atomic_load(&thread->since_ns);
	return since_ns;
}

static bool is_in_hand(const struct ledger_thread *thread)
{
	return in_hand_since(thread) != 0;
}

static bool has_unread(const struct progress_view *v)
{
	struct pollfd p = { .fd = v->dev_fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

/* A thread whose request is old: what it is in. One that wants to run and does not get to is slow.
 */
static enum progress_verdict judge_thread(const struct progress *p, const struct progress_view *v,
					  const struct ledger_thread *thread, uint64_t since_ns,
					  struct progress_report *ret)
{
	char line[256];

	ret->tid = atomic_load(&thread->tid);
	ret->opcode = atomic_load(&thread->opcode);
	ret->age_ns = v->now_ns - since_ns;
	ret->state = thread_state(v->pid, ret->tid);
	if (ret->state == 'T' || ret->state == 't')
		return PROGRESS_HUNG;
	if (ret->state == 'D')
		return PROGRESS_SLOW;
	if (ret->state == 'R')
		return cpu_time_ns(v->pid) - p->cpu_ns >= v->limit_ns / 2 ? PROGRESS_HUNG
									  : PROGRESS_SLOW;
	if (read_proc(v->pid, ret->tid, "syscall", line, sizeof(line)) &&
	    progress_parse_call(line) == PROGRESS_CALL_SOURCE)
		return PROGRESS_SLOW;
	return PROGRESS_HUNG;
}

/* Those whose requests are older than the limit: as long as one waits for the source, the others
 * may wait for that one. *ret is of the oldest that counts. */
static enum progress_verdict judge_old(const struct progress *p, const struct progress_view *v,
				       struct progress_report *ret)
{
	enum progress_verdict result = PROGRESS_FINE;

	for (size_t i = 0; i < LEDGER_MAX_INBOXES; i++) {
		const struct ledger_thread *thread = &v->header->threads[i];
		uint64_t since_ns = in_hand_since(thread);
		struct progress_report report;
		enum progress_verdict verdict;

		if (since_ns == 0 || v->now_ns < since_ns + v->limit_ns)
			continue;
		verdict = judge_thread(p, v, thread, since_ns, &report);
		if (in_hand_since(thread) != since_ns) /* what we saw is of another request */
			continue;
		if (result == verdict && report.age_ns <= ret->age_ns)
			continue;
		if (result == PROGRESS_SLOW && verdict == PROGRESS_HUNG)
			continue;
		result = verdict;
		*ret = report;
	}
	return result;
}

static bool any_in_hand(const struct ledger_header *header)
{
	for (size_t i = 0; i < LEDGER_MAX_INBOXES; i++)
		if (is_in_hand(&header->threads[i]))
			return true;
	return false;
}

/* Nobody takes the requests that wait: all threads are stuck in what they have, or stopped. */
static enum progress_verdict judge_unread(const struct progress_view *v,
					  struct progress_report *ret)
{
	char state = thread_state(v->pid, v->pid);

	if (state == 'R' || state == 'D') /* about to read, or at its end */
		return PROGRESS_FINE;
	*ret = (struct progress_report){ .tid = v->pid, .state = state };
	return PROGRESS_HUNG;
}

/* The kernel waits, no thread says that it is at it, and nothing is to be read. Stopped just after it
 * was read, a request lies in its inbox, where the next worker finds it; otherwise nobody has it. */
static enum progress_verdict judge_missing(const struct progress_view *v,
					   struct progress_report *ret)
{
	char state = thread_state(v->pid, v->pid);

	*ret = (struct progress_report){ .tid = v->pid, .state = state };
	return state == 'T' || state == 't' ? PROGRESS_HUNG : PROGRESS_LOST;
}

enum progress_verdict progress_look(struct progress *p, const struct progress_view *v,
				    struct progress_report *ret)
{
	uint64_t n = served(v->header);
	bool unread = has_unread(v), in_hand = any_in_hand(v->header);
	enum progress_verdict verdict;

	if ((!unread && !in_hand && !v->waiting) || n != p->served || p->still_since_ns == 0) {
		p->served = n;
		p->still_since_ns = unread || in_hand || v->waiting ? v->now_ns : 0;
		p->cpu_ns = p->still_since_ns ? cpu_time_ns(v->pid) : 0;
		if (!in_hand)
			return PROGRESS_FINE;
	}
	verdict = judge_old(p, v, ret);
	if (verdict != PROGRESS_FINE || v->now_ns < p->still_since_ns + v->limit_ns)
		return verdict;
	if (in_hand)
		return PROGRESS_FINE;
	verdict = unread ? judge_unread(v, ret) : judge_missing(v, ret);
	ret->age_ns = v->now_ns - p->still_since_ns;
	return verdict;
}

/* The kernel looks every 15 s, so a request may be ended as soon as it is that much younger. */
static uint64_t expiry_ns(const struct progress_view *v)
{
	uint64_t max = v->request_max_ns;

	return max > 2 * KERNEL_CHECK_NS ? max - KERNEL_CHECK_NS : max / 2;
}

unsigned int progress_expire(const struct progress_view *v)
{
	unsigned int n = 0;

	for (size_t i = 0; v->request_max_ns && i < LEDGER_MAX_INBOXES; i++) {
		const struct ledger_thread *thread = &v->header->threads[i];
		uint64_t first = atomic_load(&thread->first_ns);
		struct fuse_out_header out = { .len = sizeof(out),
					       .error = -EIO,
					       .unique = atomic_load(&thread->unique) };

		if (!is_in_hand(thread) || !first || v->now_ns < first + expiry_ns(v))
			continue;
		if (write(v->dev_fd, &out, sizeof(out)) == sizeof(out)) {
			log_error("a request (opcode %u) was answered EIO after %llu s, before the "
				  "kernel ends the volume for it (fs.fuse.max_request_timeout)",
				  atomic_load(&thread->opcode),
				  (unsigned long long)((v->now_ns - first) / NSEC_PER_SEC));
			n++;
		}
	}
	return n;
}
