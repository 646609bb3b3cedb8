/* rpc_address.c - "host:port" and "[v6]:port", and how a socket's other end is written. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "proto/rpc_int.h"

static bool is_port(const char *text)
{
    unsigned port = 0;

    if (*text == '\0' || strlen(text) > 5)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        port = port * 10 + (unsigned)(*text - '0');
    }
    return port <= 65535;
}

weir_err rpc_address_split(const char *field, const char *text, char host[256], char port[8],
                           struct weir_why *why)
{
    const char *colon = text ? strrchr(text, ':') : NULL;

    if (!colon || colon == text || !is_port(colon + 1))
        return weir_fail_param(why, field, WEIR_INVALID, "%s: '%s' is not host:port", field,
                               text ? text : "");
    size_t len = (size_t)(colon - text);
    bool bracketed = text[0] == '[' && text[len - 1] == ']';
    if (bracketed) {
        text++;
        len -= 2;
    }
    if (len == 0 || len >= 256 || (!bracketed && memchr(text, ':', len)))
        return weir_fail_param(why, field, WEIR_INVALID,
                               "%s: '%s': write a host, or an IPv6 address in brackets", field,
                               bracketed ? text - 1 : text);
    memcpy(host, text, len);
    host[len] = '\0';
    snprintf(port, 8, "%s", colon + 1);
    return WEIR_OK;
}

void rpc_address_of_peer(int fd, char *out, size_t n)
{
    struct sockaddr_storage addr = { 0 };
    socklen_t addr_len = sizeof addr;
    char host[INET6_ADDRSTRLEN] = "";

    out[0] = '\0';
    if (getpeername(fd, (struct sockaddr *)&addr, &addr_len) != 0)
        return;
    if (addr.ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&addr;
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(out, n, "%s:%u", host, ntohs(v4->sin_port));
    } else if (addr.ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&addr;
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(out, n, "[%s]:%u", host, ntohs(v6->sin6_port));
    }
}
