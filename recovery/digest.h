/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Names for files and directories of volumes whose ids may hold '/' and be longer than a name. */

#include "base/error.h"
#include "base/macros.h"

#define DIGEST_HEX_SIZE 65 /* with the NUL */

/*
 * digest_hex - the SHA-256 of the string `text` in lower-case hexadecimal digits. Returns 0 or -EIO
 * with *err set.
 */
int __must_check digest_hex(const char *text, char ret[DIGEST_HEX_SIZE], struct error *err);
