/* clock.c - time and randomness from the kernel. A clock that can't be read is a fault of ours: fatal. */
#include "base/clock.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

#include "base/err.h"

static uint64_t read_clock(clockid_t id)
{
    struct timespec ts;

    WEIR_BUG_ON(clock_gettime(id, &ts) != 0);
    return (uint64_t)ts.tv_sec * WEIR_S + (uint64_t)ts.tv_nsec;
}

uint64_t weir_now_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t weir_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

uint64_t weir_thread_cpu_ns(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void weir_random(void *buf, unsigned long len)
{
    char *at = buf;

    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);
        WEIR_BUG_ON(n < 0 && errno != EINTR);
        if (n > 0) {
            at += n;
            len -= (unsigned long)n;
        }
    }
}
