/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/macros.h"

/*
 * utf8_prefix - how many of the `n` bytes at `s` are well-formed UTF-8 (RFC 3629: no overlong
 * forms, no surrogates, nothing above U+10FFFF). n if all are; otherwise the start of the first
 * sequence that is wrong or cut off. A NUL is a character like any other.
 */
size_t utf8_prefix(const char *s, size_t n);

/* utf8_clean - replace every byte of the string `s` that belongs to no character by '?', in place.
 */
void utf8_clean(char *s);
