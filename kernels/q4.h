/* q4.h - how weights become 4 bits, the same in every back end.
 *
 * A weight is scale * m * q: q from -7 to 7, a multiplier m of 1 to 15 that WEIR_Q4_GROUP inputs of a row share, a scale for
 * the row. The integer m * q fits in 8 bits, and in a bf16. A row's scale is its largest number over all that q and m can say; a
 * group's multiplier is the one that leaves the least squared error. */
#ifndef WEIR_KERNELS_Q4_H
#define WEIR_KERNELS_Q4_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_Q4_GROUP 32 /* inputs of a row that share a multiplier */
#define WEIR_Q4_MAX 7

/* Of a row x [n]; 0 when all are. */
float weir_q4_scale(const float *x, uint32_t n);
/* One group x [n], n at most WEIR_Q4_GROUP, of a row with that scale, into q [n]. Returns its multiplier. */
int32_t weir_q4_group(int8_t *q, const float *x, uint32_t n, float scale);

#ifdef __cplusplus
}
#endif
#endif
