/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Functions that no file of Holdfast calls: unbounded copies, parsers that cannot report an error,
 * and a tokenizer with hidden state. The headers that declare them come first, because a poisoned
 * name may not even be declared afterwards.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#ifndef HOLDFAST_ALLOW_BANNED
#undef sprintf /* _FORTIFY_SOURCE makes macros of these two for clang */
#undef vsprintf
#pragma GCC poison strcpy strcat sprintf vsprintf strtok strtok_r gets
#pragma GCC poison atoi atol atoll atof
#pragma GCC poison strtol strtoul strtoll strtoull strtoimax strtoumax
#endif
