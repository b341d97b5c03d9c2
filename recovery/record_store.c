/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/log.h"
#include "recovery/digest.h"

#define DIRECTORY "volumes"
#define SUFFIX ".json"
#define DIGEST_SIZE (DIGEST_HEX_SIZE - 1)
#define NAME_SIZE (DIGEST_SIZE + sizeof(SUFFIX))
#define RECORD_SIZE_MAX (4U << 20) /* thousands of targets */

struct record_store {
	int dir_fd;
	bool read_only;
};

/* The file of a volume. */
static int name_of(const char *id, char ret[NAME_SIZE], struct error *err)
{
	int r = digest_hex(id, ret, err);

	if (r >= 0)
		memcpy(ret + DIGEST_SIZE, SUFFIX, sizeof(SUFFIX));
	return r;
}

static bool is_record_name(const char *name)
{
	return strlen(name) == NAME_SIZE - 1 && strspn(name, "0123456789abcdef") == DIGEST_SIZE &&
	       strcmp(name + DIGEST_SIZE, SUFFIX) == 0;
}

static void dir_cleanup(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}
#define _cleanup_dir_ _cleanup_(dir_cleanup)

static int open_listing(const struct record_store *store, DIR **ret, struct error *err)
{
	_cleanup_close_ int fd = openat(store->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir)
		return error_errno(err, -errno, "open the directory of records");
	(void)TAKE_FD(fd);
	*ret = dir;
	return 0;
}

/* Files that file_replace had no time to rename. */
static void remove_leftovers(struct record_store *store)
{
	_cleanup_dir_ DIR *dir = NULL;
	struct dirent *d;

	if (open_listing(store, &dir, NULL) < 0)
		return;
	while ((d = readdir(dir)))
		if (strncmp(d->d_name, ".new.", 5) == 0)
			(void)unlinkat(store->dir_fd, d->d_name, 0);
}

static int open_at(const char *run_dir, bool read_only, struct record_store **ret,
		   struct error *err)
{
	_cleanup_close_ int run_fd = open(run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_record_store_ struct record_store *store = NULL;
	int fd;

	if (run_fd < 0 && errno != ENOENT)
		return error_errno(err, -errno, "open the run directory %s", run_dir);
	if (run_fd >= 0 && !read_only && mkdirat(run_fd, DIRECTORY, 0700) < 0 && errno != EEXIST)
		return error_errno(err, -errno, "make the directory %s/" DIRECTORY, run_dir);
	fd = run_fd < 0
		     ? -1
		     : openat(run_fd, DIRECTORY, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return error_set(err, ERROR_NOT_FOUND, -ENOENT, "there is no directory %s%s",
				 run_dir, run_fd < 0 ? "" : "/" DIRECTORY);
	if (fd < 0)
		return error_errno(err, -errno, "open the directory %s/" DIRECTORY, run_dir);
	store = malloc(sizeof(*store));
	if (!store) {
		close_fd(&fd);
		return error_errno(err, -ENOMEM, "open the directory of records");
	}
	*store = (struct record_store){ .dir_fd = fd, .read_only = read_only };
	*ret = TAKE_PTR(store);
	return 0;
}

int record_store_open(const char *run_dir, struct record_store **ret, struct error *err)
{
	int r = open_at(run_dir, false, ret, err);

	if (r >= 0)
		remove_leftovers(*ret);
	return r;
}

int record_store_open_readonly(const char *run_dir, struct record_store **ret, struct error *err)
{
	return open_at(run_dir, true, ret, err);
}

void record_store_close(struct record_store *store)
{
	if (!store)
		return;
	close_fd(&store->dir_fd);
	free(store);
}

/* Reads the record in the file `name`, which has to be that of its id. */
static int load_file(struct record_store *store, const char *name, struct record **ret,
		     struct error *err)
{
	_cleanup_record_ struct record *record = NULL;
	_cleanup_free_ char *text = NULL;
	char expected[NAME_SIZE];
	size_t size;
	int r = file_load(store->dir_fd, name, RECORD_SIZE_MAX, &text, &size, err);

	if (r >= 0)
		r = record_decode(text, size, &record, err);
	if (r >= 0)
		r = name_of(record->config.id, expected, err);
	if (r < 0)
		return r;
	if (strcmp(name, expected) != 0)
		return error_set(err, ERROR_INTERNAL, -EBADMSG,
				 "the record of volume '%s' lies in the file of another",
				 record->config.id);
	*ret = TAKE_PTR(record);
	return 0;
}

int record_store_load(struct record_store *store, const char *id, struct record **ret,
		      struct error *err)
{
	struct error load_err = ERROR_INIT;
	char name[NAME_SIZE];
	int r = name_of(id, name, err);

	if (r < 0)
		return r;
	r = load_file(store, name, ret, &load_err);
	if (r == -ENOENT)
		return error_set(err, ERROR_NOT_FOUND, r, "volume '%s' is not known on this node",
				 id);
	if (r < 0)
		return error_set(err, load_err.kind, r,
				 "record of volume '%s' (" DIRECTORY "/%s): %s", id, name,
				 load_err.text);
	return 0;
}

static int check_writable(const struct record_store *store, struct error *err)
{
	if (store->read_only)
		return error_set(err, ERROR_PRECONDITION, -EROFS,
				 "the records were opened only to look at them");
	return 0;
}

int record_store_save(struct record_store *store, const struct record *record, struct error *err)
{
	_cleanup_free_ char *text = NULL;
	struct error write_err = ERROR_INIT;
	char name[NAME_SIZE];
	size_t size;
	int r = check_writable(store, err);

	if (r >= 0)
		r = name_of(record->config.id, name, err);
	if (r >= 0)
		r = record_encode(record, &text, &size, err);
	if (r < 0)
		return r;
	if (size > RECORD_SIZE_MAX)
		return error_set(err, ERROR_EXHAUSTED, -EFBIG,
				 "volume '%s' has too many targets for its record",
				 record->config.id);
	r = file_replace(store->dir_fd, name, text, size, &write_err);
	if (r < 0)
		return error_set(err, write_err.kind, r,
				 "the record of volume '%s' can't be kept in the run directory: %s",
				 record->config.id, write_err.text);
	return 0;
}

int record_store_remove(struct record_store *store, const char *id, struct error *err)
{
	char name[NAME_SIZE];
	int r = check_writable(store, err);

	if (r >= 0)
		r = name_of(id, name, err);
	if (r < 0)
		return r;
	if (unlinkat(store->dir_fd, name, 0) < 0 && errno != ENOENT)
		return error_errno(err, -errno, "remove the record of volume '%s'", id);
	return 0;
}

/* Whether the file is to blame, and not this process, the disk, or a release that may come back. */
static bool is_broken(int code)
{
	return code == -EBADMSG || code == -EFBIG || code == -EINVAL || code == -ELOOP;
}

/* Puts a file that is no record out of the way. */
static void set_aside(struct record_store *store, const char *name)
{
	char broken[NAME_SIZE + sizeof(".broken")];

	(void)snprintf(broken, sizeof(broken), "%s.broken", name);
	if (renameat(store->dir_fd, name, store->dir_fd, broken) < 0)
		(void)log_error_errno(-errno, "rename " DIRECTORY "/%s", name);
	else
		log_error("it is kept as " DIRECTORY "/%s", broken);
}

struct record_list {
	struct record **items;
	size_t n;
};

static void record_list_clear(struct record_list *list)
{
	record_list_free(list->items, list->n);
}

/* Adds the record in `name`, or says why not. -ENOMEM is the only failure. */
static int add_file(struct record_store *store, const char *name, struct record_list *list,
		    struct error *err)
{
	_cleanup_record_ struct record *record = NULL;
	struct error load_err = ERROR_INIT;
	struct record **items;
	int r = load_file(store, name, &record, &load_err);

	if (r == -ENOENT) /* removed meanwhile */
		return 0;
	if (r == -ENOMEM)
		return error_errno(err, r, "list of records");
	if (r < 0) {
		log_error(DIRECTORY "/%s: %s", name, load_err.text);
		if (is_broken(r) && !store->read_only)
			set_aside(store, name);
		return 0;
	}
	items = reallocarray(list->items, list->n + 1, sizeof(struct record *));
	if (!items)
		return error_errno(err, -ENOMEM, "list of records");
	list->items = items;
	items[list->n++] = TAKE_PTR(record);
	return 0;
}

int record_store_list(struct record_store *store, struct record ***ret, size_t *ret_n,
		      struct error *err)
{
	_cleanup_(record_list_clear) struct record_list list = { 0 };
	_cleanup_dir_ DIR *dir = NULL;
	struct dirent *d;
	int r = open_listing(store, &dir, err);

	if (r < 0)
		return r;
	while ((d = readdir(dir))) {
		if (!is_record_name(d->d_name))
			continue;
		r = add_file(store, d->d_name, &list, err);
		if (r < 0)
			return r;
	}
	*ret_n = list.n;
	*ret = TAKE_PTR(list.items);
	return 0;
}
