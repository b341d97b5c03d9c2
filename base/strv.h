/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A growing list of owned strings. `items` is NULL-terminated whenever it is not NULL. */

#include "base/macros.h"

struct strv {
	char **items;
	size_t n;
};

/* strv_add - append a copy of `s`. Returns 0 or -ENOMEM (the list is then unchanged). */
int __must_check strv_add(struct strv *v, const char *s);

/* strv_contains - whether an equal string is in the list. */
bool strv_contains(const struct strv *v, const char *s);

/* strv_remove - drop every string equal to `s`. */
void strv_remove(struct strv *v, const char *s);

/* strv_clear - free all; the list is empty afterwards. */
void strv_clear(struct strv *v);
#define _cleanup_strv_ _cleanup_(strv_clear)
