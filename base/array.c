/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"

#include <stdlib.h>

#define FIRST_ROOM 16

void *array_grow(void *items, size_t n, size_t *room, size_t size)
{
	size_t more = *room ? *room * 2 : FIRST_ROOM;

	if (n < *room)
		return items;
	items = reallocarray(items, more, size);
	if (items)
		*room = more;
	return items;
}
