/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Every request of every service: the first byte chooses the method, the rest are the bytes of its
 * request, which are decoded and handled. There is no keeper, so no call gets beyond its checks and
 * its record; all paths lie below a directory of our own.
 */

#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "csi/call.h"
#include "csi/dispatch.h"
#include "csi/health.h"
#include "csi/identity.h"
#include "csi/node.h"
#include "csi/registration.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct identity identity = { "csi.holdfast.dev", true };
static struct registration registration = { "csi.holdfast.dev", "/csi.sock", -EBADF };
static struct service services[4];

/* For the life of the process. Below /tmp, so that seeds can name it. */
#define ROOT "/tmp/holdfast-fuzz-csi"

static const char *const directories[] = { ROOT, ROOT "/kubelet", ROOT "/data", ROOT "/run",
					   ROOT "/run/volumes" };

static void remove_directories(void)
{
	for (size_t i = ARRAY_SIZE(directories); i > 0; i--)
		(void)rmdir(directories[i - 1]);
}

static void make_directories(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(directories); i++)
		if (mkdir(directories[i], 0700) < 0 && errno != EEXIST)
			abort();
	(void)atexit(remove_directories);
}

static void set_up(void)
{
	static const struct strv none = { 0 };
	static char *prefixes[] = { (char *)ROOT "/data", NULL };
	static const struct strv allowed = { prefixes, 1 };
	static const struct node_config config = { .run_dir = ROOT "/run",
						   .node_id = "node-1",
						   .kubelet_root = ROOT "/kubelet",
						   .topology = &none,
						   .allow_source = &allowed };
	struct node_service *node;

	make_directories();
	log_open("fuzz_csi", LOG_LEVEL_ERROR);
	registration.refused_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (registration.refused_fd < 0 || node_service_new(&config, &node, NULL) < 0)
		abort();
	services[0] = identity_service(&identity);
	services[1] = registration_service(&registration);
	services[2] = health_service();
	services[3] = node_service_methods(node);
}

static void serve(const struct service *service, const struct method *method, const uint8_t *bytes,
		  size_t size)
{
	_cleanup_answer_ struct answer answer;
	struct call call;

	call_init(&call, CALL_NO_DEADLINE);
	dispatch(method, service->context, &call, 1, bytes, size, &answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t number;

	if (!services[0].methods)
		set_up();
	if (size == 0)
		return 0;
	number = data[0];
	for (size_t i = 0; i < ARRAY_SIZE(services); i++) {
		if (number < services[i].n_methods) {
			serve(&services[i], &services[i].methods[number], data + 1, size - 1);
			break;
		}
		number -= services[i].n_methods;
	}
	return 0;
}
