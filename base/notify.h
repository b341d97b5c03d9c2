/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The service manager's notification protocol (sd_notify(3)): READY=1, STATUS=..., STOPPING=1,
 * WATCHDOG=1. Every call is a no-op where NOTIFY_SOCKET is not set, and none waits for a manager that
 * does not read: what it has no room for is lost.
 */

#include "base/macros.h"

/* notify_ready - READY=1 and a STATUS= line, once the daemon serves. */
void notify_ready(const char *status);

/* notify_status - a new STATUS= line. */
void notify_status(const char *fmt, ...) _printf_(1, 2);

/* notify_stopping - STOPPING=1. */
void notify_stopping(void);

/* notify_watchdog - WATCHDOG=1: the main loop went round. */
void notify_watchdog(void);

/*
 * notify_watchdog_interval_ms - how often notify_watchdog has to be called (half of WATCHDOG_USEC),
 * 0 if never.
 */
uint64_t notify_watchdog_interval_ms(void);
