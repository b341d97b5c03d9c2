/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A ledger and a source directory, for tests of what lies between them. Include unit.h first. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuse/handle.h"
#include "fuse/ledger.h"
#include "fuse/node.h"
#include "fuse/source.h"

struct volume_fixture {
	char path[64]; /* the source directory */
	int dir_fd, ledger_fd;
	/* of the worker that is attached */
	struct ledger *ledger;
	struct source *source;
	struct node_table *nodes;
	struct handle_table *handles;
};

static inline void volume_attach(struct volume_fixture *v)
{
	struct node_table_params nodes = { 0 };
	struct handle_table_params handles = { .dev_fd = -1 };
	struct error err = ERROR_INIT;

	assert_int_equal(ledger_map(v->ledger_fd, &v->ledger, &err), 0);
	assert_int_equal(source_new(v->ledger, v->dir_fd, &v->source, &err), 0);
	nodes.ledger = handles.ledger = v->ledger;
	nodes.source = v->source;
	assert_int_equal(node_table_new(&nodes, &v->nodes, &err), 0);
	handles.nodes = v->nodes;
	assert_int_equal(handle_table_new(&handles, &v->handles, &err), 0);
}

static inline void volume_detach(struct volume_fixture *v)
{
	handle_table_free(TAKE_PTR(v->handles));
	node_table_free(TAKE_PTR(v->nodes));
	source_free(TAKE_PTR(v->source));
	ledger_unmap(TAKE_PTR(v->ledger));
}

/* The worker dies, the next one attaches. */
static inline void volume_take_over(struct volume_fixture *v)
{
	volume_detach(v);
	volume_attach(v);
}

static inline int volume_setup(void **state)
{
	static const struct volume_config config = { .id = "pv-1", .mode = VOLUME_MODE_WORKER };
	static const struct connection_state connection = { .mode = VOLUME_MODE_WORKER,
							    .max_pages = 256 };
	struct volume_fixture *v = calloc(1, sizeof(*v));
	struct ledger *keeper;
	struct error err = ERROR_INIT;

	assert_non_null(v);
	(void)snprintf(v->path, sizeof(v->path), "/tmp/holdfast-test-XXXXXX");
	assert_non_null(mkdtemp(v->path));
	v->dir_fd = open(v->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_return_code(v->dir_fd, errno);
	assert_int_equal(ledger_create(&config, &connection, &keeper, &v->ledger_fd, &err), 0);
	ledger_unmap(keeper);
	volume_attach(v);
	*state = v;
	return 0;
}

static inline int volume_teardown(void **state)
{
	struct volume_fixture *v = *state;
	char command[128];

	volume_detach(v);
	close_fd(&v->dir_fd);
	close_fd(&v->ledger_fd);
	(void)snprintf(command, sizeof(command), "rm -rf %s", v->path);
	assert_int_equal(system(command), 0);
	free(v);
	return 0;
}

/* Makes a file with its own name in it. */
static inline void volume_make_file(struct volume_fixture *v, const char *name)
{
	_cleanup_close_ int fd =
		openat(v->dir_fd, name, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);

	assert_return_code(fd, errno);
	assert_int_equal(write(fd, name, strlen(name)), strlen(name));
}

/* What a LOOKUP does. Returns the node's id. */
static inline uint64_t volume_look_up(struct volume_fixture *v, uint64_t parent, const char *name)
{
	_cleanup_node_ref_ struct node_ref dir = NODE_REF_INIT;
	struct source_identity identity;
	uint64_t id;
	int fd;

	assert_int_equal(node_get(v->nodes, parent, false, &dir), 0);
	fd = openat(dir.fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	assert_return_code(fd, errno);
	assert_int_equal(source_identify(v->source, fd, parent, name, &identity), 0);
	assert_int_equal(node_remember(v->nodes, &identity, parent, name, fd, &id), 0);
	return id;
}
