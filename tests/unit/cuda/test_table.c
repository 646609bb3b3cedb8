/* test_table.c - the back end's whole table over the emulator: models of every family, prompts in chunks and tokens one by one,
 * against the numbers of tests/golden/models; recorded steps, padding, ranks; and the library that refuses without a device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>

#include "kernels/cuda/cuda_be.h"
#include "replica/parallel/parallel.h"
#include "tests/support/golden_model.h"

#define FOLDER "tests/golden/models"

enum { N_PAGES = 32, N_ROWS_MAX = 24, N_GREEDY = 6 };
/* Log-probabilities with activations in bf16. Single ones may be far off: near a tie a token takes another expert. */
#define GREEDY_BEHIND 0.5   /* that the best token may be before the wanted one */
#define TOLERANCE_MEAN 0.08 /* of a case */
#define FP8_MEAN 0.6        /* weights and activations in e4m3: models this small feel it */

static weir_err open_emulated(const struct weir_backend_opts *opts, struct weir_backend **ret,
                              struct weir_why *why)
{
    return cuda_open(weir_plugin_host(), opts, ret, why);
}

struct runner {
    struct parallel *p;
    uint32_t n_vocab;
    int32_t table[2][N_PAGES], pos[2];
};

static void open_with(struct runner *r, const struct golden_model *g, const struct parallel_opts *opts)
{
    const struct model_limits limits = { .n_tok_max = N_ROWS_MAX,
                                         .n_logits_max = N_ROWS_MAX,
                                         .n_blocks = 2 * N_PAGES };
    struct model_config config;
    struct weir_why why = { 0 };

    *r = (struct runner){ .n_vocab = g->n_vocab };
    assert_int_equal(model_config_load(g->dir, &config, &why), WEIR_OK);
    if (parallel_open(opts, &config, &r->p, &why) != WEIR_OK ||
        parallel_load(r->p, g->dir, &limits, &why) != WEIR_OK)
        fail_msg("%s: %s", g->name, why.text);
    for (int32_t i = 0; i < 2 * N_PAGES; i++)
        r->table[i % 2][i / 2] = (i * 7 + 3) % (2 * N_PAGES);
}

static void open_runner(struct runner *r, const struct golden_model *g, uint32_t n_ranks,
                        enum weir_quant quant)
{
    const struct parallel_opts opts = { .open = open_emulated, .n_ranks = n_ranks, .quant = quant };

    open_with(r, g, &opts);
}

/* n tokens of one sequence; logits of all of them. */
static const float *feed(struct runner *r, const int32_t *ids, uint32_t n)
{
    int32_t pos[N_ROWS_MAX], seq[N_ROWS_MAX] = { 0 }, rows[N_ROWS_MAX];
    struct weir_batch batch = { n, ids, pos, seq, r->table[0], 2, N_PAGES, NULL };
    const float *logits = NULL;
    struct weir_why why = { 0 };

    for (uint32_t i = 0; i < n; i++) {
        pos[i] = r->pos[0]++;
        rows[i] = (int32_t)i;
    }
    if (parallel_forward(r->p, &batch, &why) != WEIR_OK ||
        parallel_logits(r->p, rows, n, &logits, &why) != WEIR_OK)
        fail_msg("%s", why.text);
    return logits;
}

static double logprob(const float *logits, uint32_t n, int32_t id)
{
    double max = -INFINITY, sum = 0;

    for (uint32_t i = 0; i < n; i++)
        max = fmax(max, (double)logits[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return (double)logits[id] - max - log(sum);
}

static int32_t best(const float *logits, uint32_t n)
{
    int32_t ret = 0;

    for (uint32_t i = 1; i < n; i++)
        ret = logits[i] > logits[ret] ? (int32_t)i : ret;
    return ret;
}

struct sweep {
    uint32_t n_ranks, n_run;
    double error_max, mean_max;
};

static void check_case(const struct golden_model *g, void *arg)
{
    struct sweep *sweep = arg;
    struct runner r;
    const float *logits = NULL;
    double sum = 0;

    open_runner(&r, g, sweep->n_ranks, WEIR_NATIVE);
    for (uint32_t from = 0, n; from < g->n_prompt; from += n) {
        n = g->n_prompt - from < 21 ? g->n_prompt - from : 21;
        logits = feed(&r, g->prompt + from, n);
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t k = 0; k < GOLDEN_TOP; k++) {
                const struct golden_token *t = &g->scored[from + i][k];
                double error = fabs(logprob(logits + (size_t)i * g->n_vocab, g->n_vocab, t->id) - t->logprob);
                sweep->error_max = fmax(sweep->error_max, error);
                sum += error;
            }
        logits += (size_t)(n - 1) * g->n_vocab;
    }
    for (uint32_t i = 0; i < N_GREEDY && i < g->n_greedy; i++) { /* from the third step on replayed */
        int32_t want = g->greedy[i].id, got = best(logits, g->n_vocab);
        double behind = logprob(logits, g->n_vocab, got) - logprob(logits, g->n_vocab, want);
        if (got != want && behind > GREEDY_BEHIND)
            fail_msg("%s: greedy token %u is %d, not %d", g->name, i, got, want);
        logits = feed(&r, &want, 1);
    }
    double mean = sum / (g->n_prompt * GOLDEN_TOP);
    if (!(mean < TOLERANCE_MEAN))
        fail_msg("%s: log-probabilities are off by %g", g->name, mean);
    sweep->mean_max = fmax(sweep->mean_max, mean);
    if (getenv("WEIR_TEST_LONG"))
        printf("%s, %u ranks: log-probabilities are off by %.1e in the mean\n", g->name, sweep->n_ranks,
               mean);
    parallel_close(r.p);
    sweep->n_run++;
}

static void test_every_family(void **state)
{
    struct sweep sweep = { .n_ranks = 1 };

    (void)state;
    assert_true(golden_model_each(FOLDER, check_case, &sweep) > 10);
    printf("log-probabilities in bf16: off by %.1e at most, %.1e in the mean\n", sweep.error_max,
           sweep.mean_max);
}

static void case_on_ranks(const struct golden_model *g, void *arg)
{
    if (getenv("WEIR_TEST_LONG") || strcmp(g->name, "qwen3.json") == 0 ||
        strcmp(g->name, "mixtral.json") == 0)
        check_case(g, arg);
}

static void test_on_two_ranks(void **state)
{
    struct sweep sweep = { .n_ranks = 2 };

    (void)state;
    golden_model_each(FOLDER, case_on_ranks, &sweep);
    assert_true(sweep.n_run >= 2);
}

/* ---- sums by the one-shot kernel ---- */
static void case_one_shot(const struct golden_model *g, void *arg)
{
    if (strcmp(g->name, "qwen3.json") == 0)
        check_case(g, arg);
}

static void test_one_shot_sums(void **state)
{
    struct sweep sweep = { .n_ranks = 2 };

    (void)state;
    ranks_emulate_one_shot(60000000000u);
    golden_model_each(FOLDER, case_one_shot, &sweep);
    ranks_emulate_one_shot(0);
    assert_int_equal(sweep.n_run, 1);
}

struct lone {
    struct weir_group *group;
    uint32_t rank;
    struct weir_backend *be;
    weir_err err;
};

static void *open_lone(void *arg)
{
    struct lone *l = arg;
    const struct weir_backend_opts opts = { .n_threads = 1, .group = l->group, .rank = l->rank };
    struct weir_why why;

    l->err = open_emulated(&opts, &l->be, &why);
    return NULL;
}

/* A rank whose peer does not come to a sum gives up, ends its step with an error, and has no numbers to show. */
static void test_rank_that_does_not_come(void **state)
{
    struct lone ranks[2] = { { .rank = 0 }, { .rank = 1 } };
    const int32_t id = 0, pos = 0, seq = 0, table[2] = { 0, 1 };
    const struct weir_batch batch = { 1, &id, &pos, &seq, table, 1, 2, NULL };
    struct weir_group *group;
    struct weir_why why = { 0 };
    pthread_t thread;

    (void)state;
    assert_int_equal(weir_group_open(2, &group, &why), WEIR_OK);
    ranks[0].group = ranks[1].group = group;
    ranks_emulate_one_shot(1000000);
    assert_int_equal(pthread_create(&thread, NULL, open_lone, &ranks[1]), 0);
    open_lone(&ranks[0]);
    pthread_join(thread, NULL);
    ranks_emulate_one_shot(0);
    assert_int_equal(ranks[0].err, WEIR_OK);
    assert_int_equal(ranks[1].err, WEIR_OK);

    struct weir_backend *be = ranks[0].be;
    void *x = be->alloc(be, 64 * 2);
    assert_int_equal(be->begin(be, &batch), 0);
    be->all_reduce(be, x, 64);
    assert_int_equal(be->end(be, &why), WEIR_IO);
    assert_non_null(strstr(why.text, "another rank did not come"));
    assert_null(be->map(be, x, 64 * 2));
    assert_int_not_equal(be->begin(be, &batch), 0); /* it stays so */
    assert_int_equal(be->end(be, &why), WEIR_IO);
    be->free(be, x);
    weir_backend_close(be);
    weir_backend_close(ranks[1].be);
    weir_group_close(group);
}

/* Longer heads than the kernels have: refused by name before anything is loaded. */
static void test_long_heads_are_refused(void **state)
{
    const struct parallel_opts opts = { .open = open_emulated, .n_ranks = 1 };
    struct golden_model g;
    struct model_config config;
    struct parallel *p = NULL;
    struct weir_why why = { 0 };

    (void)state;
    golden_model_open(&g, FOLDER "/qwen3.json");
    assert_int_equal(model_config_load(g.dir, &config, &why), WEIR_OK);
    config.d_head = 512;
    assert_int_equal(parallel_open(&opts, &config, &p, &why), WEIR_UNIMPLEMENTED);
    assert_string_equal(why.param, "head_dim");
    assert_non_null(strstr(why.text, "heads of 512 numbers"));
    assert_null(p);
    golden_model_close(&g);
}

/* ---- the bit law, with recorded and padded steps ---- */
/* Token `id` at the end of sequence 0, with n others of a token each: copies of it in sequence 1's last position. */
static void step_in_company(struct runner *r, int32_t id, uint32_t n_others, float *logits)
{
    int32_t ids[N_ROWS_MAX], pos[N_ROWS_MAX], seq[N_ROWS_MAX], table[N_ROWS_MAX][N_PAGES], row = 0;
    struct weir_batch batch = { 1 + n_others, ids, pos, seq, table[0], 1 + n_others, N_PAGES, NULL };
    const float *got = NULL;
    struct weir_why why = { 0 };

    for (uint32_t i = 0; i <= n_others; i++) {
        memcpy(table[i], r->table[i > 0], sizeof table[i]);
        ids[i] = i ? (int32_t)i : id;
        pos[i] = i ? r->pos[1] : r->pos[0];
        seq[i] = (int32_t)i;
    }
    r->pos[0]++;
    assert_int_equal(parallel_forward(r->p, &batch, &why), WEIR_OK);
    assert_int_equal(parallel_logits(r->p, &row, 1, &got, &why), WEIR_OK);
    memcpy(logits, got, r->n_vocab * sizeof *logits);
}

/* A sequence alone, and the same beside others whose number changes: eager, recorded, replayed, padded. The same bits. */
static void test_bits_in_company(void **state)
{
    static const uint32_t others[] = { 0, 3, 3, 3, 9, 9, 10, 12, 0, 3, 12, 9, 10, 15, 1, 1, 1, 3 };
    struct golden_model g;
    struct runner alone, crowd;
    float a[1024], b[1024];

    (void)state;
    golden_model_open(&g, FOLDER "/qwen3_moe.json");
    assert_true(g.n_vocab <= 1024);
    open_runner(&alone, &g, 1, WEIR_NATIVE);
    open_runner(&crowd, &g, 1, WEIR_NATIVE);
    feed(&alone, g.prompt, 21);
    feed(&crowd, g.prompt, 7); /* cut elsewhere, too */
    feed(&crowd, g.prompt + 7, 14);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        step_in_company(&alone, (int32_t)i + 5, 0, a);
        step_in_company(&crowd, (int32_t)i + 5, others[i], b);
        assert_memory_equal(a, b, g.n_vocab * sizeof *a);
    }
    parallel_close(alone.p);
    parallel_close(crowd.p);
    golden_model_close(&g);
}

/* Weights of 8 and 4 bits: those of 4 and int8 are the CPU back end's, and so is what comes of them, but for bf16. */
static void test_fewer_bits(void **state)
{
    static const enum weir_quant quants[] = { WEIR_Q8, WEIR_Q4, WEIR_FP8 };
    struct golden_model g;

    (void)state;
    golden_model_open(&g, FOLDER "/llama.json");
    for (int q = 0; q < 3; q++) {
        const enum weir_quant on_cpu = quants[q] == WEIR_FP8 ? WEIR_NATIVE : quants[q];
        const struct parallel_opts opts = { .open = weir_backend_cpu_open, .n_ranks = 1, .quant = on_cpu };
        struct runner r, cpu;
        double error = 0;
        open_runner(&r, &g, 1, quants[q]);
        open_with(&cpu, &g, &opts);
        const float *got = feed(&r, g.prompt, 20), *want = feed(&cpu, g.prompt, 20);
        for (uint32_t i = 0; i < 20; i++, got += g.n_vocab, want += g.n_vocab) {
            int32_t id = best(want, g.n_vocab);
            error += fabs(logprob(got, g.n_vocab, id) - logprob(want, g.n_vocab, id));
        }
        if (getenv("WEIR_TEST_LONG"))
            printf("quant %d: log-probabilities are off by %.1e in the mean\n", quants[q], error / 20);
        assert_true(error / 20 < (quants[q] == WEIR_FP8 ? FP8_MEAN : TOLERANCE_MEAN));
        parallel_close(r.p);
        parallel_close(cpu.p);
    }
    golden_model_close(&g);
}

/* More than a few tokens of FP8 go through the tensor cores' product, which rounds activations: near what streaming them gives, and not
 * the same. `deterministic` streams: the same bits wherever the prompt is cut. */
static void test_fp8_products(void **state)
{
    struct parallel_opts opts = { .open = open_emulated, .n_ranks = 1, .quant = WEIR_FP8 };
    struct golden_model g;
    struct runner rounded, exact, cut;
    double error = 0;

    (void)state;
    golden_model_open(&g, FOLDER "/llama.json");
    open_with(&rounded, &g, &opts);
    opts.backend.deterministic = true;
    open_with(&exact, &g, &opts);
    open_with(&cut, &g, &opts);
    const float *a = feed(&rounded, g.prompt, 20), *b = feed(&exact, g.prompt, 20);
    assert_memory_not_equal(a, b, (size_t)20 * g.n_vocab * sizeof *a);
    for (uint32_t i = 0; i < 20; i++)
        error += fabs(logprob(a + (size_t)i * g.n_vocab, g.n_vocab, g.scored[i][0].id) -
                      logprob(b + (size_t)i * g.n_vocab, g.n_vocab, g.scored[i][0].id));
    assert_true(error / 20 < 0.2);
    feed(&cut, g.prompt, 3);
    const float *c = feed(&cut, g.prompt + 3, 17);
    assert_memory_equal(b + (size_t)3 * g.n_vocab, c, (size_t)17 * g.n_vocab * sizeof *c);
    parallel_close(rounded.p);
    parallel_close(exact.p);
    parallel_close(cut.p);
    golden_model_close(&g);
}

/* Four bits are the CPU back end's: the same weights, and products as near as bf16 is. */
static void test_4_bits_as_on_the_cpu(void **state)
{
    enum { OUT = 37, IN = 200, TOK = 20 };
    struct weir_backend_opts opts = { .n_threads = 1 };
    static uint16_t w[OUT * IN], x[TOK * IN];
    static float x32[TOK * IN];
    const struct weir_weights parts[] = { { w, WEIR_BF16, 20, IN },
                                          { w + 20 * IN, WEIR_BF16, OUT - 20, IN } };
    const int32_t ids[] = { 0, 7, 36 }, zeros[3] = { 0 }, table[1] = { 0 };
    const struct weir_batch batch = { 3, ids, zeros, zeros, table, 1, 1, NULL };
    struct weir_backend *cpu = NULL, *gpu = NULL;
    struct weir_matrix *m[2] = { NULL };
    struct weir_why why;

    (void)state;
    for (int i = 0; i < OUT * IN; i++)
        w[i] = (uint16_t)(0x3c00 + (i * 7919 & 0x81ff)); /* of many sizes, both signs */
    memset(w + 7 * IN, 0, IN * sizeof *w);               /* and a row of zeros */
    for (int i = 0; i < TOK * IN; i++) {
        x[i] = (uint16_t)(0x3e00 + (i * 104729 & 0x81ff));
        x32[i] = weir_half_to_f32(x[i], WEIR_BF16);
    }
    assert_int_equal(open_emulated(&opts, &gpu, &why), WEIR_OK);
    assert_int_equal(weir_backend_cpu_open(&opts, &cpu, &why), WEIR_OK);
    assert_int_equal(gpu->pack(gpu, parts, 2, IN, WEIR_Q4, &m[0]), WEIR_OK);
    assert_int_equal(cpu->pack(cpu, parts, 2, IN, WEIR_Q4, &m[1]), WEIR_OK);
    assert_int_equal(gpu->matrix_bytes(m[0]), OUT * (256 / 2 + 256 / 32));

    uint16_t *rows = gpu->alloc(gpu, 3 * IN * 2), *out = gpu->alloc(gpu, TOK * OUT * 2),
             *in = gpu->alloc(gpu, sizeof x);
    float *rows32 = cpu->alloc(cpu, 3 * IN * 4), *out32 = cpu->alloc(cpu, TOK * OUT * 4);
    gpu->begin(gpu, &batch);
    gpu->embed(gpu, rows, m[0], &batch);
    assert_int_equal(gpu->end(gpu, &why), WEIR_OK);
    cpu->embed(cpu, rows32, m[1], &batch);
    for (int i = 0; i < 3 * IN; i++) {
        uint32_t bits;
        memcpy(&bits, &rows32[i], 4);
        assert_int_equal(rows[i], (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
    memcpy(in, x, sizeof x);
    gpu->linear(gpu, out, in, m[0], TOK);
    cpu->linear(cpu, out32, x32, m[1], TOK);
    double error = 0, size = 0;
    for (int i = 0; i < TOK * OUT; i++) {
        double got = (double)weir_half_to_f32(out[i], WEIR_BF16), want = (double)out32[i];
        error += (got - want) * (got - want);
        size += want * want;
    }
    assert_true(size > 0 && error < 2e-4 * size); /* the CPU's integer products round activations, too */
    gpu->free(gpu, rows);
    gpu->free(gpu, out);
    gpu->free(gpu, in);
    cpu->free(cpu, rows32);
    cpu->free(cpu, out32);
    gpu->unpack(gpu, m[0]);
    gpu->unpack(gpu, NULL);
    cpu->unpack(cpu, m[1]);
    weir_backend_close(gpu);
    weir_backend_close(cpu);
}

/* Without the library, or with it and no device: an error that says what is missing. */
static void test_no_device(void **state)
{
    struct weir_backend_opts opts = { .n_threads = 1 };
    struct weir_backend *be = NULL;
    struct weir_why why = { 0 };
    weir_err err = weir_backend_cuda_open(&opts, &be, &why);

    (void)state;
    if (err == WEIR_OK) { /* there is one */
        assert_non_null(strstr(be->name, "cuda"));
        weir_backend_close(be);
        return;
    }
    assert_int_equal(err, WEIR_UNAVAILABLE);
    assert_non_null(strstr(why.text, "cuda: "));
    assert_null(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_family),
        cmocka_unit_test(test_on_two_ranks),
        cmocka_unit_test(test_one_shot_sums),
        cmocka_unit_test(test_rank_that_does_not_come),
        cmocka_unit_test(test_long_heads_are_refused),
        cmocka_unit_test(test_bits_in_company),
        cmocka_unit_test(test_fewer_bits),
        cmocka_unit_test(test_fp8_products),
        cmocka_unit_test(test_4_bits_as_on_the_cpu),
        cmocka_unit_test(test_no_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
