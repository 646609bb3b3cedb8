/* http_listen.c - from "host:port" to listening sockets, one for each loop.
 *
 * Several loops share a port through SO_REUSEPORT, which spreads connections by hash and wakes one loop each.
 * It would also let a second process of the same user share the port unseen; so the first bind is made
 * without it, as a probe that finds the port taken. Options set on a listener are inherited by what it
 * accepts, which saves system calls. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "http/http_int.h"

enum { BACKLOG = 4096, HOST_MAX = 256, KEEPALIVE_IDLE_S = 30, KEEPALIVE_STEP_S = 10, KEEPALIVE_PROBES = 3 };

struct address {
    struct sockaddr_storage addr;
    socklen_t len;
};

static weir_err split(const char *listen, char host[HOST_MAX], const char **ret_port, struct weir_why *why)
{
    const char *colon = listen ? strrchr(listen, ':') : NULL;
    char *end;
    if (!colon || colon == listen + strlen(listen) - 1)
        return weir_fail_param(why, "listen", WEIR_INVALID, "`%s` is not host:port", listen ? listen : "");
    long port = strtol(colon + 1, &end, 10);
    if (*end != '\0' || colon[1] < '0' || colon[1] > '9' || port > 65535)
        return weir_fail_param(why, "listen", WEIR_INVALID, "`%s`: the port is not a number from 0 to 65535",
                               listen);

    const char *from = listen, *to = colon;
    if (from < to && *from == '[') {
        if (to[-1] != ']')
            return weir_fail_param(why, "listen", WEIR_INVALID, "`%s`: a bracket is not closed", listen);
        from++, to--;
    } else if (memchr(from, ':', (size_t)(to - from))) {
        return weir_fail_param(why, "listen", WEIR_INVALID, "`%s`: write an IPv6 address in brackets",
                               listen);
    }
    if (to - from >= HOST_MAX)
        return weir_fail_param(why, "listen", WEIR_INVALID, "the host of the listen address is too long");
    memcpy(host, from, (size_t)(to - from));
    host[to - from] = '\0';
    *ret_port = colon + 1;
    return WEIR_OK;
}

static bool have_ipv6(void)
{
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static weir_err resolve(const char *listen, struct address *ret, struct weir_why *why)
{
    char host[HOST_MAX];
    const char *port = NULL;
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV }, *found;
    weir_err rc = split(listen, host, &port, why);
    if (rc != WEIR_OK)
        return rc;
    const char *node = host[0] ? host : have_ipv6() ? "::" : "0.0.0.0"; /* "::" takes IPv4 as well */
    int err = getaddrinfo(node, port, &hints, &found);
    if (err != 0)
        return weir_fail_param(why, "listen", WEIR_INVALID, "`%s`: %s", listen, gai_strerror(err));
    memcpy(&ret->addr, found->ai_addr, found->ai_addrlen);
    ret->len = found->ai_addrlen;
    freeaddrinfo(found);
    return WEIR_OK;
}

static void set(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof value); /* each is an improvement, not a need */
}

/* A bound socket, or -1 with errno. */
static int bind_one(const struct address *at, bool reuse_port)
{
    int fd = socket(at->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (reuse_port)
        set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (at->addr.ss_family == AF_INET6)
        set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, SOL_SOCKET, SO_KEEPALIVE,
        1); /* finds a client whose machine is gone while we have nothing to send */
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_STEP_S);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    if (bind(fd, (const struct sockaddr *)&at->addr, at->len) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int port_of(int fd)
{
    struct address at = { .len = sizeof at.addr };
    if (getsockname(fd, (struct sockaddr *)&at.addr, &at.len) != 0)
        return 0;
    return ntohs(at.addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at.addr)->sin6_port
                                               : ((struct sockaddr_in *)&at.addr)->sin_port);
}

static void set_port(struct address *at, int port)
{
    if (at->addr.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&at->addr)->sin6_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in *)&at->addr)->sin_port = htons((uint16_t)port);
}

static weir_err bind_failed(const char *listen, struct weir_why *why)
{
    if (errno == EADDRINUSE)
        return weir_fail_param(why, "listen", WEIR_CONFLICT, "cannot listen on %s: the port is taken",
                               listen);
    return weir_fail_param(why, "listen", WEIR_IO, "cannot listen on %s: %s", listen, strerror(errno));
}

weir_err http_listen_open(const char *listen_at, size_t n, int *ret_fds, int *ret_port, struct weir_why *why)
{
    struct address at = { .len = 0 };
    int port = 0, probe = -1;
    size_t i = 0;
    weir_err rc = resolve(listen_at, &at, why);
    if (rc != WEIR_OK)
        return rc;
    /* A listening socket finds what a bound one does not: two binds with SO_REUSEADDR may share a port, two
     * listens not. */
    probe = bind_one(&at, /* reuse_port= */ false);
    if (probe < 0 || listen(probe, 1) != 0) {
        rc = bind_failed(listen_at, why);
        goto fail;
    }
    port = port_of(probe);
    set_port(&at, port); /* port 0 has become a number, the same for all */
    close(probe);
    probe = -1;
    for (i = 0; i < n; i++) {
        ret_fds[i] = bind_one(&at, /* reuse_port= */ n > 1);
        if (ret_fds[i] < 0) {
            rc = bind_failed(listen_at, why);
            goto fail;
        }
        if (listen(ret_fds[i], BACKLOG) != 0) {
            rc = bind_failed(listen_at, why);
            i++;
            goto fail;
        }
    }
    *ret_port = port;
    return WEIR_OK;
fail:
    if (probe >= 0)
        close(probe);
    while (i > 0)
        close(ret_fds[--i]);
    return rc;
}

void http_peer_format(const struct sockaddr_storage *addr, char out[HTTP_PEER_MAX])
{
    char text[INET6_ADDRSTRLEN] = "?";
    if (addr->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)addr;
        (void)inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
        snprintf(out, HTTP_PEER_MAX, "%s:%u", text, ntohs(v4->sin_port));
        return;
    }
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)addr;
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        (void)inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], text, sizeof text);
        snprintf(out, HTTP_PEER_MAX, "%s:%u", text, ntohs(v6->sin6_port));
        return;
    }
    (void)inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
    snprintf(out, HTTP_PEER_MAX, "[%s]:%u", text, ntohs(v6->sin6_port));
}
