/* SPDX-License-Identifier: Apache-2.0 */
#include "base/options.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/parse.h"
#include "base/version.h"

#define USAGE_EXIT 2
#define KEY_BASE 0x100 /* beyond any character: the flags have no short forms */

const char *options_env_name(const char *name, char buf[OPTION_ENV_MAX])
{
	size_t n = (size_t)snprintf(buf, OPTION_ENV_MAX, "HOLDFAST_%s", name);

	for (size_t i = 0; i < MIN_OF(n, (size_t)OPTION_ENV_MAX - 1); i++)
		buf[i] = buf[i] == '-' ? '_' : (char)toupper((unsigned char)buf[i]);
	return buf;
}

static int add_comma_list(struct strv *list, const char *text)
{
	while (*text) {
		size_t len = strcspn(text, ",");
		_cleanup_free_ char *item = strndup(text, len);
		int r = item ? 0 : -ENOMEM;

		if (r == 0 && len > 0)
			r = strv_add(list, item);
		if (r < 0)
			return r;
		text += len + (text[len] == ',');
	}
	return 0;
}

static _noreturn_ void fail(const struct program_spec *program, const char *what, const char *why)
{
	(void)fprintf(stderr, "%s: %s: %s\nTry '%s --help'.\n", program->name, what, why,
		      program->name);
	exit(USAGE_EXIT);
}

static void read_environment(const struct program_spec *program)
{
	for (size_t i = 0; i < program->n_options; i++) {
		const struct option_spec *o = &program->options[i];
		char name[OPTION_ENV_MAX];
		const char *text = getenv(options_env_name(o->name, name));

		if (!text)
			continue;
		if (o->type == OPTION_STRING)
			*(const char **)o->value = text;
		else if (o->type == OPTION_LIST && add_comma_list(o->value, text) < 0)
			fail(program, name, "out of memory");
		else if (o->type == OPTION_SWITCH && parse_bool(text, o->value) < 0)
			fail(program, name, "is neither 'true' nor 'false'");
	}
}

struct parse_state {
	const struct program_spec *program;
	bool seen[OPTIONS_MAX];
};

static error_t take_option(struct parse_state *s, size_t i, char *arg)
{
	const struct option_spec *o = &s->program->options[i];

	switch (o->type) {
	case OPTION_STRING:
		*(const char **)o->value = arg;
		return 0;
	case OPTION_SWITCH:
		*(bool *)o->value = true;
		return 0;
	case OPTION_LIST:
		if (!s->seen[i])
			strv_clear(o->value); /* what the environment said */
		s->seen[i] = true;
		return -strv_add(o->value, arg);
	}
	return EINVAL;
}

static error_t on_key(int key, char *arg, struct argp_state *state)
{
	struct parse_state *s = state->input;

	if (key >= KEY_BASE && (size_t)(key - KEY_BASE) < s->program->n_options)
		return take_option(s, (size_t)(key - KEY_BASE), arg);
	if (key == ARGP_KEY_ARG && s->program->positional)
		return -strv_add(s->program->positional, arg);
	return ARGP_ERR_UNKNOWN;
}

void options_parse(const struct program_spec *program, int argc, char **argv)
{
	struct argp_option options[OPTIONS_MAX + 1] = { 0 };
	char help[OPTIONS_MAX][320];
	struct parse_state state = { .program = program };
	const struct argp argp = { .options = options,
				   .parser = on_key,
				   .args_doc = program->args,
				   .doc = program->summary };
	static char version[64];

	for (size_t i = 0; i < program->n_options; i++) {
		char env[OPTION_ENV_MAX];

		(void)snprintf(help[i], sizeof(help[i]), "%s [$%s]", program->options[i].help,
			       options_env_name(program->options[i].name, env));
		options[i].name = program->options[i].name;
		options[i].key = KEY_BASE + (int)i;
		options[i].arg = program->options[i].arg;
		options[i].doc = help[i];
	}
	(void)snprintf(version, sizeof(version), "%s %s", program->name, HOLDFAST_VERSION);
	argp_program_version = version;
	argp_err_exit_status = USAGE_EXIT;
	read_environment(program);
	error_t e = argp_parse(&argp, argc, argv, 0, NULL, &state);
	if (e != 0)
		fail(program, "command line", strerrordesc_np(e) ?: "unknown error");
}
