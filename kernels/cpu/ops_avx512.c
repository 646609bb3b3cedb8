/* ops_avx512.c - ops_body.h for machines with avx512: vectors of 16 floats, 32 registers. */
#define OPS_NAME cpu_ops_avx512
#define OPS_LABEL "cpu avx512"
#define LANES 16
#define TILE_P 2
#define TILE_T 12
#define TILE_Q 16
#include "kernels/cpu/ops_body.h"
