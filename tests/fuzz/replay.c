/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runs a fuzz target without libFuzzer: each file of the corpus directory as it is, cut at every
 * length, and with each of its bits flipped. A crash or a sanitizer report is the failure.
 */

#include <dirent.h>
#include <fcntl.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"

#define SEED_MAX (64U << 10)
#define VARIANTS_MAX 4096 /* of each kind and seed: large seeds are sampled */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run_copy(const char *seed, size_t size)
{
	/* an exact allocation, so that a read beyond the end is noticed */
	_cleanup_free_ uint8_t *copy = malloc(size ?: 1);

	if (!copy)
		abort();
	memcpy(copy, seed, size);
	(void)LLVMFuzzerTestOneInput(copy, size);
}

static void run_seed(char *seed, size_t size)
{
	size_t bits = size * 8;

	run_copy(seed, size);
	for (size_t i = 0; i < size; i += size / VARIANTS_MAX + 1)
		run_copy(seed, i);
	for (size_t i = 0; i < bits; i += bits / VARIANTS_MAX + 1) {
		seed[i / 8] = (char)(seed[i / 8] ^ (1 << (i % 8)));
		run_copy(seed, size);
		seed[i / 8] = (char)(seed[i / 8] ^ (1 << (i % 8)));
	}
}

int main(int argc, char **argv)
{
	size_t seeds = 0;
	struct dirent *d;
	DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;

	if (!dir) {
		perror(argc == 2 ? argv[1] : "usage: replay DIRECTORY");
		return 2;
	}
	while ((d = readdir(dir))) {
		struct error err = ERROR_INIT;
		_cleanup_free_ char *seed = NULL;
		size_t size;

		if (d->d_name[0] == '.')
			continue;
		if (file_load(dirfd(dir), d->d_name, SEED_MAX, &seed, &size, &err) < 0) {
			(void)fprintf(stderr, "%s\n", err.text);
			return 2;
		}
		run_seed(seed, size);
		seeds++;
	}
	(void)closedir(dir);
	if (seeds == 0) {
		(void)fprintf(stderr, "%s holds no seeds\n", argv[1]);
		return 2;
	}
	return 0;
}
