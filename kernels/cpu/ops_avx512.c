/* ops_avx512.c - ops_body.h for machines with avx512; the flags are in CMakeLists.txt. */
#define OPS_NAME cpu_ops_avx512
#define OPS_LABEL "cpu avx512"
#include "kernels/cpu/ops_body.h"
