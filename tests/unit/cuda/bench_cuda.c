/* bench_cuda.c - the CUDA back end's speed beside what the device can do: kernels here, whole steps in bench_steps.c. Prints Markdown.
 *
 *     bench_cuda [kernels | native | q8 | q4 | fp8]...     all, when nothing is named
 *
 * Times are medians of rows of recorded launches between two events of the device; inputs change from launch to launch, so
 * that no cache holds them. The limit is what a copy by a kernel of ours reads and writes a second, or a large product of
 * cuBLASLt multiplies, both measured first, whichever is nearer. Over the emulator shapes are small and times mean nothing: that
 * run shows that the program works. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/unit/cuda/bench.h"

enum { RUNS_MAX = 64, SETS = 4, WORK = 16 << 20 };

static const struct bench_shape llama_8b = { .d_model = 4096,
                                             .d_ffn = 14336,
                                             .n_layer = 32,
                                             .n_head = 32,
                                             .n_kv_head = 8,
                                             .d_head = 128,
                                             .n_vocab = 128256,
                                             .n_ctx = 2048,
                                             .n_prompt = 8192,
                                             .batch = { 1, 64, 256 },
                                             .n_steps = 32,
                                             .n_runs = 25,
                                             .n_each = 16,
                                             .n_square = 8192 },
                                emulated = { .d_model = 64,
                                             .d_ffn = 128,
                                             .n_layer = 1,
                                             .n_head = 2,
                                             .n_kv_head = 1,
                                             .d_head = 32,
                                             .n_vocab = 96,
                                             .n_ctx = 32,
                                             .n_prompt = 32,
                                             .batch = { 1, 2, 5 },
                                             .n_steps = 1,
                                             .n_runs = 1,
                                             .n_each = 1,
                                             .n_square = 64 };

/* ---- measuring ---- */
double bench_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double bench_median(struct bench *b, void (*fn)(void *arg, uint32_t i), void *arg)
{
    double seconds[RUNS_MAX];

    fn(arg, 0); /* what is made when first asked for */
    dev_sync(b->d);
    dev_record(b->d);
    for (uint32_t i = 0; i < b->shape.n_each; i++)
        fn(arg, i);
    struct dev_graph *graph = dev_record_end(b->d);
    if (!graph) {
        fprintf(stderr, "the benchmark's launches could not be recorded\n");
        exit(1);
    }
    for (uint32_t i = 0, warm = b->shape.n_runs > 2 ? 2 : 0; i < b->shape.n_runs + warm; i++) {
        dev_mark(b->d, BENCH_MARK);
        dev_replay(b->d, graph);
        dev_mark(b->d, BENCH_MARK + 1);
        dev_sync(b->d);
        if (i >= warm)
            seconds[i - warm] = dev_seconds(b->d, BENCH_MARK, BENCH_MARK + 1) / b->shape.n_each;
    }
    dev_graph_free(graph);
    qsort(seconds, b->shape.n_runs, sizeof *seconds, by_size);
    return seconds[b->shape.n_runs / 2];
}

void bench_row(const struct bench *b, const char *name, uint32_t n_tok, double seconds, double bytes,
               double flops, double rate)
{
    double memory = bytes / b->bytes_s, matrix = rate > 0 ? flops / rate : 0,
           limit = memory > matrix ? memory : matrix;

    printf("| %s | %u | %.1f | %.1f | %.0f %% of %s | %.2f | %.1f |\n", name, n_tok, seconds * 1e6,
           limit * 1e6, 100 * limit / seconds, memory > matrix ? "memory" : "the matrix rate",
           bytes / seconds * 1e-12, flops / seconds * 1e-12);
    fflush(stdout);
}

/* ---- memory ---- */
void *bench_alloc(struct bench *b, size_t bytes)
{
    enum { PIECE = 32 << 20 };
    static uint16_t *random;
    static uint64_t state = 88172645463325252u;
    size_t whole = (bytes + 15) / 16 * 16;
    char *ptr = dev_alloc(b->d, whole);

    if (!random && (random = malloc(PIECE)))
        for (size_t i = 0; i < PIECE / 2; i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            random[i] = (uint16_t)(0x3c00 | (state >> 40 & 0x81ff)); /* sizes from 2^-7 to 2^-4, both signs */
        }
    if (!ptr || !random) {
        fprintf(stderr, "the benchmark has no memory for %zu bytes\n", bytes);
        exit(1);
    }
    size_t first = whole < PIECE ? whole : PIECE;
    dev_upload(b->d, ptr, random, first);
    for (size_t at = first; at < whole; at += PIECE)
        dev_copy(b->d, ptr + at, ptr, whole - at < PIECE ? whole - at : PIECE);
    dev_sync(b->d);
    return ptr;
}

/* ---- kernels ---- */
struct kernels {
    struct bench *b;
    void *out[SETS], *in[SETS], *x[SETS]; /* results; weights and other large inputs; activations */
    float *vector, *scale, *work;
    uint8_t *rounded;
    uint16_t *k, *v;
    struct cuda_batch decode, prompt;
};

struct job {
    struct kernels *k;
    uint32_t n, n_in, n_out;
    enum cuda_kind kind;
    const struct cuda_batch *batch;
};

static struct dev_stream *stream(const struct job *j)
{
    return dev_stream(j->k->b->d);
}

static void do_copy(void *arg, uint32_t i)
{
    struct job *j = arg;
    bench_copy(stream(j), j->k->out[i % SETS], j->k->in[i % SETS], (size_t)j->n * 16);
}

static void do_norm(void *arg, uint32_t i)
{
    struct job *j = arg;
    cuda_add_rmsnorm(stream(j), j->k->out[i % SETS], j->k->in[i % SETS], j->k->x[i % SETS], j->k->vector,
                     j->n, j->n_in, 1e-5f);
}

static void do_silu(void *arg, uint32_t i)
{
    struct job *j = arg;
    cuda_silu_mul(stream(j), j->k->out[i % SETS], j->k->in[i % SETS], j->n, j->n_in);
}

static void do_quantize(void *arg, uint32_t i)
{
    struct job *j = arg;
    cuda_quantize_rows(stream(j), j->k->out[i % SETS], j->k->scale, j->k->x[i % SETS], j->n, j->n_in,
                       j->n_in);
}

static struct cuda_weights weights(const struct job *j, uint32_t i)
{
    uint32_t unit = j->kind == CUDA_Q4 ? CUDA_Q4_UNIT : CUDA_K_UNIT;

    return (struct cuda_weights){ .data = j->k->in[i % SETS],
                                  .scale = j->kind == CUDA_BF16 ? NULL : j->k->vector,
                                  .multipliers = j->kind == CUDA_Q4 ? j->k->x[i % SETS] : NULL,
                                  .n_out = j->n_out,
                                  .n_in = j->n_in,
                                  .stride = (j->n_in + unit - 1) / unit * unit,
                                  .kind = j->kind };
}

static void do_stream(void *arg, uint32_t i)
{
    struct job *j = arg;
    struct cuda_weights w = weights(j, i);
    cuda_stream_linear(stream(j), j->k->out[i % SETS], 0, j->k->x[i % SETS], &w, j->n);
}

static void do_dense(void *arg, uint32_t i)
{
    struct job *j = arg;
    struct cuda_weights w = weights(j, i);

    if (j->kind == CUDA_BF16)
        dev_dense(j->k->b->d, j->k->out[i % SETS], 0, j->k->x[i % SETS], &w, j->n);
    else
        dev_dense_fp8(j->k->b->d, j->k->out[i % SETS], 0, j->k->rounded, j->k->scale, &w, j->n);
}

static void do_store(void *arg, uint32_t i)
{
    struct job *j = arg;
    const struct bench_shape *s = &j->k->b->shape;
    const struct weir_attn_dims dims = { s->n_head, s->n_kv_head, s->d_head, 0 };
    const struct weir_qkv how = { .eps = 1e-5f, .cos = j->k->work, .sin = j->k->work };
    cuda_qkv_store(stream(j), j->k->out[i % SETS], &how, j->k->k, j->k->v, j->batch, &dims);
}

static void do_attention(void *arg, uint32_t i)
{
    struct job *j = arg;
    const struct bench_shape *s = &j->k->b->shape;
    struct cuda_attn a = { .out = j->k->out[i % SETS],
                           .qkv = j->k->x[i % SETS],
                           .k = j->k->k,
                           .v = j->k->v,
                           .batch = *j->batch,
                           .dims = { s->n_head, s->n_kv_head, s->d_head, 0 },
                           .scale = 0.088f,
                           .work = j->k->work,
                           .work_bytes = WORK,
                           .n_warp_wanted = dev_about(j->k->b->d)->n_multiprocessor * CUDA_ATTN_WARPS };

    cuda_attention(stream(j), &a);
}

static int32_t *ints(struct bench *b, const int32_t *from, size_t n)
{
    int32_t *ptr = bench_alloc(b, n * sizeof *ptr);

    dev_upload(b->d, ptr, from, n * sizeof *ptr);
    dev_sync(b->d);
    return ptr;
}

/* n_seq sequences with a token each at the end of n_ctx, or one of n_ctx tokens; pages in no order. */
static struct cuda_batch batch_of(struct bench *b, uint32_t n_seq, uint32_t n_ctx, bool prompt)
{
    uint32_t n_block = n_ctx / WEIR_KV_BLOCK, n_page = n_seq * n_block, n_tok = prompt ? n_ctx : n_seq,
             n_run = prompt ? (n_ctx + CUDA_RUN - 1) / CUDA_RUN : n_seq;
    int32_t *pos = calloc(n_tok, 4), *seq = calloc(n_tok, 4), *table = calloc(n_page, 4);
    struct cuda_run *runs = calloc(n_run, sizeof *runs);

    for (uint32_t i = 0; i < n_tok; i++) {
        pos[i] = (int32_t)(prompt ? i : n_ctx - 1);
        seq[i] = (int32_t)(prompt ? 0 : i);
    }
    for (uint32_t i = 0, run = prompt ? CUDA_RUN : 1; i < n_run; i++)
        runs[i] =
            (struct cuda_run){ (int32_t)(i * run), (int32_t)(n_tok - i * run < run ? n_tok - i * run : run) };
    for (uint32_t i = 0; i < n_page;
         i++) /* an odd number has no divisor in common with pages that are a power of two */
        table[i] = (int32_t)((uint64_t)i * 40503 % n_page);
    struct cuda_batch ret = { .pos = ints(b, pos, n_tok),
                              .seq = ints(b, seq, n_tok),
                              .table = ints(b, table, n_page),
                              .runs = (struct cuda_run *)(void *)ints(b, (int32_t *)(void *)runs,
                                                                      2 * (size_t)n_run),
                              .n_tok = n_tok,
                              .n_run = n_run,
                              .n_block_max = n_block,
                              .run_max = prompt ? CUDA_RUN : 1,
                              .n_pos_max = n_ctx };
    free(pos);
    free(seq);
    free(table);
    free(runs);
    return ret;
}

static void measure_limits(struct kernels *k, uint32_t copy_bytes)
{
    struct bench *b = k->b;
    uint32_t n = b->shape.n_square;
    struct job copy = { k, .n = copy_bytes / 16 }, bf16 = { k, n, n, n, CUDA_BF16, NULL },
               fp8 = { k, n, n, n, CUDA_FP8, NULL };
    struct cuda_weights w16 = weights(&bf16, 0), w8 = weights(&fp8, 0);
    double flops = 2.0 * n * n * n;

    b->bytes_s = 2.0 * copy_bytes / bench_median(b, do_copy, &copy);
    if (dev_dense(b->d, k->out[0], 0, k->x[0], &w16, n))
        b->flops_s = flops / bench_median(b, do_dense, &bf16);
    if (dev_fp8_fits(b->d, &w8, 0, n))
        b->fp8_s = flops / bench_median(b, do_dense, &fp8);
    printf("%s: a copy of %u MiB reads and writes %.2f TB/s", dev_about(b->d)->name, copy_bytes >> 20,
           b->bytes_s * 1e-12);
    printf("; a product of %u x %u by %u does %.0f TFLOP/s in bf16", n, n, n, b->flops_s * 1e-12);
    printf(b->fp8_s > 0 ? " and %.0f in FP8.\n" : "; there is none in FP8.\n", b->fp8_s * 1e-12);
}

static void head_of_table(void)
{
    printf(
        "\n| kernel | tokens | us | limit us | reached | TB/s | TFLOP/s |\n|---|---|---|---|---|---|---|\n");
}

static void rows_of_memory(struct kernels *k)
{
    struct bench *b = k->b;
    const struct bench_shape *s = &b->shape;
    const uint32_t n_toks[] = { s->batch[0], s->batch[2], s->n_prompt };
    uint32_t d = s->d_model, wide = (s->n_head + 2 * s->n_kv_head) * s->d_head;

    for (int i = 0; i < 3; i++) {
        uint32_t n = n_toks[i];
        struct job norm = { k, .n = n, .n_in = d }, silu = { k, .n = n, .n_in = s->d_ffn };
        bench_row(b, "residual + RMSNorm", n, bench_median(b, do_norm, &norm), 8.0 * n * d, 0, 0);
        bench_row(b, "gated product", n, bench_median(b, do_silu, &silu), 6.0 * n * s->d_ffn, 0, 0);
        bench_row(b, "rows as e4m3", n, bench_median(b, do_quantize, &norm), 3.0 * n * d, 0, 0);
    }
    struct cuda_batch some = k->decode;
    struct job store = { k, .batch = &k->prompt };
    bench_row(b, "rotation + pages", k->prompt.n_tok, bench_median(b, do_store, &store),
              4.0 * k->prompt.n_tok * wide, 0, 0);
    for (int i = 0; i < BENCH_BATCHES; i++) {
        struct job decode = { k, .batch = &some };
        some.n_tok = some.n_run = s->batch[i];
        double kv = (double)some.n_tok * s->n_ctx * s->n_kv_head * s->d_head * 4,
               flops = 4.0 * some.n_tok * s->n_ctx * s->n_head * s->d_head;
        char name[64];
        snprintf(name, sizeof name, "attention, %u positions each", s->n_ctx);
        bench_row(b, name, some.n_tok, bench_median(b, do_attention, &decode), kv, flops, b->flops_s);
    }
    struct job prompt = { k, .batch = &k->prompt };
    double flops = 2.0 * s->n_prompt * s->n_prompt * s->n_head * s->d_head; /* half of it lies ahead */
    bench_row(b, "attention, a prompt", s->n_prompt, bench_median(b, do_attention, &prompt), 0, flops,
              b->flops_s);
}

static void rows_of_products(struct kernels *k)
{
    static const struct {
        const char *name;
        double bytes;
    } kinds[] = { [CUDA_BF16] = { "bf16", 2 },
                  [CUDA_Q8] = { "q8", 1 },
                  [CUDA_FP8] = { "fp8", 1 },
                  [CUDA_Q4] = { "q4", 0.53125 } };
    struct bench *b = k->b;
    const struct bench_shape *s = &b->shape;
    const uint32_t shapes[][2] = { { (s->n_head + 2 * s->n_kv_head) * s->d_head, s->d_model },
                                   { 2 * s->d_ffn, s->d_model },
                                   { s->d_model, s->d_ffn } };
    const uint32_t few[] = { s->batch[0], CUDA_SMALL_TOKENS },
                   many[] = { s->batch[1], s->batch[2], s->n_prompt };
    char name[64];

    for (int i = 0; i < 3; i++)
        for (int kind = CUDA_BF16; kind <= CUDA_Q4; kind++) {
            struct job j = { k, 0, shapes[i][1], shapes[i][0], (enum cuda_kind)kind, NULL };
            double n_weight = (double)j.n_in * j.n_out;
            for (int t = 0; t < 2; t++) {
                j.n = few[t];
                snprintf(name, sizeof name, "%u x %u %s, streamed", j.n_out, j.n_in, kinds[kind].name);
                bench_row(b, name, j.n, bench_median(b, do_stream, &j),
                          n_weight * kinds[kind].bytes + 2.0 * j.n * (j.n_in + j.n_out), 2 * n_weight * j.n,
                          b->flops_s);
            }
            for (int t = 0; t < 3 && (kind == CUDA_BF16 || kind == CUDA_FP8); t++) {
                j.n = many[t];
                struct cuda_weights w = weights(&j, 0);
                bool fp8 = kind == CUDA_FP8;
                if (j.n <= CUDA_SMALL_TOKENS || !(fp8 ? dev_fp8_fits(b->d, &w, 0, j.n) : b->flops_s > 0))
                    continue;
                snprintf(name, sizeof name, "%u x %u %s, cuBLASLt", j.n_out, j.n_in, kinds[kind].name);
                bench_row(b, name, j.n, bench_median(b, do_dense, &j),
                          n_weight * kinds[kind].bytes + j.n * ((fp8 ? 1.0 : 2.0) * j.n_in + 2.0 * j.n_out),
                          2 * n_weight * j.n, fp8 ? b->fp8_s : b->flops_s);
            }
        }
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Its limits are those that whole steps are compared with, too. */
static void bench_kernels(struct bench *b, bool rows)
{
    const struct bench_shape *s = &b->shape;
    uint32_t n_seq = s->batch[BENCH_BATCHES - 1];
    size_t square = (size_t)s->n_square * s->n_square * 2, wide = (size_t)2 * s->d_ffn * 2;
    size_t bytes = most(square, most(wide * s->d_model, wide * s->n_prompt)), copy = most(1 << 20, square);
    size_t page = (size_t)s->n_kv_head * WEIR_KV_BLOCK * s->d_head * 2,
           pages = most((size_t)n_seq * s->n_ctx, s->n_prompt) / WEIR_KV_BLOCK * page;
    struct kernels k = { .b = b };

    bytes = most(bytes, copy);
    for (int i = 0; i < SETS; i++) {
        k.out[i] = bench_alloc(b, bytes);
        k.in[i] = bench_alloc(b, bytes);
        k.x[i] = bench_alloc(b, bytes);
    }
    /* `vector` serves as cosines, as norms, as scales of rows. */
    size_t turns = most(s->n_ctx, s->n_prompt) * s->d_head / 2;
    k.vector = bench_alloc(b, most(most(turns, s->n_vocab), most(2 * (size_t)s->d_ffn, s->n_square)) * 4);
    k.scale = bench_alloc(b, most(s->n_prompt, s->n_square) * 4);
    k.rounded = bench_alloc(b, bytes);
    k.work = bench_alloc(b, most(WORK, (size_t)s->n_prompt * s->d_head * 2));
    measure_limits(&k, (uint32_t)copy);
    if (rows) {
        k.k = bench_alloc(b, pages);
        k.v = bench_alloc(b, pages);
        k.decode = batch_of(b, n_seq, s->n_ctx, /* prompt= */ false);
        k.prompt = batch_of(b, 1, s->n_prompt, /* prompt= */ true);
        head_of_table();
        rows_of_memory(&k);
        rows_of_products(&k);
    }
    void *const all[] = { k.vector, k.scale, k.rounded, k.work, k.k, k.v };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        dev_free(b->d, all[i]);
    const struct cuda_batch *const batches[] = { &k.decode, &k.prompt };
    for (int i = 0; i < 2; i++) {
        dev_free(b->d, (void *)(uintptr_t)batches[i]->pos);
        dev_free(b->d, (void *)(uintptr_t)batches[i]->seq);
        dev_free(b->d, (void *)(uintptr_t)batches[i]->table);
        dev_free(b->d, (void *)(uintptr_t)batches[i]->runs);
    }
    for (int i = 0; i < SETS; i++) {
        dev_free(b->d, k.out[i]);
        dev_free(b->d, k.in[i]);
        dev_free(b->d, k.x[i]);
    }
}

static bool named(int argc, char **argv, const char *name)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 2;
}

int main(int argc, char **argv)
{
    static const char *const quants[] = {
        [WEIR_NATIVE] = "native", [WEIR_Q8] = "q8", [WEIR_Q4] = "q4", [WEIR_FP8] = "fp8"
    };
    struct bench b = { 0 };
    struct weir_why why = { 0 };
    bool ok = true;

    if (dev_open(0, &b.d, &why) != WEIR_OK) {
        printf("no GPU: nothing is measured\n");
        return 77;
    }
    b.shape = dev_is_emulated() ? emulated : llama_8b;
    bench_kernels(&b, named(argc, argv, "kernels"));
    for (int q = 0; q < 4; q++)
        if (ok && named(argc, argv, quants[q]))
            ok = bench_steps(&b, (enum weir_quant)q);
    if (ok && dev_check(b.d, &why) != WEIR_OK) {
        fprintf(stderr, "%s\n", why.text);
        ok = false;
    }
    dev_close(b.d);
    return !ok;
}
