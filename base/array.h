/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Arrays on the heap that grow by one. */

#include "base/macros.h"

/*
 * array_grow - see to it that there is room for item `n`, of `size` bytes. `items` has room for *room,
 * NULL for none. Returns where the items are now, in the place of `items`, or NULL when out of
 * memory: then nothing has changed.
 */
void *__must_check array_grow(void *items, size_t n, size_t *room, size_t size);
