/* emu.cuh - the part of CUDA C++ that the kernels here use, run by the host: what every kernel is tested with where there is no GPU.
 *
 * Blocks run one after another, the threads of a block as fibers of one host thread. A fiber runs until it meets the
 * others - at a block barrier or in an operation of a warp - and then the next one runs, in an order that the tests
 * choose: forwards, backwards or shuffled. A kernel that lacks a barrier gives different results in different orders; one
 * whose threads don't all come to a barrier is stopped with a message.
 *   [U1] Shared memory is poison (NaN) at the start of each block.
 *   [U2] A warp operation takes place when the last lane of its mask has come, and all must have come to the same one.
 *   [U3] A barrier that not all threads of the block reach ends the program.
 * Not here: memory ordering between warps, bank conflicts, timing. State is per host thread, so ranks may run side by side.
 * Asynchronous launches are run at once, as late as may be (dev_set_lazy), or kept by value while a step is recorded. */
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint2 { uint32_t x, y; };
struct uint4 { uint32_t x, y, z, w; };

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__

enum emu_order { EMU_FORWARD, EMU_BACKWARD, EMU_SHUFFLED };
void emu_set_order(enum emu_order order, uint64_t seed);

struct emu_where {
    dim3 grid, block, block_idx, thread_idx;
};
extern __thread emu_where emu_here; /* not thread_local: the sanitizer of this compiler takes its wrapper for NULL */
#define gridDim emu_here.grid
#define blockDim emu_here.block
#define blockIdx emu_here.block_idx
#define threadIdx emu_here.thread_idx

void emu_run(dim3 grid, dim3 block, size_t shared, void (*body)(void *arg), void *arg);
void *emu_shared(const void *key, size_t bytes);
void *emu_shared_dynamic();
void emu_barrier();
/* One operation of a warp: in[lane] and out[lane] of those that came, NULL for the others. */
typedef void emu_warp_fn(const void *const *in, void *const *out);
void emu_warp(uint32_t mask, emu_warp_fn *fn, const void *in, void *out);
unsigned emu_lane();

/* Where launches and copies go while a step is recorded: run later, each time with the arguments they had. NULL: run now. */
typedef std::vector<std::function<void()>> emu_record;
extern __thread emu_record *emu_recording;
/* Where they go while the stream is lazy: until somebody waits for it. NULL: it is not. */
extern __thread emu_record *emu_waiting;
template <class F> void emu_do(F what)
{
    if (emu_recording)
        emu_recording->push_back(what);
    else if (emu_waiting)
        emu_waiting->push_back(what);
    else
        what();
}
/* Arguments are evaluated and kept by value now, as a launch does. */
template <class F, class... A> void emu_launch(dim3 grid, dim3 block, size_t shared, F kernel, A... args)
{
    emu_do([=] {
        auto body = [=] { kernel(args...); };
        emu_run(grid, block, shared, [](void *arg) { (*(decltype(body) *)arg)(); }, &body);
    });
}
#define GPU_LAUNCH(kernel, grid, block, shared, stream, ...)                                                 \
    ((void)(stream), emu_launch(grid, block, shared, [](auto... args) { kernel(args...); }, __VA_ARGS__))
#define GPU_SHARED(type, name, n)                                                                            \
    static const char name##_key = 0;                                                                        \
    type *name = (type *)emu_shared(&name##_key, sizeof(type) * (n))
#define GPU_SHARED_DYNAMIC(type, name) type *name = (type *)emu_shared_dynamic()
#define gpu_allow_shared(kernel, bytes) ((void)(bytes))

/* [U4] An asynchronous copy takes place anywhere between its being asked for and being waited for: forwards as late, backwards as
 * early as may be, shuffled at either. */
void emu_copy_async(void *to, const void *from, size_t bytes);
void emu_copy_commit();
void emu_copy_wait(unsigned n_newest);

inline void __syncthreads() { emu_barrier(); }
inline void __syncwarp(uint32_t mask = ~0u)
{
    int none = 0;
    emu_warp(mask, [](const void *const *, void *const *) {}, &none, &none);
}

/* What a lane gives to a shuffle, and from which lane it wants. */
template <class T> struct emu_shuffle {
    T value;
    int from;
};
template <class T> void emu_shuffle_all(const void *const *in, void *const *out)
{
    for (int i = 0; i < 32; i++) {
        if (!in[i])
            continue;
        const emu_shuffle<T> *mine = (const emu_shuffle<T> *)in[i];
        const void *from = mine->from >= 0 && mine->from < 32 ? in[mine->from] : nullptr;
        *(T *)out[i] = from ? ((const emu_shuffle<T> *)from)->value : mine->value;
    }
}
template <class T> T emu_shuffled(uint32_t mask, T value, int from)
{
    emu_shuffle<T> in = { value, from };
    T ret;
    emu_warp(mask, emu_shuffle_all<T>, &in, &ret);
    return ret;
}
template <class T> T __shfl_sync(uint32_t mask, T value, int from) { return emu_shuffled(mask, value, from & 31); }
template <class T> T __shfl_xor_sync(uint32_t mask, T value, int lanes)
{
    return emu_shuffled(mask, value, (int)(emu_lane() ^ (unsigned)lanes));
}
template <class T> T __shfl_up_sync(uint32_t mask, T value, unsigned by)
{
    return emu_shuffled(mask, value, (int)emu_lane() - (int)by);
}
inline void emu_ballot_all(const void *const *in, void *const *out)
{
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++)
        bits |= in[i] && *(const int *)in[i] ? 1u << i : 0;
    for (int i = 0; i < 32; i++)
        if (out[i])
            *(uint32_t *)out[i] = bits;
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate)
{
    uint32_t ret = 0;
    emu_warp(mask, emu_ballot_all, &predicate, &ret);
    return ret;
}

template <class T> T atomicAdd(T *at, T by)
{
    T old = *at;
    *at = (T)(old + by);
    return old;
}
template <class T> T atomicMax(T *at, T by)
{
    T old = *at;
    *at = old < by ? by : old;
    return old;
}
inline float __uint_as_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
inline uint32_t __float_as_uint(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
