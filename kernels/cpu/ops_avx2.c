/* ops_avx2.c - ops_body.h for machines with avx2; the flags are in CMakeLists.txt. */
#define OPS_NAME cpu_ops_avx2
#define OPS_LABEL "cpu avx2"
#include "kernels/cpu/ops_body.h"
