/* ops_avx2.c - ops_body.h for machines with avx2 and fma: vectors of 8 floats, 16 registers. */
#define OPS_NAME cpu_ops_avx2
#define OPS_LABEL "cpu avx2"
#define LANES 8
#define TILE_P 1
#define TILE_T 5
#define TILE_Q 4
#include "kernels/cpu/ops_body.h"
