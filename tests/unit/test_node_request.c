/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <sys/mount.h>

#include "csi/fingerprint.h"
#include "csi/node_request.h"
#include "csi/validate.h"

#define ROOT "/var/lib/kubelet"
#define MODE(name) CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__##name

/* A Stage request that can be changed before it is decoded. */
struct fixture {
	char flag[64], group[16], source[64], value[64];
	char *flags[1];
	Csi__V1__VolumeCapability__MountVolume mount;
	Csi__V1__VolumeCapability__BlockVolume block;
	Csi__V1__VolumeCapability__AccessMode mode;
	Csi__V1__VolumeCapability capability;
	Csi__V1__NodeStageVolumeRequest__VolumeContextEntry entries[2], *context[2];
	Csi__V1__NodeStageVolumeRequest message;
};

static void fixture_init(struct fixture *f)
{
	static char id[] = "pv-1", staging[] = ROOT "/plugins/globalmount", key[] = "source";
	static char read_only[] = "readOnly";

	*f = (struct fixture){ .source = "/data", .value = "false" };
	f->flags[0] = f->flag;
	csi__v1__volume_capability__mount_volume__init(&f->mount);
	csi__v1__volume_capability__block_volume__init(&f->block);
	csi__v1__volume_capability__access_mode__init(&f->mode);
	csi__v1__volume_capability__init(&f->capability);
	csi__v1__node_stage_volume_request__init(&f->message);
	f->mode.mode = MODE(MULTI_NODE_MULTI_WRITER);
	f->mount.mount_flags = f->flags;
	f->mount.n_mount_flags = 1;
	f->mount.volume_mount_group = f->group;
	f->capability.mount = &f->mount;
	f->capability.access_type_case = CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT;
	f->capability.access_mode = &f->mode;
	csi__v1__node_stage_volume_request__volume_context_entry__init(&f->entries[0]);
	csi__v1__node_stage_volume_request__volume_context_entry__init(&f->entries[1]);
	f->entries[0].key = key;
	f->entries[0].value = f->source;
	f->entries[1].key = read_only;
	f->entries[1].value = f->value;
	f->context[0] = &f->entries[0];
	f->context[1] = &f->entries[1];
	f->message.volume_id = id;
	f->message.staging_target_path = staging;
	f->message.volume_capability = &f->capability;
	f->message.volume_context = f->context;
	f->message.n_volume_context = 1;
}

static int decode(struct fixture *f, struct volume_config *ret, char **ret_fingerprint)
{
	_cleanup_node_request_ struct node_request request = { 0 };
	struct error err = ERROR_INIT;
	int r = node_request_stage(&f->message, ROOT, &request, &err);

	if (r >= 0)
		r = node_request_config(&request, ret, &err);
	if (r >= 0 && ret_fingerprint)
		r = fingerprint_stage(&request.attributes, &request.capability, ret_fingerprint,
				      &err);
	assert_int_equal(r, err.code);
	assert_true(r == 0 || err.kind == ERROR_INVALID);
	return r;
}

static void a_plain_request_is_a_writable_volume(void **state)
{
	struct volume_config config;
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(decode(&f, &config, NULL), 0);
	assert_string_equal(config.id, "pv-1");
	assert_int_equal(config.flags, 0);
	assert_int_equal(config.mode, VOLUME_MODE_AUTO);
}

static bool is_read_only(struct fixture *f)
{
	struct volume_config config;

	assert_int_equal(decode(f, &config, NULL), 0);
	return config.flags & VOLUME_READ_ONLY;
}

static void readonly_is_the_narrowest_of_all_that_say_something(void **state)
{
	struct fixture f;

	fixture_init(&f);
	assert_false(is_read_only(&f));
	(void)snprintf(f.flag, sizeof(f.flag), "ro");
	assert_true(is_read_only(&f));
	(void)snprintf(f.flag, sizeof(f.flag), "rw,ro,rw");
	assert_true(is_read_only(&f));
	fixture_init(&f);
	f.mode.mode = MODE(MULTI_NODE_READER_ONLY);
	assert_true(is_read_only(&f));
	f.message.n_volume_context = 2; /* readOnly "false" does not widen */
	assert_true(is_read_only(&f));
	f.mode.mode = MODE(SINGLE_NODE_WRITER);
	assert_false(is_read_only(&f));
	(void)snprintf(f.value, sizeof(f.value), "true");
	assert_true(is_read_only(&f));
}

static void a_group_is_a_number(void **state)
{
	struct volume_config config;
	struct fixture f;

	fixture_init(&f);
	(void)snprintf(f.group, sizeof(f.group), "0");
	assert_int_equal(decode(&f, &config, NULL), 0);
	assert_true(config.flags & VOLUME_HAS_GROUP);
	assert_int_equal(config.group, 0);
	(void)snprintf(f.group, sizeof(f.group), "4294967294");
	assert_int_equal(decode(&f, &config, NULL), 0);
	assert_true(config.group == 4294967294U);
	static const char *const bad[] = { "4294967295", "-1", "users", " 1", "0x10" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		(void)snprintf(f.group, sizeof(f.group), "%s", bad[i]);
		assert_int_equal(decode(&f, &config, NULL), -EINVAL);
	}
}

static void what_is_not_served_is_refused(void **state)
{
	struct volume_config config;
	struct fixture f;

	fixture_init(&f);
	f.capability.access_type_case = CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_BLOCK;
	f.capability.block = &f.block;
	assert_int_equal(decode(&f, &config, NULL), -EINVAL);
	fixture_init(&f);
	f.capability.access_type_case = CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE__NOT_SET;
	assert_int_equal(decode(&f, &config, NULL), -EINVAL);
	fixture_init(&f);
	f.mode.mode = MODE(UNKNOWN);
	assert_int_equal(decode(&f, &config, NULL), -EINVAL);
	for (int mode = 8; mode < 12; mode++) {
		f.mode.mode = (Csi__V1__VolumeCapability__AccessMode__Mode)mode;
		assert_int_equal(decode(&f, &config, NULL), -EINVAL);
	}
	fixture_init(&f);
	f.capability.access_mode = NULL;
	assert_int_equal(decode(&f, &config, NULL), -EINVAL);
	fixture_init(&f);
	f.message.volume_capability = NULL;
	assert_int_equal(decode(&f, &config, NULL), -EINVAL);
	fixture_init(&f);
	f.message.n_volume_context = 0;
	assert_int_equal(decode(&f, &config, NULL), -EINVAL);
	static const char *const flags[] = { "suid",	      "dev",	   "fd=3",
					     "ro,,user_id=1", "context=x", " ro" };
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		fixture_init(&f);
		(void)snprintf(f.flag, sizeof(f.flag), "%s", flags[i]);
		assert_int_equal(decode(&f, &config, NULL), -EINVAL);
	}
}

static void equal_parameters_have_equal_fingerprints(void **state)
{
	_cleanup_free_ char *a = NULL, *b = NULL;
	struct volume_config config;
	struct error err = ERROR_INIT;
	struct fixture f;

	fixture_init(&f);
	assert_int_equal(decode(&f, &config, &a), 0);
	(void)snprintf(f.source, sizeof(f.source), "file:///data/");
	(void)snprintf(f.flag, sizeof(f.flag), "rw,nosuid");
	assert_int_equal(decode(&f, &config, &b), 0);
	assert_string_equal(a, b);
	assert_int_equal(fingerprint_compare(a, b, &err), 0);
}

/* Stages `f` a second time after the change: the error names `word`. */
static void assert_differs(struct fixture *f, const char *word)
{
	_cleanup_free_ char *a = NULL, *b = NULL;
	struct volume_config config;
	struct error err = ERROR_INIT;
	struct fixture plain;

	fixture_init(&plain);
	assert_int_equal(decode(&plain, &config, &a), 0);
	assert_int_equal(decode(f, &config, &b), 0);
	assert_int_equal(fingerprint_compare(a, b, &err), -EEXIST);
	assert_int_equal(err.kind, ERROR_EXISTS);
	if (!strstr(err.text, word))
		fail_msg("'%s' does not hold '%s'", err.text, word);
}

static void what_differs_is_named(void **state)
{
	struct fixture f;

	fixture_init(&f);
	(void)snprintf(f.source, sizeof(f.source), "/data mode=worker");
	assert_differs(&f, "source is '/data', this call says '/data mode=worker'");
	fixture_init(&f);
	f.message.n_volume_context = 2;
	assert_differs(&f, "readOnly is 'default', this call says 'false'");
	fixture_init(&f);
	(void)snprintf(f.flag, sizeof(f.flag), "noexec");
	assert_differs(&f, "mount flags is '', this call says 'noexec'");
	fixture_init(&f);
	(void)snprintf(f.flag, sizeof(f.flag), "max_read=8192");
	assert_differs(&f, "max_read");
	fixture_init(&f);
	(void)snprintf(f.group, sizeof(f.group), "5");
	assert_differs(&f, "volume_mount_group is 'none', this call says '5'");
	fixture_init(&f);
	f.mode.mode = MODE(SINGLE_NODE_MULTI_WRITER);
	assert_differs(&f, "'SINGLE_NODE_MULTI_WRITER'");
}

static void ids_that_look_like_paths_are_refused(void **state)
{
	static const char *const good[] = {
		"pv-1", "team/dataset", "a.b", "...", "a b", "\xc3\xa9"
	};
	static const char *const bad[] = { "",	   ".",	     "..",  "/",    "/a",    "a/",
					   "a//b", "a/../b", "a/.", "a\nb", "a\x7f", "\xff" };
	char id[VALIDATE_STRING_MAX + 2];
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(validate_volume_id(good[i], &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(validate_volume_id(bad[i], &err), -EINVAL);
	memset(id, 'x', sizeof(id));
	id[VALIDATE_STRING_MAX] = '\0';
	assert_int_equal(validate_volume_id(id, &err), 0);
	id[VALIDATE_STRING_MAX] = 'x';
	id[VALIDATE_STRING_MAX + 1] = '\0';
	assert_int_equal(validate_volume_id(id, &err), -EINVAL);
}

static void paths_lie_below_the_root(void **state)
{
	static const char *const bad[] = {
		"",	"/",	ROOT,	      ROOT "/",	    ROOT "-evil/x",
		"pods", "/etc", ROOT "/../x", ROOT "/a//b", ROOT "/a\n"
	};
	struct error err;

	assert_int_equal(validate_path("target_path", ROOT, ROOT "/pods/x", &err), 0);
	assert_int_equal(validate_path("target_path", "/", "/x", &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(validate_path("target_path", ROOT, bad[i], &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plain_request_is_a_writable_volume),
		cmocka_unit_test(readonly_is_the_narrowest_of_all_that_say_something),
		cmocka_unit_test(a_group_is_a_number),
		cmocka_unit_test(what_is_not_served_is_refused),
		cmocka_unit_test(equal_parameters_have_equal_fingerprints),
		cmocka_unit_test(what_differs_is_named),
		cmocka_unit_test(ids_that_look_like_paths_are_refused),
		cmocka_unit_test(paths_lie_below_the_root),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
