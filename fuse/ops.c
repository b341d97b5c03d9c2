/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/ops.h"

#include <errno.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "fuse/ops_context.h"

#define TRIM_IDLE_NS (20 * NSEC_PER_SEC)

const struct fuse_lowlevel_ops ops_table = {
	.lookup = ops_lookup,
	.forget = ops_forget,
	.forget_multi = ops_forget_multi,
	.getattr = ops_getattr,
	.setattr = ops_setattr,
	.readlink = ops_readlink,
	.statfs = ops_statfs,
	.access = ops_access,
	.mknod = ops_mknod,
	.mkdir = ops_mkdir,
	.symlink = ops_symlink,
	.link = ops_link,
	.unlink = ops_unlink,
	.rmdir = ops_rmdir,
	.rename = ops_rename,
	.open = ops_open,
	.create = ops_create,
	.flush = ops_flush,
	.release = ops_release,
	.read = ops_read,
	.write = ops_write,
	.fsync = ops_fsync,
	.fallocate = ops_fallocate,
	.lseek = ops_lseek,
	.copy_file_range = ops_copy_file_range,
	.ioctl = ops_ioctl,
	.opendir = ops_opendir,
	.readdir = ops_readdir,
	.readdirplus = ops_readdirplus,
	.releasedir = ops_release,
	.fsyncdir = ops_fsync,
	.setxattr = ops_setxattr,
	.getxattr = ops_getxattr,
	.listxattr = ops_listxattr,
	.removexattr = ops_removexattr,
};

static double seconds(uint64_t ns)
{
	return (double)ns / (double)NSEC_PER_SEC;
}

static int attach_nodes(struct ops *ops, struct error *err)
{
	struct node_table_params params = { .ledger = ops->ledger, .source = ops->source };

	return node_table_new(&params, &ops->nodes, err);
}

static int attach_handles(struct ops *ops, struct error *err)
{
	struct handle_table_params params = { .ledger = ops->ledger,
					      .nodes = ops->nodes,
					      .dev_fd = ops->dev_fd };

	return handle_table_new(&params, &ops->handles, err);
}

static int attach(struct ops *ops, int source_fd, struct error *err)
{
	int r = source_new(ops->ledger, source_fd, &ops->source, err);

	if (r >= 0)
		r = attach_nodes(ops, err);
	if (r >= 0)
		r = attach_handles(ops, err);
	return r;
}

int ops_new(const struct ops_params *params, struct ops **ret, struct error *err)
{
	_cleanup_ops_ struct ops *ops = calloc(1, sizeof(*ops));
	struct ledger_header *header = ledger_header(params->ledger);
	int r;

	if (!ops)
		return error_errno(err, -ENOMEM, "operations");
	ops->ledger = params->ledger;
	ops->config = &header->config;
	ops->state = &header->connection;
	ops->dev_fd = params->dev_fd;
	ops->read_only = header->config.flags & VOLUME_READ_ONLY;
	ops->attr_timeout = seconds(header->connection.attr_timeout_ns);
	ops->entry_timeout = seconds(header->connection.entry_timeout_ns);
	r = attach(ops, params->source_fd, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(ops);
	return 0;
}

void ops_free(struct ops *ops)
{
	if (!ops)
		return;
	handle_table_free(ops->handles);
	node_table_free(ops->nodes);
	source_free(ops->source);
	free(ops);
}

void ops_trim(struct ops *ops)
{
	node_fds_trim(ops->nodes, TRIM_IDLE_NS, false);
}

void ops_undo(struct ops *ops, uint64_t unique, bool given_up)
{
	struct handle_open open;

	node_take_back(ops->nodes);
	if (given_up && handle_find(ops->handles, unique, &open))
		handle_release(ops->handles, open.fh);
}

uint64_t ops_raise_fd_limit(void)
{
	/* fs.nr_open's default; more needs CAP_SYS_RESOURCE and a sysctl */
	static const rlim_t wanted = 1U << 20;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	if (limit.rlim_max < wanted) {
		struct rlimit more = { .rlim_cur = wanted, .rlim_max = wanted };

		if (setrlimit(RLIMIT_NOFILE, &more) == 0)
			return wanted;
	}
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur;
}
