/* bench_cuda.c - each kernel's time on a GPU beside the limit of the memory: events of the device, the median of many, inputs that
 * change from run to run so that no cache holds them. Prints rows of a Markdown table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/dev.h"

enum { RUNS = 30, ROTATE = 8 };

struct bench {
    struct dev *d;
    double copy_bytes_s; /* measured: bytes read and written */
    void *bufs[ROTATE][3];
    float *norm;
    struct cuda_batch batch;
    float *work;
};

static void need(const void *ptr)
{
    if (!ptr) {
        fprintf(stderr, "no memory on the device\n");
        exit(1);
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The median of so many runs, in seconds. */
static double median(struct bench *b, void (*fn)(struct bench *b, uint32_t i, uint32_t n), uint32_t n)
{
    double seconds[RUNS];

    for (uint32_t i = 0; i < RUNS; i++) {
        dev_mark(b->d, 0);
        fn(b, i % ROTATE, n);
        dev_mark(b->d, 1);
        dev_sync(b->d);
        seconds[i] = dev_seconds(b->d, 0, 1);
    }
    qsort(seconds, RUNS, sizeof *seconds, by_size);
    return seconds[RUNS / 2];
}

enum { COPY_BYTES = 64 << 20, D = 4096, FFN = 14336 };

static void run_copy(struct bench *b, uint32_t i, uint32_t n)
{
    (void)n;
    dev_copy(b->d, b->bufs[i][0], b->bufs[i][1], COPY_BYTES);
}

static void run_norm(struct bench *b, uint32_t i, uint32_t n)
{
    cuda_add_rmsnorm(dev_stream(b->d), b->bufs[i][0], b->bufs[i][1], b->bufs[i][2], b->norm, n, D, 1e-5f);
}

static void run_silu(struct bench *b, uint32_t i, uint32_t n)
{
    cuda_silu_mul(dev_stream(b->d), b->bufs[i][0], b->bufs[i][1], n, FFN / 4);
}

static void linear(struct bench *b, uint32_t i, uint32_t n, enum cuda_kind kind)
{
    struct cuda_weights w = { b->bufs[i][1], b->norm, D, D, D, kind };
    cuda_stream_linear(dev_stream(b->d), b->bufs[i][0], 0, b->bufs[i][2], &w, n);
}

static void run_linear(struct bench *b, uint32_t i, uint32_t n)
{
    linear(b, i, n, CUDA_BF16);
}

static void run_linear_q8(struct bench *b, uint32_t i, uint32_t n)
{
    linear(b, i, n, CUDA_Q8);
}

static void run_linear_fp8(struct bench *b, uint32_t i, uint32_t n)
{
    linear(b, i, n, CUDA_FP8);
}

static void run_dense(struct bench *b, uint32_t i, uint32_t n)
{
    struct cuda_weights w = { b->bufs[i][1], NULL, D, D, D, CUDA_BF16 };
    dev_dense(b->d, b->bufs[i][0], 0, b->bufs[i][2], &w, n);
}

/* n sequences of 2048 positions, 32 query heads over 8, 128 wide; at most 8, so that no two share a page. */
static void run_attention(struct bench *b, uint32_t i, uint32_t n)
{
    struct cuda_attn a = { .out = b->bufs[i][0],
                           .qkv = b->bufs[i][0],
                           .k = b->bufs[i][1],
                           .v = b->bufs[i][2],
                           .batch = b->batch,
                           .dims = { 32, 8, 128, 0 },
                           .scale = 0.088f,
                           .work = b->work,
                           .work_bytes = 64 << 20,
                           .n_warp_wanted = dev_about(b->d)->n_multiprocessor * 16 };
    a.out = (uint16_t *)b->bufs[i][0] + (32 << 20) / 4;
    a.batch.n_tok = a.batch.n_run = n;
    cuda_attention(dev_stream(b->d), &a);
}

static void row(struct bench *b, const char *name, void (*fn)(struct bench *b, uint32_t i, uint32_t n),
                uint32_t n, double bytes, double flops)
{
    double seconds = median(b, fn, n), limit = bytes / b->copy_bytes_s;

    printf("| %s | %u | %.1f | %.1f | %.0f %% | %.1f |\n", name, n, seconds * 1e6, limit * 1e6,
           100 * limit / seconds, flops / seconds * 1e-12);
    fflush(stdout);
}

static void fill_batch(struct bench *b)
{
    enum { N = 8, BLOCKS = 2048 / WEIR_KV_BLOCK };
    static int32_t pos[N], seq[N], table[N * BLOCKS];
    static struct cuda_run runs[N];
    void *on[4] = { dev_alloc(b->d, sizeof pos), dev_alloc(b->d, sizeof seq), dev_alloc(b->d, sizeof table),
                    dev_alloc(b->d, sizeof runs) };

    for (int32_t i = 0; i < N; i++) {
        pos[i] = 2047;
        seq[i] = i;
        runs[i] = (struct cuda_run){ i, 1 };
    }
    for (int32_t i = 0; i < N * BLOCKS; i++)
        table[i] = (int32_t)((uint32_t)i * 2654435761u % (COPY_BYTES / (8 * WEIR_KV_BLOCK * 128 * 2)));
    const void *from[4] = { pos, seq, table, runs };
    const size_t bytes[4] = { sizeof pos, sizeof seq, sizeof table, sizeof runs };
    for (int i = 0; i < 4; i++) {
        need(on[i]);
        dev_upload(b->d, on[i], from[i], bytes[i]);
    }
    b->batch = (struct cuda_batch){ .pos = on[0],
                                    .seq = on[1],
                                    .table = on[2],
                                    .runs = on[3],
                                    .n_block_max = BLOCKS,
                                    .run_max = 1,
                                    .n_pos_max = 2048 };
    dev_sync(b->d);
}

int main(void)
{
    struct bench b = { 0 };
    struct weir_why why = { 0 };

    if (dev_is_emulated() || dev_open(0, &b.d, &why) != WEIR_OK) {
        printf("no GPU: nothing is measured\n");
        return 77;
    }
    for (int i = 0; i < ROTATE; i++)
        for (int k = 0; k < 3; k++) {
            b.bufs[i][k] = dev_alloc(b.d, COPY_BYTES);
            need(b.bufs[i][k]);
            dev_zero(b.d, b.bufs[i][k], COPY_BYTES);
        }
    b.norm = dev_alloc(b.d, D * 4);
    b.work = dev_alloc(b.d, 64 << 20);
    need(b.norm);
    need(b.work);
    dev_zero(b.d, b.norm, D * 4);
    fill_batch(&b);
    b.copy_bytes_s = 2.0 * COPY_BYTES / median(&b, run_copy, 0);
    printf("%s: a copy of 64 MiB reads and writes %.2f TB/s\n\n", dev_about(b.d)->name,
           b.copy_bytes_s * 1e-12);
    printf("| kernel | tokens | us | limit us | of the limit | TFLOP/s |\n|---|---|---|---|---|---|\n");
    for (uint32_t n = 1; n <= 4096; n *= 16)
        row(&b, "add_rmsnorm 4096", run_norm, n, (double)n * D * 8, 0);
    for (uint32_t n = 1; n <= 4096; n *= 16)
        row(&b, "silu_mul 3584", run_silu, n, (double)n * FFN / 4 * 6, 0);
    for (uint32_t n = 1; n <= 16; n *= 4) {
        row(&b, "linear 4096 x 4096 bf16", run_linear, n, (double)D * D * 2, 2.0 * n * D * D);
        row(&b, "linear 4096 x 4096 q8", run_linear_q8, n, (double)D * D, 2.0 * n * D * D);
        row(&b, "linear 4096 x 4096 fp8", run_linear_fp8, n, (double)D * D, 2.0 * n * D * D);
    }
    for (uint32_t n = 16; n <= 4096; n *= 16)
        row(&b, "cuBLASLt 4096 x 4096 bf16", run_dense, n, (double)D * D * 2 + (double)n * D * 4,
            2.0 * n * D * D);
    for (uint32_t n = 1; n <= 8; n *= 8)
        row(&b, "attention, 2048 positions", run_attention, n, (double)n * 2048 * 8 * 128 * 4,
            4.0 * n * 2048 * 32 * 128);
    return dev_check(b.d, &why) != WEIR_OK;
}
