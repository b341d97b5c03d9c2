/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The JSON form of a record. The reader takes nothing for granted: a file may be of another
 * release, cut off by a full disk, or edited by hand.
 */

#include "recovery/record.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

static void json_cleanup(json_t **json)
{
	json_decref(*json);
}
#define _cleanup_json_ _cleanup_(json_cleanup)

static const char *const state_names[] = {
	[RECORD_STAGING] = "staging",
	[RECORD_STAGED] = "staged",
	[RECORD_UNSTAGING] = "unstaging",
};

static const struct {
	const char *key;
	size_t offset;
} healing_members[] = {
	{ "deaths", offsetof(struct record_healing, deaths) },
	{ "healings", offsetof(struct record_healing, healings) },
	{ "lastPauseMs", offsetof(struct record_healing, last_pause_ms) },
	{ "staleMounts", offsetof(struct record_healing, stale_mounts) },
	{ "staleFiles", offsetof(struct record_healing, stale_files) },
};

static int bad(struct error *err, const char *key, const char *expected)
{
	return error_set(err, ERROR_INTERNAL, -EBADMSG, "record: \"%s\" has to be %s", key,
			 expected);
}

/* Readers of one member each; *ret is borrowed from the object. */

static int get_string(const json_t *object, const char *key, const char **ret, struct error *err)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_string(value))
		return bad(err, key, "a string");
	*ret = json_string_value(value);
	return 0;
}

static int copy_string(const json_t *object, const char *key, char **ret, struct error *err)
{
	const char *s = NULL;
	int r = get_string(object, key, &s, err);

	if (r < 0)
		return r;
	*ret = strdup(s);
	return *ret ? 0 : error_errno(err, -ENOMEM, "read a record");
}

static int get_bool(const json_t *object, const char *key, bool *ret, struct error *err)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_boolean(value))
		return bad(err, key, "true or false");
	*ret = json_is_true(value);
	return 0;
}

static int get_number(const json_t *object, const char *key, uint64_t max, uint64_t *ret,
		      struct error *err)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    (uint64_t)json_integer_value(value) > max)
		return bad(err, key, "a number in its range");
	*ret = (uint64_t)json_integer_value(value);
	return 0;
}

static int get_u32(const json_t *object, const char *key, uint32_t *ret, struct error *err)
{
	uint64_t value;
	int r = get_number(object, key, UINT32_MAX, &value, err);

	if (r >= 0)
		*ret = (uint32_t)value;
	return r;
}

/* Optional: with it the flag is set. */
static int get_timeout(const json_t *object, const char *key, uint32_t flag,
		       struct volume_config *config, uint64_t *ret, struct error *err)
{
	if (!json_object_get(object, key))
		return 0;
	config->flags |= flag;
	return get_number(object, key, INT64_MAX, ret, err);
}

/* Optional, as the volumes without a limit are most. */
static int get_memory_limit(const json_t *object, struct volume_config *config, struct error *err)
{
	if (!json_object_get(object, "memoryLimit"))
		return 0;
	return get_number(object, "memoryLimit", INT64_MAX, &config->memory_limit, err);
}

static int get_group(const json_t *object, struct volume_config *config, struct error *err)
{
	if (!json_object_get(object, "group"))
		return 0;
	config->flags |= VOLUME_HAS_GROUP;
	return get_u32(object, "group", &config->group, err);
}

static int get_mode(const json_t *object, struct volume_config *config, struct error *err)
{
	enum volume_consistency consistency;
	enum volume_mode mode;
	const char *s = NULL;
	int r = get_string(object, "mode", &s, err);

	if (r < 0)
		return r;
	if (volume_mode_parse(s, &mode) < 0)
		return bad(err, "mode", "a volume mode");
	r = get_string(object, "consistency", &s, err);
	if (r < 0)
		return r;
	if (volume_consistency_parse(s, &consistency) < 0)
		return bad(err, "consistency", "a volume consistency");
	config->mode = mode;
	config->consistency = consistency;
	return 0;
}

static int decode_config(const json_t *object, struct volume_config *config, struct error *err)
{
	struct error config_err = ERROR_INIT;
	bool read_only = false;
	int r = get_bool(object, "readOnly", &read_only, err);

	if (read_only)
		config->flags |= VOLUME_READ_ONLY;
	if (r >= 0)
		r = get_mode(object, config, err);
	if (r >= 0)
		r = get_group(object, config, err);
	if (r >= 0)
		r = get_u32(object, "maxRead", &config->max_read, err);
	if (r >= 0)
		r = get_timeout(object, "attrTimeoutNs", VOLUME_HAS_ATTR_TIMEOUT, config,
				&config->attr_timeout_ns, err);
	if (r >= 0)
		r = get_timeout(object, "entryTimeoutNs", VOLUME_HAS_ENTRY_TIMEOUT, config,
				&config->entry_timeout_ns, err);
	if (r >= 0)
		r = get_memory_limit(object, config, err);
	if (r < 0)
		return r;
	if (volume_config_check(config, &config_err) < 0)
		return error_set(err, ERROR_INTERNAL, -EBADMSG, "record: %s", config_err.text);
	return 0;
}

static int decode_target(const json_t *object, struct record *record, struct error *err)
{
	const char *path = NULL, *fingerprint = NULL;
	struct record_target *target;
	int r;

	if (!json_is_object(object))
		return bad(err, "targets", "a list of objects");
	r = get_string(object, "path", &path, err);
	if (r >= 0)
		r = get_string(object, "fingerprint", &fingerprint, err);
	if (r < 0)
		return r;
	if (path[0] != '/' || record_find_target(record, path))
		return bad(err, "path", "an absolute path that no other target has");
	target = record_add_target(record, path, fingerprint);
	if (!target)
		return error_errno(err, -ENOMEM, "read a record");
	r = get_bool(object, "readOnly", &target->read_only, err);
	if (r >= 0)
		r = get_bool(object, "published", &target->published, err);
	if (r >= 0)
		r = get_bool(object, "created", &target->created, err);
	if (r >= 0 && json_object_get(object, "mountAttr"))
		r = get_number(object, "mountAttr", INT64_MAX, &target->attr, err);
	return r;
}

static int decode_targets(const json_t *object, struct record *record, struct error *err)
{
	const json_t *targets = json_object_get(object, "targets");
	size_t n = json_array_size(targets);

	if (!json_is_array(targets))
		return bad(err, "targets", "a list");
	for (size_t i = 0; i < n; i++) {
		int r = decode_target(json_array_get(targets, i), record, err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int decode_state(const json_t *object, enum record_state *ret, struct error *err)
{
	const char *s = NULL;
	int r = get_string(object, "state", &s, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(state_names); i++)
		if (strcmp(s, state_names[i]) == 0) {
			*ret = (enum record_state)i;
			return 0;
		}
	return bad(err, "state", "\"staging\", \"staged\" or \"unstaging\"");
}

/* The directories: absolute, the staging path only where there was a Stage. */
static int decode_paths(const json_t *object, struct record *record, struct error *err)
{
	int r = copy_string(object, "source", &record->source, err);

	if (r >= 0 && record->source[0] != '/')
		return bad(err, "source", "an absolute path");
	if (r >= 0 && json_object_get(object, "stagingPath"))
		r = copy_string(object, "stagingPath", &record->staging_path, err);
	if (r >= 0 && record->staging_path && record->staging_path[0] != '/')
		return bad(err, "stagingPath", "an absolute path");
	if (r >= 0 && json_object_get(object, "stagingAttr"))
		r = get_number(object, "stagingAttr", INT64_MAX, &record->staging_attr, err);
	return r;
}

/* Optional: a volume that has had one connection has none. */
static int decode_old_devs(const json_t *object, struct record *record, struct error *err)
{
	const json_t *devs = json_object_get(object, "oldDevs");
	size_t n = json_array_size(devs);

	if (!devs)
		return 0;
	if (!json_is_array(devs) || n > RECORD_OLD_DEVS)
		return bad(err, "oldDevs", "a short list");
	for (size_t i = 0; i < n; i++) {
		const json_t *dev = json_array_get(devs, i);

		if (!json_is_integer(dev) || json_integer_value(dev) <= 0)
			return bad(err, "oldDevs", "a list of device numbers");
		record->old_devs[i] = (dev_t)json_integer_value(dev);
	}
	return 0;
}

/* Optional, as each of its members is: another release may have counted less. */
static int decode_healing(const json_t *object, struct record_healing *healing, struct error *err)
{
	const json_t *from = json_object_get(object, "healing");
	int r = 0;

	if (!from)
		return 0;
	if (!json_is_object(from))
		return bad(err, "healing", "an object");
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(healing_members); i++)
		if (json_object_get(from, healing_members[i].key))
			r = get_number(from, healing_members[i].key, INT64_MAX,
				       (uint64_t *)((char *)healing + healing_members[i].offset),
				       err);
	return r;
}

static int decode_object(const json_t *object, struct record *record, struct error *err)
{
	uint64_t dev = 0;
	int r = decode_state(object, &record->state, err);

	if (r >= 0)
		r = decode_paths(object, record, err);
	if (r >= 0)
		r = copy_string(object, "fingerprint", &record->fingerprint, err);
	if (r >= 0)
		r = get_bool(object, "ephemeral", &record->ephemeral, err);
	if (r >= 0)
		r = get_number(object, "dev", INT64_MAX, &dev, err);
	record->dev = (dev_t)dev;
	if (r >= 0)
		r = decode_old_devs(object, record, err);
	if (r >= 0 && json_object_get(object, "devSinceNs"))
		r = get_number(object, "devSinceNs", INT64_MAX, &record->dev_since_ns, err);
	if (r >= 0)
		r = decode_healing(object, &record->healing, err);
	if (r >= 0)
		r = decode_config(object, &record->config, err);
	if (r >= 0)
		r = decode_targets(object, record, err);
	return r;
}

static int check_version(const json_t *object, struct error *err)
{
	uint64_t version;
	int r = get_number(object, "version", UINT32_MAX, &version, err);

	if (r >= 0 && version != RECORD_VERSION)
		return error_set(err, ERROR_PRECONDITION, -EPROTONOSUPPORT,
				 "record of version %u, this build knows %d: it is of another "
				 "release",
				 (uint32_t)version, RECORD_VERSION);
	return r;
}

int record_decode(const char *text, size_t size, struct record **ret, struct error *err)
{
	_cleanup_json_ json_t *object = NULL;
	_cleanup_record_ struct record *record = NULL;
	json_error_t json_err;
	const char *id = NULL;
	int r;

	object = json_loadb(text, size, JSON_REJECT_DUPLICATES, &json_err);
	if (!json_is_object(object))
		return error_set(err, ERROR_INTERNAL, -EBADMSG, "record: no JSON object: %s",
				 object ? "another type" : json_err.text);
	r = check_version(object, err);
	if (r >= 0)
		r = get_string(object, "id", &id, err);
	if (r < 0)
		return r;
	if (!*id || strlen(id) > VOLUME_ID_MAX)
		return bad(err, "id", "a volume id");
	record = record_new(id);
	if (!record)
		return error_errno(err, -ENOMEM, "read a record");
	r = decode_object(object, record, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(record);
	return 0;
}

/*
 * The writer. A member that can't be made, because a string is no UTF-8, a number too large or
 * memory short, leaves `failed` set; the rest goes on, and the end tells.
 */
struct writer {
	json_t *object;
	const char *failed; /* the key of the first member that could not be made */
};

static void put(struct writer *w, const char *key, json_t *value)
{
	/* json_object_set_new takes NULL and then says that it failed */
	if (json_object_set_new(w->object, key, value) < 0 && !w->failed)
		w->failed = key;
}

static void put_number(struct writer *w, const char *key, uint64_t value)
{
	put(w, key, value <= INT64_MAX ? json_integer((json_int_t)value) : NULL);
}

static json_t *encode_target(const struct record_target *target)
{
	return json_pack("{s:s, s:s, s:b, s:b, s:b, s:I}", "path", target->path, "fingerprint",
			 target->fingerprint, "readOnly", target->read_only, "published",
			 target->published, "created", target->created, "mountAttr",
			 (json_int_t)target->attr);
}

static void put_targets(struct writer *w, const struct record *record)
{
	json_t *targets = json_array();

	for (size_t i = 0; i < record->n_targets; i++)
		if (json_array_append_new(targets, encode_target(&record->targets[i])) < 0 &&
		    !w->failed)
			w->failed = "targets";
	put(w, "targets", targets);
}

static void put_old_devs(struct writer *w, const struct record *record)
{
	json_t *devs = json_array();

	for (size_t i = 0; i < RECORD_OLD_DEVS; i++)
		if (record->old_devs[i] != 0 &&
		    json_array_append_new(devs, json_integer((json_int_t)record->old_devs[i])) <
			    0 &&
		    !w->failed)
			w->failed = "oldDevs";
	put(w, "oldDevs", devs);
}

static void put_healing(struct writer *w, const struct record_healing *healing)
{
	json_t *object = json_object();
	struct writer inner = { .object = object };

	for (size_t i = 0; i < ARRAY_SIZE(healing_members); i++)
		put_number(&inner, healing_members[i].key,
			   *(const uint64_t *)((const char *)healing + healing_members[i].offset));
	w->failed = w->failed ?: inner.failed;
	put(w, "healing", object);
}

static void put_config(struct writer *w, const struct volume_config *config)
{
	put(w, "readOnly", json_boolean(config->flags & VOLUME_READ_ONLY));
	put(w, "mode", json_string(volume_mode_name((enum volume_mode)config->mode)));
	put(w, "consistency",
	    json_string(volume_consistency_name((enum volume_consistency)config->consistency)));
	put_number(w, "maxRead", config->max_read);
	if (config->flags & VOLUME_HAS_GROUP)
		put_number(w, "group", config->group);
	if (config->flags & VOLUME_HAS_ATTR_TIMEOUT)
		put_number(w, "attrTimeoutNs", config->attr_timeout_ns);
	if (config->flags & VOLUME_HAS_ENTRY_TIMEOUT)
		put_number(w, "entryTimeoutNs", config->entry_timeout_ns);
	if (config->memory_limit)
		put_number(w, "memoryLimit", config->memory_limit);
}

int record_encode(const struct record *record, char **ret, size_t *ret_size, struct error *err)
{
	_cleanup_json_ json_t *object = json_object();
	struct writer w = { .object = object };
	char *text;

	put_number(&w, "version", RECORD_VERSION);
	put(&w, "id", json_string(record->config.id));
	put(&w, "state", json_string(state_names[record->state]));
	put(&w, "source", json_string(record->source));
	if (record->staging_path) {
		put(&w, "stagingPath", json_string(record->staging_path));
		put_number(&w, "stagingAttr", record->staging_attr);
	}
	put(&w, "fingerprint", json_string(record->fingerprint));
	put(&w, "ephemeral", json_boolean(record->ephemeral));
	put_number(&w, "dev", record->dev);
	put_number(&w, "devSinceNs", record->dev_since_ns);
	put_old_devs(&w, record);
	put_healing(&w, &record->healing);
	put_config(&w, &record->config);
	put_targets(&w, record);
	if (!object)
		return error_errno(err, -ENOMEM, "write a record");
	if (w.failed)
		return error_set(
			err, ERROR_INVALID, -EINVAL,
			"the record of volume '%s' can't be written: \"%s\" is missing, out "
			"of range or not UTF-8",
			record->config.id, w.failed);
	text = json_dumps(object, JSON_INDENT(2));
	if (!text)
		return error_errno(err, -ENOMEM, "write a record");
	*ret = text;
	*ret_size = strlen(text);
	return 0;
}
