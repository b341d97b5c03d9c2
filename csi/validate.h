/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The rules that every field of a CSI request keeps, whatever it means: the specification's size
 * limits ("Size Limits": 128 bytes a string, 4 KiB a map), well-formed UTF-8 without control
 * characters, and paths that stay where kubelet keeps its volumes. All return 0 or -EINVAL with
 * *err set (ERROR_INVALID) to a line that names the field. Values are never repeated in errors
 * unless they are harmless: known to be short, printable and no secret.
 */

#include "base/error.h"
#include "base/macros.h"

#define VALIDATE_STRING_MAX 128	   /* bytes */
#define VALIDATE_MAP_MAX 4096	   /* bytes, keys and values together */
#define VALIDATE_KUBELET_MAX 65536 /* bytes, of kubelet's own keys: they may carry tokens */

/* validate_text - `value` has at most `max` bytes and is UTF-8 without control characters. */
int __must_check validate_text(const char *field, const char *value, size_t max, struct error *err);

/* validate_required - validate_text, and not empty. */
int __must_check validate_required(const char *field, const char *value, size_t max,
				   struct error *err);

/*
 * validate_volume_id - not empty, at most 128 bytes, and where it has slashes no component is
 * empty,
 * "." or "..". Ids never become file names here; these are refused because they are somebody's try
 * to make them one.
 */
int __must_check validate_volume_id(const char *id, struct error *err);

/*
 * validate_path - a normalized absolute path below `root` (which itself is refused), at most
 * PATH_MAX - 1 bytes. Nothing is looked up.
 */
int __must_check validate_path(const char *field, const char *root, const char *path,
			       struct error *err);
