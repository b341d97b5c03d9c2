/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include "fuse/request.h"
#include "fuse/uapi.h"

#define NEGOTIATED ((uint64_t)FUSE_SETXATTR_EXT | FUSE_CREATE_SUPP_GROUP)

/* A request that is put together piece by piece. */
struct packet {
	union {
		struct fuse_in_header header;
		char bytes[1024];
	};
	size_t size;
};

static void append(struct packet *p, const void *data, size_t size)
{
	memcpy(p->bytes + p->size, data, size);
	p->size += size;
	p->header.len = (uint32_t)p->size;
}

static void begin(struct packet *p, uint32_t opcode, const void *body, size_t size)
{
	const struct fuse_in_header header = {
		.opcode = opcode, .unique = 42, .nodeid = 7, .uid = 1000, .gid = 100, .pid = 3
	};

	p->size = 0;
	append(p, &header, sizeof(header));
	append(p, body, size);
}

static void append_groups(struct packet *p, uint32_t n, const gid_t *groups)
{
	uint32_t payload = (uint32_t)((sizeof(n) + n * sizeof(gid_t) + 7) & ~7UL);
	const struct uapi_ext_header ext = { .size = (uint32_t)sizeof(ext) + payload,
					     .type = UAPI_EXT_GROUPS };
	char zeros[64] = { 0 };

	append(p, &ext, sizeof(ext));
	memcpy(zeros, &n, sizeof(n));
	memcpy(zeros + sizeof(n), groups, n * sizeof(gid_t));
	append(p, zeros, payload);
	p->header.total_extlen = (uint16_t)(ext.size / 8);
}

static int decode(struct packet *p, struct request *ret)
{
	static uint64_t scratch[512];
	void *left;
	int r = request_decode(p->bytes, p->size, NEGOTIATED, scratch, ret, &left, &p->size);

	if (r >= 0 && left != p->bytes)
		memcpy(p->bytes, left, p->size);
	return r;
}

static void a_request_that_comes_again_keeps_its_number(void **state)
{
	struct packet p;
	struct request r;

	begin(&p, FUSE_UNLINK, "name", 5);
	p.header.unique |= FUSE_UNIQUE_RESEND;
	assert_int_equal(decode(&p, &r), 0);
	assert_true(r.again);
	assert_int_equal(r.unique, 42);
	assert_int_equal(r.nodeid, 7);
	assert_int_equal(r.uid, 1000);
	/* libfuse answers with what it reads here, and the kernel waits for the bit */
	assert_true(p.header.unique & FUSE_UNIQUE_RESEND);
}

static void the_callers_groups_are_taken_from_the_end(void **state)
{
	const struct fuse_mkdir_in body = { .mode = 0755 };
	const gid_t groups[] = { 50, 60, 70 };
	struct packet p;
	struct request r;
	size_t without;

	begin(&p, FUSE_MKDIR, &body, sizeof(body));
	append(&p, "odd", 4);
	without = p.size;
	append_groups(&p, 3, groups);
	assert_int_equal(decode(&p, &r), 0);
	assert_true(r.has_groups);
	assert_int_equal(r.n_groups, 3);
	assert_memory_equal(r.groups, groups, sizeof(groups));
	assert_int_equal(p.size, without);
	assert_int_equal(p.header.len, without);
}

static void extensions_that_do_not_fit_are_refused(void **state)
{
	const struct fuse_mkdir_in body = { .mode = 0755 };
	const gid_t groups[] = { 50 };
	struct packet p;
	struct request r;

	for (int i = 0; i < 4; i++) {
		struct uapi_ext_header *ext;

		begin(&p, FUSE_MKDIR, &body, sizeof(body));
		append(&p, "four678", 8);
		ext = (struct uapi_ext_header *)(p.bytes + p.size);
		append_groups(&p, 1, groups);
		if (i == 0)
			ext->size = 4;
		if (i == 1)
			ext->size = 64;
		if (i == 2)
			memset(ext + 1, 0xff, 4);
		if (i == 3)
			p.header.total_extlen = 100;
		assert_int_equal(decode(&p, &r), -EBADMSG);
	}
}

static void a_temporary_file_is_a_creation_that_remembers_what_it_is(void **state)
{
	const struct fuse_create_in body = { .mode = 0600 };
	struct packet p;
	struct request r;

	begin(&p, FUSE_TMPFILE, &body, sizeof(body));
	append(&p, "/", 2);
	assert_int_equal(decode(&p, &r), 0);
	assert_int_equal(p.header.opcode, FUSE_CREATE);
	assert_int_equal(r.opcode, FUSE_TMPFILE);
}

static void a_long_setxattr_becomes_a_short_one(void **state)
{
	const struct fuse_setxattr_in body = { .size = 3,
					       .flags = 1,
					       .setxattr_flags = FUSE_SETXATTR_ACL_KILL_SGID };
	struct packet p;
	struct request r;

	begin(&p, FUSE_SETXATTR, &body, sizeof(body));
	append(&p, "user.x\0abc", 10);
	assert_int_equal(decode(&p, &r), 0);
	assert_true(r.kill_suidgid);
	assert_memory_equal(p.bytes + sizeof(p.header) + FUSE_COMPAT_SETXATTR_IN_SIZE,
			    "user.x\0abc", 10);
	assert_int_equal(p.size, sizeof(p.header) + FUSE_COMPAT_SETXATTR_IN_SIZE + 10);
}

static void set_id_bits_go_when_the_kernel_says_so(void **state)
{
	const struct fuse_write_in root_writes = { .size = 1 };
	const struct fuse_write_in user_writes = { .size = 1,
						   .write_flags = FUSE_WRITE_KILL_SUIDGID };
	const struct fuse_setattr_in truncate = { .valid = FATTR_SIZE | FATTR_KILL_SUIDGID };
	const struct fuse_fallocate_in fallocate = { .length = 1 };
	struct packet p;
	struct request r;

	begin(&p, FUSE_WRITE, &root_writes, sizeof(root_writes));
	append(&p, "x", 1);
	assert_int_equal(decode(&p, &r), 0);
	assert_false(r.kill_suidgid);
	begin(&p, FUSE_WRITE, &user_writes, sizeof(user_writes));
	append(&p, "x", 1);
	assert_int_equal(decode(&p, &r), 0);
	assert_true(r.kill_suidgid);
	begin(&p, FUSE_SETATTR, &truncate, sizeof(truncate));
	assert_int_equal(decode(&p, &r), 0);
	assert_true(r.kill_suidgid);
	begin(&p, FUSE_FALLOCATE, &fallocate, sizeof(fallocate)); /* says nothing: uid 1000 */
	assert_int_equal(decode(&p, &r), 0);
	assert_true(r.kill_suidgid);
}

static void bodies_that_are_too_short_are_refused(void **state)
{
	static const struct {
		uint32_t opcode;
		size_t size;
		const char *bytes;
	} cases[] = {
		{ FUSE_LOOKUP, 0, "" },
		{ FUSE_LOOKUP, 4, "name" },
		{ FUSE_SYMLINK, 5, "name" },
		{ FUSE_RENAME2, 8, "12345678" },
		{ FUSE_READ, 39, "123456789012345678901234567890123456789" },
		{ FUSE_WRITE, 40, "1234567890123456789012345678901234567890" },
		{ FUSE_BATCH_FORGET, 8, "\2\0\0\0\0\0\0\0" },
		{ FUSE_SETXATTR, 16, "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct packet p;
		struct request r;

		begin(&p, cases[i].opcode, cases[i].bytes, cases[i].size);
		assert_int_equal(decode(&p, &r), -EBADMSG);
		assert_int_equal(r.opcode, cases[i].opcode);
	}
}

static void a_length_that_is_not_the_packets_is_refused(void **state)
{
	struct packet p;
	struct request r;

	begin(&p, FUSE_STATFS, "", 0);
	p.header.len++;
	assert_int_equal(decode(&p, &r), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_that_comes_again_keeps_its_number),
		cmocka_unit_test(the_callers_groups_are_taken_from_the_end),
		cmocka_unit_test(extensions_that_do_not_fit_are_refused),
		cmocka_unit_test(a_temporary_file_is_a_creation_that_remembers_what_it_is),
		cmocka_unit_test(a_long_setxattr_becomes_a_short_one),
		cmocka_unit_test(set_id_bits_go_when_the_kernel_says_so),
		cmocka_unit_test(bodies_that_are_too_short_are_refused),
		cmocka_unit_test(a_length_that_is_not_the_packets_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
