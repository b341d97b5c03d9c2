/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/ops_context.h"

#include <errno.h>

#include "fuse/refs.h"

/* That a name is not there may be remembered where nothing changes. */
static bool reply_negative(fuse_req_t req)
{
	const struct ops *ops = ops_of(req);
	struct fuse_entry_param entry = { .entry_timeout = ops->entry_timeout };

	if (ops->config->consistency != VOLUME_IMMUTABLE)
		return false;
	(void)fuse_reply_entry(req, &entry);
	return true;
}

void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct ops *ops = ops_of(req);
	_cleanup_node_ref_ struct node_ref dir = NODE_REF_INIT;
	struct fuse_entry_param entry;
	int r;

	r = ops_open_parent(ops, parent, name, false, &dir);
	if (r >= 0)
		r = ops_look_up(ops, parent, dir.fd, name, &entry);
	if (r == -ENOENT && reply_negative(req))
		return;
	ops_reply_entry(req, r, &entry);
}

void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	if (refs_forgotten() == 0)
		node_forget(ops_of(req)->nodes, ino, nlookup);
	fuse_reply_none(req);
}

void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct ops *ops = ops_of(req);

	for (size_t i = refs_forgotten(); i < count; i++)
		node_forget(ops->nodes, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}
