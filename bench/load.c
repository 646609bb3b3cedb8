/* load.c - see load.h: what both ways share. */
#include "bench/load.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void load_fault(struct load_result *result, const char *what)
{
    if (result->n_errors++ == 0)
        snprintf(result->error, sizeof result->error, "%.150s", what);
}

void load_prompt(char *ret, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ret[i] = "the river runs on and on "[i % 25];
}

weir_err load_resolve(const char *target, struct sockaddr_storage *ret, socklen_t *ret_len,
                      struct weir_why *why)
{
    char host[256];
    const char *colon = strrchr(target, ':');
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL;

    if (!colon || (size_t)(colon - target) >= sizeof host)
        return weir_fail_param(why, "target", WEIR_INVALID, "target: `%s` is not host:port", target);
    memcpy(host, target, (size_t)(colon - target));
    host[colon - target] = '\0';
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
        return weir_fail_param(why, "target", WEIR_INVALID, "target: `%s` does not resolve", target);
    memcpy(ret, found->ai_addr, found->ai_addrlen);
    *ret_len = found->ai_addrlen;
    freeaddrinfo(found);
    return WEIR_OK;
}

int load_connect(const struct sockaddr_storage *addr, socklen_t len)
{
    int one = 1, fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (const struct sockaddr *)addr, len) != 0) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    if (fd >= 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}
