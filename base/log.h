/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One line per event: to the journal where its socket is (sd_journal_sendv(3)), and as logfmt to
 * stderr unless stderr is the journal itself, so that `journalctl` and `kubectl logs` both tell.
 *
 *   time=2026-01-02T03:04:05.678Z level=info msg="volume staged" volume_id=pv-1 rpc=NodeStageVolume
 *
 * Fields are thread-local and scoped: LOG_FIELD("VOLUME_ID", id) adds one to every line that this
 * thread logs until the end of the enclosing block. Names are journal field names (upper case);
 * logfmt shows them in lower case.
 *
 * A reader that does not keep up never stalls the daemon: an entry for which the journal has no
 * room goes to stderr alone, a line for which stderr has no room is dropped, and the number of
 * dropped lines is logged as soon as there is room again. Secrets are never passed to this module.
 */

#include "base/macros.h"

enum log_level {
	LOG_LEVEL_ERROR = 3, /* the journal's (syslog's) numbers */
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

/* log_open - choose the sink: the journal if its socket is there, else stderr. `name` is borrowed
 * for ever. */
void log_open(const char *name, enum log_level max_level);

/* log_parse_level - "error", "warning", "notice", "info", "debug". Returns 0 or -EINVAL. */
int __must_check log_parse_level(const char *s, enum log_level *ret);

/* log_write - one line; use the macros below. */
void log_write(enum log_level level, const char *file, int line, const char *func, const char *fmt,
	       ...) _printf_(5, 6);

/* log_write_errno - one line that ends in ": Strerror", with field ERRNO. Returns code (a negative
 * errno). */
int log_write_errno(enum log_level level, int code, const char *file, int line, const char *func,
		    const char *fmt, ...) _printf_(6, 7);

#define log_at(level, ...) log_write(level, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...) log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_notice(...) log_at(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning_errno(r, ...) \
	log_write_errno(LOG_LEVEL_WARNING, r, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define log_error_errno(r, ...) \
	log_write_errno(LOG_LEVEL_ERROR, r, __FILE__, __LINE__, __func__, __VA_ARGS__)

#define LOG_FIELD_VALUE_MAX 256

struct log_field {
	const char *name; /* borrowed, a literal */
	char value[LOG_FIELD_VALUE_MAX];
	struct log_field *up;
};

/* log_field_push, log_field_pop - for LOG_FIELD. A value that is too long is cut; NULL counts as
 * "". */
void log_field_push(struct log_field *field, const char *name, const char *value);
void log_field_pop(struct log_field *field);

#define LOG_FIELD_NAME_(line) _log_field_##line
#define LOG_FIELD_NAME(line) LOG_FIELD_NAME_(line)
#define LOG_FIELD(field_name, field_value)                                  \
	_cleanup_(log_field_pop) struct log_field LOG_FIELD_NAME(__LINE__); \
	log_field_push(&LOG_FIELD_NAME(__LINE__), field_name, field_value)
