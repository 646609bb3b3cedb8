/* test_families.c - models of every family against Hugging Face's transformers: log-probabilities along a prompt, and 256
 * greedy tokens, on one rank and on several. The numbers are in tests/golden/models (tools/make_model_golden.py).
 *
 * With WEIR_TEST_LONG in the environment every case runs to its end on every number of ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/mem.h"
#include "replica/model/config.h"
#include "replica/parallel/parallel.h"
#include "tests/support/golden_model.h"

#define FOLDER "tests/golden/models"
#define N_CASES 18
/* Of a log-probability; transformers sums in float32 too, in another order. AMX has activations of 16 bits. */
#define TOLERANCE 1e-4
#define TOLERANCE_AMX 5e-4
#define N_SHORT 8 /* greedy steps on several ranks, where all are not asked for */

enum { N_PAGES = 24, N_ROWS_MAX = 32 };

struct runner {
    const struct golden_model *g;
    struct parallel *p;
    int32_t table[N_PAGES];
    uint32_t n_fed;
    double tolerance, error_max, error_sum; /* so far */
    uint32_t n_errors;
};

struct sweep {
    uint32_t n_ranks;
    enum weir_quant quant;
    uint32_t n_greedy; /* at most */
    double mean_max;   /* of a case's errors, for what is quantized */
    int n_run;
    double error_max, worst_mean;
};

static double logprob(const float *logits, uint32_t n, int32_t id)
{
    double max = -INFINITY, sum = 0;

    for (uint32_t i = 0; i < n; i++)
        max = fmax(max, (double)logits[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return (double)logits[id] - max - log(sum);
}

/* The tokens' logits, in order. */
static const float *feed(struct runner *r, const int32_t *ids, uint32_t n)
{
    int32_t pos[N_ROWS_MAX], seq[N_ROWS_MAX] = { 0 }, rows[N_ROWS_MAX];
    struct weir_batch batch = { n, ids, pos, seq, r->table, /* n_seq= */ 1, N_PAGES, NULL };
    const float *logits = NULL;
    struct weir_why why = { 0 };

    assert_true(n <= N_ROWS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        pos[i] = (int32_t)(r->n_fed + i);
        rows[i] = (int32_t)i;
    }
    r->n_fed += n;
    if (parallel_forward(r->p, &batch, &why) != WEIR_OK ||
        parallel_logits(r->p, rows, n, &logits, &why) != WEIR_OK)
        fail_msg("%s: %s", r->g->name, why.text);
    return logits;
}

static void compare(struct runner *r, const float *logits, struct golden_token wanted, const char *what,
                    uint32_t i)
{
    double error = fabs(logprob(logits, r->g->n_vocab, wanted.id) - wanted.logprob);

    if (!(error <= r->tolerance))
        fail_msg("%s: %s %u: token %d has the log-probability %.6f, not %.6f", r->g->name, what, i, wanted.id,
                 logprob(logits, r->g->n_vocab, wanted.id), wanted.logprob);
    r->error_max = fmax(r->error_max, error);
    r->error_sum += error;
    r->n_errors++;
}

static int32_t best(const float *logits, uint32_t n)
{
    uint32_t at = 0;

    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[at])
            at = i;
    return (int32_t)at;
}

/* The prompt in pieces, then greedily. */
static void run_case(struct runner *r, uint32_t n_greedy)
{
    const struct golden_model *g = r->g;
    int32_t id = 0;

    for (uint32_t from = 0, n; from < g->n_prompt; from += n) {
        n = g->n_prompt - from < 20 ? g->n_prompt - from : 20;
        const float *logits = feed(r, g->prompt + from, n);
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t k = 0; k < GOLDEN_TOP; k++)
                compare(r, logits + (size_t)i * g->n_vocab, g->scored[from + i][k], "prompt", from + i);
        id = best(logits + (size_t)(n - 1) * g->n_vocab, g->n_vocab);
    }
    for (uint32_t i = 0; i < n_greedy; i++) {
        if (id != g->greedy[i].id)
            fail_msg("%s: greedy token %u is %d, not %d", g->name, i, id, g->greedy[i].id);
        const float *logits = feed(r, &id, 1);
        id = best(logits, g->n_vocab);
        if (i + 1 < g->n_greedy)
            compare(r, logits, g->greedy[i + 1], "greedy", i + 1);
    }
}

static struct parallel *open_case(const struct golden_model *g, const struct sweep *sweep, weir_err wanted)
{
    const struct parallel_opts opts = { .open = weir_backend_cpu_open,
                                        .backend = { .n_threads = sweep->n_ranks,
                                                     .exact = sweep->mean_max == 0 },
                                        .n_ranks = sweep->n_ranks,
                                        .quant = sweep->quant };
    const struct model_limits limits = { .n_tok_max = N_ROWS_MAX,
                                         .n_logits_max = N_ROWS_MAX,
                                         .n_blocks = N_PAGES };
    struct model_config config;
    struct parallel *p = NULL;
    struct weir_why why = { 0 };

    if (model_config_load(g->dir, &config, &why) != WEIR_OK)
        fail_msg("%s: %s", g->name, why.text);
    assert_int_equal(parallel_open(&opts, &config, &p, &why), wanted);
    if (p && parallel_load(p, g->dir, &limits, &why) != WEIR_OK)
        fail_msg("%s: %s", g->name, why.text);
    return p;
}

static void check_case(const struct golden_model *g, void *arg)
{
    struct sweep *sweep = arg;
    struct runner r = { .g = g };
    bool odd = strcmp(g->name, "llama_wide.json") == 0; /* 6 heads */

    r.p = open_case(g, sweep, odd && sweep->n_ranks == 4 ? WEIR_INVALID : WEIR_OK);
    if (!r.p)
        return;
    r.tolerance = sweep->mean_max > 0                 ? INFINITY
                  : strstr(parallel_name(r.p), "amx") ? TOLERANCE_AMX
                                                      : TOLERANCE;
    for (int32_t i = 0; i < N_PAGES; i++)
        r.table[i] = (i * 7 + 3) % N_PAGES;
    run_case(&r, sweep->n_greedy < g->n_greedy ? sweep->n_greedy : g->n_greedy);
    parallel_close(r.p);
    sweep->n_run++;
    sweep->error_max = fmax(sweep->error_max, r.error_max);
    sweep->worst_mean = fmax(sweep->worst_mean, r.error_sum / r.n_errors);
    if (sweep->mean_max > 0 && !(r.error_sum / r.n_errors <= sweep->mean_max))
        fail_msg("%s: log-probabilities are off by %.2f in the mean", g->name, r.error_sum / r.n_errors);
    if (getenv("WEIR_TEST_LONG"))
        printf("%s, %u ranks: largest error of a log-probability %.1e\n", g->name, sweep->n_ranks,
               r.error_max);
}

static void test_every_family(void **state)
{
    struct sweep sweep = { .n_ranks = 1, .n_greedy = GOLDEN_GREEDY_MAX };

    (void)state;
    assert_int_equal(golden_model_each(FOLDER, check_case, &sweep), N_CASES);
    assert_int_equal(sweep.n_run, N_CASES);
    printf("largest error of a log-probability: %.1e\n", sweep.error_max);
}

static void test_every_family_on_each_instruction_set(void **state)
{
#ifdef WEIR_AMX_EMU /* the others have a test of their own */
    static const char *const isas[] = { "amx" };
#else
    static const char *const isas[] = { "generic", "avx2", "avx512", "amx" };
#endif
    char asked[16] = "";

    (void)state;
    if (getenv("WEIR_CPU"))
        snprintf(asked, sizeof asked, "%s", getenv("WEIR_CPU"));
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        struct sweep sweep = { .n_ranks = 1,
                               .n_greedy = getenv("WEIR_TEST_LONG") ? GOLDEN_GREEDY_MAX : N_SHORT };
        assert_int_equal(setenv("WEIR_CPU", isas[i], 1), 0);
        golden_model_each(FOLDER, check_case, &sweep);
        assert_int_equal(sweep.n_run, N_CASES);
        printf("%s: largest error of a log-probability %.1e\n", isas[i], sweep.error_max);
    }
    if (asked[0])
        setenv("WEIR_CPU", asked, 1);
    else
        unsetenv("WEIR_CPU");
}

static void test_every_family_on_ranks(void **state)
{
    struct sweep two = { .n_ranks = 2, .n_greedy = getenv("WEIR_TEST_LONG") ? GOLDEN_GREEDY_MAX : N_SHORT };
    struct sweep four = { .n_ranks = 4, .n_greedy = two.n_greedy };

    (void)state;
    golden_model_each(FOLDER, check_case, &two);
    golden_model_each(FOLDER, check_case, &four);
    assert_int_equal(two.n_run, N_CASES);
    assert_int_equal(four.n_run, N_CASES - 1);
}

/* What machines with dot products of bf16 do unless they are asked for more; others do no worse. */
static void test_every_family_with_rounded_activations(void **state)
{
    struct sweep sweep = { .n_ranks = 1, .mean_max = 0.05 };

    (void)state;
    golden_model_each(FOLDER, check_case, &sweep);
    assert_int_equal(sweep.n_run, N_CASES);
    printf("mean error of log-probabilities at most %.3f, largest %.2f\n", sweep.worst_mean, sweep.error_max);
}

/* Rough weights, rough numbers: what is wrong altogether is further away. Odd widths, experts, biases, ranks. */
static void test_every_family_with_small_weights(void **state)
{
    (void)state;
    for (uint32_t n_ranks = 1; n_ranks <= 2; n_ranks++) {
        struct sweep eight = { .n_ranks = n_ranks, .quant = WEIR_Q8, .mean_max = 0.2 };
        struct sweep four = { .n_ranks = n_ranks, .quant = WEIR_Q4, .mean_max = 2 };
        golden_model_each(FOLDER, check_case, &eight);
        golden_model_each(FOLDER, check_case, &four);
        assert_int_equal(eight.n_run, N_CASES);
        assert_int_equal(four.n_run, N_CASES);
        printf("%u ranks: mean error of log-probabilities at most %.2f with q8, %.2f with q4\n", n_ranks,
               eight.worst_mean, four.worst_mean);
    }
}

/* [W2] Biases in the file, and a family that has none. */
static void test_weights_that_nobody_reads(void **state)
{
    const struct parallel_opts opts = { .open = weir_backend_cpu_open,
                                        .backend = { .n_threads = 1 },
                                        .n_ranks = 1 };
    const struct model_limits limits = { .n_tok_max = 1, .n_logits_max = 1, .n_blocks = 1 };
    struct golden_model g;
    struct model_config config;
    struct parallel *p = NULL;
    struct weir_why why = { 0 };
    char *text = NULL;
    size_t len = 0;

    (void)state;
    golden_model_open(&g, FOLDER "/qwen2.json");
    assert_int_equal(model_read_file(g.dir, "config.json", 1 << 16, &text, &len, &why), WEIR_OK);
    char *name = strstr(text, "Qwen2ForCausalLM");
    assert_non_null(name);
    memcpy(name, "LlamaForCausalLM", strlen("LlamaForCausalLM"));
    tiny_file_write(g.dir, "config.json", text, len);
    weir_free(text);
    assert_int_equal(model_config_load(g.dir, &config, &why), WEIR_OK);
    assert_int_equal(parallel_open(&opts, &config, &p, &why), WEIR_OK);
    assert_int_equal(parallel_load(p, g.dir, &limits, &why), WEIR_UNIMPLEMENTED);
    assert_non_null(strstr(why.text, "model.layers.0.self_attn.k_proj.bias"));
    parallel_close(p);
    golden_model_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_family),
        cmocka_unit_test(test_every_family_on_each_instruction_set),
        cmocka_unit_test(test_every_family_on_ranks),
        cmocka_unit_test(test_every_family_with_rounded_activations),
        cmocka_unit_test(test_every_family_with_small_weights),
        cmocka_unit_test(test_weights_that_nobody_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
