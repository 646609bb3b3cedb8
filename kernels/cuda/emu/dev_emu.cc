/* dev_emu.cc - see dev.h: a device whose memory is the heap and whose stream runs at once, or, if asked to, as late as it may: what
 * the host does too early then shows. Dense products of bf16 are refused, so that every product is a kernel of ours; those of
 * FP8 are sums of floats here. New memory is poison. */
#include "kernels/cuda/dev.h"
#include "kernels/cuda/emu/emu.cuh"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>

struct dev {
    struct dev_info info;
    uint32_t index;
    double marks[DEV_MARKS];
    uint64_t marked[DEV_MARKS]; /* what had been asked of the stream */
};

static std::atomic<bool> is_lazy;
static __thread uint64_t n_run;    /* of what waited */
static __thread uint32_t n_opened; /* devices, which share what waits: in order is in order for each */

#define EMULATED_DEVICES 8

static uint16_t emu_bf16(float f)
{
    uint32_t bits = __float_as_uint(f);

    return f != f ? 0x7fff : (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static uint64_t n_asked(void)
{
    return n_run + (emu_waiting ? emu_waiting->size() : 0);
}

static void run_until(uint64_t n)
{
    while (n_run < n && emu_waiting && !emu_waiting->empty()) {
        std::function<void()> what = std::move(emu_waiting->front());
        emu_waiting->erase(emu_waiting->begin());
        n_run++;
        what();
    }
}

int dev_count(void)
{
    return EMULATED_DEVICES;
}

weir_err dev_open(uint32_t index, struct dev **ret, struct weir_why *why)
{
    struct dev *d = (struct dev *)calloc(1, sizeof *d);

    if (!d)
        return weir_fail(why, WEIR_NOMEM, "no memory for the emulated device");
    snprintf(d->info.name, sizeof d->info.name, "emulated");
    d->info.n_multiprocessor = 2;
    d->info.major = 9;
    d->info.memory_bytes = 1ull << 30;
    d->index = index;
    if (is_lazy && !emu_waiting)
        emu_waiting = new emu_record();
    n_opened++;
    *ret = d;
    return WEIR_OK;
}

void dev_close(struct dev *d)
{
    run_until(n_asked());
    if (d && --n_opened == 0) {
        delete emu_waiting;
        emu_waiting = nullptr;
    }
    free(d);
}

const struct dev_info *dev_about(const struct dev *d)
{
    return &d->info;
}

uint32_t dev_index(const struct dev *d)
{
    return d->index;
}

void dev_use(uint32_t)
{
}

struct dev_stream *dev_stream(struct dev *)
{
    return nullptr;
}

void *dev_alloc(struct dev *, size_t bytes)
{
    bytes = (bytes + 255) & ~(size_t)255;
    void *ptr = aligned_alloc(256, bytes);

    if (ptr)
        memset(ptr, 0xff, bytes);
    return ptr;
}

void dev_free(struct dev *, void *ptr)
{
    run_until(n_asked());
    free(ptr);
}

void *dev_host_alloc(struct dev *d, size_t bytes)
{
    return dev_alloc(d, bytes);
}

void dev_host_free(struct dev *, void *ptr)
{
    run_until(n_asked());
    free(ptr);
}

void dev_upload(struct dev *, void *to, const void *from, size_t bytes)
{
    emu_do([=] { memcpy(to, from, bytes); });
}

void dev_download(struct dev *, void *to, const void *from, size_t bytes)
{
    emu_do([=] { memcpy(to, from, bytes); });
}

void dev_copy(struct dev *, void *to, const void *from, size_t bytes)
{
    emu_do([=] { memcpy(to, from, bytes); });
}

void dev_zero(struct dev *, void *to, size_t bytes)
{
    emu_do([=] { memset(to, 0, bytes); });
}

void dev_sync(struct dev *)
{
    run_until(n_asked());
}

void dev_mark(struct dev *d, uint32_t mark)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    d->marks[mark] = (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    d->marked[mark] = n_asked();
}

void dev_await(struct dev *d, uint32_t mark)
{
    run_until(d->marked[mark]);
}

weir_err dev_check(struct dev *, struct weir_why *)
{
    return WEIR_OK;
}

double dev_seconds(struct dev *d, uint32_t from, uint32_t to)
{
    return d->marks[to] - d->marks[from];
}

struct dev_graph {
    emu_record steps;
};

void dev_record(struct dev *)
{
    emu_recording = new emu_record();
}

struct dev_graph *dev_record_end(struct dev *)
{
    struct dev_graph *graph = new dev_graph{ std::move(*emu_recording) };

    delete emu_recording;
    emu_recording = nullptr;
    return graph;
}

void dev_replay(struct dev *, struct dev_graph *graph)
{
    for (const auto &step : graph->steps)
        emu_do(step);
}

void dev_graph_free(struct dev_graph *graph)
{
    delete graph;
}

bool dev_dense(struct dev *, void *, int, const uint16_t *, const struct cuda_weights *, uint32_t)
{
    return false;
}

static float of_fp8(uint8_t byte)
{
    int exponent = byte >> 3 & 15, mantissa = byte & 7;
    float value = exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);

    return (byte & 0x7f) == 0x7f ? NAN : byte & 0x80 ? -value : value;
}

bool dev_fp8_fits(struct dev *, const struct cuda_weights *w, int, uint32_t)
{
    return w->kind == CUDA_FP8 && w->n_out % 16 == 0;
}

bool dev_dense_fp8(struct dev *, void *out, int out_f32, const uint8_t *x, const float *x_scale, const struct cuda_weights *w,
                   uint32_t n_tok)
{
    emu_do([=, w = *w] {
        float value[256];
        for (int i = 0; i < 256; i++)
            value[i] = of_fp8((uint8_t)i);
        for (size_t t = 0; t < n_tok; t++)
            for (size_t o = 0; o < w.n_out; o++) {
                const uint8_t *a = x + t * w.stride, *b = (const uint8_t *)w.data + o * w.stride;
                float sum = 0;
                for (uint32_t k = 0; k < w.stride; k++)
                    sum += value[a[k]] * value[b[k]];
                sum *= x_scale[t] * w.scale[o];
                if (out_f32)
                    ((float *)out)[t * w.n_out + o] = sum;
                else
                    ((uint16_t *)out)[t * w.n_out + o] = emu_bf16(sum);
            }
    });
    return true;
}

bool dev_peer(struct dev *, const struct dev *)
{
    return true;
}

void dev_watch(struct dev *, bool (*)(void *), void *)
{
}

void dev_set_order(int order, uint64_t seed)
{
    emu_set_order((emu_order)order, seed);
}

void dev_set_lazy(bool lazy)
{
    is_lazy = lazy;
}

bool dev_is_emulated(void)
{
    return true;
}
