/* SPDX-License-Identifier: Apache-2.0 */
#include "mount/forest.h"

#include <errno.h>
#include <string.h>

static int compare_ids(const void *a, const void *b, void *entries)
{
	size_t i = *(const size_t *)a, k = *(const size_t *)b;
	const struct mount_entry *e = entries;

	if (e[i].id != e[k].id)
		return e[i].id < e[k].id ? -1 : 1;
	return i < k ? -1 : i > k;
}

/* Of mounts with one id, which only a table that changed while it was read has, the first. */
static ssize_t find(const struct mount_forest *f, const size_t *by_id, uint64_t id)
{
	size_t low = 0, high = f->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (f->entries[by_id[middle]].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < f->n && f->entries[by_id[low]].id == id ? (ssize_t)by_id[low] : -1;
}

static void add_child(struct mount_forest *f, ssize_t i)
{
	struct mount_node *parent = &f->nodes[f->nodes[i].parent];

	f->nodes[i].next = parent->child;
	parent->child = i;
}

static void link_nodes(struct mount_forest *f, const size_t *by_id)
{
	for (ssize_t i = (ssize_t)f->n - 1; i >= 0; i--) {
		const struct mount_entry *e = &f->entries[i];
		ssize_t parent = e->parent == e->id ? -1 : find(f, by_id, e->parent);

		f->nodes[i].parent = parent;
		if (parent >= 0 && strcmp(f->entries[parent].target, e->target) == 0)
			f->nodes[parent].cover = i;
	}
	for (size_t i = 0; i < f->n; i++)
		if (f->nodes[i].cover >= 0)
			add_child(f, f->nodes[i].cover);
	for (ssize_t i = (ssize_t)f->n - 1; i >= 0; i--)
		if (f->nodes[i].parent >= 0 && f->nodes[f->nodes[i].parent].cover != i)
			add_child(f, i);
}

static void mark_trees(struct mount_forest *f)
{
	for (ssize_t top = 0; top < (ssize_t)f->n; top++)
		if (f->nodes[top].parent < 0)
			for (ssize_t i = top; i >= 0; i = mount_forest_next(f, top, i, true))
				f->nodes[i].in_tree = true;
}

int mount_forest_make(const struct mount_entry *entries, size_t n, struct mount_forest *ret)
{
	struct mount_forest f = { entries, calloc(n + 1, sizeof(*f.nodes)), n };
	_cleanup_free_ size_t *by_id = calloc(n + 1, sizeof(*by_id));

	if (!f.nodes || !by_id) {
		mount_forest_free(&f);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		f.nodes[i] = (struct mount_node){ -1, -1, -1, -1, false };
		by_id[i] = i;
	}
	qsort_r(by_id, n, sizeof(*by_id), compare_ids, (void *)entries);
	link_nodes(&f, by_id);
	mark_trees(&f);
	*ret = f;
	return 0;
}

void mount_forest_free(struct mount_forest *f)
{
	free(f->nodes);
	*f = (struct mount_forest){ 0 };
}

ssize_t mount_forest_next(const struct mount_forest *f, ssize_t top, ssize_t i, bool in)
{
	if (in && f->nodes[i].child >= 0)
		return f->nodes[i].child;
	while (i != top && f->nodes[i].next < 0)
		i = f->nodes[i].parent;
	return i == top ? -1 : f->nodes[i].next;
}
