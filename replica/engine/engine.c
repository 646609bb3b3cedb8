/* engine.c - opens a model, and says how busy it is. Its steps: step.c.
 *
 * Threads: the step thread, but for open and info. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "replica/engine/engine_int.h"

#define KV_BYTES_DEFAULT_MAX (1ull << 30)
#define STEP_TOKENS_DEFAULT 256
#define STARVE_MS_DEFAULT 10000
#define CACHE_SHARE_PCT_DEFAULT 50
#define OUTPUT_MEAN_FIRST 256 /* tokens, before anything has ended */
/* Started, the prompt's first token, token, finished, and a token and an end of the step before; and one a token of a prompt. */
#define EVENTS_PER_SLOT 6

/* ---- opening ---- */
static uint32_t choose_pages(const struct weir_engine *eng)
{
    uint64_t page_bytes = parallel_page_bytes(eng->model);
    uint64_t wanted = (uint64_t)eng->opts.n_slots * eng->n_page_max;
    uint64_t bytes = eng->opts.kv_bytes ? eng->opts.kv_bytes : KV_BYTES_DEFAULT_MAX;

    if (eng->opts.kv_bytes || wanted * page_bytes > bytes)
        wanted = bytes / page_bytes;
    return wanted > INT32_MAX ? INT32_MAX : (uint32_t)wanted;
}

static void choose_rows(struct weir_engine *eng)
{
    uint32_t n = parallel_can_draw(eng->model) ? LOGITS_ROWS_DEVICE : LOGITS_ROWS_MAX;

    eng->n_rows_max = n > LOGITS_ROWS_MAX && n > eng->opts.n_slots ? eng->opts.n_slots : n;
    if (eng->n_rows_max < LOGITS_ROWS_MAX)
        eng->n_rows_max = LOGITS_ROWS_MAX;
}

static weir_err make_step_arrays(struct weir_engine *eng, struct weir_why *why)
{
    uint32_t n_slots = eng->opts.n_slots;

    eng->n_tok_max = n_slots + eng->opts.step_tokens;
    eng->slots = weir_calloc(n_slots, sizeof *eng->slots);
    eng->table = weir_calloc((size_t)n_slots * eng->n_page_max, sizeof *eng->table);
    eng->ids = weir_calloc(eng->n_tok_max, sizeof *eng->ids);
    eng->pos = weir_calloc(eng->n_tok_max, sizeof *eng->pos);
    eng->seq = weir_calloc(eng->n_tok_max, sizeof *eng->seq);
    eng->drawn = weir_calloc(eng->n_tok_max, sizeof *eng->drawn);
    eng->wants = weir_calloc(n_slots + eng->n_tok_max, sizeof *eng->wants);
    eng->flight.wants = weir_calloc(n_slots + eng->n_tok_max, sizeof *eng->wants);
    eng->rows = weir_calloc(eng->n_rows_max, sizeof *eng->rows);
    eng->scratch = weir_calloc(eng->config.n_vocab, sizeof *eng->scratch);
    eng->events = weir_calloc((size_t)n_slots * EVENTS_PER_SLOT + eng->n_tok_max, sizeof *eng->events);
    eng->tops = weir_calloc(((size_t)n_slots + eng->n_tok_max) * WEIR_TOPS_MAX, sizeof *eng->tops);
    eng->n_slots_free = n_slots;
    if (!eng->slots || !eng->table || !eng->ids || !eng->pos || !eng->seq || !eng->drawn || !eng->wants ||
        !eng->flight.wants || !eng->rows || !eng->scratch || !eng->events || !eng->tops)
        return weir_fail(why, WEIR_NOMEM, "no memory for the engine's steps");
    return adjust_init(&eng->adjust, eng->config.n_vocab, why);
}

static void fill_info(struct weir_engine *eng)
{
    struct weir_engine_info *info = &eng->info;
    const struct model_config *c = &eng->config;

    info->architecture = c->architecture;
    info->backend = parallel_name(eng->model);
    info->n_params = parallel_n_params(eng->model);
    info->weight_bytes = parallel_weight_bytes(eng->model);
    info->n_vocab = c->n_vocab;
    info->n_context = c->n_context;
    info->eos_ids = c->eos_ids;
    info->n_eos_ids = c->n_eos_ids;
    info->temperature = c->temperature;
    info->top_p = c->top_p;
    info->min_p = c->min_p;
    info->top_k = c->top_k;
    memcpy(info->weights_hash, parallel_weights_hash(eng->model), sizeof info->weights_hash);
}

/* The GPU where there is one. */
static weir_err open_auto(const struct weir_backend_opts *opts, struct weir_backend **ret,
                          struct weir_why *why)
{
    struct weir_why no_gpu = { 0 };
    weir_err err = weir_backend_cuda_open(opts, ret, &no_gpu);

    if (err != WEIR_UNAVAILABLE)
        return err == WEIR_OK ? err : weir_fail(why, err, "%s", no_gpu.text);
    return weir_backend_cpu_open(opts, ret, why);
}

static weir_err choose_backend(struct weir_engine *eng, struct parallel_opts *opts, struct weir_why *why)
{
    const char *name = eng->opts.backend;

    if (eng->opts.open_backend)
        opts->open = eng->opts.open_backend;
    else if (!name || strcmp(name, "cpu") == 0)
        opts->open = weir_backend_cpu_open;
    else if (strcmp(name, "cuda") == 0)
        opts->open = weir_backend_cuda_open;
    else if (strcmp(name, "auto") == 0)
        opts->open = open_auto;
    else
        return weir_fail_param(why, "backend", WEIR_INVALID, "backend: `%s` is not auto, cpu or cuda", name);
    return WEIR_OK;
}

/* NULL means the first of the two words. */
static weir_err one_of(const char *word, const char *param, const char *first, const char *second,
                       bool *ret_second, struct weir_why *why)
{
    *ret_second = word && strcmp(word, second) == 0;
    if (!word || *ret_second || strcmp(word, first) == 0)
        return WEIR_OK;
    return weir_fail_param(why, param, WEIR_INVALID, "%s: `%s` is not %s or %s", param, word, first, second);
}

static weir_err open_ranks(struct weir_engine *eng, struct weir_why *why)
{
    static const char *const names[] = {
        [WEIR_NATIVE] = "native", [WEIR_Q8] = "q8", [WEIR_Q4] = "q4", [WEIR_FP8] = "fp8"
    };
    struct parallel_opts opts = { .open = weir_backend_cpu_open,
                                  .backend = { .n_threads = eng->opts.n_threads,
                                               .deterministic = eng->opts.deterministic },
                                  .n_ranks = eng->opts.tensor_parallel ? eng->opts.tensor_parallel : 1 };
    size_t i = 0, n = sizeof names / sizeof *names;

    while (i < n && eng->opts.weights && strcmp(eng->opts.weights, names[i]) != 0)
        i++;
    if (i == n)
        return weir_fail_param(why, "weights", WEIR_INVALID, "weights: `%s` is not native, q8, q4 or fp8",
                               eng->opts.weights);
    opts.quant = (enum weir_quant)i;
    bool wide = false;
    weir_err err = one_of(eng->opts.kv, "kv_type", "bf16", "f32", &wide, why);
    opts.backend.kv = wide ? WEIR_F32 : WEIR_BF16;
    if (err == WEIR_OK)
        err = one_of(eng->opts.activations, "activations", "fast", "exact", &opts.backend.exact, why);
    if (err == WEIR_OK)
        err = choose_backend(eng, &opts, why);
    if (err != WEIR_OK)
        return err;
    return parallel_open(&opts, &eng->config, &eng->model, why);
}

static weir_err open_parts(struct weir_engine *eng, struct weir_why *why)
{
    struct model_limits limits = { 0 };
    weir_err err = model_config_load(eng->opts.model_dir, &eng->config, why);

    if (err != WEIR_OK)
        return err;
    err = open_ranks(eng, why);
    if (err != WEIR_OK)
        return err;
    eng->n_page_max = (eng->config.n_context + WEIR_KV_BLOCK - 1) / WEIR_KV_BLOCK;
    limits.n_blocks = choose_pages(eng);
    if (limits.n_blocks == 0)
        return weir_fail_param(why, "kv_bytes", WEIR_INVALID, "kv_bytes: not room for one page of %llu bytes",
                               (unsigned long long)parallel_page_bytes(eng->model));
    choose_rows(eng);
    uint32_t n_share = (uint32_t)((uint64_t)limits.n_blocks * eng->opts.cache_share_pct / 100);
    err = make_step_arrays(eng, why);
    if (err == WEIR_OK && parallel_can_draw(eng->model))
        err = draws_open(eng, why);
    limits.n_tok_max = eng->n_tok_max;
    limits.n_logits_max = eng->n_rows_max;
    if (eng->draws) {
        limits.n_draws_max = eng->opts.n_slots;
        limits.list_bytes = draws_list_bytes(eng);
    }
    if (err == WEIR_OK)
        err = kv_init(&eng->kv, limits.n_blocks, eng->opts.n_slots, n_share, why);
    if (err == WEIR_OK)
        err = parallel_load(eng->model, eng->opts.model_dir, &limits, why);
    return err;
}

weir_err weir_engine_open(const struct weir_engine_opts *opts, struct weir_engine **ret, struct weir_why *why)
{
    struct weir_engine *eng;
    weir_err err;

    if (opts->n_slots == 0 || opts->n_queue_max == 0)
        return weir_fail_param(why, "slots", WEIR_INVALID, "slots and queue_max must be 1 or more");
    if (opts->cache_share_pct > 100)
        return weir_fail_param(why, "cache_share_pct", WEIR_INVALID, "cache_share_pct must be 0 to 100");
    eng = weir_alloc0(sizeof *eng);
    if (!eng)
        return weir_fail(why, WEIR_NOMEM, "no memory for the engine");
    eng->opts = *opts;
    eng->opts.step_tokens = opts->step_tokens ? opts->step_tokens : STEP_TOKENS_DEFAULT;
    if (eng->opts.step_tokens < WEIR_KV_BLOCK)
        eng->opts.step_tokens = WEIR_KV_BLOCK;
    if (eng->opts.cache_share_pct == 0)
        eng->opts.cache_share_pct = CACHE_SHARE_PCT_DEFAULT;
    eng->starve_ns = (opts->starve_ms ? opts->starve_ms : STARVE_MS_DEFAULT) * WEIR_MS;
    eng->n_output_mean = OUTPUT_MEAN_FIRST;
    err = open_parts(eng, why);
    if (err != WEIR_OK) {
        weir_engine_close(eng);
        return err;
    }
    fill_info(eng);
    *ret = eng;
    return WEIR_OK;
}

void weir_engine_close(struct weir_engine *eng)
{
    if (!eng)
        return;
    WEIR_CHECK(eng->waiting.n == 0 && eng->running.n == 0 && eng->suspended.n == 0);
    parallel_close(eng->model);
    kv_release(&eng->kv);
    adjust_release(&eng->adjust);
    draws_close(eng->draws);
    void *const arrays[] = { eng->slots, eng->table,        eng->ids,  eng->pos,     eng->seq,    eng->drawn,
                             eng->wants, eng->flight.wants, eng->rows, eng->scratch, eng->events, eng->tops };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        weir_free(arrays[i]);
    weir_free(eng);
}

const struct weir_engine_info *weir_engine_info(const struct weir_engine *eng)
{
    return &eng->info;
}

/* ---- what there is to do ---- */
bool weir_engine_has_work(const struct weir_engine *eng)
{
    for (const struct weir_session *ses = eng->running.first; ses; ses = ses->next)
        if (ses->n_live > 0)
            return true;
    return eng->waiting.n > 0 || eng->suspended.n > 0 || eng->flight.flies;
}

void weir_engine_load(const struct weir_engine *eng, struct weir_engine_load *ret)
{
    const struct session_list *const lists[] = { &eng->running, &eng->suspended };

    *ret = (struct weir_engine_load){
        .n_running = eng->opts.n_slots - eng->n_slots_free,
        .n_waiting = eng->waiting.n + eng->suspended.n,
        .n_suspended = eng->suspended.n,
        .n_slots = eng->opts.n_slots,
        .queued_tokens = eng->waiting.n_tokens,
        .kv_blocks_used = kv_n_held(&eng->kv),
        .kv_blocks = eng->kv.n_pages,
    };
    for (int i = 0; i < 2; i++)
        for (const struct weir_session *ses = lists[i]->first; ses; ses = ses->next)
            for (uint32_t k = 0; k < ses->params.n_choices; k++)
                if (ses->seqs[k].state == SEQ_PROMPT || ses->seqs[k].state == SEQ_REFILL)
                    ret->queued_tokens += ses->seqs[k].n_tokens - ses->seqs[k].n_computed;
}
