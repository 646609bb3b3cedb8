/* reduce.cu - sums over ranks by kernels of ours.
 *
 * One shot, for messages as small as a decode step's: each block writes its share of x where all peers can read it, raises its
 * flag at every peer, waits for theirs, and adds up all shares in the order of ranks: all ranks compute the same bits.
 *   [X1] A slot has two halves, used by turns. A rank writes a half again only after a sum in between, for which every
 *        peer had to have finished reading the first one.
 *   [X2] A wait ends: after patience_ns *broken and *told are set and the block goes on; what it computes is not used. From then
 *        on nobody waits here: a step has many sums, and together they would take many times as long.
 * Source: the one-shot scheme is common to vLLM, TensorRT-LLM and others; the flags are counters, never reset. */
#include "kernels/cuda/cuda_int.h"
#include "kernels/cuda/gpu.cuh"

#ifdef WEIR_EMU
#include <sched.h>
#include <time.h>
#endif

#define REDUCE_THREADS 256

__device__ static inline void flag_raise(uint32_t *flag, uint32_t value)
{
#if defined(__CUDA_ARCH__)
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
#elif defined(WEIR_EMU)
    __atomic_store_n(flag, value, __ATOMIC_RELEASE);
#endif
}

__device__ static inline uint32_t flag_read(const uint32_t *flag)
{
    uint32_t value = 0;
#if defined(__CUDA_ARCH__)
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
#elif defined(WEIR_EMU)
    value = __atomic_load_n(flag, __ATOMIC_ACQUIRE);
    sched_yield(); /* the peers may need this processor to come */
#endif
    return value;
}

__device__ static inline uint64_t now_ns()
{
    uint64_t ns = 0;
#if defined(__CUDA_ARCH__)
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
#elif defined(WEIR_EMU)
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
#endif
    return ns;
}

__global__ void __launch_bounds__(REDUCE_THREADS) one_shot_kernel(uint16_t *x, uint32_t n, struct cuda_peers p)
{
    GPU_SHARED(uint32_t, shared_epoch, 1);
    uint32_t first = blockIdx.x * REDUCE_THREADS + threadIdx.x, step = gridDim.x * REDUCE_THREADS;

    if (threadIdx.x == 0)
        shared_epoch[0] = p.epochs[blockIdx.x] + 1;
    __syncthreads();
    uint32_t epoch = shared_epoch[0];
    size_t half = (size_t)(epoch % 2) * p.n_slot; /* [X1] */
    for (uint32_t i = first; i < n; i += step)
        p.slots[p.rank][half + i] = x[i];
    __syncthreads();
    if (threadIdx.x < p.n_ranks) {
#if defined(__CUDA_ARCH__)
        __threadfence_system();
#endif
        flag_raise(p.flags[threadIdx.x] + blockIdx.x * p.n_ranks + p.rank, epoch);
    }
    __syncthreads(); /* all flags are up before anyone waits: else ranks could wait for each other in a ring */
    if (threadIdx.x < p.n_ranks) {
        uint64_t until = now_ns() + (*p.broken ? 0 : p.patience_ns);
        while ((int32_t)(flag_read(p.flags[p.rank] + blockIdx.x * p.n_ranks + threadIdx.x) - epoch) < 0)
            if (now_ns() > until) { /* [X2] */
                *p.broken = 1;
                if (p.told)
                    *p.told = 1;
                break;
            }
    }
    __syncthreads();
    for (uint32_t i = first; i < n; i += step) {
        float sum = 0;
        for (uint32_t r = 0; r < p.n_ranks; r++)
            sum += bf16_f32(p.slots[r][half + i]);
        x[i] = bf16_of(sum);
    }
    if (threadIdx.x == 0)
        p.epochs[blockIdx.x] = epoch;
}

void cuda_one_shot_reduce(struct dev_stream *s, uint16_t *x, uint32_t n, const struct cuda_peers *peers)
{
    /* All blocks always: the flags of a block count its own calls, and every call must count for each. */
    GPU_LAUNCH(one_shot_kernel, CUDA_REDUCE_BLOCKS, REDUCE_THREADS, 0, (gpu_stream)s, x, n, *peers);
}

/* ---- ranks on one device ---- */
struct sum_args {
    const uint16_t *srcs[CUDA_RANKS_MAX];
    uint16_t *out;
    uint32_t n_ranks;
    size_t n;
};

__global__ void sum_kernel(struct sum_args a)
{
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < a.n; i += (size_t)gridDim.x * blockDim.x) {
        float sum = 0;
        for (uint32_t r = 0; r < a.n_ranks; r++)
            sum += bf16_f32(a.srcs[r][i]);
        a.out[i] = bf16_of(sum);
    }
}

void cuda_sum_ranks(struct dev_stream *s, uint16_t *out, const uint16_t *const *srcs_host, uint32_t n_ranks, size_t n)
{
    struct sum_args a = {};

    a.out = out;
    a.n_ranks = n_ranks;
    a.n = n;
    for (uint32_t r = 0; r < n_ranks; r++)
        a.srcs[r] = srcs_host[r];
    uint32_t blocks = (uint32_t)((n + REDUCE_THREADS - 1) / REDUCE_THREADS);
    GPU_LAUNCH(sum_kernel, blocks < 1024 ? blocks : 1024, REDUCE_THREADS, 0, (gpu_stream)s, a);
}

__global__ void place_kernel(float *out, const float *part, uint32_t rank, uint32_t n_ranks, uint32_t n)
{
    size_t row = blockIdx.x;

    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
        out[row * n_ranks * n + (size_t)rank * n + i] = part[row * n + i];
}

void cuda_place_columns(struct dev_stream *s, float *out, const float *part, uint32_t rank, uint32_t n_ranks,
                        uint32_t n_rows, uint32_t n)
{
    GPU_LAUNCH(place_kernel, n_rows, REDUCE_THREADS, 0, (gpu_stream)s, out, part, rank, n_ranks, n);
}
