/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/ctl_status.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "fuse/uapi.h"

static int by_id(const void *a, const void *b)
{
	return strcmp(((const struct ctl_volume *)a)->id, ((const struct ctl_volume *)b)->id);
}

int ctl_merge(struct record *const *records, size_t n_records, const struct volume_status *statuses,
	      size_t n_statuses, struct ctl_volume **ret, size_t *ret_n, struct error *err)
{
	size_t n = 0, kept = 0;
	struct ctl_volume *all = calloc(n_records + n_statuses + 1, sizeof(*all));

	if (!all)
		return error_errno(err, -ENOMEM, "list of volumes");
	for (size_t i = 0; i < n_records; i++)
		all[n++] = (struct ctl_volume){ .id = records[i]->config.id, .record = records[i] };
	for (size_t i = 0; i < n_statuses; i++)
		all[n++] =
			(struct ctl_volume){ .id = statuses[i].config.id, .status = &statuses[i] };
	qsort(all, n, sizeof(*all), by_id);
	for (size_t i = 0; i < n; i++) {
		struct ctl_volume *last = kept ? &all[kept - 1] : NULL;

		if (!last || strcmp(last->id, all[i].id) != 0) {
			all[kept++] = all[i];
			continue;
		}
		last->record = last->record ?: all[i].record;
		last->status = last->status ?: all[i].status;
	}
	*ret = all;
	*ret_n = kept;
	return 0;
}

static const struct volume_config *config_of(const struct ctl_volume *v)
{
	return v->status ? &v->status->config : &v->record->config;
}

const char *ctl_state(const struct ctl_volume *v)
{
	return v->status ? volume_state_name((enum volume_state)v->status->state) : "not served";
}

/* As decided by the policy where it is served, as asked for where it is not. */
static const char *mode_of(const struct ctl_volume *v)
{
	return volume_mode_name((enum volume_mode)(v->status ? v->status->connection.mode
							     : v->record->config.mode));
}

static bool is_read_only(const struct ctl_volume *v)
{
	return config_of(v)->flags & VOLUME_READ_ONLY;
}

static json_t *number_or_null(bool known, uint64_t value)
{
	return known ? json_integer((json_int_t)value) : json_null();
}

static json_t *targets_json(const struct record *record)
{
	json_t *list = json_array();
	int r = list ? 0 : -1;

	for (size_t i = 0; r == 0 && record && i < record->n_targets; i++)
		r = json_array_append_new(list, json_string(record->targets[i].path));
	if (r == 0)
		return list;
	json_decref(list);
	return NULL;
}

/* How much of the ladder this kernel has: every request exactly once everywhere; where files can be
 * registered (Linux 6.9) also those that are open without a name. */
static const char *rung_of(const struct ctl_volume *v)
{
	if (!v->status)
		return NULL;
	return v->status->connection.offered & FUSE_PASSTHROUGH
		       ? "takeover"
		       : "takeover, but for unlinked files";
}

static json_t *healing_json(const struct record *record)
{
	const struct record_healing *h = record ? &record->healing : NULL;

	if (!h)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "deaths", (json_int_t)h->deaths, "healings",
			 (json_int_t)h->healings, "lastPauseMs", (json_int_t)h->last_pause_ms,
			 "staleMounts", (json_int_t)h->stale_mounts, "staleFiles",
			 (json_int_t)h->stale_files);
}

/* NULL when out of memory; json_pack's "o" takes over the values, also when it fails. */
static json_t *volume_json(const struct ctl_volume *v)
{
	const struct volume_status *s = v->status;

	return json_pack("{s:s, s:s?, s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:b, s:b, s:s, "
			 "s:s?, s:o, s:o, s:o, s:o, s:o}",
			 "id", v->id, "source", v->record ? v->record->source : NULL, "state",
			 ctl_state(v), "readOnly", is_read_only(v), "workerPid",
			 number_or_null(s && s->worker_pid > 0, s ? (uint64_t)s->worker_pid : 0),
			 "restarts", number_or_null(s, s ? s->restarts : 0), "targets",
			 targets_json(v->record), "connection",
			 number_or_null(s, s ? minor(s->dev) : 0), "waiting",
			 number_or_null(s, s ? s->waiting : 0), "mode", mode_of(v), "requests",
			 number_or_null(s, s ? s->requests : 0), "served", s != NULL, "recorded",
			 v->record != NULL, "reason", s ? s->reason : "", "rung", rung_of(v),
			 "poisoned", number_or_null(s, s ? s->poisoned : 0), "sourceWaitMs",
			 number_or_null(s, s ? s->source_wait_ms : 0), "oomKills",
			 number_or_null(s, s ? s->oom_kills : 0), "memoryLimit",
			 number_or_null(config_of(v)->memory_limit, config_of(v)->memory_limit),
			 "healing", healing_json(v->record));
}

int ctl_print_json(FILE *out, const struct ctl_volume *volumes, size_t n, struct error *err)
{
	json_t *list = json_array();
	json_t *top = json_pack("{s:o}", "volumes", list);
	int r = top ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < n; i++)
		if (json_array_append_new(list, volume_json(&volumes[i])) < 0)
			r = -ENOMEM;
	if (r == 0 && (json_dumpf(top, out, JSON_INDENT(2)) < 0 || fputc('\n', out) == EOF))
		r = -EIO;
	json_decref(top);
	return r < 0 ? error_errno(err, r, "print the volumes") : 0;
}

/* The table: columns as wide as their longest cell, each target on a line of its own. */

enum { COLUMNS = 9, CELL_MAX = 144 };

struct row {
	char cells[COLUMNS - 1][CELL_MAX]; /* all but the targets */
};

static const char *const titles[COLUMNS] = { "ID",	 "STATE",   "MODE",	  "RO",	    "PID",
					     "RESTARTS", "WAITING", "CONNECTION", "TARGETS" };

static void set_cell(char cell[CELL_MAX], const char *text)
{
	(void)snprintf(cell, CELL_MAX, "%s", text);
	for (char *p = cell; *p; p++)
		if (iscntrl((unsigned char)*p))
			*p = '?';
}

static void set_number(char cell[CELL_MAX], bool known, uint64_t value)
{
	if (known)
		(void)snprintf(cell, CELL_MAX, "%llu", (unsigned long long)value);
	else
		set_cell(cell, "-");
}

static void make_row(const struct ctl_volume *v, struct row *row)
{
	const struct volume_status *s = v->status;

	set_cell(row->cells[0], v->id);
	set_cell(row->cells[1], ctl_state(v));
	set_cell(row->cells[2], mode_of(v));
	set_cell(row->cells[3], is_read_only(v) ? "ro" : "rw");
	set_number(row->cells[4], s && s->worker_pid > 0, s ? (uint64_t)s->worker_pid : 0);
	set_number(row->cells[5], s, s ? s->restarts : 0);
	set_number(row->cells[6], s, s ? s->waiting : 0);
	set_number(row->cells[7], s, s ? minor(s->dev) : 0);
}

static void print_clean(FILE *out, const char *text)
{
	for (; *text; text++)
		(void)fputc(iscntrl((unsigned char)*text) ? '?' : *text, out);
}

static void print_row(FILE *out, const int widths[COLUMNS - 1], const struct row *row,
		      const char *target)
{
	for (size_t c = 0; c < COLUMNS - 1; c++)
		(void)fprintf(out, "%-*s  ", widths[c], row->cells[c]);
	print_clean(out, target);
	(void)fputc('\n', out);
}

static void print_targets(FILE *out, const int widths[COLUMNS - 1], const struct row *row,
			  const struct record *record)
{
	const struct row blank = { .cells = { "" } };

	if (!record || record->n_targets == 0)
		print_row(out, widths, row, "-");
	for (size_t i = 0; record && i < record->n_targets; i++)
		print_row(out, widths, i == 0 ? row : &blank, record->targets[i].path);
}

static void print_remark(FILE *out, const char *id, const char *what, const char *more)
{
	print_clean(out, id);
	(void)fprintf(out, ": %s", what);
	print_clean(out, more);
	(void)fputc('\n', out);
}

static void print_troubles(FILE *out, const char *id, const struct volume_status *s)
{
	char text[128];

	if (s->poisoned) {
		(void)snprintf(text, sizeof(text),
			       "%u, the last one was opcode %u on node %" PRIu64, s->poisoned,
			       s->poison_opcode, s->poison_nodeid);
		print_remark(out, id, "requests answered EIO because they killed workers: ", text);
	}
	if (s->source_wait_ms) {
		(void)snprintf(text, sizeof(text), "%" PRIu64 " ms", s->source_wait_ms);
		print_remark(out, id, "the source is slow or hangs: a call has been running for ",
			     text);
	}
}

static void print_healing(FILE *out, const char *id, const struct record_healing *h)
{
	char text[160];

	if (h->deaths) {
		(void)snprintf(text, sizeof(text),
			       "%" PRIu64 ", healed %" PRIu64 " times, the last time within %" PRIu64
			       " ms",
			       h->deaths, h->healings, h->last_pause_ms);
		print_remark(out, id, "connections lost: ", text);
	}
	if (h->stale_mounts) {
		(void)snprintf(text, sizeof(text), "%" PRIu64, h->stale_mounts);
		print_remark(out, id, "mounts that still show a lost connection: ", text);
	}
	if (h->stale_files) {
		(void)snprintf(text, sizeof(text), "%" PRIu64, h->stale_files);
		print_remark(out, id, "open files and directories on a lost connection: ", text);
	}
}

/* What else there is to know of volumes that are not as they should be. */
static void print_remarks(FILE *out, const struct ctl_volume *v)
{
	if (!v->status)
		print_remark(out, v->id,
			     "the plugin has a record of it; the keeper does not serve it", "");
	if (!v->record)
		print_remark(out, v->id,
			     config_of(v)->flags & VOLUME_RETIRED
				     ? "what a volume showed before it was swapped, for files that "
				       "are still open"
				     : "the keeper serves it; the plugin has no record of it",
			     "");
	if (v->status && v->status->reason[0])
		print_remark(out, v->id, "the last worker ended: ", v->status->reason);
	if (v->status)
		print_troubles(out, v->id, v->status);
	if (v->record)
		print_healing(out, v->id, &v->record->healing);
}

static void widen(int widths[COLUMNS - 1], const struct row *row)
{
	for (size_t c = 0; c < COLUMNS - 1; c++)
		widths[c] = MAX_OF(widths[c], (int)strlen(row->cells[c]));
}

void ctl_print_table(FILE *out, const struct ctl_volume *volumes, size_t n)
{
	int widths[COLUMNS - 1] = { 0 };
	struct row row;

	for (size_t c = 0; c < COLUMNS - 1; c++)
		set_cell(row.cells[c], titles[c]);
	widen(widths, &row);
	for (size_t i = 0; i < n; i++) {
		make_row(&volumes[i], &row);
		widen(widths, &row);
	}
	for (size_t c = 0; c < COLUMNS - 1; c++)
		set_cell(row.cells[c], titles[c]);
	print_row(out, widths, &row, titles[COLUMNS - 1]);
	for (size_t i = 0; i < n; i++) {
		make_row(&volumes[i], &row);
		print_targets(out, widths, &row, volumes[i].record);
	}
	for (size_t i = 0; i < n; i++)
		print_remarks(out, &volumes[i]);
}
