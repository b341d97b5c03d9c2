/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Another version of a dataset at the same paths, while pods run. */

#include "csi/node_service.h"

/*
 * node_swap - serve the volume `id` from the directory `source`, by a new connection, and exchange
 * all mounts of the one before, inside containers too. Files that are open stay on the old version
 * until they are closed; then its connection ends. The volume's record has the new source, for
 * healings to come. A Publish with the old attributes is still the same volume. Returns 0 or -errno
 * with *err set: ERROR_NOT_FOUND for a volume that is not there, ERROR_INVALID for a source that is
 * not allowed; then all is as before.
 */
int __must_check node_swap(struct node_service *service, const char *id, const char *source,
			   struct error *err);
