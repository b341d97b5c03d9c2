/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/config.h"

#include <errno.h>

#include "base/utf8.h"
#include "csi/endpoint.h"
#include "mount/path.h"

#define NODE_ID_MAX 192 /* bytes: the CSI spec's limit for NodeGetInfoResponse.node_id */
#define LABEL_MAX 63	/* Kubernetes' for label names and values; the CSI spec's for names */

void config_read(struct config *ret, int argc, char **argv)
{
	const struct option_spec options[] = {
		{ "endpoint", "unix:///PATH", "The socket to serve CSI on (required)",
		  OPTION_STRING, &ret->endpoint },
		{ "run-dir", "DIR",
		  "Where records lie and the keeper's socket is; default /run/holdfast",
		  OPTION_STRING, &ret->run_dir },
		{ "node-id", "ID", "This node's name in the cluster (required)", OPTION_STRING,
		  &ret->node_id },
		{ "driver-name", "NAME", "The name of the CSIDriver; default csi.holdfast.dev",
		  OPTION_STRING, &ret->driver_name },
		{ "registration-socket", "PATH",
		  "A socket in kubelet's plugins_registry directory, for kubelet to find the "
		  "plugin; "
		  "not needed where a node-driver-registrar runs",
		  OPTION_STRING, &ret->registration_socket },
		{ "kubelet-root", "DIR",
		  "Kubelet's root directory, which all target paths have to lie in; default "
		  "/var/lib/kubelet",
		  OPTION_STRING, &ret->kubelet_root },
		{ "topology", "KEY=VALUE", "A topology segment of this node; may be repeated",
		  OPTION_LIST, &ret->topology },
		{ "allow-source", "PREFIX",
		  "A directory that volumes may have their source in; may be repeated; default: "
		  "none",
		  OPTION_LIST, &ret->allow_source },
		{ "log-level", "LEVEL", "error, warning, notice, info (default) or debug",
		  OPTION_STRING, &ret->log_level },
		{ "check-health", NULL,
		  "Ask the plugin that serves on --endpoint whether it is healthy, and exit with 0 "
		  "or 1",
		  OPTION_SWITCH, &ret->check_health },
	};
	const struct program_spec program = {
		.name = "holdfast-csi",
		.summary = "The CSI plugin of Holdfast: kubelet's calls, served on a unix socket.",
		.options = options,
		.n_options = ARRAY_SIZE(options),
	};

	*ret = (struct config){
		.run_dir = "/run/holdfast",
		.driver_name = "csi.holdfast.dev",
		.kubelet_root = "/var/lib/kubelet",
		.log_level = "info",
	};
	options_parse(&program, argc, argv);
}

void config_clear(struct config *config)
{
	strv_clear(&config->topology);
	strv_clear(&config->allow_source);
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Letters and digits, with the characters of `inner` between them. */
static bool is_word(const char *s, size_t n, const char *inner)
{
	for (size_t i = 0; i < n; i++)
		if (!is_alnum(s[i]) && (i == 0 || i == n - 1 || !strchr(inner, s[i])))
			return false;
	return n > 0;
}

/* Words of letters, digits and dashes, with dots between them. */
static bool is_domain(const char *s, size_t n)
{
	for (;;) {
		const char *dot = memchr(s, '.', n);
		size_t len = dot ? (size_t)(dot - s) : n;

		if (!is_word(s, len, "-"))
			return false;
		if (!dot)
			return true;
		s += len + 1;
		n -= len + 1;
	}
}

int config_check_driver_name(const char *name, struct error *err)
{
	size_t n = strlen(name);

	if (n <= LABEL_MAX && is_domain(name, n))
		return 0;
	return error_set(err, ERROR_INVALID, -EINVAL,
			 "--driver-name '%s': give a domain name of at most %d letters, digits, "
			 "dashes and dots, such as csi.holdfast.dev",
			 name, LABEL_MAX);
}

static bool is_topology_key(const char *key, size_t n)
{
	const char *slash = memchr(key, '/', n);
	size_t prefix = slash ? (size_t)(slash - key) : 0;
	size_t skip = slash ? prefix + 1 : 0;

	if (slash && (prefix > LABEL_MAX || !is_domain(key, prefix)))
		return false;
	return n - skip <= LABEL_MAX && is_word(key + skip, n - skip, "-_.");
}

int config_check_topology(const char *text, struct error *err)
{
	const char *equal = strchr(text, '=');
	size_t n;

	if (!equal || !is_topology_key(text, (size_t)(equal - text)))
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "--topology '%s': give KEY=VALUE with a label's key, such as "
				 "topology.holdfast.dev/rack=r1",
				 text);
	n = strlen(equal + 1);
	if (n > LABEL_MAX || !is_word(equal + 1, n, "-_."))
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "--topology '%s': a value has 1 to %d letters and digits, with "
				 "'-', '_' and '.' between them",
				 text, LABEL_MAX);
	return 0;
}

/* Keys are compared without regard to case (CSI spec, Topology.segments). */
static int check_topology(const struct strv *topology, struct error *err)
{
	for (size_t i = 0; i < topology->n; i++) {
		const char *item = topology->items[i];
		int r = config_check_topology(item, err);

		if (r < 0)
			return r;
		for (size_t j = 0; j < i; j++)
			if (strncasecmp(item, topology->items[j], strcspn(item, "=") + 1) == 0)
				return error_set(err, ERROR_INVALID, -EINVAL,
						 "--topology '%s': the key was given before as "
						 "'%s'",
						 item, topology->items[j]);
	}
	return 0;
}

static int check_node_id(const char *id, struct error *err)
{
	size_t n = id ? strlen(id) : 0;

	if (n == 0)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "--node-id is missing: give this node's name in the cluster");
	if (n > NODE_ID_MAX)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "--node-id has %zu bytes; %d are possible", n, NODE_ID_MAX);
	for (const char *p = id; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return error_set(err, ERROR_INVALID, -EINVAL,
					 "--node-id contains a control character");
	if (utf8_prefix(id, n) != n)
		return error_set(err, ERROR_INVALID, -EINVAL, "--node-id is not UTF-8");
	return 0;
}

static int check_sockets(struct config *config, struct error *err)
{
	int r;

	if (!config->endpoint || !*config->endpoint)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "--endpoint is missing: give unix:///PATH");
	r = endpoint_path("--endpoint", config->endpoint, &config->endpoint_path, err);
	if (r < 0 || !config->registration_socket || !*config->registration_socket)
		return r;
	r = endpoint_path("--registration-socket", config->registration_socket,
			  &config->registration_path, err);
	if (r < 0)
		return r;
	if (strcmp(config->endpoint_path, config->registration_path) == 0)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "--registration-socket and --endpoint are the same socket");
	return 0;
}

static int check_paths(const struct config *config, struct error *err)
{
	int r = path_check("--run-dir", config->run_dir, err);

	if (r >= 0)
		r = path_check("--kubelet-root", config->kubelet_root, err);
	for (size_t i = 0; r >= 0 && i < config->allow_source.n; i++) {
		path_strip_slashes(config->allow_source.items[i]);
		r = path_check("--allow-source", config->allow_source.items[i], err);
	}
	return r;
}

int config_check(struct config *config, struct error *err)
{
	int r = check_sockets(config, err);

	if (r < 0 || config->check_health)
		return r;
	if (log_parse_level(config->log_level, &config->level) < 0)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "--log-level '%s': give error, warning, notice, info or debug",
				 config->log_level);
	r = check_node_id(config->node_id, err);
	if (r == 0)
		r = config_check_driver_name(config->driver_name, err);
	if (r == 0)
		r = check_topology(&config->topology, err);
	if (r == 0)
		r = check_paths(config, err);
	return r;
}
