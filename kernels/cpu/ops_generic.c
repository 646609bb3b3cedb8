/* ops_generic.c - ops_body.h for any machine; the flags are in CMakeLists.txt. */
#define OPS_NAME cpu_ops_generic
#define OPS_LABEL "cpu generic"
#include "kernels/cpu/ops_body.h"
