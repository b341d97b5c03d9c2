/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/crash.h"

void crash_point(const char *point)
{
	(void)point;
}
