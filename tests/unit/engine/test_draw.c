/* test_draw.c - the engine over a back end that draws tokens (the CUDA back end, emulated): a step is launched before the last
 * one's tokens are known, and nobody can tell from his tokens. The stream is lazy: it runs nothing before somebody waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kernels/cuda/dev.h"
#include "kernels/cuda/plugin.h"
#include "replica/engine/engine_int.h"
#include "tests/unit/engine/run.h"

enum { N_VOCAB = 61, N_CONTEXT = 128, LOG_MAX = 4096, PAGE_BYTES = 4096, END = 7, N_PAGES = 7 };

/* ---- the model and its back end ---- */
static char dir[TINY_DIR_MAX];

static struct tiny_shape small_shape(void)
{
    return (struct tiny_shape){ .n_layer = 1,
                                .n_head = 2,
                                .n_kv_head = 2,
                                .d_head = 16,
                                .d_model = 64,
                                .d_ffn = 64,
                                .n_vocab = N_VOCAB,
                                .n_context = N_CONTEXT,
                                .dtype = "BF16",
                                .more = "\"eos_token_id\":7,",
                                .seed = 5 };
}

static int make_model(void **state)
{
    struct tiny_shape shape = small_shape();

    (void)state;
    dev_set_lazy(true);
    tiny_model_write(dir, &shape);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    tiny_model_remove(dir);
    return 0;
}

static weir_err open_drawing(const struct weir_backend_opts *opts, struct weir_backend **ret,
                             struct weir_why *why)
{
    return cuda_open(weir_plugin_host(), opts, ret, why);
}

/* The same, but that the host must draw. */
static weir_err open_plain(const struct weir_backend_opts *opts, struct weir_backend **ret,
                           struct weir_why *why)
{
    weir_err err = cuda_open(weir_plugin_host(), opts, ret, why);

    if (err == WEIR_OK) {
        (*ret)->sample_open = NULL;
        (*ret)->sample = NULL;
        (*ret)->drawn = NULL;
    }
    return err;
}

static struct weir_engine *open_with(struct weir_engine_opts opts)
{
    if (!opts.open_backend)
        opts.open_backend = open_drawing;
    return run_open(dir, &opts);
}

static void land_and_close(struct weir_engine *eng)
{
    while (weir_engine_has_work(eng)) /* a step may still be in flight */
        run_step(eng);
    run_idle(eng);
    weir_engine_close(eng);
}

/* ---- constraints: ids of one remainder modulo 3; never more than 9 of them ---- */
static void mask_third(void *state, uint32_t *bits, uint32_t n_vocab)
{
    const uint32_t *n = state;

    memset(bits, 0, (n_vocab + 31) / 32 * sizeof *bits);
    for (uint32_t id = *n % 3; id < n_vocab && *n < 9; id += 3)
        bits[id / 32] |= 1u << id % 32;
}

static bool accept_third(void *state, int32_t id)
{
    uint32_t *n = state;

    return (uint32_t)id % 3 == (*n)++ % 3;
}

static void close_third(void *state)
{
    free(state);
}

/* ---- requests of every kind ---- */
enum kind {
    GREEDY,
    SEEDED,
    TOPS_P_K,
    MIN_P,
    BIASED,
    MIN_TOKENS,
    SEVERAL,
    ONE_TOKEN,
    UNCACHED,
    UNTOLD, /* no log-probability */
    LONG,
    TOPS,
    N_AHEAD, /* those before are drawn whatever the host knows */
    PENALTIES = N_AHEAD,
    BOUND,
    BOUND_PENALTIES,
    COUNTED, /* penalties that count, to the end of max_tokens */
    COUNTED_TOPS,
    N_DEVICE, /* those before are drawn by the device, and left in flight */
    MIROSTAT = N_DEVICE,
    TYPICAL,
    N_HOST,
    ECHO = N_HOST, /* of its prompt the host makes the log-probabilities, of its text the device */
    ECHO_TOPS,
    N_KINDS,
    N_LIST = N_KINDS + 6
};

static const struct weir_logit_bias biases[] = { { 3, 2 }, { 11, -5 }, { 40, 1.5f }, { 3, 1 } };
static const struct weir_constraint_ops third = { mask_third, accept_third, close_third };

/* New ones each time: the session closes them. */
static const struct weir_constraint *bound_choices(enum kind kind)
{
    static struct weir_constraint list[2];

    if (kind != BOUND && kind != BOUND_PENALTIES)
        return NULL;
    for (int i = 0; i < 2; i++)
        list[i] = (struct weir_constraint){ &third, calloc(1, sizeof(uint32_t)) };
    return list;
}

static void set_kind(struct weir_session_params *p, enum kind kind)
{
    bool repeats = kind == PENALTIES || kind == BOUND_PENALTIES,
         counts = repeats || kind == COUNTED || kind == COUNTED_TOPS;

    p->n_top_logprobs = 0;
    p->temperature = kind == GREEDY || kind == MIN_TOKENS ? 0 : 1;
    p->top_p = kind == TOPS_P_K ? 0.8 : 1;
    p->top_k = kind == TOPS_P_K ? 12 : 0;
    p->min_p = kind == MIN_P ? 0.05 : 0;
    p->logit_bias = kind == BIASED ? biases : NULL;
    p->n_logit_bias = kind == BIASED ? 4 : 0;
    p->min_tokens = kind == MIN_TOKENS ? 20 : 0;
    p->n_choices = kind == SEVERAL ? 3 : kind == BOUND || kind == BOUND_PENALTIES ? 2 : 1;
    p->max_tokens = kind == ONE_TOKEN ? 1 : p->max_tokens;
    p->has_cache_max = kind == UNCACHED;
    p->logprobs = kind != UNTOLD;
    p->ignore_eos = kind == LONG || kind == COUNTED;
    p->repetition_penalty = repeats ? 1.3 : 0;
    p->frequency_penalty = counts ? 0.4 : 0;
    p->presence_penalty = counts ? 0.3 : 0;
    p->n_top_logprobs = kind == TOPS || kind == COUNTED_TOPS || kind == ECHO_TOPS ? RUN_TOPS : 0;
    p->mirostat_target = kind == MIROSTAT ? 8 : 0;
    p->mirostat_lr = 0.1;
    p->typical_p = kind == TYPICAL ? 0.7 : 0;
    p->n_prompt_logprobs = kind == ECHO || kind == ECHO_TOPS ? 12 : 0;
}

/* Number i of the list: all kinds in turn; some have a prefix in common. */
static void request(struct run_request *r, uint32_t i)
{
    run_request_init(r, 200 + i, N_VOCAB, 1 + i * 23 % 50, 2 + i * 11 % 31);
    for (int k = 0; i % 2 && k < 40; k++)
        r->prompt[k] = k;
    set_kind(&r->params, (enum kind)(i % N_KINDS));
}

static void submit(struct weir_engine *eng, struct run_request *r, uint32_t i)
{
    request(r, i);
    r->params.constraints = bound_choices((enum kind)(i % N_KINDS));
    run_submit(eng, r);
}

/* Of a kind; the same for the same numbers. */
static void submit_kind(struct weir_engine *eng, struct run_request *r, enum kind kind, uint32_t seed,
                        uint32_t n_prompt, uint32_t max_tokens)
{
    run_request_init(r, seed, N_VOCAB, n_prompt, max_tokens);
    set_kind(&r->params, kind);
    r->params.constraints = bound_choices(kind);
    run_submit(eng, r);
}

static void compare(const struct run_request *a, const struct run_request *b)
{
    assert_int_equal(a->n_told, b->n_told);
    for (int i = 0; i < a->n_told; i++) /* the very first is NaN, and always the same */
        assert_memory_equal(&a->told[i], &b->told[i], sizeof a->told[i]);
    for (uint32_t k = 0; k < a->params.n_choices; k++) {
        assert_int_equal(a->choices[k].n_finished, 1);
        run_same(&a->choices[k], &b->choices[k]);
    }
}

static void run_alone(struct weir_engine_opts opts, struct run_request *r, uint32_t i)
{
    struct weir_engine *eng = open_with(opts);

    submit(eng, r, i);
    run_all(eng, r, 1);
    land_and_close(eng);
}

/* Each by itself in an engine of its own, step by step: nobody beside it, nothing cached, nothing in flight. */
static struct run_request *alone;

static int make_all(void **state)
{
    make_model(state);
    alone = calloc(N_LIST, sizeof *alone);
    for (uint32_t i = 0; i < N_LIST; i++)
        run_alone((struct weir_engine_opts){ .no_run_ahead = true }, &alone[i], i);
    return 0;
}

static int remove_all(void **state)
{
    free(alone);
    return remove_model(state);
}

/* Of the list those whose kind is below n_kinds, all at once or one more in every step; compared with `want`. How many steps
 * were left in flight. */
static int run_together(const struct run_request *want, struct weir_engine_opts opts, uint32_t n_kinds,
                        bool staggered)
{
    struct run_request *all = calloc(N_LIST, sizeof *all);
    struct weir_engine *eng = open_with(opts);
    int n_flown = 0;

    for (uint32_t i = 0; i < N_LIST; i++) {
        if (i % N_KINDS >= n_kinds)
            continue;
        submit(eng, &all[i], i);
        if (staggered)
            run_step(eng);
    }
    while (weir_engine_has_work(eng)) {
        run_step(eng);
        n_flown += eng->flight.n_wants > 0;
    }
    run_all(eng, all, N_LIST);
    for (uint32_t i = 0; i < N_LIST; i++)
        if (i % N_KINDS < n_kinds)
            compare(&want[i], &all[i]);
    land_and_close(eng);
    free(all);
    return n_flown;
}

/* [N1] [T1] Whoever is beside it, whatever is cached and whenever steps are launched: the same bits. */
static void test_same_tokens_ahead_and_not(void **state)
{
    struct run_request *ahead = calloc(1, sizeof *ahead);

    (void)state;
    for (uint32_t i = 0; i < N_LIST; i++) {
        run_alone((struct weir_engine_opts){ 0 }, ahead, i);
        compare(&alone[i], ahead);
    }
    free(ahead);
    for (uint32_t i = 0; i < 3; i++) {
        struct weir_engine_opts opts = { .n_slots = i % 2 ? 60 : 5, .step_tokens = i / 2 ? 16 : 128 };
        bool staggered = i == 1 || i == 2;
        assert_true(run_together(alone, opts, N_AHEAD, staggered) > 20);
        assert_true(run_together(alone, opts, N_DEVICE, staggered) > 20);
        assert_true(run_together(alone, opts, N_KINDS, staggered) > 0);
    }
    assert_int_equal(
        run_together(alone, (struct weir_engine_opts){ .n_slots = 60, .no_run_ahead = true }, N_KINDS, false),
        0);
}

/* The device's sampler means what the host's does: positions, seeds, penalties, bans and masks are the same. */
static void test_same_tokens_as_the_host_draws(void **state)
{
    struct run_request *host = calloc(1, sizeof *host);

    (void)state;
    for (uint32_t i = 0; i < N_LIST; i++) {
        run_alone((struct weir_engine_opts){ .open_backend = open_plain }, host, i);
        for (uint32_t k = 0; k < host->params.n_choices; k++) {
            const struct run_choice *a = &host->choices[k], *b = &alone[i].choices[k];
            assert_int_equal(a->n, b->n);
            assert_int_equal(a->finish, b->finish);
            assert_memory_equal(a->ids, b->ids, (size_t)a->n * sizeof *a->ids);
            for (int t = 0; t < a->n; t++) {
                assert_float_equal(a->logprobs[t], b->logprobs[t], 1e-4);
                for (int j = 0; j < host->params.n_top_logprobs; j++) {
                    assert_int_equal(a->tops[t][j].id, b->tops[t][j].id);
                    assert_float_equal(a->tops[t][j].logprob, b->tops[t][j].logprob, 1e-4);
                }
            }
        }
    }
    free(host);
}

/* The likeliest tokens are those of the CPU back end, whose activations are rounded otherwise: each log-probability is within `near` of
 * its own, so the j-th largest are, too; and where the neighbours are further off than both may move, it is the same token. */
static void test_tops_are_the_cpus(void **state)
{
    enum { N = 24 };
    const float near = 0.15f;
    int n_same = 0;

    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        struct run_request r[2];
        for (int k = 0; k < 2; k++) {
            struct weir_engine *eng = open_with((struct weir_engine_opts){
                .open_backend = k ? weir_backend_cpu_open : NULL, .activations = "exact" });
            submit_kind(eng, &r[k], TOPS, i, 1 + 2 * i, 1);
            run_all(eng, &r[k], 1);
            land_and_close(eng);
        }
        const struct weir_top_logprob *device = r[0].choices[0].tops[0], *cpu = r[1].choices[0].tops[0];
        for (int j = 0; j < RUN_TOPS; j++)
            assert_float_equal(device[j].logprob, cpu[j].logprob, near);
        for (int j = 0; j + 1 < RUN_TOPS && cpu[j].logprob - cpu[j + 1].logprob > 2 * near; j++, n_same++)
            assert_int_equal(device[j].id, cpu[j].id);
    }
    assert_true(n_same > N);
}

/* [T1] */
static void test_who_draws_is_the_parameters_alone(void **state)
{
    struct weir_engine *eng = open_with((struct weir_engine_opts){ .n_slots = 60 });
    struct run_request r[N_KINDS];

    (void)state;
    for (uint32_t i = 0; i < N_KINDS; i++) {
        submit(eng, &r[i], i);
        assert_int_equal(r[i].session->draw_by, i < N_AHEAD || i >= N_HOST ? DRAW_AHEAD
                                                : i < N_DEVICE             ? DRAW_DEVICE
                                                                           : DRAW_HOST);
    }
    run_all(eng, r, N_KINDS);
    land_and_close(eng);
}

/* An end token that wins as soon as it may comes right behind min_tokens, though the host knows one token less when it asks. */
static void test_the_end_comes_no_later(void **state)
{
    static const struct weir_logit_bias wins = { END, 1000 };

    (void)state;
    for (uint32_t min = 0; min < 4; min++) {
        struct weir_engine *eng = open_with((struct weir_engine_opts){ 0 });
        struct run_request r;
        run_request_init(&r, min, N_VOCAB, 10, 20);
        set_kind(&r.params, GREEDY);
        r.params.logit_bias = &wins;
        r.params.n_logit_bias = 1;
        r.params.min_tokens = min;
        run_one(eng, &r);
        assert_int_equal(r.choices[0].n, min + 1);
        assert_int_equal(r.choices[0].finish, WEIR_FINISH_STOP);
        land_and_close(eng);
    }
}

/* [T2] More lists than one call takes, and than the back end has room for at once. */
static void test_long_lists(void **state)
{
    enum { N = 8 };
    struct weir_engine *eng = open_with((struct weir_engine_opts){ .n_slots = N });
    struct run_request want[N], all[N];

    (void)state;
    for (uint32_t i = 0; i < N; i++) {
        run_request_init(&want[i], i, N_VOCAB, 90, 5);
        set_kind(&want[i].params, PENALTIES);
        all[i] = want[i];
        all[i].params.prompt = all[i].prompt;
        struct weir_engine *other = open_with((struct weir_engine_opts){ 0 });
        run_one(other, &want[i]);
        land_and_close(other);
        run_submit(eng, &all[i]);
    }
    run_all(eng, all, N);
    for (uint32_t i = 0; i < N; i++)
        compare(&want[i], &all[i]);
    land_and_close(eng);
}

/* More rows than the head takes at once: the passes behind the first come between the draws. */
static void test_several_passes_through_the_head(void **state)
{
    struct weir_engine *eng = open_with((struct weir_engine_opts){ .n_slots = 60 });
    struct run_request all[N_DEVICE];

    (void)state;
    eng->n_rows_max = 4;
    for (uint32_t i = 0; i < N_DEVICE; i++)
        submit(eng, &all[i], i);
    run_all(eng, all, N_DEVICE);
    for (uint32_t i = 0; i < N_DEVICE; i++)
        compare(&alone[i], &all[i]);
    land_and_close(eng);
}

/* ---- what the back end is asked, in order ---- */
/* b, B: begin(), all ids are known, or some are not; h: head(); s: sample(); d: drawn(). */
static char op_log[LOG_MAX];
static size_t n_op_log;
static int fail_at = -1; /* the call of drawn() that fails, and all behind it */
static int (*real_begin)(struct weir_backend *be, const struct weir_batch *batch);
static const struct weir_drawn *(*real_drawn)(struct weir_backend *be, uint32_t set);
static void (*real_head)(struct weir_backend *be, float *out, const void *x, const int32_t *rows, uint32_t n,
                         const float *norm, float eps, const struct weir_matrix *m);
static void (*real_sample)(struct weir_backend *be, uint32_t set, uint32_t first, const float *logits,
                           uint32_t stride, const struct weir_draw *draws, uint32_t n);

static void log_op(char op)
{
    assert_true(n_op_log + 1 < LOG_MAX);
    op_log[n_op_log++] = op;
    op_log[n_op_log] = '\0';
}

static int logged_begin(struct weir_backend *be, const struct weir_batch *batch)
{
    log_op(batch->drawn ? 'B' : 'b');
    return real_begin(be, batch);
}

static const struct weir_drawn *logged_drawn(struct weir_backend *be, uint32_t set)
{
    log_op('d');
    return fail_at >= 0 && fail_at-- <= 0 ? (fail_at = 0, NULL) : real_drawn(be, set);
}

static void logged_head(struct weir_backend *be, float *out, const void *x, const int32_t *rows, uint32_t n,
                        const float *norm, float eps, const struct weir_matrix *m)
{
    log_op('h');
    real_head(be, out, x, rows, n, norm, eps, m);
}

static void logged_sample(struct weir_backend *be, uint32_t set, uint32_t first, const float *logits,
                          uint32_t stride, const struct weir_draw *draws, uint32_t n)
{
    log_op('s');
    real_sample(be, set, first, logits, stride, draws, n);
}

static weir_err open_logged(const struct weir_backend_opts *opts, struct weir_backend **ret,
                            struct weir_why *why)
{
    weir_err err = open_drawing(opts, ret, why);

    n_op_log = 0;
    if (err == WEIR_OK) {
        real_begin = (*ret)->begin;
        real_drawn = (*ret)->drawn;
        real_head = (*ret)->head;
        real_sample = (*ret)->sample;
        (*ret)->begin = logged_begin;
        (*ret)->drawn = logged_drawn;
        (*ret)->head = logged_head;
        (*ret)->sample = logged_sample;
    }
    return err;
}

static const char *ops_of(uint32_t n_prompt, uint32_t max_tokens, enum kind kind, bool no_run_ahead)
{
    struct weir_engine *eng = open_with((struct weir_engine_opts){
        .open_backend = open_logged, .step_tokens = 32, .no_run_ahead = no_run_ahead });
    struct run_request r;

    run_request_init(&r, 1, N_VOCAB, n_prompt, max_tokens);
    set_kind(&r.params, kind);
    r.params.ignore_eos = true;
    run_one(eng, &r);
    assert_int_equal(r.choices[0].n, max_tokens);
    land_and_close(eng);
    return op_log;
}

/* [O1] A step is begun before the tokens of the last are asked for, and never two; none behind the last token. Whoever's lists need
 * these tokens draws behind them, with the step begun already: the device computes while the host waits, and makes the lists. */
static void test_a_step_is_launched_ahead(void **state)
{
    (void)state;
    assert_string_equal(ops_of(20, 4, SEEDED, false), "bhsBhsdBhsdBhsdd");
    assert_string_equal(ops_of(20, 4, SEEDED, true), "bhsdbhsdbhsdbhsd");
    assert_string_equal(ops_of(20, 4, PENALTIES, false), "bhsBhdsBhdsBhdsd");
    assert_string_equal(ops_of(20, 4, PENALTIES, true), "bhsdbhsdbhsdbhsd");
    assert_string_equal(ops_of(20, 4, TOPS, false), "bhsBhsdBhsdBhsdd");
    assert_string_equal(ops_of(20, 4, MIROSTAT, false), "bhbhbhbh");
    assert_string_equal(ops_of(80, 2, SEEDED, false), "bsbsdbhsdBhsdd");    /* pieces of a prompt fly, too */
    assert_string_equal(ops_of(80, 2, PENALTIES, false), "bsbsdbhsdBhdsd"); /* all of the prompt is known */
    assert_string_equal(ops_of(20, 1, SEEDED, false), "bhsd");
}

/* As above in company: one whose lists need a token is enough, and only while it is there. */
static void test_a_step_is_launched_ahead_of_lists(void **state)
{
    struct weir_engine *eng = open_with((struct weir_engine_opts){ .open_backend = open_logged });
    struct run_request r[2];

    (void)state;
    submit_kind(eng, &r[0], LONG, 1, 20, 6);
    submit_kind(eng, &r[1], COUNTED, 2, 20, 3);
    run_all(eng, r, 2);
    assert_string_equal(op_log, "bhsBhdsBhdsBhsdBhsdBhsdd");
    land_and_close(eng);
}

/* [O2] All end by a token of the flight: nobody's draws are behind the forward, and there is still something to wait for. */
static void test_nobody_draws_behind_the_end(void **state)
{
    static const struct weir_logit_bias wins = { END, 1000 };
    struct weir_engine *eng = open_with((struct weir_engine_opts){ .open_backend = open_logged });
    struct run_request r;

    (void)state;
    run_request_init(&r, 1, N_VOCAB, 20, 10);
    set_kind(&r.params, PENALTIES);
    r.params.logit_bias = &wins;
    r.params.n_logit_bias = 1;
    r.params.min_tokens = 2;
    run_one(eng, &r);
    assert_int_equal(r.choices[0].n, 3);
    land_and_close(eng);
    assert_string_equal(op_log, "bhsBhdsBhdsBhdsd");
}

/* A text that is whole ends in the call that told its last token, and costs its mates, drawn in the same step, nothing. */
static void test_whole_with_a_step_in_flight(void **state)
{
    struct weir_engine *eng = open_with((struct weir_engine_opts){ .n_slots = 4 });
    struct run_request bound, mate, want;

    (void)state;
    submit_kind(eng, &bound, BOUND, 1, 20, 30);
    submit_kind(eng, &mate, COUNTED, 2, 20, 30);
    while (!run_done(&bound)) {
        run_step(eng);
        for (int k = 0; k < 2; k++)
            assert_int_equal(bound.choices[k].n_finished, bound.choices[k].n == 9);
    }
    assert_true(eng->flight.n_wants == 3 && !run_done(&mate)); /* of two nobody wants anything any more */
    run_all(eng, &bound, 1);
    run_all(eng, &mate, 1);
    struct weir_engine *other = open_with((struct weir_engine_opts){ .no_run_ahead = true });
    submit_kind(other, &want, COUNTED, 2, 20, 30);
    run_all(other, &want, 1);
    compare(&want, &mate);
    land_and_close(other);
    land_and_close(eng);
}

/* Tokens computed are counted in the call that saw their step end. */
static void test_counts(void **state)
{
    static const uint32_t n_prefill[] = { 0, 32, 8, 0, 0 }, n_decode[] = { 0, 0, 0, 1, 1 };
    static const int n_tokens[] = { 0, 0, 1, 2, 3 };
    static const enum kind kinds[] = { LONG, COUNTED };

    (void)state;
    for (int k = 0; k < 2; k++) {
        struct weir_engine *eng = open_with((struct weir_engine_opts){ .step_tokens = 32 });
        struct run_request r;
        submit_kind(eng, &r, kinds[k], 1, 40, 3);
        for (int i = 0; i < 5; i++) {
            assert_true(weir_engine_has_work(eng));
            struct weir_engine_step step = run_step(eng);
            assert_int_equal(step.n_prefill, n_prefill[i]);
            assert_int_equal(step.n_decode, n_decode[i]);
            assert_int_equal(r.choices[0].n, n_tokens[i]);
        }
        assert_true(run_done(&r));
        weir_session_close(r.session);
        assert_false(weir_engine_has_work(eng));
        land_and_close(eng);
    }
}

/* ---- ends while a step is in flight ---- */
/* Requests whose text ends by itself, at every length: the row behind is nobody's, and its place is another's at once. */
static void test_end_token_in_flight(void **state)
{
    static const enum kind kinds[] = { SEEDED, PENALTIES, BOUND };

    (void)state;
    for (int k = 0; k < 3; k++) {
        struct weir_engine *eng = open_with((struct weir_engine_opts){ .n_slots = 2 });
        int n_stopped = 0, n_behind = 0;
        for (uint32_t i = 0; i < 20; i++) {
            struct run_request r, want;
            submit_kind(eng, &r, kinds[k], i, 1 + i, 60);
            while (!run_done(&r))
                run_step(eng);
            n_stopped += r.choices[0].finish == WEIR_FINISH_STOP && r.choices[0].n < 60;
            n_behind += eng->flight.flies;
            weir_session_close(r.session); /* what flies goes on: the next request's step comes behind it */
            struct weir_engine *other = open_with((struct weir_engine_opts){ .no_run_ahead = true });
            submit_kind(other, &want, kinds[k], i, 1 + i, 60);
            run_all(other, &want, 1);
            compare(&want, &r);
            land_and_close(other);
        }
        assert_true(n_stopped > 5 && n_behind == n_stopped);
        land_and_close(eng);
    }
}

/* [O3] What is published has the names of its tokens, and all of it is: the next request finds as much as ever. */
static uint32_t cached_behind(enum kind kind, uint32_t n_prompt, bool no_run_ahead)
{
    struct weir_engine *eng = open_with((struct weir_engine_opts){ .no_run_ahead = no_run_ahead });
    struct run_request first, next;

    submit_kind(eng, &first, kind, n_prompt, n_prompt, 23);
    run_all(eng, &first, 1);
    assert_int_equal(first.choices[0].n, 23);
    run_request_init(&next, n_prompt, N_VOCAB, n_prompt, 1);
    memcpy(next.prompt + n_prompt, first.choices[0].ids, 23 * sizeof(int32_t));
    next.params.n_prompt = n_prompt + 23;
    run_one(eng, &next);
    land_and_close(eng);
    return next.cached_tokens;
}

static void test_the_cache_gets_every_known_page(void **state)
{
    static const uint32_t n_prompts[] = { 9, 10, 11, 25, 26, 27 }; /* 10, 26: a page is just full */
    static const enum kind kinds[] = { LONG, COUNTED };

    (void)state;
    for (int i = 0; i < 12; i++) {
        uint32_t n_prompt = n_prompts[i / 2];
        assert_int_equal(cached_behind(kinds[i % 2], n_prompt, true), (n_prompt + 22) / 16 * 16);
        assert_int_equal(cached_behind(kinds[i % 2], n_prompt, false), (n_prompt + 22) / 16 * 16);
    }
}

/* Closed with a step in flight, after any number of steps: its pages serve others in the next step, whose tokens stay theirs. */
static void test_closed_in_flight(void **state)
{
    const struct weir_engine_opts tight = { .n_slots = 4,
                                            .step_tokens = 32,
                                            .kv_bytes = N_PAGES * PAGE_BYTES };
    int n_in_flight = 0;

    (void)state;
    for (uint32_t n_steps = 0; n_steps < 16; n_steps++) {
        struct weir_engine *eng = open_with(tight);
        struct run_request all[N_DEVICE];
        for (uint32_t i = 0; i < N_DEVICE; i++)
            submit(eng, &all[i], i);
        for (uint32_t i = 0; i < n_steps; i++)
            run_step(eng);
        n_in_flight += eng->flight.n_wants > 0;
        for (uint32_t i = n_steps % 2; i < N_DEVICE; i += 2) {
            if (n_steps % 3 == 0)
                weir_session_stop_choice(all[i].session, 0);
            weir_session_close(all[i].session);
            all[i].session = NULL;
        }
        run_all(eng, all, N_DEVICE);
        for (uint32_t i = (n_steps + 1) % 2; i < N_DEVICE; i += 2)
            compare(&alone[i], &all[i]);
        land_and_close(eng);
    }
    assert_true(n_in_flight > 10);
}

/* Everybody goes while a step is in flight: it lands all the same, and the engine can be closed before that, too. */
static void test_all_closed_in_flight(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct weir_engine *eng = open_with((struct weir_engine_opts){ 0 });
        struct run_request r;
        bool lands = i % 2;
        submit_kind(eng, &r, i < 2 ? SEVERAL : BOUND, 1, 20, 20);
        for (int k = 0; k < 4; k++)
            run_step(eng);
        assert_int_equal(eng->flight.n_wants, i < 2 ? 3 : 2);
        weir_session_close(r.session);
        assert_true(weir_engine_has_work(eng));
        if (lands) {
            assert_int_equal(run_step(eng).n_events, 0);
            run_idle(eng);
        }
        weir_engine_close(eng);
    }
}

/* [O1] The pool runs dry: some are suspended, and go on to the same tokens; with some among them whose lists need each token, and with
 * one whose tokens the host draws. */
static void check_suspended(const enum kind kinds[4])
{
    const struct weir_engine_opts tight = { .n_slots = 4,
                                            .step_tokens = 32,
                                            .kv_bytes = N_PAGES * PAGE_BYTES };
    struct weir_engine *eng = open_with(tight);
    struct run_request want[4], all[4];
    int n_suspended = 0;

    for (uint32_t i = 0; i < 4; i++) {
        struct weir_engine *other = open_with((struct weir_engine_opts){ .no_run_ahead = true });
        submit_kind(other, &want[i], kinds[i], i, 10, 60);
        run_all(other, &want[i], 1);
        land_and_close(other);
        submit_kind(eng, &all[i], kinds[i], i, 10, 60);
    }
    while (weir_engine_has_work(eng)) {
        eng->n_output_mean = 1; /* admission expects little */
        run_step(eng);
        n_suspended += eng->suspended.n > 0;
    }
    run_all(eng, all, 4);
    for (uint32_t i = 0; i < 4; i++)
        compare(&want[i], &all[i]);
    assert_true(n_suspended > 10);
    land_and_close(eng);
}

static void test_suspended(void **state)
{
    static const enum kind kinds[][4] = { { LONG, LONG, LONG, LONG },
                                          { LONG, LONG, LONG, COUNTED },
                                          { COUNTED, LONG, COUNTED, COUNTED },
                                          { COUNTED, LONG, COUNTED, MIROSTAT } };

    (void)state;
    for (int i = 0; i < 4; i++)
        check_suspended(kinds[i]);
}

/* ---- ranks, and what fails ---- */
/* Each rank draws for itself, and the next step's ids are there. */
static void test_two_ranks(void **state)
{
    struct weir_engine_opts opts = { .tensor_parallel = 2, .no_run_ahead = true };
    struct run_request *want = calloc(N_LIST, sizeof *want);

    (void)state;
    dev_set_lazy(false); /* ranks wait for each other */
    for (uint32_t i = 0; i < N_LIST; i++)
        run_alone(opts, &want[i], i);
    opts.no_run_ahead = false;
    opts.n_slots = 60;
    assert_true(run_together(want, opts, N_DEVICE, true) > 20);
    run_together(want, opts, N_KINDS, false);
    free(want);
    dev_set_lazy(true);
}

static void check_no_memory_for_a_session(uint32_t flying, uint32_t opened)
{
    struct weir_engine *eng = open_with((struct weir_engine_opts){ .n_slots = 8 });
    struct run_request first, r;
    weir_err err = WEIR_NOMEM;
    struct weir_why why;

    submit(eng, &first, flying);
    for (int n = 0; err != WEIR_OK; n++) {
        run_step(eng);
        request(&r, opened);
        r.params.user = &r;
        weir_test_alloc_budget(n);
        err = weir_session_open(eng, &r.params, 1000, &r.session, &why);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK || err == WEIR_NOMEM);
        assert_true(err == WEIR_OK || eng->flight.flies || first.choices[0].n_finished);
    }
    run_all(eng, &r, 1);
    run_all(eng, &first, 1);
    compare(&alone[flying], &first);
    compare(&alone[opened], &r);
    land_and_close(eng);
}

static void test_no_memory_for_a_session_in_flight(void **state)
{
    (void)state;
    check_no_memory_for_a_session(LONG, BIASED);
    check_no_memory_for_a_session(COUNTED, PENALTIES);
}

static void test_no_memory_for_the_engine(void **state)
{
    struct weir_engine_opts opts = {
        .model_dir = dir, .n_slots = 4, .n_queue_max = 4, .n_threads = 1, .open_backend = open_drawing
    };
    weir_err err = WEIR_NOMEM;
    int n = 0;

    (void)state;
    for (; err != WEIR_OK; n++) {
        struct weir_engine *eng = NULL;
        struct weir_why why = { 0 };
        weir_test_alloc_budget(n);
        err = weir_engine_open(&opts, &eng, &why);
        weir_test_alloc_budget(-1);
        assert_true((err == WEIR_OK) == (eng != NULL));
        weir_engine_close(eng);
    }
    assert_true(n > 20);
}

/* The device fails with a step in flight: an error, now and ever after; all can still be closed. */
static void check_failed_device(enum kind kind, int at)
{
    struct weir_engine *eng = open_with((struct weir_engine_opts){ .open_backend = open_logged });
    struct weir_engine_step step;
    struct weir_why why = { 0 };
    struct run_request r[2];
    weir_err err = WEIR_OK;

    for (uint32_t i = 0; i < 2; i++)
        submit_kind(eng, &r[i], kind, i, 20, 20);
    fail_at = at;
    for (int i = 0; i < 8 && err == WEIR_OK; i++)
        err = weir_engine_step(eng, 1500, &step, &why);
    assert_int_equal(err, WEIR_IO);
    assert_int_equal(step.n_events, 0);
    assert_non_null(strstr(why.text, "failed"));
    assert_int_equal(weir_engine_step(eng, 1500, &step, &why), WEIR_IO);
    for (uint32_t i = 0; i < 2; i++)
        weir_session_close(r[i].session);
    fail_at = -1;
    weir_engine_close(eng);
}

static void test_failed_device(void **state)
{
    static const enum kind kinds[] = { LONG, COUNTED, BOUND };

    (void)state;
    for (int i = 0; i < 12; i++)
        check_failed_device(kinds[i / 4], i % 4);
}

/* ---- all at random ---- */
static uint64_t random_state = 7;

static uint32_t below(uint32_t n)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 33) % n;
}

/* Every page is held as often as tables name it. */
static void check_books(const struct weir_engine *eng)
{
    uint32_t refs[64] = { 0 };

    assert_true(eng->kv.n_pages <= 64);
    for (uint32_t i = 0; i < eng->opts.n_slots; i++)
        for (uint32_t k = 0; eng->slots[i] && k < eng->slots[i]->n_pages; k++)
            refs[seq_table(eng->slots[i])[k]]++;
    for (uint32_t i = 0; i < eng->kv.n_pages; i++)
        assert_int_equal(refs[i], eng->kv.pages[i].refs);
    for (uint32_t i = 0; i < eng->flight.n_wants; i++)
        assert_true(!eng->flight.wants[i].seq ||
                    (eng->flight.wants[i].i_drawn >= 0 &&
                     eng->flight.wants[i].seq->i_drawn == eng->flight.wants[i].i_drawn));
}

/* What it was told is the beginning of what it is told when it is alone. */
static void check_told(const struct run_request *whole, const struct run_request *r)
{
    for (uint32_t k = 0; k < r->params.n_choices; k++) {
        const struct run_choice *a = &whole->choices[k], *b = &r->choices[k];
        assert_true(b->n <= a->n);
        assert_memory_equal(a->ids, b->ids, (size_t)b->n * sizeof *a->ids);
        assert_memory_equal(a->logprobs, b->logprobs, (size_t)b->n * sizeof *a->logprobs);
        assert_true(b->n_finished == 0 || (a->n == b->n && a->finish == b->finish));
    }
}

static void test_random_lives(void **state)
{
    enum { N_LIVES = 250, N_REQUESTS = 10 };
    const struct weir_engine_opts tight = { .n_slots = 8,
                                            .step_tokens = 32,
                                            .kv_bytes = N_PAGES * PAGE_BYTES };
    struct run_request *all = calloc(N_REQUESTS, sizeof *all);
    struct weir_engine *eng = open_with(tight);
    int n_opened = 0, n_ended = 0, n_suspended = 0, n_flown = 0;
    uint32_t numbers[N_REQUESTS];

    (void)state;
    while (n_opened < N_LIVES) {
        uint32_t k = below(N_REQUESTS), action = below(12);
        struct run_request *r = &all[k];
        if (action < 8) {
            eng->n_output_mean = 1;
            run_step(eng);
            n_flown += eng->flight.n_wants > 0;
        } else if (!r->session) {
            /* Mostly those that fly: one of the others keeps all on the ground. */
            do
                numbers[k] = below(N_LIST);
            while (numbers[k] % N_KINDS >= N_DEVICE && below(8));
            submit(eng, r, numbers[k]);
            n_opened++;
        } else if (run_done(r) || action == 11) {
            check_told(&alone[numbers[k]], r);
            n_ended += run_done(r);
            weir_session_close(r->session);
            r->session = NULL;
        }
        n_suspended += eng->suspended.n > 0;
        check_books(eng);
    }
    print_message("%d ended, suspended after %d actions, %d steps flew\n", n_ended, n_suspended, n_flown);
    assert_true(n_ended > 100 && n_suspended > 5 && n_flown > 200); /* it did work */
    for (int i = 0; i < N_REQUESTS; i++)
        weir_session_close(all[i].session);
    land_and_close(eng);
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_tokens_ahead_and_not),
        cmocka_unit_test(test_same_tokens_as_the_host_draws),
        cmocka_unit_test(test_tops_are_the_cpus),
        cmocka_unit_test(test_who_draws_is_the_parameters_alone),
        cmocka_unit_test(test_the_end_comes_no_later),
        cmocka_unit_test(test_long_lists),
        cmocka_unit_test(test_several_passes_through_the_head),
        cmocka_unit_test(test_a_step_is_launched_ahead),
        cmocka_unit_test(test_a_step_is_launched_ahead_of_lists),
        cmocka_unit_test(test_nobody_draws_behind_the_end),
        cmocka_unit_test(test_whole_with_a_step_in_flight),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_end_token_in_flight),
        cmocka_unit_test(test_the_cache_gets_every_known_page),
        cmocka_unit_test(test_closed_in_flight),
        cmocka_unit_test(test_all_closed_in_flight),
        cmocka_unit_test(test_suspended),
        cmocka_unit_test(test_two_ranks),
        cmocka_unit_test(test_no_memory_for_a_session_in_flight),
        cmocka_unit_test(test_no_memory_for_the_engine),
        cmocka_unit_test(test_failed_device),
        cmocka_unit_test(test_random_lives),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
