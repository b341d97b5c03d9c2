/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A volume's attributes: the volume_context of a PV (or of an inline volume) as kubelet passes it
 * on. Kubelet adds keys of its own below csi.storage.k8s.io/; those are accepted whatever they are,
 * and may hold tokens, so no value of theirs is ever repeated or stored.
 */

#include "base/error.h"
#include "base/macros.h"
#include "fuse/volume.h"

struct attribute {
	const char *key, *value; /* borrowed */
};

struct attributes {
	char *source; /* owned; a normalized absolute path, NULL when it was not given */
	bool has_read_only, read_only;
	bool has_attr_timeout, has_entry_timeout;
	uint64_t attr_timeout_ns, entry_timeout_ns;
	enum volume_mode mode;
	enum volume_consistency consistency;
	uint64_t memory_limit; /* bytes, 0: it was not given */
	size_t n_given;	       /* how many of ours there were */

	bool ephemeral; /* kubelet's: an inline volume */
};

/*
 * attributes_decode - read `n` attributes. An unknown one is refused, and the error names the
 * nearest known one; so is one that is given twice. *ret is given back by attributes_clear. Returns
 * 0 or -errno with *err set (ERROR_INVALID, ERROR_EXHAUSTED).
 */
int __must_check attributes_decode(const struct attribute *list, size_t n, struct attributes *ret,
				   struct error *err);
void attributes_clear(struct attributes *a);
#define _cleanup_attributes_ _cleanup_(attributes_clear)

/*
 * attributes_nearest - the known attribute that takes the fewest insertions, deletions and
 * replacements of characters (upper and lower case being the same) to make `key` of. Never NULL.
 */
const char *attributes_nearest(const char *key);
