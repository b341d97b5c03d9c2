/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuse/ledger.h"

static const struct volume_config config = { .id = "pv-1",
					     .flags = VOLUME_READ_ONLY,
					     .mode = VOLUME_MODE_WORKER };
static const struct connection_state connection = { .mode = VOLUME_MODE_WORKER,
						    .max_pages = 256,
						    .attr_timeout_ns = 7 };

static int make(struct ledger **ret)
{
	struct error err = ERROR_INIT;
	int fd;

	assert_int_equal(ledger_create(&config, &connection, ret, &fd, &err), 0);
	return fd;
}

/* A memfd of the ledger's size that holds `bytes`, sealed or not. */
static int make_fake(const void *bytes, size_t size, bool sealed)
{
	_cleanup_ledger_ struct ledger *ledger = NULL;
	_cleanup_close_ int real = make(&ledger);
	struct stat st;
	int fd = memfd_create("fake", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_return_code(fstat(real, &st), errno);
	assert_return_code(ftruncate(fd, st.st_size), errno);
	assert_int_equal(pwrite(fd, bytes, size, 0), size);
	if (sealed)
		assert_return_code(
			fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), errno);
	return fd;
}

static void assert_refused(int fd, int code)
{
	struct error err = ERROR_INIT;
	struct ledger *ledger = NULL;

	assert_int_equal(ledger_map(fd, &ledger, &err), code);
	assert_null(ledger);
	assert_int_equal(err.code, code);
	assert_true(err.text[0]);
}

static void a_ledger_holds_what_it_was_made_with(void **state)
{
	_cleanup_ledger_ struct ledger *keeper = NULL;
	_cleanup_ledger_ struct ledger *worker = NULL;
	_cleanup_close_ int fd = make(&keeper);
	struct error err = ERROR_INIT;

	assert_int_equal(ledger_map(fd, &worker, &err), 0);
	assert_memory_equal(&ledger_header(worker)->config, &config, sizeof(config));
	assert_memory_equal(&ledger_header(worker)->connection, &connection, sizeof(connection));
	assert_int_equal(atomic_load(&ledger_header(worker)->epoch), 0);
	assert_int_equal(atomic_load(&ledger_nodes(worker)[1].state), LEDGER_FREE);
	assert_int_equal(atomic_load(&ledger_nodes(worker)[LEDGER_MAX_NODES - 1].state),
			 LEDGER_FREE);
	assert_string_equal(ledger_names(worker)[LEDGER_MAX_NODES - 1].name, "");
}

static void what_a_worker_writes_the_next_one_reads(void **state)
{
	_cleanup_ledger_ struct ledger *keeper = NULL;
	_cleanup_ledger_ struct ledger *first = NULL;
	_cleanup_ledger_ struct ledger *second = NULL;
	_cleanup_close_ int fd = make(&keeper);
	struct error err = ERROR_INIT;

	assert_int_equal(ledger_map(fd, &first, &err), 0);
	ledger_nodes(first)[3].ino = 4711;
	ledger_handles(first)[LEDGER_MAX_HANDLES - 1].node = 3;
	atomic_store(&ledger_header(first)->epoch, 5);
	ledger_unmap(TAKE_PTR(first));
	assert_int_equal(ledger_map(fd, &second, &err), 0);
	assert_int_equal(ledger_nodes(second)[3].ino, 4711);
	assert_int_equal(ledger_handles(second)[LEDGER_MAX_HANDLES - 1].node, 3);
	assert_int_equal(atomic_load(&ledger_header(keeper)->epoch), 5);
}

static void an_unused_ledger_costs_a_few_pages(void **state)
{
	_cleanup_ledger_ struct ledger *ledger = NULL;
	_cleanup_close_ int fd = make(&ledger);
	struct stat st;

	assert_return_code(fstat(fd, &st), errno);
	assert_true(st.st_blocks * 512 <= 65536);
}

static void nobody_can_shrink_a_ledger_under_its_worker(void **state)
{
	_cleanup_ledger_ struct ledger *ledger = NULL;
	_cleanup_close_ int fd = make(&ledger);

	assert_int_equal(ftruncate(fd, 4096), -1);
	assert_int_equal(errno, EPERM);
}

static void other_versions_and_layouts_are_refused_as_such(void **state)
{
	_cleanup_ledger_ struct ledger *ledger = NULL;
	_cleanup_close_ int fd = make(&ledger);
	struct ledger_header *header = ledger_header(ledger);

	header->version++;
	assert_refused(fd, -EPROTONOSUPPORT);
	header->version--;
	header->node_size += 8;
	assert_refused(fd, -EPROTONOSUPPORT);
}

static void what_is_no_ledger_is_refused(void **state)
{
	_cleanup_ledger_ struct ledger *ledger = NULL;
	_cleanup_close_ _unused_ int fd = make(&ledger);
	_cleanup_close_ int garbage = make_fake("garbage", 7, true);
	_cleanup_close_ int unsealed = make_fake(ledger_header(ledger), 4096, false);
	_cleanup_close_ int empty = memfd_create("empty", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	_cleanup_close_ int directory = open("/", O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int copy = make_fake(ledger_header(ledger), 4096, true);
	_cleanup_ledger_ struct ledger *mapped = NULL;
	struct error err = ERROR_INIT;

	assert_refused(garbage, -EBADMSG);
	assert_refused(unsealed, -EBADMSG);
	assert_refused(empty, -EBADMSG);
	assert_refused(directory, -EBADMSG);
	assert_refused(-1, -EBADF);
	assert_int_equal(ledger_map(copy, &mapped, &err), 0);
}

static void a_ledger_of_a_nonsensical_volume_is_refused(void **state)
{
	_cleanup_ledger_ struct ledger *ledger = NULL;
	_cleanup_close_ int fd = make(&ledger);
	struct ledger_header *header = ledger_header(ledger);

	header->config.flags = 0xffff;
	assert_refused(fd, -EBADMSG);
	header->config.flags = VOLUME_READ_ONLY;
	header->connection.mode = VOLUME_MODE_AUTO;
	assert_refused(fd, -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ledger_holds_what_it_was_made_with),
		cmocka_unit_test(what_a_worker_writes_the_next_one_reads),
		cmocka_unit_test(an_unused_ledger_costs_a_few_pages),
		cmocka_unit_test(nobody_can_shrink_a_ledger_under_its_worker),
		cmocka_unit_test(other_versions_and_layouts_are_refused_as_such),
		cmocka_unit_test(what_is_no_ledger_is_refused),
		cmocka_unit_test(a_ledger_of_a_nonsensical_volume_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
