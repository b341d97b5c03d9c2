/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

_Static_assert(sizeof(struct ledger_node) <= 128, "a million nodes are read at each takeover");
_Static_assert(sizeof(struct ledger_handle) == 32, "two to a cache line");
_Static_assert(sizeof(struct ledger_name) == 256, "sixteen to a page");
_Static_assert(sizeof(struct ledger_thread) == 64, "one to a cache line");
_Static_assert(sizeof(struct ledger_inbox) % 4096 == 0, "each begins on a page");

#define PART_ALIGN 65536ULL /* the largest page of any architecture we know */
#define PART_SIZE(bytes) (((bytes) + PART_ALIGN - 1) & ~(PART_ALIGN - 1))

#define DEVS_OFFSET PART_SIZE(sizeof(struct ledger_header))
#define NODES_OFFSET (DEVS_OFFSET + PART_SIZE(sizeof(struct ledger_dev) * LEDGER_MAX_DEVS))
#define HANDLES_OFFSET (NODES_OFFSET + PART_SIZE(sizeof(struct ledger_node) * LEDGER_MAX_NODES))
#define NAMES_OFFSET (HANDLES_OFFSET + PART_SIZE(sizeof(struct ledger_handle) * LEDGER_MAX_HANDLES))
#define INBOXES_OFFSET (NAMES_OFFSET + PART_SIZE(sizeof(struct ledger_name) * LEDGER_MAX_NODES))
#define LEDGER_SIZE (INBOXES_OFFSET + PART_SIZE(sizeof(struct ledger_inbox) * LEDGER_MAX_INBOXES))

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

struct ledger {
	unsigned char *base;
	size_t mapped;
};

static int map(int fd, size_t size, struct ledger **ret, struct error *err)
{
	_cleanup_free_ struct ledger *ledger = calloc(1, sizeof(*ledger));
	void *base;

	if (!ledger)
		return error_errno(err, -ENOMEM, "ledger");
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (base == MAP_FAILED)
		return error_errno(err, -errno, "mmap the ledger");
	ledger->base = base;
	ledger->mapped = size;
	*ret = TAKE_PTR(ledger);
	return 0;
}

static int make_memfd(void)
{
	int fd = memfd_create("holdfast-ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* older than 6.3 */
		fd = memfd_create("holdfast-ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

int ledger_create(const struct volume_config *config, const struct connection_state *connection,
		  struct ledger **ret, int *ret_fd, struct error *err)
{
	_cleanup_ledger_ struct ledger *ledger = NULL;
	_cleanup_close_ int fd = make_memfd();
	struct ledger_header *header;
	int r;

	if (fd < 0)
		return error_errno(err, fd, "memfd_create");
	if (ftruncate(fd, (off_t)LEDGER_SIZE) < 0)
		return error_errno(err, -errno, "ftruncate the ledger");
	if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return error_errno(err, -errno, "seal the ledger");
	r = map(fd, DEVS_OFFSET, &ledger, err);
	if (r < 0)
		return r;
	header = ledger_header(ledger);
	header->version = LEDGER_VERSION;
	header->node_size = sizeof(struct ledger_node);
	header->handle_size = sizeof(struct ledger_handle);
	header->dev_size = sizeof(struct ledger_dev);
	header->inbox_size = sizeof(struct ledger_inbox);
	header->config = *config;
	header->connection = *connection;
	header->magic = LEDGER_MAGIC;
	*ret = TAKE_PTR(ledger);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Nothing is mapped before the size is known and can't change: no SIGBUS later. */
static int check_file(int fd, struct error *err)
{
	struct stat st;
	int seals;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "fstat the ledger");
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != LEDGER_SIZE)
		return error_set(err, ERROR_INVALID, -EBADMSG,
				 "the ledger has %lld bytes instead of %llu", (long long)st.st_size,
				 (unsigned long long)LEDGER_SIZE);
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & SEALS) != SEALS)
		return error_set(err, ERROR_INVALID, -EBADMSG, "the ledger is not sealed");
	return 0;
}

static int check_header(const struct ledger_header *header, struct error *err)
{
	struct error config_err = ERROR_INIT;

	if (header->magic != LEDGER_MAGIC)
		return error_set(err, ERROR_INVALID, -EBADMSG, "this is no ledger");
	if (header->version != LEDGER_VERSION || header->node_size != sizeof(struct ledger_node) ||
	    header->handle_size != sizeof(struct ledger_handle) ||
	    header->dev_size != sizeof(struct ledger_dev) ||
	    header->inbox_size != sizeof(struct ledger_inbox))
		return error_set(err, ERROR_PRECONDITION, -EPROTONOSUPPORT,
				 "the ledger has version %u, this build knows %u: stage the volume "
				 "again",
				 header->version, LEDGER_VERSION);
	if (volume_config_check(&header->config, &config_err) < 0)
		return error_set(err, ERROR_INVALID, -EBADMSG, "the ledger's config: %s",
				 config_err.text);
	if (header->connection.mode == VOLUME_MODE_AUTO ||
	    header->connection.mode > VOLUME_MODE_WORKER || header->connection.max_pages == 0)
		return error_set(err, ERROR_INVALID, -EBADMSG,
				 "the ledger holds no negotiated connection");
	return 0;
}

static int map_checked(int fd, size_t size, struct ledger **ret, struct error *err)
{
	_cleanup_ledger_ struct ledger *ledger = NULL;
	int r;

	r = check_file(fd, err);
	if (r < 0)
		return r;
	r = map(fd, size, &ledger, err);
	if (r < 0)
		return r;
	r = check_header(ledger_header(ledger), err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(ledger);
	return 0;
}

int ledger_map(int fd, struct ledger **ret, struct error *err)
{
	return map_checked(fd, LEDGER_SIZE, ret, err);
}

int ledger_map_header(int fd, struct ledger **ret, struct error *err)
{
	return map_checked(fd, DEVS_OFFSET, ret, err);
}

void ledger_unmap(struct ledger *ledger)
{
	if (!ledger)
		return;
	(void)munmap(ledger->base, ledger->mapped);
	free(ledger);
}

struct ledger_header *ledger_header(struct ledger *ledger)
{
	return (struct ledger_header *)(void *)ledger->base;
}

struct ledger_dev *ledger_devs(struct ledger *ledger)
{
	return (struct ledger_dev *)(void *)(ledger->base + DEVS_OFFSET);
}

struct ledger_node *ledger_nodes(struct ledger *ledger)
{
	return (struct ledger_node *)(void *)(ledger->base + NODES_OFFSET);
}

struct ledger_handle *ledger_handles(struct ledger *ledger)
{
	return (struct ledger_handle *)(void *)(ledger->base + HANDLES_OFFSET);
}

struct ledger_name *ledger_names(struct ledger *ledger)
{
	return (struct ledger_name *)(void *)(ledger->base + NAMES_OFFSET);
}

struct ledger_inbox *ledger_inboxes(struct ledger *ledger)
{
	return (struct ledger_inbox *)(void *)(ledger->base + INBOXES_OFFSET);
}
