/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>

#include "base/macros.h"

/* thread_start - a thread that gets no signal: those are the main thread's. Returns 0 or -errno. */
int __must_check thread_start(pthread_t *ret, void *(*run)(void *context), void *context);
