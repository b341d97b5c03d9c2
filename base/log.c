/* SPDX-License-Identifier: Apache-2.0 */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include "base/log.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <systemd/sd-journal.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"
#define LINE_MAX_BYTES                                                                           \
	4096 /* PIPE_BUF: a line of this size is written to a pipe whole or not at all (pipe(7)) \
	      */
#define MAX_FIELDS 12

static const char *log_name = "holdfast";
static enum log_level log_max_level = LOG_LEVEL_INFO;
static bool log_to_journal;
static bool log_to_stderr_too;
static bool log_stderr_is_pipe;
static atomic_uint log_dropped;
static _Thread_local struct log_field *log_fields;

static const char *level_name(enum log_level level)
{
	switch (level) {
	case LOG_LEVEL_ERROR:
		return "error";
	case LOG_LEVEL_WARNING:
		return "warning";
	case LOG_LEVEL_NOTICE:
		return "notice";
	case LOG_LEVEL_INFO:
		return "info";
	case LOG_LEVEL_DEBUG:
		return "debug";
	}
	return "unknown";
}

int log_parse_level(const char *s, enum log_level *ret)
{
	for (enum log_level level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++)
		if (strcmp(s, level_name(level)) == 0) {
			*ret = level;
			return 0;
		}
	return -EINVAL;
}

void log_open(const char *name, enum log_level max_level)
{
	struct stat st;

	log_name = name;
	log_max_level = max_level;
	log_to_journal = stat(JOURNAL_SOCKET, &st) == 0 && S_ISSOCK(st.st_mode);
	/* systemd sets JOURNAL_STREAM where stderr is the journal; in a container it is `kubectl
	 * logs` */
	log_to_stderr_too = !getenv("JOURNAL_STREAM");
	log_stderr_is_pipe = fstat(STDERR_FILENO, &st) == 0 && S_ISFIFO(st.st_mode);
}

void log_field_push(struct log_field *field, const char *name, const char *value)
{
	field->name = name;
	(void)snprintf(field->value, sizeof(field->value), "%s", value ?: "");
	field->up = log_fields;
	log_fields = field;
}

void log_field_pop(struct log_field *field)
{
	log_fields = field->up;
}

struct line {
	char text[LINE_MAX_BYTES];
	size_t used; /* at most LINE_MAX_BYTES - 1: room for the newline stays */
};

static void line_char(struct line *line, char c)
{
	if (line->used < sizeof(line->text) - 1)
		line->text[line->used++] = c;
}

static void line_str(struct line *line, const char *s)
{
	while (*s)
		line_char(line, *s++);
}

/* logfmt: a value with a blank, a quote, '=' or a control character is quoted, with \n, \" and \xNN
 * inside. */
static bool needs_quotes(const char *s)
{
	if (!*s)
		return true;
	for (; *s; s++)
		if ((unsigned char)*s <= ' ' || *s == '"' || *s == '=' || *s == '\\' || *s == 0x7f)
			return true;
	return false;
}

static void line_value(struct line *line, const char *s)
{
	if (!needs_quotes(s)) {
		line_str(line, s);
		return;
	}
	line_char(line, '"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		char escape[8];

		if (c == '"' || c == '\\') {
			line_char(line, '\\');
			line_char(line, (char)c);
		} else if (c == '\n') {
			line_str(line, "\\n");
		} else if (c < ' ' || c == 0x7f) {
			(void)snprintf(escape, sizeof(escape), "\\x%02x", c);
			line_str(line, escape);
		} else {
			line_char(line, (char)c);
		}
	}
	line_char(line, '"');
}

static void line_time(struct line *line)
{
	struct timespec now;
	struct tm tm;
	char buf[40], milli[8];

	(void)clock_gettime(CLOCK_REALTIME, &now);
	(void)gmtime_r(&now.tv_sec, &tm);
	(void)strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%S", &tm);
	(void)snprintf(milli, sizeof(milli), ".%03dZ", (int)(now.tv_nsec / 1000000));
	line_str(line, "time=");
	line_str(line, buf);
	line_str(line, milli);
}

static bool has_room(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

/* Whether stderr takes a whole line at once. Regular files and sockets always say so. */
static bool stderr_has_room(void)
{
	return has_room(STDERR_FILENO);
}

/*
 * A pipe that other threads and processes fill too is written to without waiting, as if it was
 * non-blocking: making it so would change it for all who share it. Kernels before 6.4 can't
 * (EOPNOTSUPP), nor do other files need it.
 */
static bool stderr_write(const struct line *line)
{
	struct iovec iov = { (void *)line->text, line->used };
	ssize_t n = -1;

	if (!stderr_has_room())
		return false;
	errno = EOPNOTSUPP;
	if (log_stderr_is_pipe)
		n = pwritev2(STDERR_FILENO, &iov, 1, -1, RWF_NOWAIT);
	if (n < 0 && errno == EOPNOTSUPP)
		n = write(STDERR_FILENO, line->text, line->used);
	return n == (ssize_t)line->used;
}

static void stderr_put(struct line *line)
{
	line->text[line->used++] = '\n';
	if (!stderr_write(line))
		atomic_fetch_add(&log_dropped, 1);
}

static void stderr_report_dropped(void)
{
	unsigned int n = atomic_load(&log_dropped);
	struct line line = { .used = 0 };
	char buf[96];

	if (n == 0 || !stderr_has_room())
		return;
	atomic_fetch_sub(&log_dropped, n);
	line_time(&line);
	(void)snprintf(buf, sizeof(buf),
		       " level=warning msg=\"%u log lines dropped: stderr is not read\"", n);
	line_str(&line, buf);
	stderr_put(&line);
}

static void write_logfmt(enum log_level level, const char *message)
{
	struct line line = { .used = 0 };

	stderr_report_dropped();
	line_time(&line);
	line_str(&line, " level=");
	line_str(&line, level_name(level));
	line_str(&line, " name=");
	line_str(&line, log_name);
	line_str(&line, " msg=");
	line_value(&line, message);
	for (struct log_field *f = log_fields; f; f = f->up) {
		line_char(&line, ' ');
		for (const char *p = f->name; *p; p++)
			line_char(&line, (char)tolower((unsigned char)*p));
		line_char(&line, '=');
		line_value(&line, f->value);
	}
	stderr_put(&line);
}

static bool journal_has_room(void)
{
	static const struct sockaddr_un address = { AF_UNIX, JOURNAL_SOCKET };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && connect(fd, (const void *)&address, sizeof(address)) == 0 && has_room(fd);
}

/*
 * sd_journal_sendv(3) waits for as long as the journal's queue is full: so it is asked first, one
 * thread at a time. A thread that waits all the same, because another process took the last place,
 * is the only one: the others do not wait for it.
 */
static int journal_send(const struct iovec *iov, int n)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct timespec patience;
	int r;

	(void)clock_gettime(CLOCK_MONOTONIC, &patience);
	patience.tv_sec++;
	if (pthread_mutex_clocklock(&lock, CLOCK_MONOTONIC, &patience) != 0)
		return -EAGAIN;
	r = journal_has_room() ? sd_journal_sendv(iov, n) : -EAGAIN;
	(void)pthread_mutex_unlock(&lock);
	return r;
}

static int write_journal(enum log_level level, const char *file, int line, const char *func,
			 const char *message)
{
	char fixed[6][LINE_MAX_BYTES / 4], text[LINE_MAX_BYTES + 16];
	char values[MAX_FIELDS][LOG_FIELD_VALUE_MAX + 32];
	struct iovec iov[7 + MAX_FIELDS];
	int n = 0, fields = 0;

	(void)snprintf(text, sizeof(text), "MESSAGE=%s", message);
	(void)snprintf(fixed[0], sizeof(fixed[0]), "PRIORITY=%d", (int)level);
	(void)snprintf(fixed[1], sizeof(fixed[1]), "SYSLOG_IDENTIFIER=%s", log_name);
	(void)snprintf(fixed[2], sizeof(fixed[2]), "CODE_FILE=%s", file);
	(void)snprintf(fixed[3], sizeof(fixed[3]), "CODE_LINE=%d", line);
	(void)snprintf(fixed[4], sizeof(fixed[4]), "CODE_FUNC=%s", func);
	iov[n++] = (struct iovec){ text, strlen(text) };
	for (int i = 0; i < 5; i++)
		iov[n++] = (struct iovec){ fixed[i], strlen(fixed[i]) };
	for (struct log_field *f = log_fields; f && fields < MAX_FIELDS; f = f->up, fields++) {
		(void)snprintf(values[fields], sizeof(values[fields]), "%s=%s", f->name, f->value);
		iov[n++] = (struct iovec){ values[fields], strlen(values[fields]) };
	}
	return journal_send(iov, n);
}

static void emit(enum log_level level, const char *file, int line, const char *func,
		 const char *message)
{
	bool written = log_to_journal && write_journal(level, file, line, func, message) >= 0;

	if (!written || log_to_stderr_too)
		write_logfmt(level, message);
}

void log_write(enum log_level level, const char *file, int line, const char *func, const char *fmt,
	       ...)
{
	char message[LINE_MAX_BYTES / 2];
	int saved = errno;
	va_list ap;

	if (level > log_max_level)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	emit(level, file, line, func, message);
	errno = saved;
}

int log_write_errno(enum log_level level, int code, const char *file, int line, const char *func,
		    const char *fmt, ...)
{
	char message[LINE_MAX_BYTES / 2], number[16];
	int saved = errno;
	va_list ap;
	size_t used;

	if (level > log_max_level)
		return code;
	va_start(ap, fmt);
	(void)vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	used = strlen(message);
	(void)snprintf(message + used, sizeof(message) - used, ": %s",
		       strerrordesc_np(-code) ?: "unknown error");
	(void)snprintf(number, sizeof(number), "%d", -code);
	LOG_FIELD("ERRNO", number);
	emit(level, file, line, func, message);
	errno = saved;
	return code;
}
