/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a worker makes of a ledger that holds anything: its records are laid over with the input,
 * the node and handle tables are rebuilt from them, and every id that they know is used.
 *
 * The input: how many nodes and handles there are said to be, then bytes for the first devices,
 * names, handles and nodes, in this order and as far as they go. An input that begins with 0 is the
 * header itself instead.
 */

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuse/handle.h"
#include "fuse/ledger.h"
#include "fuse/node.h"
#include "fuse/source.h"

#define RECORDS_MAX 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void lay_over(const uint8_t **data, size_t *size, void *records, size_t room)
{
	size_t n = MIN_OF(*size, room);

	memcpy(records, *data, n);
	*data += n;
	*size -= n;
}

static void fill(struct ledger *ledger, const uint8_t *data, size_t size)
{
	struct ledger_header *header = ledger_header(ledger);

	if (size < 2)
		return;
	atomic_store(&header->nodes_used, data[0] % RECORDS_MAX);
	atomic_store(&header->handles_used, data[1] % RECORDS_MAX);
	data += 2;
	size -= 2;
	lay_over(&data, &size, ledger_devs(ledger), 2 * sizeof(struct ledger_dev));
	lay_over(&data, &size, ledger_names(ledger), 4 * sizeof(struct ledger_name));
	lay_over(&data, &size, ledger_handles(ledger), 4 * sizeof(struct ledger_handle));
	lay_over(&data, &size, ledger_nodes(ledger),
		 (RECORDS_MAX - 1) * sizeof(struct ledger_node));
}

static void use_nodes(struct ledger *ledger, struct node_table *nodes)
{
	const struct ledger_node *records = ledger_nodes(ledger);

	for (uint32_t i = 0; i < RECORDS_MAX; i++) {
		struct node_ref ref = NODE_REF_INIT;
		uint64_t id = ledger_id(i, records[i].generation);

		if (node_get(nodes, id, false, &ref) == 0)
			node_put(&ref);
		node_forget(nodes, id, i % 2 ? UINT64_MAX : 1);
	}
}

static void use_handles(struct ledger *ledger, struct handle_table *handles)
{
	const struct ledger_handle *records = ledger_handles(ledger);
	struct handle_open open;

	(void)handle_find(handles, 0, &open);
	for (uint32_t i = 0; i < RECORDS_MAX; i++) {
		struct handle_ref ref = HANDLE_REF_INIT;
		uint64_t fh = ledger_id(i, records[i].generation);

		if (handle_get(handles, fh, &ref) == 0)
			handle_put(&ref);
		handle_release(handles, fh);
	}
}

static void attach(struct ledger *ledger, int dir_fd)
{
	_cleanup_source_ struct source *source = NULL;
	_cleanup_node_table_ struct node_table *nodes = NULL;
	_cleanup_handle_table_ struct handle_table *handles = NULL;
	struct node_table_params node_params = { .ledger = ledger, .max_fds = 4 };
	struct handle_table_params handle_params = { .ledger = ledger, .dev_fd = -1 };

	if (source_new(ledger, dir_fd, &source, NULL) < 0)
		return;
	node_params.source = source;
	if (node_table_new(&node_params, &nodes, NULL) < 0)
		abort();
	handle_params.nodes = nodes;
	if (handle_table_new(&handle_params, &handles, NULL) < 0)
		abort();
	use_nodes(ledger, nodes);
	use_handles(ledger, handles);
	use_nodes(ledger, nodes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct volume_config config = { .id = "pv", .mode = VOLUME_MODE_WORKER };
	static const struct connection_state connection = { .mode = VOLUME_MODE_WORKER,
							    .max_pages = 1 };
	_cleanup_ledger_ struct ledger *keeper = NULL;
	_cleanup_ledger_ struct ledger *worker = NULL;
	_cleanup_close_ int fd = -EBADF;
	struct stat st;
	_cleanup_close_ int dir_fd = open("/proc/self/fdinfo", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (dir_fd < 0 || fstat(dir_fd, &st) < 0 ||
	    ledger_create(&config, &connection, &keeper, &fd, NULL) < 0)
		abort();
	if (size > 0 && data[0] == 0)
		memcpy(ledger_header(keeper), data + 1,
		       MIN_OF(size - 1, sizeof(struct ledger_header)));
	if (ledger_map(fd, &worker, NULL) < 0)
		return 0;
	/* that many records would be memory that a real ledger has in use */
	if (atomic_load(&ledger_header(worker)->nodes_used) > LEDGER_MAX_NODES / 1024)
		atomic_store(&ledger_header(worker)->nodes_used, LEDGER_MAX_NODES / 1024);
	if (size > 0 && data[0] != 0)
		fill(worker, data, size);
	ledger_devs(worker)[0].dev = st.st_dev; /* another one is refused at once */
	attach(worker, dir_fd);
	return 0;
}
