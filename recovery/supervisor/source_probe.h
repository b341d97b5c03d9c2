/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What kind of file system a source is. statfs(2) asks the server of a FUSE or network file system,
 * which may hang, so a child asks and the keeper does not wait.
 */

#include "base/error.h"
#include "base/macros.h"
#include "recovery/supervisor/child.h"

/* source_probe_start - ask for the file system of `source_fd` (borrowed). Returns 0 or -errno with
 * *err set. */
int __must_check source_probe_start(int source_fd, struct child *ret, struct error *err);

/*
 * source_probe_receive - *ret is statfs(2)'s f_type. Returns 0, -EAGAIN while there is no answer,
 * or -errno with *err set (ERROR_PRECONDITION): what statfs said.
 */
int __must_check source_probe_receive(const struct child *probe, uint64_t *ret, struct error *err);
