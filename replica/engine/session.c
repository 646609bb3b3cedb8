/* session.c - one request's timeline: opened into the queue, closed from anywhere.
 *
 *   [E1] A session whose worst case exceeds the pool is refused, so the oldest can always go on, alone if need be.
 * [E2] Closing gives back the slots and every page, whatever state the session is in. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "replica/engine/engine_int.h"

int32_t *seq_table(struct seq *seq)
{
    struct weir_engine *eng = seq->session->eng;
    return eng->table + (size_t)seq->i_slot * eng->n_page_max;
}

void list_remove_session(struct session_list *list, struct weir_session *ses)
{
    *(ses->prev ? &ses->prev->next : &list->first) = ses->next;
    *(ses->next ? &ses->next->prev : &list->last) = ses->prev;
    ses->prev = ses->next = NULL;
    list->n--;
}

void list_insert_session(struct session_list *list, struct weir_session *ses)
{
    struct weir_session *after = list->last;

    while (after && after->order > ses->order)
        after = after->prev;
    ses->prev = after;
    ses->next = after ? after->next : list->first;
    *(ses->prev ? &ses->prev->next : &list->first) = ses;
    *(ses->next ? &ses->next->prev : &list->last) = ses;
    list->n++;
}

void seq_drop_pages(struct seq *seq)
{
    struct weir_engine *eng = seq->session->eng;

    if (seq->i_slot >= 0) {
        /* From the end: the cache lets go of a chain's end before its start. */
        for (uint32_t i = seq->n_pages; i > 0; i--)
            kv_drop(&eng->kv, seq_table(seq)[i - 1]);
        eng->slots[seq->i_slot] = NULL;
        eng->n_slots_free++;
    }
    seq->i_slot = -1;
    seq->n_pages = seq->n_named = seq->n_computed = 0;
}

uint32_t seq_length(const struct seq *seq)
{
    return seq->n_tokens + (seq->i_drawn >= 0);
}

bool seq_decodes(const struct seq *seq)
{
    return seq->state == SEQ_DECODE && (seq->i_drawn < 0 || seq->n_out + 1 < seq->session->params.max_tokens);
}

void session_disown(struct weir_session *ses)
{
    if (ses->owner >= 0)
        kv_owner_unref(&ses->eng->kv, ses->owner);
    ses->owner = -1;
}

void seq_release(struct seq *seq)
{
    step_forget(seq->session->eng, seq);
    seq_drop_pages(seq);
    if (seq->state == SEQ_DONE)
        return;
    seq->state = SEQ_DONE;
    if (--seq->session->n_live == 0)
        session_disown(seq->session);
}

uint32_t pages_for(uint32_t n_tokens)
{
    return (n_tokens + WEIR_KV_BLOCK - 1) / WEIR_KV_BLOCK;
}

/* [E1]: the first choice holds the prompt and its output; the others share the prompt's full pages. */
static uint64_t worst_case(const struct weir_session_params *p)
{
    uint64_t whole = pages_for(p->n_prompt + p->max_tokens), shared = p->n_prompt / WEIR_KV_BLOCK;
    return whole + (p->n_choices - 1) * (whole - shared);
}

static weir_err check(const struct weir_engine *eng, const struct weir_session_params *p,
                      struct weir_why *why)
{
    if (p->n_prompt == 0 || p->n_prompt >= eng->config.n_context)
        return weir_fail(why, WEIR_INVALID, "a prompt of %u tokens in a context of %u", p->n_prompt,
                         eng->config.n_context);
    if (p->n_choices == 0 || p->n_choices > eng->opts.n_slots)
        return weir_fail_param(why, "n", WEIR_INVALID, "n must be 1 to %u", eng->opts.n_slots);
    if (p->priority >= FAIR_CLASSES)
        return weir_fail_param(why, "priority", WEIR_INVALID, "priority must be 0 to %d", FAIR_CLASSES - 1);
    if (p->max_tokens == 0)
        return weir_fail_param(why, "max_tokens", WEIR_INVALID, "max_tokens must be 1 or more");
    if (p->n_top_logprobs < 0 || p->n_top_logprobs > WEIR_TOPS_MAX)
        return weir_fail_param(why, "top_logprobs", WEIR_INVALID, "top_logprobs must be 0 to %d",
                               WEIR_TOPS_MAX);
    if (!(p->temperature >= 0) || !(p->top_p >= 0 && p->top_p <= 1) || !(p->min_p >= 0 && p->min_p <= 1) ||
        p->top_k < 0)
        return weir_fail(why, WEIR_INVALID, "temperature, top_p, min_p or top_k is out of range");
    if (!(p->typical_p >= 0 && p->typical_p <= 1) || !(p->repetition_penalty >= 0) ||
        !isfinite(p->frequency_penalty) || !isfinite(p->presence_penalty) || !(p->mirostat_target >= 0) ||
        !(p->mirostat_lr >= 0))
        return weir_fail(why, WEIR_INVALID, "typical_p, a penalty or mirostat is out of range");
    for (uint32_t i = 0; i < p->n_logit_bias; i++)
        if (p->logit_bias[i].id < 0 || (uint32_t)p->logit_bias[i].id >= eng->config.n_vocab ||
            !isfinite(p->logit_bias[i].bias))
            return weir_fail_param(why, "logit_bias", WEIR_INVALID,
                                   "logit_bias: %d is not a token of this model, whose vocabulary has %u",
                                   p->logit_bias[i].id, eng->config.n_vocab);
    for (uint32_t i = 0; i < p->n_prompt; i++)
        if (p->prompt[i] < 0 || (uint32_t)p->prompt[i] >= eng->config.n_vocab)
            return weir_fail(why, WEIR_INVALID, "the token %d is not in the vocabulary", p->prompt[i]);
    return WEIR_OK;
}

static int by_id(const void *a, const void *b)
{
    const struct weir_logit_bias *x = a, *y = b;

    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return x->bias < y->bias ? -1 : x->bias > y->bias;
}

/* Each id once. */
static uint32_t merge_bias(struct weir_logit_bias *bias, uint32_t n)
{
    uint32_t m = 0;

    qsort(bias, n, sizeof *bias, by_id);
    for (uint32_t i = 0; i < n; i++)
        if (m > 0 && bias[m - 1].id == bias[i].id)
            bias[m - 1].bias += bias[i].bias;
        else
            bias[m++] = bias[i];
    return m;
}

static bool make_seqs(struct weir_session *ses)
{
    const struct weir_session_params *p = &ses->params;
    size_t room = (size_t)p->n_prompt + p->max_tokens;

    ses->seqs = weir_calloc(p->n_choices, sizeof *ses->seqs);
    ses->tokens = weir_calloc(p->n_choices * room, sizeof *ses->tokens);
    ses->salt = weir_strndup(p->cache_salt.len ? p->cache_salt.ptr : "", p->cache_salt.len);
    ses->account = weir_strndup(p->account.len ? p->account.ptr : "", p->account.len);
    ses->bias = weir_calloc(p->n_logit_bias + 1, sizeof *ses->bias);
    if (!ses->seqs || !ses->tokens || !ses->salt || !ses->account || !ses->bias)
        return false;
    if (p->n_logit_bias > 0) {
        memcpy(ses->bias, p->logit_bias, p->n_logit_bias * sizeof *ses->bias);
        ses->params.n_logit_bias = merge_bias(ses->bias, p->n_logit_bias);
    }
    if (p->constraints) {
        ses->constraints = weir_calloc(p->n_choices, sizeof *ses->constraints);
        if (!ses->constraints)
            return false;
    }
    for (uint32_t i = 0; i < p->n_choices; i++) {
        struct seq *seq = &ses->seqs[i];
        *seq = (struct seq){
            .session = ses, .choice = i, .i_slot = -1, .i_drawn = -1, .tokens = ses->tokens + i * room
        };
        memcpy(seq->tokens, p->prompt, p->n_prompt * sizeof *seq->tokens);
        seq->n_tokens = p->n_prompt;
    }
    ses->n_live = p->n_choices;
    return true;
}

static void free_session(struct weir_session *ses)
{
    weir_free(ses->seqs);
    weir_free(ses->tokens);
    weir_free(ses->salt);
    weir_free(ses->account);
    weir_free(ses->bias);
    for (uint32_t i = 0; ses->constraints && i < ses->params.n_choices; i++)
        if (ses->constraints[i].ops)
            ses->constraints[i].ops->close(ses->constraints[i].state);
    weir_free(ses->constraints);
    weir_free(ses);
}

/* The queue is bounded by how long it would take to compute. */
static weir_err check_time(const struct weir_engine *eng, uint32_t n_tokens, struct weir_why *why)
{
    double n_waiting = (double)(eng->waiting.n_tokens + n_tokens);

    if (eng->opts.queue_ms_max == 0 || eng->prefill_tokens_s <= 0 || eng->waiting.n == 0 ||
        n_waiting / eng->prefill_tokens_s * 1e3 <= eng->opts.queue_ms_max)
        return WEIR_OK;
    return weir_fail(why, WEIR_FULL, "the engine's queue is full: %.0f ms of prompts, of at most %u",
                     n_waiting / eng->prefill_tokens_s * 1e3, eng->opts.queue_ms_max);
}

static weir_err queue_session(struct weir_session *ses, uint64_t now_ns, struct weir_why *why)
{
    struct weir_engine *eng = ses->eng;
    uint32_t n_tokens = admit_n_uncached(eng, ses);
    weir_err err = check_time(eng, n_tokens, why);

    ses->wait = (struct fair_item){ .class = ses->params.priority, .cost = n_tokens, .since_ns = now_ns };
    return err == WEIR_OK ? fair_push(&eng->waiting, &ses->wait, ses->params.account, why) : err;
}

static void own_params(struct weir_session *ses, const struct weir_session_params *params)
{
    ses->params.prompt = ses->seqs[0].tokens;
    ses->params.logit_bias = ses->bias;
    ses->params.cache_salt.ptr = ses->salt;
    ses->params.account.ptr = ses->account;
    ses->params.constraints = ses->constraints;
    ses->draw_by = draws_by(ses->eng, &ses->params);
    ses->tell_from =
        params->n_prompt_logprobs < params->n_prompt ? params->n_prompt - params->n_prompt_logprobs : 1;
    ses->sample = (struct sample_params){ params->temperature,     params->top_p,      params->min_p,
                                          params->top_k,           params->seed,       params->typical_p,
                                          params->mirostat_target, params->mirostat_lr };
}

weir_err weir_session_open(struct weir_engine *eng, const struct weir_session_params *params, uint64_t now_ns,
                           struct weir_session **ret, struct weir_why *why)
{
    struct weir_session *ses;
    weir_err err = check(eng, params, why);

    if (err != WEIR_OK)
        return err;
    if (eng->waiting.n >= eng->opts.n_queue_max)
        return weir_fail(why, WEIR_FULL, "the engine's queue is full");
    ses = weir_alloc0(sizeof *ses);
    if (!ses)
        return weir_fail(why, WEIR_NOMEM, "no memory for a session");
    ses->eng = eng;
    ses->params = *params;
    if (ses->params.max_tokens > eng->config.n_context - params->n_prompt)
        ses->params.max_tokens = eng->config.n_context - params->n_prompt;
    uint64_t n_pages = worst_case(&ses->params);
    if (n_pages > eng->kv.n_pages) {
        weir_free(ses);
        return weir_fail_param(
            why, "max_tokens", WEIR_INVALID,
            "the request could need %llu KV pages, the replica has %u: ask for fewer tokens or choices",
            (unsigned long long)n_pages, eng->kv.n_pages);
    }
    ses->n_worst = (uint32_t)n_pages;
    ses->n_output_room = UINT32_MAX;
    ses->arrived_ns = now_ns;
    ses->owner = -1;
    if (!make_seqs(ses)) {
        free_session(ses);
        return weir_fail(why, WEIR_NOMEM, "no memory for a session");
    }
    own_params(ses, params);
    err = queue_session(ses, now_ns, why);
    if (err != WEIR_OK) {
        free_session(ses);
        return err;
    }
    for (uint32_t i = 0; params->constraints && i < params->n_choices; i++)
        ses->constraints[i] = params->constraints[i]; /* ours from here on */
    *ret = ses;
    return WEIR_OK;
}

void weir_session_close(struct weir_session *ses)
{
    struct weir_engine *eng;

    if (!ses)
        return;
    eng = ses->eng;
    for (uint32_t i = 0; i < ses->params.n_choices; i++) /* [E2] */
        seq_release(&ses->seqs[i]);
    if (ses->place == PLACE_WAITING)
        fair_remove(&eng->waiting, &ses->wait);
    else
        list_remove_session(ses->place == PLACE_RUNNING ? &eng->running : &eng->suspended, ses);
    admit_leader_gone(eng, ses);
    free_session(ses);
}

void weir_session_stop_choice(struct weir_session *ses, uint32_t choice)
{
    if (choice >= ses->params.n_choices)
        return;
    struct seq *seq = &ses->seqs[choice];
    /* While it computes the prompt the others still need it; it is only then that a choice has no token yet.
     */
    if (seq->state == SEQ_DECODE || seq->state == SEQ_REFILL || seq->state == SEQ_DONE)
        seq_release(seq);
}

void *weir_session_user(const struct weir_session *ses)
{
    return ses->params.user;
}
