/* kernels.cc - every kernel, compiled for the emulator as one source. */
#include "kernels/cuda/attn.cu"
#include "kernels/cuda/fp8.cu"
#include "kernels/cuda/gemm.cu"
#include "kernels/cuda/moe.cu"
#include "kernels/cuda/reduce.cu"
#include "kernels/cuda/rows.cu"
#include "kernels/cuda/sample.cu"
