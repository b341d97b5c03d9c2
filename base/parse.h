/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Strict parsers for numbers that come from outside: the whole string has to be consumed, no
 * blanks, no sign where none makes sense, every overflow is an error. All return 0, -EINVAL (not of
 * this form) or -ERANGE (does not fit), and leave *ret untouched on failure.
 */

#include "base/macros.h"

/* parse_u64 - a decimal number. */
int __must_check parse_u64(const char *s, uint64_t *ret);

/* parse_u32 - a decimal number up to `max`. */
int __must_check parse_u32(const char *s, uint32_t max, uint32_t *ret);

/* parse_bool - exactly "true" or "false", as Kubernetes attributes are written. */
int __must_check parse_bool(const char *s, bool *ret);

/*
 * parse_duration - a duration as Go's time.ParseDuration reads it ("1h30m", "1.5s", "100ms", "0"),
 * in nanoseconds. Units: ns, us, µs, ms, s, m, h. Negative durations are refused.
 */
int __must_check parse_duration(const char *s, uint64_t *ret_ns);

/* parse_size - bytes, with an optional Kubernetes suffix (k, M, G, T, Ki, Mi, Gi, Ti). */
int __must_check parse_size(const char *s, uint64_t *ret_bytes);
