/* rpc_probe.c - a TLS port's look at itself.
 *
 * TLS needs the core's own listener, which stops accepting for good once it ran out of descriptors, in
 * silence: the kernel goes on completing connections that nobody takes. So every PROBE_MS a connection is
 * made and half-closed; a live server then closes its side too, before any handshake. When nobody did so
 * FAILURES_MAX times in a row, the process asks itself to end (SIGTERM): whoever runs it starts it anew,
 * while drained calls still finish. No certificate is needed, and nothing is logged by the core for a peer
 * that leaves before it says anything. [P1] A probe that could not be made for want of a descriptor of our
 * own says nothing about the listener. Threads: probe. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/rpc_server_int.h"

#define PROBE_MS 5000
#define ANSWER_MS 5000
#define FAILURES_MAX 3

struct rpc_probe {
    struct weir_thread thread;
    int stop_fd;
    int port;
    struct sockaddr_storage addr;
    socklen_t addr_len;
};

enum outcome { ALIVE, SILENT, UNTRIED, STOPPED };

/* Until `fd` has one of `events`, or the stop signal, or until_ns. */
static enum outcome wait_for(const struct rpc_probe *probe, int fd, short events, uint64_t until_ns)
{
    struct pollfd fds[2] = { { .fd = probe->stop_fd, .events = POLLIN }, { .fd = fd, .events = events } };

    for (;;) {
        uint64_t now_ns = weir_now_ns();
        if (now_ns >= until_ns)
            return SILENT;
        int n = poll(fds, fd >= 0 ? 2 : 1, (int)((until_ns - now_ns) / WEIR_MS) + 1);
        if (n > 0 && fds[0].revents)
            return STOPPED;
        if (n > 0)
            return ALIVE;
    }
}

static enum outcome try_connection(const struct rpc_probe *probe, int fd)
{
    uint64_t until_ns = weir_now_ns() + ANSWER_MS * WEIR_MS;
    char byte;

    if (connect(fd, (const struct sockaddr *)&probe->addr, probe->addr_len) != 0 && errno != EINPROGRESS)
        return SILENT;
    enum outcome outcome = wait_for(probe, fd, POLLOUT, until_ns);
    if (outcome != ALIVE)
        return outcome;
    (void)shutdown(fd, SHUT_WR);
    outcome = wait_for(probe, fd, POLLIN, until_ns);
    if (outcome == ALIVE && recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == ECONNREFUSED)
        return SILENT;
    return outcome; /* an end or a reset: somebody took it */
}

static enum outcome look(const struct rpc_probe *probe)
{
    int fd = socket(probe->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return UNTRIED; /* [P1] */
    enum outcome outcome = try_connection(probe, fd);
    close(fd);
    return outcome;
}

static void *probe_loop(void *arg)
{
    struct rpc_probe *probe = arg;
    int n_failed = 0;

    while (wait_for(probe, /* fd= */ -1, 0, weir_now_ns() + PROBE_MS * WEIR_MS) != STOPPED) {
        enum outcome outcome = look(probe);
        if (outcome == STOPPED)
            break;
        n_failed = outcome == ALIVE ? 0 : outcome == SILENT ? n_failed + 1 : n_failed;
        if (n_failed < FAILURES_MAX)
            continue;
        WEIR_ERROR("rpc_port_dead", "port=%d reason=the listener takes no connections any more", probe->port);
        weir_signals_raise_term();
        n_failed = 0;
    }
    return NULL;
}

/* Where to connect: a wildcard address means this machine. */
static weir_err find_address(struct rpc_probe *probe, const char *listen, struct weir_why *why)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    char host[256], port[8];

    weir_err rc = rpc_address_split("listen", listen, host, port, why);
    if (rc != WEIR_OK)
        return rc;
    snprintf(port, sizeof port, "%d", probe->port);
    int error = getaddrinfo(host, port, &hints, &list);
    if (error != 0)
        return weir_fail_param(why, "listen", WEIR_IO, "listen: %s: %s", listen, gai_strerror(error));
    memcpy(&probe->addr, list->ai_addr, list->ai_addrlen); /* Linux takes 0.0.0.0 and :: as the loopback */
    probe->addr_len = list->ai_addrlen;
    freeaddrinfo(list);
    return WEIR_OK;
}

weir_err rpc_probe_open(const char *listen, int port, struct rpc_probe **ret, struct weir_why *why)
{
    struct rpc_probe *probe = weir_alloc0(sizeof *probe);

    if (!probe)
        return weir_fail(why, WEIR_NOMEM, "rpc: no memory for a probe");
    probe->port = port;
    probe->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    weir_err rc = probe->stop_fd < 0 ? weir_fail(why, WEIR_IO, "rpc: %s", strerror(errno))
                                     : find_address(probe, listen, why);
    if (rc == WEIR_OK)
        rc = weir_thread_start(&probe->thread, WEIR_ROLE_ANY, "rpc-probe", probe_loop, probe, why);
    if (rc != WEIR_OK) {
        rpc_probe_close(probe);
        return rc;
    }
    *ret = probe;
    return WEIR_OK;
}

void rpc_probe_close(struct rpc_probe *probe)
{
    const uint64_t one = 1;

    if (!probe)
        return;
    if (probe->thread.running)
        WEIR_BUG_ON(write(probe->stop_fd, &one, sizeof one) != sizeof one);
    weir_thread_join(&probe->thread);
    if (probe->stop_fd >= 0)
        close(probe->stop_fd);
    weir_free(probe);
}
