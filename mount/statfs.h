/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What `holdfast-statfs` writes to its standard output: the sizes of the file system that its
 * descriptor STATFS_FD is open on. A process of its own, because statfs(2) on a FUSE mount whose
 * server hangs blocks, and then even SIGKILL ends it only when the request is answered.
 */

#include "base/macros.h"
#include "base/helper.h"

#define STATFS_FD SPAWN_FIRST_FD
#define STATFS_REPORT_VERSION 1

struct statfs_report {
	uint32_t version;
	int32_t code;	     /* 0 or -errno */
	uint64_t block_size; /* bytes */
	uint64_t blocks, blocks_free, blocks_available;
	uint64_t files, files_free;
};
