/* engine.c - opens a model and runs its steps: admit, fill, forward, sample, tell.
 *
 *   [N1] A choice's tokens depend on its prompt, parameters, seed, choice and position alone: see kernels.h
 * for the sums and sample.h for the randomness. Nothing here may look at batch mates when it decides what a
 * token is. [N2] Each choice ends with exactly one FINISHED, unless it was stopped or its session closed.
 * Threads: the step thread, but for open and info. */
#include <math.h>
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
#define EVENTS_PER_SLOT                                                                                      \
    4 /* started, the prompt's first token, token, finished; and one a token of a prompt */

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

static weir_err make_step_arrays(struct weir_engine *eng, struct weir_why *why)
{
    uint32_t n_slots = eng->opts.n_slots;

    eng->n_tok_max = n_slots + eng->opts.step_tokens;
    eng->slots = weir_calloc(n_slots, sizeof *eng->slots);
    eng->table = weir_calloc((size_t)n_slots * eng->n_page_max, sizeof *eng->table);
    eng->ids = weir_calloc(eng->n_tok_max, sizeof *eng->ids);
    eng->pos = weir_calloc(eng->n_tok_max, sizeof *eng->pos);
    eng->seq = weir_calloc(eng->n_tok_max, sizeof *eng->seq);
    eng->wants = weir_calloc(n_slots + eng->n_tok_max, sizeof *eng->wants);
    eng->scratch = weir_calloc(eng->config.n_vocab, sizeof *eng->scratch);
    eng->events = weir_calloc((size_t)n_slots * EVENTS_PER_SLOT + eng->n_tok_max, sizeof *eng->events);
    eng->tops = weir_calloc(((size_t)n_slots + eng->n_tok_max) * ENGINE_TOPS_MAX, sizeof *eng->tops);
    eng->n_slots_free = n_slots;
    if (!eng->slots || !eng->table || !eng->ids || !eng->pos || !eng->seq || !eng->wants || !eng->scratch ||
        !eng->events || !eng->tops)
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

    if (!name || strcmp(name, "cpu") == 0)
        opts->open = weir_backend_cpu_open;
    else if (strcmp(name, "cuda") == 0)
        opts->open = weir_backend_cuda_open;
    else if (strcmp(name, "auto") == 0)
        opts->open = open_auto;
    else
        return weir_fail_param(why, "backend", WEIR_INVALID, "backend: `%s` is not auto, cpu or cuda", name);
    return WEIR_OK;
}

static weir_err open_ranks(struct weir_engine *eng, struct weir_why *why)
{
    static const char *const names[] = {
        [WEIR_NATIVE] = "native", [WEIR_Q8] = "q8", [WEIR_Q4] = "q4", [WEIR_FP8] = "fp8"
    };
    struct parallel_opts opts = { .open = weir_backend_cpu_open,
                                  .backend = { .n_threads = eng->opts.n_threads },
                                  .n_ranks = eng->opts.tensor_parallel ? eng->opts.tensor_parallel : 1 };
    size_t i = 0, n = sizeof names / sizeof *names;

    while (i < n && eng->opts.weights && strcmp(eng->opts.weights, names[i]) != 0)
        i++;
    if (i == n)
        return weir_fail_param(why, "weights", WEIR_INVALID, "weights: `%s` is not native, q8, q4 or fp8",
                               eng->opts.weights);
    opts.quant = (enum weir_quant)i;
    if (eng->opts.kv && strcmp(eng->opts.kv, "bf16") == 0)
        opts.backend.kv = WEIR_BF16;
    else if (eng->opts.kv && strcmp(eng->opts.kv, "f32") != 0)
        return weir_fail_param(why, "kv_type", WEIR_INVALID, "kv_type: `%s` is not f32 or bf16",
                               eng->opts.kv);
    weir_err err = choose_backend(eng, &opts, why);
    if (err != WEIR_OK)
        return err;
    return parallel_open(&opts, &eng->config, &eng->model, why);
}

static weir_err open_parts(struct weir_engine *eng, struct weir_why *why)
{
    struct model_limits limits = { .n_logits_max = LOGITS_ROWS_MAX };
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
    uint32_t n_share = (uint32_t)((uint64_t)limits.n_blocks * eng->opts.cache_share_pct / 100);
    err = make_step_arrays(eng, why);
    limits.n_tok_max = eng->n_tok_max;
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
    void *const arrays[] = { eng->slots, eng->table,   eng->ids,    eng->pos, eng->seq,
                             eng->wants, eng->scratch, eng->events, eng->tops };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        weir_free(arrays[i]);
    weir_free(eng);
}

const struct weir_engine_info *weir_engine_info(const struct weir_engine *eng)
{
    return &eng->info;
}

/* ---- a step ---- */
struct weir_engine_event *event_add(struct weir_engine *eng, int kind, struct weir_session *ses,
                                    uint32_t choice)
{
    struct weir_engine_event *ev = &eng->events[eng->n_events++];

    *ev = (struct weir_engine_event){ .kind = kind, .session = ses, .choice = choice };
    return ev;
}

static bool is_eos(const struct weir_engine *eng, int32_t id)
{
    for (int i = 0; i < eng->config.n_eos_ids; i++)
        if (eng->config.eos_ids[i] == id)
            return true;
    return false;
}

static void finish(struct weir_engine *eng, struct seq *seq, enum weir_finish how)
{
    const double weight = 1.0 / 16; /* of the newest */

    event_add(eng, WEIR_EV_FINISHED, seq->session, seq->choice)->finish = how; /* [N2] */
    eng->n_output_mean += (seq->n_out - eng->n_output_mean) * weight;
    seq_release(seq);
}

/* Nothing may come next in a text that is bound: it is whole. */
static bool is_whole(const struct adjust *adjust, const struct weir_constraint *c)
{
    uint32_t n_words = (adjust->n_vocab + 31) / 32;
    bool any = false;

    for (uint32_t i = 0; c && i < n_words; i++)
        any = any || adjust->bits[i];
    return c && !any;
}

static int32_t choose(struct weir_engine *eng, struct seq *seq, const float *logits)
{
    const struct sample_params *p = &seq->session->sample;
    uint32_t n_vocab = eng->config.n_vocab;

    /* By the position in the whole text: a request that carries what was said so far goes on as it would have. */
    if (p->mirostat_target > 0)
        return sample_mirostat(logits, n_vocab, p, seq->choice, seq->n_tokens, eng->scratch,
                               &seq->surprise_max);
    return sample_token(logits, n_vocab, p, seq->choice, seq->n_tokens, eng->scratch);
}

static void add_logprob(struct weir_engine *eng, struct weir_engine_event *ev, const float *logits, int n_top)
{
    struct weir_top_logprob *tops = eng->tops + eng->n_tops;

    ev->logprob = sample_logprob(logits, eng->config.n_vocab, ev->id, tops, n_top);
    ev->top = tops;
    eng->n_tops += (uint32_t)n_top;
}

static void sample(struct weir_engine *eng, struct seq *seq, const float *logits)
{
    const struct weir_session_params *p = &seq->session->params;
    const struct weir_constraint *bound =
        seq->session->constraints ? &seq->session->constraints[seq->choice] : NULL;
    const struct adjust_context ctx = { p,          seq->tokens,         seq->n_tokens,
                                        seq->n_out, eng->config.eos_ids, eng->config.n_eos_ids,
                                        bound };
    const float *adjusted = adjust_logits(&eng->adjust, logits, &ctx);

    if (is_whole(&eng->adjust, bound)) {
        finish(eng, seq, WEIR_FINISH_STOP);
        return;
    }
    int32_t id = choose(eng, seq, adjusted);
    if (id < 0 || (bound && !bound->ops->accept(bound->state, id))) {
        finish(eng, seq,
               WEIR_FINISH_ERROR); /* the model's numbers broke, or the text can't go on: this choice ends,
                                              * the others are not its fault */
        return;
    }
    struct weir_engine_event *ev = event_add(eng, WEIR_EV_TOKEN, seq->session, seq->choice);
    ev->id = id;
    if (p->logprobs)
        add_logprob(eng, ev, logits, p->n_top_logprobs);
    seq->tokens[seq->n_tokens++] = id;
    seq->n_out++;
    if (is_eos(eng, id) && (!p->ignore_eos || bound))
        finish(eng, seq, WEIR_FINISH_STOP);
    else if (seq->n_out == p->max_tokens)
        finish(eng, seq, WEIR_FINISH_LENGTH);
}

/* The logits before a token of the prompt say how likely it was. */
static void tell_prompt(struct weir_engine *eng, struct seq *seq, int32_t at, const float *logits)
{
    struct weir_engine_event *ev = event_add(eng, WEIR_EV_PROMPT, seq->session, 0);

    ev->id = seq->tokens[at];
    add_logprob(eng, ev, logits, seq->session->params.n_top_logprobs);
}

/* The prompt is computed: the other choices share its full pages and get a copy of the last, half-full one.
 */
static void fork(struct weir_engine *eng, struct seq *from, struct seq *to)
{
    uint32_t n_full = from->n_computed / WEIR_KV_BLOCK;

    for (uint32_t i = 0; i < from->n_pages; i++) {
        int32_t page = seq_table(from)[i];
        if (i < n_full) {
            kv_hold(&eng->kv, page);
        } else {
            int32_t copy = kv_take(&eng->kv, from->session->owner);
            WEIR_BUG_ON(copy < 0); /* sched.c left room */
            parallel_copy_page(eng->model, (uint32_t)page, (uint32_t)copy);
            page = copy;
        }
        seq_table(to)[i] = page;
    }
    to->n_pages = from->n_pages;
    to->n_named = from->n_named;
    to->chain = from->chain;
    to->n_computed = from->n_computed;
    to->state = SEQ_DECODE;
}

/* Full pages get their names, so that the next request with this prefix finds them. */
static void publish(struct weir_engine *eng, struct seq *seq)
{
    const struct weir_session_params *p = &seq->session->params;

    if (p->has_cache_max && p->cache_max == 0)
        return;
    while ((seq->n_named + 1) * WEIR_KV_BLOCK <= seq->n_computed) {
        const int32_t *tokens = seq->tokens + (size_t)seq->n_named * WEIR_KV_BLOCK;
        kv_publish(&eng->kv, seq_table(seq)[seq->n_named], seq->chain, tokens);
        seq->chain = kv_next(seq->chain, tokens);
        seq->n_named++;
    }
}

static void publish_all(struct weir_engine *eng)
{
    for (uint32_t i = 0; i < eng->opts.n_slots; i++)
        if (eng->slots[i])
            publish(eng, eng->slots[i]);
}

static void sample_want(struct weir_engine *eng, struct seq *seq, const float *logits)
{
    struct weir_session *ses = seq->session;

    if (seq->state == SEQ_DECODE) {
        sample(eng, seq, logits);
        return;
    }
    bool is_refill = seq->state == SEQ_REFILL;
    seq->state = SEQ_DECODE;
    if (is_refill) {
        sample(eng, seq, logits);
        return;
    }
    for (uint32_t i = 1; i < ses->params.n_choices; i++)
        fork(eng, seq, &ses->seqs[i]);
    for (uint32_t i = 0; i < ses->params.n_choices; i++)
        sample(eng, &ses->seqs[i], logits);
}

static void take_want(struct weir_engine *eng, const struct want *want, const float *logits)
{
    if (want->prompt_at >= 0)
        tell_prompt(eng, want->seq, want->prompt_at, logits);
    else
        sample_want(eng, want->seq, logits);
}

static weir_err sample_all(struct weir_engine *eng, struct weir_why *why)
{
    int32_t rows[LOGITS_ROWS_MAX];
    const float *logits = NULL;

    for (uint32_t begin = 0; begin < eng->n_wants; begin += LOGITS_ROWS_MAX) {
        uint32_t left = eng->n_wants - begin, n = left < LOGITS_ROWS_MAX ? left : LOGITS_ROWS_MAX;
        for (uint32_t i = 0; i < n; i++)
            rows[i] = eng->wants[begin + i].row;
        weir_err err = parallel_logits(eng->model, rows, n, &logits, why);
        if (err != WEIR_OK)
            return err;
        for (uint32_t i = 0; i < n; i++)
            take_want(eng, &eng->wants[begin + i], logits + (size_t)i * eng->config.n_vocab);
    }
    return WEIR_OK;
}

/* From one step's beginning to the next, when it computed prompts and there was no pause. */
static void note_rate(struct weir_engine *eng, uint64_t now_ns)
{
    const double weight = 1.0 / 8; /* of the newest */

    if (eng->step_ns == 0 || eng->step_prefill == 0 || now_ns <= eng->step_ns)
        return;
    double rate = eng->step_prefill * 1e9 / (double)(now_ns - eng->step_ns);
    eng->prefill_tokens_s += (rate - eng->prefill_tokens_s) * (eng->prefill_tokens_s > 0 ? weight : 1);
}

weir_err weir_engine_step(struct weir_engine *eng, uint64_t now_ns, struct weir_engine_step *ret,
                          struct weir_why *why)
{
    *ret = (struct weir_engine_step){ 0 };
    eng->n_events = eng->n_tops = 0;
    note_rate(eng, now_ns);
    admit_all(eng, now_ns);
    sched_fill(eng, now_ns, &ret->n_prefill, &ret->n_decode);
    if (eng->n_tok > 0) {
        struct weir_batch batch = { eng->n_tok, eng->ids,          eng->pos,        eng->seq,
                                    eng->table, eng->opts.n_slots, eng->n_page_max, NULL };
        weir_err err = parallel_forward(eng->model, &batch, why);
        if (err != WEIR_OK)
            return err;
        publish_all(eng); /* before sampling: a sequence that ends here leaves its pages to the cache */
        err = sample_all(eng, why);
        if (err != WEIR_OK)
            return err;
    }
    eng->step_prefill = ret->n_prefill;
    eng->step_ns = weir_engine_has_work(eng) ? now_ns : 0;
    ret->events = eng->events;
    ret->n_events = (int)eng->n_events;
    return WEIR_OK;
}

bool weir_engine_has_work(const struct weir_engine *eng)
{
    for (const struct weir_session *ses = eng->running.first; ses; ses = ses->next)
        if (ses->n_live > 0)
            return true;
    return eng->waiting.n > 0 || eng->suspended.n > 0;
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
