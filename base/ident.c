/* ident.c - see ident.h. */
#include "base/ident.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

uint64_t weir_incarnation(void)
{
    uint16_t noise;

    weir_random(&noise, sizeof noise);
    return (weir_wall_ns() & ~(uint64_t)UINT16_MAX) | noise;
}

void weir_ident_id(const char *given, const char *role, char *ret, size_t size)
{
    uint32_t noise;

    weir_random(&noise, sizeof noise);
    if (given[0])
        snprintf(ret, size, "%s", given);
    else
        snprintf(ret, size, "%s-%08x", role, noise);
}

void weir_ident_address(const char *given, const char *listen, int port, char *ret, size_t size)
{
    const char *colon = strrchr(listen, ':');
    int host_len = colon ? (int)(colon - listen) : 0;

    if (given[0])
        snprintf(ret, size, "%s", given);
    else
        snprintf(ret, size, "%.*s:%d", host_len ? host_len : 9, host_len ? listen : "127.0.0.1", port);
}
