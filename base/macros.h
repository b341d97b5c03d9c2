/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The few macros that every file of Holdfast uses: attributes, ownership hand-over and scope-bound
 * cleanup.
 *
 * A variable marked _cleanup_(f) is destroyed by f(&variable) when it leaves scope. TAKE_PTR and
 * TAKE_FD hand the resource over to somebody else and leave the variable empty.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/banned.h"

#define __must_check __attribute__((warn_unused_result))
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))
#define _unused_ __attribute__((unused))
#define _noreturn_ __attribute__((noreturn))
#define _cleanup_(f) __attribute__((cleanup(f)))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))
#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))

/* Declares `name_cleanup(type **)`, which calls `destroy` on what the variable points at; NULL is
 * passed on. */
#define DEFINE_CLEANUP(type, destroy)                          \
	static inline _unused_ void destroy##_cleanup(type *p) \
	{                                                      \
		destroy(*p);                                   \
	}                                                      \
	struct _cleanup_needs_semicolon_

#define TAKE_PTR(p)                          \
	({                                   \
		__typeof__(p) *_pp = &(p);   \
		__typeof__(p) _taken = *_pp; \
		*_pp = NULL;                 \
		_taken;                      \
	})

static inline void free_cleanup(void *p)
{
	free(*(void **)p);
}
#define _cleanup_free_ _cleanup_(free_cleanup)
