/* ops_generic.c - ops_body.h for any machine: vectors of 4 floats, 16 registers. */
#define OPS_NAME cpu_ops_generic
#define OPS_LABEL "cpu generic"
#define LANES 4
#define TILE_P 1
#define TILE_T 2
#define TILE_Q 2
#include "kernels/cpu/ops_body.h"
