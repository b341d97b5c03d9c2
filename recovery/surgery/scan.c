/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/surgery/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "mount/tree.h"

#define FIRST_SIZE 65536
#define MAX_SIZE (64U << 20)

/* What of mountinfo there is, in a buffer that grows and is used again. */
struct text {
	char *data;
	size_t size, room;
};

static int grow(struct text *text)
{
	size_t room = text->room ? text->room * 2 : FIRST_SIZE;
	char *data;

	if (room > MAX_SIZE)
		return -EFBIG;
	data = realloc(text->data, room);
	if (!data)
		return -ENOMEM;
	text->data = data;
	text->room = room;
	return 0;
}

/* procfs shows the mounts that its reader has at open(2). */
static int read_mountinfo(int proc_fd, struct text *text)
{
	_cleanup_close_ int fd = openat(proc_fd, "self/mountinfo", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	text->size = 0;
	for (;;) {
		ssize_t n;
		int r = text->size == text->room ? grow(text) : 0;

		if (r < 0)
			return r;
		n = fd_read_all(fd, text->data + text->size, text->room - text->size);
		if (n <= 0)
			return (int)n;
		text->size += (size_t)n;
	}
}

/* *spare is used again unless *ret takes it: most namespaces have none of ours, and looking is a
 * hundred times as fast as parsing. */
static int read_one(const struct mount_namespace *ns, int proc_fd, struct text *spare,
		    struct text *ret)
{
	int r = mount_namespace_enter(ns->fd);

	if (r >= 0)
		r = read_mountinfo(proc_fd, spare);
	if (r == -EFBIG)
		log_error("mount namespace %llu has a mount table of more than %u MiB and is left "
			  "as it is: find what mounts there without end",
			  (unsigned long long)ns->id, MAX_SIZE >> 20);
	if (r < 0 || !memmem(spare->data, spare->size, MOUNT_FUSE_MARK, strlen(MOUNT_FUSE_MARK)))
		return r == -ENOMEM ? r : 0;
	*ret = *spare;
	*spare = (struct text){ 0 };
	return 0;
}

static int parse_one(struct scan *scan, size_t i, struct text *text)
{
	struct plan_table *table = &scan->tables[i];
	int r = mount_table_parse(text->data, text->size, &scan->parsed[i], NULL);

	free(text->data);
	*text = (struct text){ 0 };
	if (r < 0)
		return r == -ENOMEM ? r : 0;
	table->n = mount_table_size(scan->parsed[i]);
	table->entries = table->n ? mount_table_get(scan->parsed[i], 0) : NULL;
	return 0;
}

/*
 * Parsed at home: libmount looks into /proc/self and, for a source /dev/root, into /sys and
 * /proc/cmdline. In a container those paths may lead anywhere, and hang.
 */
static int parse_some(struct scan *scan, struct text *texts, size_t first, size_t end)
{
	int r = mount_namespace_enter(scan->namespaces[0].fd);

	for (size_t i = first; r >= 0 && i < end; i++)
		if (texts[i].size > 0)
			r = parse_one(scan, i, &texts[i]);
	return r;
}

/* As many are read at a time as may be held: to go home for each costs. */
static int scan_each(struct scan *scan, int proc_fd, struct text *texts)
{
	struct text spare = { 0 };
	size_t first = 0, held = 0;
	int r = 0, back;

	for (size_t i = 0; r >= 0 && i < scan->n; i++) {
		if (!scan->namespaces[i].own)
			r = read_one(&scan->namespaces[i], proc_fd, &spare, &texts[i]);
		held += texts[i].room;
		if (r < 0 || held < MAX_SIZE)
			continue;
		r = parse_some(scan, texts, first, i + 1);
		first = i + 1;
		held = 0;
	}
	free(spare.data);
	back = scan->n > 0 ? parse_some(scan, texts, first, r < 0 ? first : scan->n) : 0;
	return r < 0 ? r : back;
}

int scan_all(int proc_fd, struct scan *ret, struct error *err)
{
	struct scan scan = { 0 };
	struct text *texts;
	int r = mount_namespaces_list(proc_fd, &scan.namespaces, &scan.n, err);

	if (r < 0)
		return r;
	scan.parsed = calloc(scan.n + 1, sizeof(*scan.parsed));
	scan.tables = calloc(scan.n + 1, sizeof(*scan.tables));
	texts = calloc(scan.n + 1, sizeof(*texts));
	r = scan.parsed && scan.tables && texts ? scan_each(&scan, proc_fd, texts) : -ENOMEM;
	for (size_t i = 0; texts && i < scan.n; i++)
		free(texts[i].data);
	free(texts);
	if (r < 0) {
		scan_free(&scan);
		return error_errno(err, r, "read the mounts of all namespaces");
	}
	*ret = scan;
	return 0;
}

/* libmount is not asked inside a container (scan_each). */
int scan_parent(int proc_fd, uint64_t mount_id, uint64_t *ret_parent)
{
	struct text text = { 0 };
	int r = read_mountinfo(proc_fd, &text);
	char *line, *end;

	if (r >= 0 && text.size == text.room)
		r = grow(&text);
	if (r >= 0) {
		text.data[text.size] = '\0';
		r = -ENOENT;
	}
	for (line = text.data; r == -ENOENT && *line; line = *end ? end + 1 : end) {
		unsigned long long id, parent;

		end = strchrnul(line, '\n');
		if (sscanf(line, "%llu %llu", &id, &parent) == 2 && id == mount_id) {
			*ret_parent = parent;
			r = 0;
		}
	}
	free(text.data);
	return r;
}

void scan_free(struct scan *scan)
{
	for (size_t i = 0; scan->parsed && i < scan->n; i++)
		mount_table_free(scan->parsed[i]);
	free(scan->parsed);
	free(scan->tables);
	mount_namespaces_free(scan->namespaces, scan->n);
	*scan = (struct scan){ 0 };
}
