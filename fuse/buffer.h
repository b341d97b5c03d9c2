/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Large buffers that threads borrow for one step. The one that was given back last is lent next, so
 * that only as many hold memory as are in use at the same time, however many threads take turns;
 * buffers that lie idle give their memory back (buffer_trim).
 *
 * Why READ is answered from one (GB/s for requests of 1 MiB and of 128 KiB, source in the page
 * cache): pread(2) into a buffer and writev(2) to the device 5.5 and 3.4, splice(2) through a pipe
 * 1.6 and 4.2, writev(2) from a mapping of the file 4.5 and 2.3; the same for 4 KiB. Requests are
 * 1 MiB wherever the kernel reads ahead.
 *
 * Threads: one mutex, held over no system call.
 */

#include "base/macros.h"

struct buffer {
	void *data;
	size_t size; /* of data, at least what was asked for */
	struct buffer *next;
	bool used; /* since the last buffer_trim */
};

/* buffer_get - borrow at least `size` bytes, page-aligned. Returns 0 or -ENOMEM. */
int __must_check buffer_get(size_t size, struct buffer **ret);

/* buffer_put - give it back. NULL is fine. */
void buffer_put(struct buffer *buffer);
DEFINE_CLEANUP(struct buffer *, buffer_put);
#define _cleanup_buffer_ _cleanup_(buffer_put_cleanup)

/* buffer_trim - give back the memory of those that nobody borrowed since the last call. */
void buffer_trim(void);

/* buffer_free_all - at the end of the process, when all were given back. */
void buffer_free_all(void);
