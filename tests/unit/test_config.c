/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <unistd.h>

#include "csi/config.h"
#include "csi/endpoint.h"

static void endpoints_are_unix_sockets(void **state)
{
	static const char *const good[] = { "unix:///run/csi.sock", "unix:/run/csi.sock",
					    "/run/csi.sock" };
	static const char *const bad[] = { "",
					   "unix:",
					   "unix://run/csi.sock",
					   "csi.sock",
					   "tcp://[::]:1",
					   "unix-abstract:x",
					   "unix:////run",
					   "/run/../x",
					   "/run//x",
					   "/run/x/" };
	const char *path = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(endpoint_path("--endpoint", good[i], &path, NULL), 0);
		assert_string_equal(path, "/run/csi.sock");
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error err = ERROR_INIT;

		path = "untouched";
		assert_int_equal(endpoint_path("--endpoint", bad[i], &path, &err), -EINVAL);
		assert_non_null(strstr(err.text, "--endpoint"));
		assert_string_equal(path, "untouched");
	}
}

static void a_socket_path_has_107_bytes_at_most(void **state)
{
	struct error err = ERROR_INIT;
	char text[160] = "unix:///";
	const char *path;

	memset(text + 8, 'x', 106);
	assert_int_equal(endpoint_path("--endpoint", text, &path, &err), 0);
	text[8 + 106] = 'x';
	assert_int_equal(endpoint_path("--endpoint", text, &path, &err), -EINVAL);
	assert_non_null(strstr(err.text, "108 bytes"));
	assert_non_null(strstr(err.text, "107"));
}

static void a_missing_directory_is_named(void **state)
{
	struct error err = ERROR_INIT;
	int fd = -1;

	assert_int_equal(endpoint_listen("/nonexistent/dir/csi.sock", &fd, &err), -ENOENT);
	assert_int_equal(fd, -1);
	assert_non_null(strstr(err.text, "/nonexistent/dir/csi.sock"));
	assert_non_null(strstr(err.text, "directory does not exist"));
}

static void driver_names_follow_csi_and_kubernetes(void **state)
{
	static const char *const good[] = {
		"csi.holdfast.dev",
		"a",
		"Csi-9.x",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};
	static const char *const bad[] = {
		"",
		".a",
		"a.",
		"a..b",
		"a.-b",
		"-a",
		"a-",
		"a_b",
		"a/b",
		"a b",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(config_check_driver_name(good[i], NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(config_check_driver_name(bad[i], NULL), -EINVAL);
}

static void topology_segments_are_labels(void **state)
{
	static const char *const good[] = { "topology.holdfast.dev/rack=r1", "zone=a",
					    "a.b_c-d=E.f", "x/y=0" };
	static const char *const bad[] = { "",	      "rack", "zone=", "=r1",  "/rack=r1",
					   "a/b/c=d", "a/=b", "a b=c", "a=-b", "a=b=c",
					   "a_b/c=d", "a=\n", "-a=b",  "a=b c" };

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(config_check_topology(good[i], NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(config_check_topology(bad[i], NULL), -EINVAL);
}

/* A configuration of which everything is fine. */
static struct config fine(void)
{
	return (struct config){
		.endpoint = "unix:///run/csi.sock",
		.run_dir = "/run/holdfast",
		.node_id = "node-1",
		.driver_name = "csi.holdfast.dev",
		.kubelet_root = "/var/lib/kubelet",
		.registration_socket = "/run/reg.sock",
		.log_level = "debug",
	};
}

static void assert_refused(struct config config, const char *word)
{
	struct error err = ERROR_INIT;

	assert_int_equal(config_check(&config, &err), -EINVAL);
	assert_int_equal(err.kind, ERROR_INVALID);
	assert_non_null(strstr(err.text, word));
}

static void a_configuration_is_taken_apart(void **state)
{
	struct config config = fine();

	assert_int_equal(config_check(&config, NULL), 0);
	assert_string_equal(config.endpoint_path, "/run/csi.sock");
	assert_string_equal(config.registration_path, "/run/reg.sock");
	assert_int_equal(config.level, LOG_LEVEL_DEBUG);
	config = fine();
	config.registration_socket = NULL;
	assert_int_equal(config_check(&config, NULL), 0);
	assert_null(config.registration_path);
}

static void each_wrong_value_is_refused_by_its_flag(void **state)
{
	static char long_id[194];
	struct config config;

	memset(long_id, 'n', sizeof(long_id) - 1);
#define REFUSED(member, value, word) \
	config = fine();             \
	config.member = value;       \
	assert_refused(config, word)
	REFUSED(endpoint, NULL, "--endpoint");
	REFUSED(endpoint, "tcp://x", "--endpoint");
	REFUSED(node_id, NULL, "--node-id");
	REFUSED(node_id, "", "--node-id");
	REFUSED(node_id, long_id, "193 bytes");
	REFUSED(node_id, "a\nb", "--node-id");
	REFUSED(node_id, "\xff", "--node-id");
	REFUSED(driver_name, "a b", "--driver-name");
	REFUSED(log_level, "loud", "--log-level");
	REFUSED(run_dir, "run", "--run-dir");
	REFUSED(kubelet_root, "kubelet", "--kubelet-root");
	REFUSED(kubelet_root, "/a/../b", "--kubelet-root");
	REFUSED(registration_socket, "reg.sock", "--registration-socket");
	REFUSED(registration_socket, "/run/csi.sock", "same socket");
#undef REFUSED
}

static void a_topology_key_comes_once(void **state)
{
	struct config config = fine();

	assert_int_equal(strv_add(&config.topology, "a/rack=1"), 0);
	assert_int_equal(strv_add(&config.topology, "a/rack2=1"), 0);
	assert_int_equal(config_check(&config, NULL), 0);
	assert_int_equal(strv_add(&config.topology, "A/Rack=2"), 0);
	assert_refused(config, "before");
	config_clear(&config);
}

static void allowed_prefixes_are_normalized_directories(void **state)
{
	static const char *const bad[] = { "", "data", "/a/../b", "/a//b", "/a\nb" };
	struct config config = fine();

	assert_int_equal(strv_add(&config.allow_source, "/data"), 0);
	assert_int_equal(strv_add(&config.allow_source, "/data/sets//"), 0);
	assert_int_equal(strv_add(&config.allow_source, "/"), 0);
	assert_int_equal(config_check(&config, NULL), 0);
	assert_string_equal(config.allow_source.items[0], "/data");
	assert_string_equal(config.allow_source.items[1], "/data/sets");
	assert_string_equal(config.allow_source.items[2], "/");
	config_clear(&config);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		config = fine();
		assert_int_equal(strv_add(&config.allow_source, bad[i]), 0);
		assert_refused(config, "--allow-source");
		config_clear(&config);
	}
}

static void a_health_check_wants_the_endpoint_only(void **state)
{
	struct config config = { .endpoint = "/run/csi.sock", .check_health = true };

	assert_int_equal(config_check(&config, NULL), 0);
	config.endpoint = NULL;
	assert_refused(config, "--endpoint");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(endpoints_are_unix_sockets),
		cmocka_unit_test(a_socket_path_has_107_bytes_at_most),
		cmocka_unit_test(a_missing_directory_is_named),
		cmocka_unit_test(driver_names_follow_csi_and_kubernetes),
		cmocka_unit_test(topology_segments_are_labels),
		cmocka_unit_test(a_configuration_is_taken_apart),
		cmocka_unit_test(each_wrong_value_is_refused_by_its_flag),
		cmocka_unit_test(a_topology_key_comes_once),
		cmocka_unit_test(allowed_prefixes_are_normalized_directories),
		cmocka_unit_test(a_health_check_wants_the_endpoint_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
