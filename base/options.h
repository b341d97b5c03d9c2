/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Command lines: argp(3) parses and prints --help, this module adds the environment. Each flag
 * "--node-id" also comes from HOLDFAST_NODE_ID; the command line wins. A repeatable flag's variable
 * holds a comma-separated list.
 */

#include "base/macros.h"
#include "base/strv.h"

enum option_type {
	OPTION_STRING, /* `value` is a const char **; borrowed from argv or the environment, which
			  live for ever */
	OPTION_LIST,   /* `value` is a struct strv *, one item an occurrence; the command line
			  replaces the environment */
	OPTION_SWITCH, /* `value` is a bool *; the environment says "true" or "false" */
};

struct option_spec {
	const char *name; /* without the dashes: "node-id" */
	const char *arg;  /* what --help shows for the value: "ID"; NULL for a switch */
	const char *help;
	enum option_type type;
	void *value; /* preset by the caller to the default */
};

struct program_spec {
	const char *name;
	const char *summary;	 /* the first line of --help */
	const char *args;	 /* positional arguments for --help, or NULL if there are none */
	struct strv *positional; /* where they go; NULL with args NULL */
	const struct option_spec *options;
	size_t n_options; /* at most OPTIONS_MAX */
};

#define OPTIONS_MAX 32

/*
 * options_parse - fill the values from the environment, then from argv. --help and --version print
 * and exit 0; a wrong command line or variable prints what is wrong to stderr and exits 2 (EX_USAGE
 * is argp's 64; ours is fixed).
 */
void options_parse(const struct program_spec *program, int argc, char **argv);

/* options_env_name - "node-id" to "HOLDFAST_NODE_ID" in `buf`. Returns buf. */
#define OPTION_ENV_MAX 64
const char *options_env_name(const char *name, char buf[OPTION_ENV_MAX]);
