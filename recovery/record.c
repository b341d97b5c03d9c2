/* SPDX-License-Identifier: Apache-2.0 */
#include "recovery/record.h"

#include <string.h>

#include "base/clock.h"

struct record *record_new(const char *id)
{
	size_t len = strlen(id);
	struct record *record;

	if (len > VOLUME_ID_MAX)
		return NULL;
	record = calloc(1, sizeof(*record));
	if (record)
		memcpy(record->config.id, id, len);
	return record;
}

static void target_clear(struct record_target *target)
{
	free(target->path);
	free(target->fingerprint);
}

void record_free(struct record *record)
{
	if (!record)
		return;
	for (size_t i = 0; i < record->n_targets; i++)
		target_clear(&record->targets[i]);
	free(record->targets);
	free(record->source);
	free(record->staging_path);
	free(record->fingerprint);
	free(record);
}

struct record_target *record_find_target(struct record *record, const char *path)
{
	for (size_t i = 0; i < record->n_targets; i++)
		if (strcmp(record->targets[i].path, path) == 0)
			return &record->targets[i];
	return NULL;
}

struct record_target *record_add_target(struct record *record, const char *path,
					const char *fingerprint)
{
	_cleanup_free_ char *path_copy = strdup(path), *fingerprint_copy = strdup(fingerprint);
	struct record_target *targets, *added;

	if (!path_copy || !fingerprint_copy)
		return NULL;
	targets = reallocarray(record->targets, record->n_targets + 1, sizeof(*targets));
	if (!targets)
		return NULL;
	record->targets = targets;
	added = &targets[record->n_targets++];
	*added = (struct record_target){ .path = TAKE_PTR(path_copy),
					 .fingerprint = TAKE_PTR(fingerprint_copy) };
	return added;
}

void record_drop_old_dev(struct record *record, dev_t dev)
{
	size_t n = 0;

	for (size_t i = 0; i < RECORD_OLD_DEVS; i++)
		if (record->old_devs[i] != 0 && record->old_devs[i] != dev)
			record->old_devs[n++] = record->old_devs[i];
	while (n < RECORD_OLD_DEVS)
		record->old_devs[n++] = 0;
}

void record_add_old_dev(struct record *record, dev_t dev)
{
	record_drop_old_dev(record, dev);
	memmove(&record->old_devs[1], &record->old_devs[0],
		(RECORD_OLD_DEVS - 1) * sizeof(record->old_devs[0]));
	record->old_devs[0] = dev;
}

/* The kernel gives the number of a superblock that is gone to a new one. */
void record_set_dev(struct record *record, dev_t dev)
{
	dev_t before = record->dev;

	record->dev = dev;
	record_drop_old_dev(record, dev);
	if (before != dev)
		record->dev_since_ns = clock_now_ns();
	if (before != 0 && before != dev)
		record_add_old_dev(record, before);
}

void record_drop_target(struct record *record, const char *path)
{
	struct record_target *target = record_find_target(record, path);

	if (!target)
		return;
	target_clear(target);
	record->n_targets--;
	memmove(target, target + 1,
		(size_t)(record->targets + record->n_targets - target) * sizeof(*target));
}

void record_list_free(struct record **records, size_t n)
{
	for (size_t i = 0; records && i < n; i++)
		record_free(records[i]);
	free(records);
}
