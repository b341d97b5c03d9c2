/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <linux/magic.h>

#include "base/clock.h"
#include "fuse/policy.h"
#include "fuse/uapi.h"

/* What kernel 6.18 offers, without writeback and DAX, which nobody asks for. */
#define MODERN 0x5fd73fffffbULL
/* Linux 6.1: neither passthrough nor resend nor idmapped mounts. */
#define BEFORE_PASSTHROUGH \
	(MODERN & ~(FUSE_PASSTHROUGH | FUSE_HAS_RESEND | FUSE_ALLOW_IDMAP | FUSE_CREATE_SUPP_GROUP))

static struct policy_facts facts_of(uint64_t offered, uint64_t magic)
{
	return (struct policy_facts){
		.offered = offered,
		.major = 7,
		.minor = 45,
		.max_readahead = 131072,
		.max_pages_limit = 256,
		.page_size = 4096,
		.source_magic = magic,
	};
}

static struct connection_state connect_with(uint32_t mode, uint32_t consistency,
					    const struct policy_facts *facts)
{
	const struct volume_config config = {
		.id = "v",
		.mode = mode,
		.consistency = consistency,
		.flags = consistency == (uint32_t)VOLUME_IMMUTABLE ? VOLUME_READ_ONLY : 0,
	};
	struct connection_state state = { 0 };
	struct error err = ERROR_INIT;

	assert_int_equal(policy_connect(&config, facts, &state, &err), 0);
	return state;
}

static void auto_serves_each_volume_in_the_fastest_mode_that_is_safe(void **state)
{
	static const struct {
		uint64_t offered, magic;
		enum volume_consistency consistency;
		enum volume_mode expected;
	} cases[] = {
		{ MODERN, EXT4_SUPER_MAGIC, VOLUME_CLOSE_TO_OPEN, VOLUME_MODE_PASSTHROUGH },
		{ MODERN, OVERLAYFS_SUPER_MAGIC, VOLUME_CLOSE_TO_OPEN, VOLUME_MODE_PASSTHROUGH },
		{ MODERN, FUSE_SUPER_MAGIC, VOLUME_CLOSE_TO_OPEN, VOLUME_MODE_WORKER },
		{ BEFORE_PASSTHROUGH, EXT4_SUPER_MAGIC, VOLUME_CLOSE_TO_OPEN, VOLUME_MODE_WORKER },
		{ MODERN & ~(uint64_t)FUSE_INIT_EXT, EXT4_SUPER_MAGIC, VOLUME_CLOSE_TO_OPEN,
		  VOLUME_MODE_WORKER },
		{ MODERN, EXT4_SUPER_MAGIC, VOLUME_IMMUTABLE, VOLUME_MODE_UPCALL_FREE },
		{ BEFORE_PASSTHROUGH, FUSE_SUPER_MAGIC, VOLUME_IMMUTABLE, VOLUME_MODE_UPCALL_FREE },
		{ MODERN & ~(uint64_t)FUSE_NO_OPEN_SUPPORT, EXT4_SUPER_MAGIC, VOLUME_IMMUTABLE,
		  VOLUME_MODE_PASSTHROUGH },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct policy_facts facts = facts_of(cases[i].offered, cases[i].magic);
		struct connection_state c =
			connect_with(VOLUME_MODE_AUTO, cases[i].consistency, &facts);

		assert_int_equal(c.mode, cases[i].expected);
		assert_int_equal(c.negotiated & ~c.offered, 0);
	}
}

static void an_explicit_mode_that_is_impossible_is_refused_with_the_reason(void **state)
{
	static const struct {
		uint64_t offered, magic;
		enum volume_mode mode;
		const char *reason;
	} cases[] = {
		{ BEFORE_PASSTHROUGH, EXT4_SUPER_MAGIC, VOLUME_MODE_PASSTHROUGH, "6.9" },
		{ MODERN, FUSE_SUPER_MAGIC, VOLUME_MODE_PASSTHROUGH, "FUSE" },
		{ MODERN & ~(uint64_t)FUSE_NO_OPEN_SUPPORT, EXT4_SUPER_MAGIC,
		  VOLUME_MODE_UPCALL_FREE, "NO_OPEN" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct volume_config config = { .id = "v",
						      .mode = cases[i].mode,
						      .flags = VOLUME_READ_ONLY };
		struct policy_facts facts = facts_of(cases[i].offered, cases[i].magic);
		struct connection_state c;
		struct error err = ERROR_INIT;

		assert_int_equal(policy_connect(&config, &facts, &c, &err), -EOPNOTSUPP);
		assert_int_equal(err.kind, ERROR_PRECONDITION);
		assert_non_null(strstr(err.text, cases[i].reason));
	}
}

static void a_kernel_that_is_too_old_is_refused(void **state)
{
	const struct volume_config config = { .id = "v" };
	struct policy_facts facts = facts_of(MODERN, EXT4_SUPER_MAGIC);
	struct connection_state c;
	struct error err = ERROR_INIT;

	facts.minor = 26;
	assert_int_equal(policy_connect(&config, &facts, &c, &err), -EPROTO);
	assert_int_equal(err.kind, ERROR_PRECONDITION);
}

static void what_a_takeover_could_not_carry_on_is_never_negotiated(void **state)
{
	const uint64_t never = FUSE_WRITEBACK_CACHE | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS |
			       FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT | 1ULL << 41 | 1ULL << 42;
	struct policy_facts facts = facts_of(UINT64_MAX, EXT4_SUPER_MAGIC);

	for (uint32_t mode = VOLUME_MODE_AUTO; mode <= VOLUME_MODE_WORKER; mode++)
		for (uint32_t consistency = 0; consistency <= VOLUME_IMMUTABLE; consistency++)
			assert_int_equal(connect_with(mode, consistency, &facts).negotiated & never,
					 0);
}

static void passthrough_and_its_stacking_depth_go_together(void **state)
{
	struct policy_facts facts = facts_of(MODERN, EXT4_SUPER_MAGIC);

	assert_int_equal(
		connect_with(VOLUME_MODE_AUTO, VOLUME_CLOSE_TO_OPEN, &facts).max_stack_depth, 1);
	/* not to read by, but to hold files that are open without a name */
	assert_int_equal(
		connect_with(VOLUME_MODE_WORKER, VOLUME_CLOSE_TO_OPEN, &facts).max_stack_depth, 1);
	facts.source_magic = OVERLAYFS_SUPER_MAGIC;
	assert_int_equal(
		connect_with(VOLUME_MODE_AUTO, VOLUME_CLOSE_TO_OPEN, &facts).max_stack_depth, 2);
}

static void requests_are_as_large_as_the_kernel_allows(void **state)
{
	static const struct {
		uint64_t offered;
		uint32_t limit, expected;
	} cases[] = {
		{ MODERN, 256, 256 },
		{ MODERN, 0, 256 },
		{ MODERN, 65535, 1024 },
		{ MODERN, 16, 16 },
		{ MODERN & ~(uint64_t)FUSE_MAX_PAGES, 256, 32 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct policy_facts facts = facts_of(cases[i].offered, EXT4_SUPER_MAGIC);
		struct connection_state c;

		facts.max_pages_limit = cases[i].limit;
		c = connect_with(VOLUME_MODE_AUTO, VOLUME_CLOSE_TO_OPEN, &facts);
		assert_int_equal(c.max_pages, cases[i].expected);
		assert_true(c.max_write <= cases[i].expected * 4096 && c.max_write >= 65536);
	}
}

static void timeouts_follow_consistency_unless_they_are_given(void **state)
{
	struct policy_facts facts = facts_of(MODERN, EXT4_SUPER_MAGIC);
	struct volume_config config = { .id = "v" };
	struct connection_state c = connect_with(VOLUME_MODE_AUTO, VOLUME_CLOSE_TO_OPEN, &facts);
	struct error err = ERROR_INIT;

	assert_true(c.attr_timeout_ns == NSEC_PER_SEC && c.entry_timeout_ns == NSEC_PER_SEC);
	c = connect_with(VOLUME_MODE_AUTO, VOLUME_IMMUTABLE, &facts);
	assert_true(c.attr_timeout_ns >= 24 * 3600 * NSEC_PER_SEC);
	config.flags = VOLUME_HAS_ATTR_TIMEOUT;
	config.attr_timeout_ns = 0;
	assert_int_equal(policy_connect(&config, &facts, &c, &err), 0);
	assert_true(c.attr_timeout_ns == 0 && c.entry_timeout_ns == NSEC_PER_SEC);
}

static void only_upcall_free_volumes_turn_open_off(void **state)
{
	struct policy_facts facts = facts_of(MODERN, EXT4_SUPER_MAGIC);
	struct connection_state c = connect_with(VOLUME_MODE_AUTO, VOLUME_IMMUTABLE, &facts);

	assert_true(policy_latches(&c, FUSE_OPEN));
	assert_true(policy_latches(&c, FUSE_FLUSH));
	assert_true(policy_latches(&c, FUSE_OPENDIR));
	assert_false(policy_latches(&c, FUSE_READ));
	c = connect_with(VOLUME_MODE_PASSTHROUGH, VOLUME_IMMUTABLE, &facts);
	assert_false(policy_latches(&c, FUSE_OPEN));
	assert_true(policy_latches(&c, FUSE_OPENDIR));
	c = connect_with(VOLUME_MODE_AUTO, VOLUME_CLOSE_TO_OPEN, &facts);
	assert_false(policy_latches(&c, FUSE_OPEN));
	assert_false(policy_latches(&c, FUSE_OPENDIR));
}

/* The kernel answers EIO to an open that is not like the others of its inode. */
static void overlapping_opens_of_a_file_are_alike(void **state)
{
	static const struct {
		struct policy_open open;
		enum open_mode expected;
	} cases[] = {
		{ { VOLUME_MODE_PASSTHROUGH, true, true, OPEN_MODE_NONE, false, false },
		  OPEN_MODE_PASSTHROUGH },
		{ { VOLUME_MODE_PASSTHROUGH, true, true, OPEN_MODE_CACHED, false, false },
		  OPEN_MODE_CACHED },
		{ { VOLUME_MODE_PASSTHROUGH, true, false, OPEN_MODE_PASSTHROUGH, false, false },
		  OPEN_MODE_PASSTHROUGH },
		{ { VOLUME_MODE_PASSTHROUGH, true, false, OPEN_MODE_NONE, false, false },
		  OPEN_MODE_CACHED },
		{ { VOLUME_MODE_PASSTHROUGH, false, true, OPEN_MODE_NONE, false, false },
		  OPEN_MODE_CACHED },
		{ { VOLUME_MODE_WORKER, true, true, OPEN_MODE_NONE, false, false },
		  OPEN_MODE_CACHED },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(policy_open_mode(&cases[i].open), cases[i].expected);
}

static void the_page_cache_is_kept_only_for_what_did_not_change(void **state)
{
	struct policy_open open = { .mode = VOLUME_MODE_WORKER, .regular = true };

	assert_int_equal(policy_open_flags(&open, OPEN_MODE_CACHED), FOPEN_NOFLUSH);
	open.unchanged = true;
	assert_int_equal(policy_open_flags(&open, OPEN_MODE_CACHED),
			 FOPEN_NOFLUSH | FOPEN_KEEP_CACHE);
	/* the kernel refuses KEEP_CACHE with PASSTHROUGH */
	assert_int_equal(policy_open_flags(&open, OPEN_MODE_PASSTHROUGH),
			 FOPEN_NOFLUSH | FOPEN_PASSTHROUGH);
}

static void closing_a_file_waits_only_for_sources_that_care(void **state)
{
	static const struct {
		uint64_t magic;
		uint32_t flags;
		uint32_t expected;
	} cases[] = {
		{ EXT4_SUPER_MAGIC, 0, 0 },
		{ NFS_SUPER_MAGIC, 0, 1 },
		{ FUSE_SUPER_MAGIC, 0, 1 },
		{ FUSE_SUPER_MAGIC, VOLUME_READ_ONLY, 0 },
	};
	struct policy_open open = { .mode = VOLUME_MODE_WORKER, .regular = true, .flush = true };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct volume_config config = { .id = "v", .flags = cases[i].flags };
		struct policy_facts facts = facts_of(MODERN, cases[i].magic);
		struct connection_state c;
		struct error err = ERROR_INIT;

		assert_int_equal(policy_connect(&config, &facts, &c, &err), 0);
		assert_int_equal(c.flush_on_close, cases[i].expected);
	}
	assert_int_equal(policy_open_flags(&open, OPEN_MODE_CACHED) & FOPEN_NOFLUSH, 0);
}

static void directories_are_cached_where_nothing_changes(void **state)
{
	struct policy_facts facts = facts_of(MODERN, EXT4_SUPER_MAGIC);
	struct volume_config config = { .id = "v", .flags = VOLUME_READ_ONLY };
	struct connection_state c = connect_with(VOLUME_MODE_AUTO, VOLUME_CLOSE_TO_OPEN, &facts);

	assert_int_equal(policy_opendir_flags(&c, &config), 0);
	config.consistency = VOLUME_IMMUTABLE;
	assert_int_equal(policy_opendir_flags(&c, &config), FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(auto_serves_each_volume_in_the_fastest_mode_that_is_safe),
		cmocka_unit_test(an_explicit_mode_that_is_impossible_is_refused_with_the_reason),
		cmocka_unit_test(a_kernel_that_is_too_old_is_refused),
		cmocka_unit_test(what_a_takeover_could_not_carry_on_is_never_negotiated),
		cmocka_unit_test(passthrough_and_its_stacking_depth_go_together),
		cmocka_unit_test(requests_are_as_large_as_the_kernel_allows),
		cmocka_unit_test(timeouts_follow_consistency_unless_they_are_given),
		cmocka_unit_test(only_upcall_free_volumes_turn_open_off),
		cmocka_unit_test(overlapping_opens_of_a_file_are_alike),
		cmocka_unit_test(the_page_cache_is_kept_only_for_what_did_not_change),
		cmocka_unit_test(closing_a_file_waits_only_for_sources_that_care),
		cmocka_unit_test(directories_are_cached_where_nothing_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
