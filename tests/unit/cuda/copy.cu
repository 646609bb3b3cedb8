/* copy.cu - the plainest copy: what a kernel of this device reads and writes a second at best. */
#include "kernels/cuda/gpu.cuh"
#include "tests/unit/cuda/bench.h"

#define COPY_THREADS 256
#define COPY_EACH 4 /* pieces of 16 bytes on their way at once */

__global__ void __launch_bounds__(COPY_THREADS) copy_kernel(uint4 *to, const uint4 *from, size_t n)
{
    size_t at = (size_t)blockIdx.x * COPY_THREADS * COPY_EACH + threadIdx.x;
    uint4 v[COPY_EACH] = {};

#pragma unroll
    for (int i = 0; i < COPY_EACH; i++)
        if (at + (size_t)i * COPY_THREADS < n)
            v[i] = from[at + (size_t)i * COPY_THREADS];
#pragma unroll
    for (int i = 0; i < COPY_EACH; i++)
        if (at + (size_t)i * COPY_THREADS < n)
            to[at + (size_t)i * COPY_THREADS] = v[i];
}

void bench_copy(struct dev_stream *s, void *to, const void *from, size_t bytes)
{
    size_t n = bytes / 16, each = COPY_THREADS * COPY_EACH;

    GPU_LAUNCH(copy_kernel, (unsigned)((n + each - 1) / each), COPY_THREADS, 0, (gpu_stream)s, (uint4 *)to, (const uint4 *)from, n);
}
