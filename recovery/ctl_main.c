/* SPDX-License-Identifier: Apache-2.0 */

/* holdfastctl: the operator's view of a node, one verb each. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "base/parse.h"
#include "recovery/ctl_drill.h"
#include "recovery/ctl_status.h"
#include "recovery/keeper_client.h"

#define KEEPER_TIMEOUT_MS 10000
#define HEAL_TIMEOUT_MS 120000 /* with all its volumes */
#define EXIT_USAGE 2
#define KILLS_MAX 100000U

struct settings {
	const char *run_dir;
	const char *kills;
	const char *source;
	bool json;
};

struct listing {
	struct record **records;
	size_t n_records;
	struct volume_status *statuses;
	size_t n_statuses;
};

static void listing_clear(struct listing *l)
{
	record_list_free(l->records, l->n_records);
	free(l->statuses);
}

/* The plugin may never have run here: no directory is no records. */
static int load_records(const char *run_dir, struct listing *ret, struct error *err)
{
	_cleanup_record_store_ struct record_store *store = NULL;
	struct error open_err = ERROR_INIT;
	int r = record_store_open_readonly(run_dir, &store, &open_err);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return error_set(err, open_err.kind, r, "%s", open_err.text);
	return record_store_list(store, &ret->records, &ret->n_records, err);
}

static int run_status(const struct settings *settings, const struct strv *args, struct error *err)
{
	_cleanup_(listing_clear) struct listing l = { 0 };
	_cleanup_free_ struct ctl_volume *volumes = NULL;
	size_t n = 0;
	int r = keeper_list(settings->run_dir, KEEPER_TIMEOUT_MS, &l.statuses, &l.n_statuses, err);

	if (r >= 0)
		r = load_records(settings->run_dir, &l, err);
	if (r >= 0)
		r = ctl_merge(l.records, l.n_records, l.statuses, l.n_statuses, &volumes, &n, err);
	if (r < 0)
		return r;
	if (settings->json)
		return ctl_print_json(stdout, volumes, n, err);
	ctl_print_table(stdout, volumes, n);
	return 0;
}

static int run_restart(const struct settings *settings, const struct strv *args, struct error *err)
{
	return ctl_replace(settings->run_dir, args->items[1], true, stdout, err);
}

static int run_kill(const struct settings *settings, const struct strv *args, struct error *err)
{
	return ctl_replace(settings->run_dir, args->items[1], false, stdout, err);
}

static int run_heal(const struct settings *settings, const struct strv *args, struct error *err)
{
	const char *id = args->n > 1 ? args->items[1] : "";
	int r = plugin_heal(settings->run_dir, HEAL_TIMEOUT_MS, id, err);

	if (r < 0)
		return r;
	(void)printf("%s%s: connection and mounts are well\n", *id ? "volume " : "all volumes", id);
	return 0;
}

static int run_swap(const struct settings *settings, const struct strv *args, struct error *err)
{
	const char *id = args->items[1];
	int r;

	if (!settings->source)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "--source is missing: give the directory to show from now on");
	r = plugin_swap(settings->run_dir, HEAL_TIMEOUT_MS, id, settings->source, err);
	if (r >= 0)
		(void)printf("volume %s: shows %s now\n", id, settings->source);
	return r;
}

static int run_drill(const struct settings *settings, const struct strv *args, struct error *err)
{
	uint32_t kills;

	if (parse_u32(settings->kills, KILLS_MAX, &kills) < 0 || kills == 0)
		return error_set(err, ERROR_INVALID, -EINVAL,
				 "--kills '%s' is no number from 1 to %u", settings->kills,
				 KILLS_MAX);
	return ctl_drill(settings->run_dir, args->items[1], kills, stdout, err);
}

static const struct verb {
	const char *name;
	size_t min_args, max_args; /* behind the verb */
	int (*run)(const struct settings *settings, const struct strv *args, struct error *err);
} verbs[] = {
	{ "status", 0, 0, run_status }, { "restart", 1, 1, run_restart },
	{ "kill", 1, 1, run_kill },	{ "drill", 1, 1, run_drill },
	{ "heal", 0, 1, run_heal },	{ "swap", 1, 1, run_swap },
};

static const struct verb *find_verb(const struct strv *args)
{
	for (size_t i = 0; args->n > 0 && i < ARRAY_SIZE(verbs); i++)
		if (strcmp(args->items[0], verbs[i].name) == 0 &&
		    args->n > verbs[i].min_args && args->n <= verbs[i].max_args + 1)
			return &verbs[i];
	return NULL;
}

int main(int argc, char **argv)
{
	struct settings settings = { .run_dir = "/run/holdfast", .kills = "10" };
	_cleanup_strv_ struct strv args = { 0 };
	const struct option_spec options[] = {
		{ "run-dir", "DIR",
		  "where keeper and plugin keep their state (default "
		  "/run/holdfast)",
		  OPTION_STRING, &settings.run_dir },
		{ "json", NULL, "status: print JSON instead of a table", OPTION_SWITCH,
		  &settings.json },
		{ "source", "DIR", "swap: the directory to show from now on", OPTION_STRING,
		  &settings.source },
		{ "kills", "N", "drill: how often (default 10)", OPTION_STRING, &settings.kills },
	};
	const struct program_spec program = {
		.name = "holdfastctl",
		.summary =
			"Shows the Holdfast volumes of this node, and tries them out.\n\nVerbs:\n"
			"  status           the volumes, their workers and where they are mounted\n"
			"  restart VOLUME   replace its worker by one of the program file as it is "
			"now\n"
			"  kill VOLUME      kill its worker, as a crash would\n"
			"  drill VOLUME     kill its worker again and again, and tell what readers "
			"saw\n"
			"  heal [VOLUME]    look at it, or at all, and heal what is dead or stale\n"
			"  swap VOLUME --source DIR\n"
			"                   show another directory at the same paths, in running "
			"containers too",
		.args = "VERB [VOLUME]",
		.positional = &args,
		.options = options,
		.n_options = ARRAY_SIZE(options),
	};
	struct error err = ERROR_INIT;
	const struct verb *verb;

	options_parse(&program, argc, argv);
	log_open("holdfastctl", LOG_LEVEL_ERROR);
	verb = find_verb(&args);
	if (!verb) {
		(void)fprintf(stderr,
			      "holdfastctl: which verb? 'status', 'restart VOLUME', 'kill VOLUME', "
			      "'drill VOLUME', 'heal [VOLUME]' and 'swap VOLUME' are there\n"
			      "Try 'holdfastctl --help'.\n");
		return EXIT_USAGE;
	}
	if (verb->run(&settings, &args, &err) < 0) {
		(void)fprintf(stderr, "holdfastctl: %s\n", err.text);
		return EXIT_FAILURE;
	}
	return fflush(stdout) == EOF ? EXIT_FAILURE : EXIT_SUCCESS;
}
