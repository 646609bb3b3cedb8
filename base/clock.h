/* clock.h - the only place that reads a clock. Logic takes now_ns as an argument; thread loops call this. */
#ifndef WEIR_BASE_CLOCK_H
#define WEIR_BASE_CLOCK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_US 1000ull
#define WEIR_MS 1000000ull
#define WEIR_S 1000000000ull

uint64_t weir_now_ns(void);  /* monotonic */
uint64_t weir_wall_ns(void); /* since 1970, UTC; for people and for `created`, never for logic */
uint64_t weir_thread_cpu_ns(void);
/* Random bits from the kernel; fatal when there are none. */
void weir_random(void *buf, unsigned long len);

#ifdef __cplusplus
}
#endif
#endif
