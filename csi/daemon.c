/* SPDX-License-Identifier: Apache-2.0 */
#include "csi/daemon.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/notify.h"
#include "csi/endpoint.h"

#define ACCEPT_PAUSE_MS 100 /* after descriptors or memory ran out */

struct listener {
	const char *path;
	int fd;
};

struct daemon {
	int signal_fd, quit_fd;
	struct listener listeners[DAEMON_SOCKETS_MAX];
	size_t n_listeners;
	uint64_t accept_from_ns; /* CLOCK_MONOTONIC: no accept before */
	bool has_complained;	 /* that accept fails, since it last worked */
	uint64_t watchdog_ms;	 /* 0: nobody watches */
	uint64_t watchdog_due_ns;
};

static int block_signals(sigset_t *ret)
{
	(void)sigemptyset(ret);
	(void)sigaddset(ret, SIGTERM);
	(void)sigaddset(ret, SIGINT);
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return -errno;
	return -pthread_sigmask(SIG_BLOCK, ret, NULL);
}

int daemon_new(struct daemon **ret, struct error *err)
{
	_cleanup_daemon_ struct daemon *daemon = calloc(1, sizeof(*daemon));
	sigset_t signals;
	int r;

	if (!daemon)
		return error_errno(err, -ENOMEM, "make the daemon");
	daemon->signal_fd = daemon->quit_fd = -EBADF;
	daemon->watchdog_ms = notify_watchdog_interval_ms();
	r = block_signals(&signals);
	if (r < 0)
		return error_errno(err, r, "block signals");
	daemon->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (daemon->signal_fd < 0)
		return error_errno(err, -errno, "signalfd");
	daemon->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (daemon->quit_fd < 0)
		return error_errno(err, -errno, "eventfd");
	*ret = TAKE_PTR(daemon);
	return 0;
}

int daemon_listen(struct daemon *daemon, const char *path, struct error *err)
{
	struct listener *listener = &daemon->listeners[daemon->n_listeners];
	int r = endpoint_listen(path, &listener->fd, err);

	if (r < 0)
		return r;
	listener->path = path;
	daemon->n_listeners++;
	return 0;
}

int daemon_quit_fd(const struct daemon *daemon)
{
	return daemon->quit_fd;
}

/* Nobody can have put another socket in our place: endpoint_listen refuses while we listen. */
static void close_listeners(struct daemon *daemon)
{
	for (; daemon->n_listeners > 0; daemon->n_listeners--) {
		struct listener *listener = &daemon->listeners[daemon->n_listeners - 1];

		if (unlink(listener->path) < 0 && errno != ENOENT)
			(void)log_warning_errno(-errno, "remove %s", listener->path);
		close_fd(&listener->fd);
	}
}

void daemon_free(struct daemon *daemon)
{
	if (!daemon)
		return;
	close_listeners(daemon);
	close_fd(&daemon->signal_fd);
	close_fd(&daemon->quit_fd);
	free(daemon);
}

static bool is_out_of_resources(int code)
{
	return code == -EMFILE || code == -ENFILE || code == -ENOBUFS || code == -ENOMEM;
}

static void accept_one(struct daemon *daemon, const struct listener *listener,
		       struct server *server)
{
	int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int code = fd < 0 ? -errno : 0;

	if (fd >= 0)
		server_add_connection(server, fd);
	if (!is_out_of_resources(code)) { /* else the client has gone already, which is fine */
		daemon->has_complained = false;
		return;
	}
	if (!daemon->has_complained)
		(void)log_error_errno(code, "accept on %s; further connections wait",
				      listener->path);
	daemon->has_complained = true;
	daemon->accept_from_ns = clock_now_ns() + ACCEPT_PAUSE_MS * NSEC_PER_MSEC;
}

/* WATCHDOG=1 only if the server's thread goes round as well as this one. */
static void feed_watchdog(struct daemon *daemon, struct server *server)
{
	uint64_t now = clock_now_ns(), interval = daemon->watchdog_ms * NSEC_PER_MSEC;

	if (interval == 0 || now < daemon->watchdog_due_ns)
		return;
	if (now - MIN_OF(server_heartbeat_ns(server), now) < 2 * interval)
		notify_watchdog();
	daemon->watchdog_due_ns = now + interval;
}

static int poll_timeout(const struct daemon *daemon, bool paused)
{
	int timeout = paused ? clock_left_ms(daemon->accept_from_ns) : -1;
	int watchdog = daemon->watchdog_ms > 0 ? clock_left_ms(daemon->watchdog_due_ns) : -1;

	if (timeout < 0)
		return watchdog;
	return watchdog < 0 ? timeout : MIN_OF(timeout, watchdog);
}

/* One turn. Returns whether to go on; else *ret is the exit code. */
static bool turn(struct daemon *daemon, struct server *server, int *ret)
{
	struct pollfd fds[2 + DAEMON_SOCKETS_MAX] = {
		{ .fd = daemon->signal_fd, .events = POLLIN },
		{ .fd = daemon->quit_fd, .events = POLLIN },
	};
	bool paused = clock_now_ns() < daemon->accept_from_ns;

	for (size_t i = 0; i < daemon->n_listeners; i++)
		fds[2 + i] = (struct pollfd){ .fd = paused ? -1 : daemon->listeners[i].fd,
					      .events = POLLIN };
	feed_watchdog(daemon, server);
	if (poll(fds, 2 + daemon->n_listeners, poll_timeout(daemon, paused)) < 0)
		return true; /* EINTR, or no memory for a moment */
	for (size_t i = 0; i < daemon->n_listeners; i++)
		if (fds[2 + i].revents)
			accept_one(daemon, &daemon->listeners[i], server);
	*ret = fds[1].revents ? EXIT_FAILURE : EXIT_SUCCESS;
	return !fds[0].revents && !fds[1].revents;
}

int daemon_run(struct daemon *daemon, struct server *server)
{
	int code = EXIT_SUCCESS;

	while (turn(daemon, server, &code))
		;
	close_listeners(daemon);
	return code;
}
