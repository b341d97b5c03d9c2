/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The parameters of a Stage or a Publish call as one canonical text, one "name=value" a line, in a
 * fixed order: stored in the record, it tells whether a later call is the same again, and if not,
 * what differs. Parameters that kubelet may change between two calls that mean the same (tokens,
 * secrets, pod information) are not in it.
 */

#include "base/error.h"
#include "base/macros.h"
#include "csi/attributes.h"
#include "csi/capability.h"

/* fingerprint_stage - *ret is owned by the caller. Returns 0 or -ENOMEM with *err set. */
int __must_check fingerprint_stage(const struct attributes *attributes,
				   const struct capability *capability, char **ret,
				   struct error *err);

/*
 * fingerprint_publish - `attributes` only count for an inline volume, where nothing was staged with
 * them before; NULL otherwise. *ret is owned by the caller. Returns 0 or -ENOMEM with *err set.
 */
int __must_check fingerprint_publish(const struct attributes *attributes,
				     const struct capability *capability, bool read_only,
				     char **ret, struct error *err);

/*
 * fingerprint_compare - whether `now` says the same as `before`; parameters that only one of them
 * has are not compared. Returns 0, or -EEXIST with *err set (ERROR_EXISTS): it names the first
 * parameter that differs, and both values.
 */
int __must_check fingerprint_compare(const char *before, const char *now, struct error *err);

/* fingerprint_attributes, fingerprint_access_mode - these alone, to compare with a stage call's. As
 * above. */
int __must_check fingerprint_attributes(const struct attributes *attributes, char **ret,
					struct error *err);
int __must_check fingerprint_access_mode(const struct capability *capability, char **ret,
					 struct error *err);
