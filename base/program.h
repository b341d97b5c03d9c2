/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where Holdfast's own programs find each other. */

#include "base/macros.h"

/*
 * program_path - the path of the running program's file in `buf` of `size` bytes, "" if that can't
 * be told. To be asked at start: later the file may have been moved.
 */
void program_path(char *buf, size_t size);

/*
 * program_find - the path of the helper program `name` in `buf` of `size` bytes: next to the running
 * program (also when that was replaced since it started), else in the directory that helpers are
 * installed to. Whether it is there shows when it is started. Returns buf.
 */
const char *program_find(const char *name, char *buf, size_t size);
