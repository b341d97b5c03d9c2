/* SPDX-License-Identifier: Apache-2.0 */
#include "base/strv.h"

#include <errno.h>
#include <string.h>

int strv_add(struct strv *v, const char *s)
{
	_cleanup_free_ char *copy = strdup(s);
	char **items;

	if (!copy)
		return -ENOMEM;
	items = reallocarray(v->items, v->n + 2, sizeof(*items));
	if (!items)
		return -ENOMEM;
	v->items = items;
	v->items[v->n++] = TAKE_PTR(copy);
	v->items[v->n] = NULL;
	return 0;
}

bool strv_contains(const struct strv *v, const char *s)
{
	for (size_t i = 0; i < v->n; i++)
		if (strcmp(v->items[i], s) == 0)
			return true;
	return false;
}

void strv_remove(struct strv *v, const char *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < v->n; i++)
		if (strcmp(v->items[i], s) == 0)
			free(v->items[i]);
		else
			v->items[kept++] = v->items[i];
	v->n = kept;
	if (v->items)
		v->items[kept] = NULL;
}

void strv_clear(struct strv *v)
{
	for (size_t i = 0; i < v->n; i++)
		free(v->items[i]);
	free(v->items);
	*v = (struct strv){ 0 };
}
