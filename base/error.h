/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Errors that a person will read.
 *
 * The contract, in every layer:
 *  - a function that returns int gives 0 for success, a negative errno for failure; a positive
 * value is an enum that its header documents;
 *  - from the mount code up, the last argument is `struct error *err`. On failure the function has
 * filled it with one line that names what failed and what to change, and returns err->code; on
 * success it is untouched;
 *  - the text is written once, where the most is known; callers above may put words before it
 * (error_prefix) and never write it again;
 *  - `kind` says what sort of failure it is, for the one file that maps errors to gRPC codes
 * (csi/status.c).
 */

#include "base/macros.h"

enum error_kind {
	ERROR_INTERNAL = 0,  /* a system call failed for no fault of the caller's */
	ERROR_INVALID,	     /* the request itself is wrong and will stay wrong */
	ERROR_NOT_FOUND,     /* the volume or path is not there */
	ERROR_EXISTS,	     /* it is there already, with other attributes */
	ERROR_PRECONDITION,  /* another call has to come first, or the node has to be set up
				differently */
	ERROR_BUSY,	     /* another call on the same volume is under way: try again */
	ERROR_EXHAUSTED,     /* memory, descriptors or disk space ran out */
	ERROR_UNAVAILABLE,   /* a process that is needed is not there right now: try again */
	ERROR_UNIMPLEMENTED, /* not served */
	ERROR_CANCELLED,     /* the caller gave up */
	ERROR_TIMEOUT,	     /* the deadline passed */
	ERROR_OUT_OF_RANGE,  /* a value that can't be served here */
};

#define ERROR_TEXT_MAX 1024

struct error {
	int code; /* negative errno; 0 while nothing failed */
	enum error_kind kind;
	char text[ERROR_TEXT_MAX];
};

#define ERROR_INIT        \
	{                 \
		.code = 0 \
	}

/*
 * error_set - record a failure of the given kind; `code` is a negative errno.
 * Returns code, so that callers can `return error_set(...)`. `err` may be NULL.
 */
int error_set(struct error *err, enum error_kind kind, int code, const char *fmt, ...)
	_printf_(4, 5);

/*
 * error_errno - record a failed system call: "TEXT: Strerror". `code` is a negative errno.
 * ENOMEM, EMFILE, ENFILE, ENOSPC, EDQUOT become ERROR_EXHAUSTED, ETIMEDOUT ERROR_TIMEOUT, the rest
 * ERROR_INTERNAL. Returns code. `err` may be NULL.
 */
int error_errno(struct error *err, int code, const char *fmt, ...) _printf_(3, 4);

/* error_prefix - put "FMT: " before the text of a failure that is already recorded. Returns
 * err->code. */
int error_prefix(struct error *err, const char *fmt, ...) _printf_(2, 3);

/* error_kind_of - the kind that error_errno gives to `code` (a negative errno). */
enum error_kind error_kind_of(int code);
