/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a worker makes of a ledger that holds anything: its records are laid over with the input,
 * the node and handle tables are rebuilt from them, what the inboxes hold is taken over, and every
 * id that the tables know is used.
 *
 * The input: how many nodes and handles there are said to be, then bytes for the first devices,
 * names, handles and nodes, in this order and as far as they go. An input that begins with 0 is the
 * header itself instead. In one whose first byte has its highest bit set, bytes for the update
 * record, the first threads and their inboxes (struct short_inbox) come before all that.
 */

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "fuse/handle.h"
#include "fuse/inbox.h"
#include "fuse/ledger.h"
#include "fuse/node.h"
#include "fuse/once.h"
#include "fuse/refs.h"
#include "fuse/request.h"
#include "fuse/source.h"
#include "fuse/takeover.h"

#define RECORDS_MAX 16
#define INBOXES 3
#define REQUEST_SIZE 8192
#define WITH_INBOXES 0x80

/* As much of an inbox as the input has bytes for. */
struct short_inbox {
	struct ledger_intent intent;
	uint32_t n_refs, n_forgotten;
	uint64_t refs[4];
	unsigned char data[160];
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void lay_over(const uint8_t **data, size_t *size, void *records, size_t room)
{
	size_t n = MIN_OF(*size, room);

	memcpy(records, *data, n);
	*data += n;
	*size -= n;
}

static void fill_inbox(struct ledger *ledger, uint32_t index, const uint8_t **data, size_t *size)
{
	struct ledger_inbox *inbox = &ledger_inboxes(ledger)[index];
	struct short_inbox values = { .n_refs = 0 };

	lay_over(data, size, &values, sizeof(values));
	memcpy(&inbox->intent, &values.intent, sizeof(inbox->intent));
	atomic_store(&inbox->n_refs, values.n_refs);
	atomic_store(&inbox->n_forgotten, values.n_forgotten);
	memcpy(inbox->refs, values.refs, sizeof(values.refs));
	memcpy(inbox->data, values.data, sizeof(values.data));
}

static void fill_inboxes(struct ledger *ledger, const uint8_t **data, size_t *size)
{
	struct ledger_header *header = ledger_header(ledger);

	lay_over(data, size, &header->update, sizeof(header->update));
	lay_over(data, size, header->threads, INBOXES * sizeof(header->threads[0]));
	for (uint32_t i = 0; i < INBOXES; i++)
		fill_inbox(ledger, i, data, size);
	atomic_store(&header->end, LEDGER_END_CRASH);
}

static void fill(struct ledger *ledger, const uint8_t *data, size_t size)
{
	struct ledger_header *header = ledger_header(ledger);
	bool with_inboxes;

	if (size < 2)
		return;
	atomic_store(&header->nodes_used, data[0] % RECORDS_MAX);
	atomic_store(&header->handles_used, data[1] % RECORDS_MAX);
	with_inboxes = data[0] & WITH_INBOXES;
	data += 2;
	size -= 2;
	if (with_inboxes)
		fill_inboxes(ledger, &data, &size);
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

static int succeed(void *context)
{
	return 0;
}

/* One of the system calls that must not run twice; none of them finds anything. */
static ssize_t call_once(int dir_fd, int file, int which)
{
	const struct once_making making = {
		.dir_fd = dir_fd, .name = "x", .type = S_IFREG, .make = succeed, .found = succeed
	};
	const struct once_renaming renaming = {
		.from_fd = dir_fd, .to_fd = dir_fd, .name = "x", .new_name = "y", .rename = succeed
	};

	switch (which) {
	case 0:
		return once_make(&making);
	case 1:
		return once_remove(dir_fd, "x", 0);
	case 2:
		return once_rename(&renaming);
	case 3:
		return once_append(file, "x", 1);
	case 4:
		return once_setxattr("/proc/self/fdinfo/x", "user.x", "x", 1, 0);
	default:
		return once_removexattr("/proc/self/fdinfo/x", "user.x");
	}
}

/* What the intent says to each of them. */
static void use_intent(struct ledger_intent *intent, int dir_fd)
{
	_cleanup_close_ int file = memfd_create("file", MFD_CLOEXEC);
	struct ledger_intent before;

	memcpy(&before, intent, sizeof(before));
	for (int which = 0; which < 6; which++) {
		memcpy(intent, &before, sizeof(before));
		if (call_once(dir_fd, file, which) > INT32_MAX)
			abort();
	}
}

/* The request that lies there runs again, as far as the ledger has a say in it. */
static void replay(const struct inbox *inbox, struct node_table *nodes, int dir_fd)
{
	_cleanup_free_ void *scratch = malloc(REQUEST_SIZE);
	struct fuse_in_header *in = (void *)inbox->record->data;
	struct request request;
	void *buf;
	size_t size;

	if (!scratch)
		abort();
	if (request_decode(in, in->len, UINT64_MAX, scratch, &request, &buf, &size) >= 0 &&
	    size > REQUEST_SIZE)
		abort();
	for (uint64_t i = refs_forgotten(); i < RECORDS_MAX; i++)
		node_forget(nodes, in->nodeid + i, 1);
	if (node_refer(nodes, in->nodeid) >= 0 && refs_last() != in->nodeid)
		abort();
	use_intent(&inbox->record->intent, dir_fd);
}

/* As session.c does it. */
static void serve_left(const struct inbox *inbox, enum takeover_verdict verdict,
		       struct node_table *nodes, int dir_fd)
{
	if (verdict != TAKEOVER_GO_ON)
		node_take_back(nodes);
	if (verdict == TAKEOVER_GIVE_UP)
		takeover_note_poison(inbox);
	else
		replay(inbox, nodes, dir_fd);
}

static void take_over(struct ledger *ledger, struct node_table *nodes, int dir_fd)
{
	_cleanup_close_ int dev_fd = open("/dev/null", O_WRONLY | O_CLOEXEC); /* all is awaited */
	struct takeover *takeover;

	if (takeover_new(ledger, dev_fd, &takeover) < 0)
		abort();
	for (uint32_t i = 0; i < LEDGER_MAX_INBOXES; i++) {
		struct inbox inbox;

		if (!takeover_has(takeover, i))
			continue;
		if (inbox_open(ledger, i, REQUEST_SIZE, 0, &inbox) < 0)
			abort();
		inbox_set_current(&inbox);
		if (inbox_request(&inbox))
			serve_left(&inbox, takeover_judge(takeover, &inbox), nodes, dir_fd);
		inbox_clear(&inbox);
		inbox_set_current(NULL);
		takeover_done(takeover);
	}
	takeover_free(takeover);
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
	take_over(ledger, nodes, dir_fd);
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

	log_open("fuzz",
		 (enum log_level)(LOG_LEVEL_ERROR - 1)); /* poison is an error, and common */
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
