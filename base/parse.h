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

/*
 * parse_quantity - an amount as Kubernetes writes it ("512Mi", "1.5Gi", "200M", "1048576"), up to
 * INT64_MAX; a fraction is rounded up to the next whole one. Suffixes: k, M, G, T, P, E, Ki, Mi,
 * Gi, Ti, Pi, Ei. Signs, exponents ("1e6") and thousandths ("500m") are refused, though Kubernetes
 * knows them: nobody means them for bytes. (k8s.io/apimachinery/pkg/api/resource)
 */
int __must_check parse_quantity(const char *s, uint64_t *ret);

/* quantity_show - "512Mi": what parse_quantity reads as `value`, in the largest binary unit that
 * shows all of it. Returns buf. */
#define QUANTITY_MAX 24
const char *quantity_show(uint64_t value, char buf[QUANTITY_MAX]);
