/* sched.c - what the next step computes: who is admitted, whose token, how much of whose prompt.
 *
 *   [H1] Every sequence that decodes gets its token in every step; prompts share what the budget leaves,
 * oldest first, but never less than a page's worth, so that decoding cannot starve them. [H2] Nobody
 * overtakes within a class: when the first that waits does not fit, the others wait too. */
#include <math.h>

#include "replica/engine/engine_int.h"

/* ---- admission ---- */
static void take_slot(struct weir_engine *eng, struct seq *seq)
{
    uint32_t i = 0;

    while (eng->slots[i])
        i++;
    eng->slots[i] = seq;
    eng->n_slots_free--;
    seq->i_slot = (int32_t)i;
}

/* The last token is always computed, for its logits; so is the one before each token whose log-probability is to be
 * told. */
static uint32_t pages_to_find(const struct seq *seq)
{
    const struct weir_session_params *p = &seq->session->params;
    uint32_t n_max = seq->n_tokens - 1;
    uint32_t n_told = p->n_prompt_logprobs < n_max ? p->n_prompt_logprobs : n_max;

    n_max -= n_told;
    if (p->has_cache_max && p->cache_max < n_max)
        n_max = p->cache_max;
    return n_max / WEIR_KV_BLOCK;
}

/* Whole pages of the prompt that are cached. */
static uint32_t find_prefix(struct weir_engine *eng, struct seq *seq)
{
    uint32_t n_max = pages_to_find(seq);

    seq->chain = kv_root(seq->session->params.cache_salt);
    while (seq->n_pages < n_max) {
        const int32_t *tokens = seq->tokens + (size_t)seq->n_pages * WEIR_KV_BLOCK;
        int32_t page = kv_find(&eng->kv, seq->chain, tokens);
        if (page < 0)
            break;
        seq_table(seq)[seq->n_pages++] = page;
        seq->chain = kv_next(seq->chain, tokens);
    }
    seq->n_named = seq->n_pages;
    seq->n_computed = seq->n_pages * WEIR_KV_BLOCK;
    return seq->n_computed;
}

static void start(struct weir_engine *eng, struct weir_session *ses, uint64_t now_ns)
{
    list_remove_session(&eng->waiting, ses);
    list_append_session(&eng->running, ses);
    ses->running = true;
    eng->n_promised += ses->n_promised;
    for (uint32_t i = 0; i < ses->params.n_choices; i++)
        take_slot(eng, &ses->seqs[i]);
    ses->seqs[0].state = SEQ_PROMPT;
    struct weir_engine_event *ev = event_add(eng, WEIR_EV_STARTED, ses, 0);
    ev->cached_tokens = find_prefix(eng, &ses->seqs[0]);
    ev->queue_ns = now_ns - ses->arrived_ns;
    if (ses->params.n_prompt_logprobs >= ses->params.n_prompt) { /* nothing comes before the first */
        ev = event_add(eng, WEIR_EV_PROMPT, ses, 0);
        ev->id = ses->seqs[0].tokens[0];
        ev->logprob = NAN;
    }
}

void sched_admit(struct weir_engine *eng, uint64_t now_ns)
{
    struct weir_session *ses;

    while ((ses = eng->waiting.first) != NULL) { /* [H2] */
        if (ses->params.n_choices > eng->n_slots_free || ses->n_promised > eng->kv.n_pages - eng->n_promised)
            return;
        start(eng, ses, now_ns);
    }
}

/* ---- the batch ---- */
/* Of the n tokens just added, those before a token whose log-probability is wanted. */
static void want_prompt(struct weir_engine *eng, struct seq *seq, uint32_t n)
{
    const struct weir_session_params *p = &seq->session->params;

    if (p->n_prompt_logprobs == 0 || seq->state != SEQ_PROMPT)
        return;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = seq->n_computed + i + 1;
        if (at < p->n_prompt && at + p->n_prompt_logprobs >= p->n_prompt)
            eng->wants[eng->n_wants++] = (struct want){ (int32_t)(eng->n_tok - n + i), seq, (int32_t)at };
    }
}

static void add_tokens(struct weir_engine *eng, struct seq *seq, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t pos = seq->n_computed + i;
        if (pos / WEIR_KV_BLOCK == seq->n_pages) {
            int32_t page = kv_take(&eng->kv);
            WEIR_BUG_ON(page < 0); /* [E1] */
            seq_table(seq)[seq->n_pages++] = page;
        }
        eng->ids[eng->n_tok] = seq->tokens[pos];
        eng->pos[eng->n_tok] = (int32_t)pos;
        eng->seq[eng->n_tok++] = seq->i_slot;
    }
    want_prompt(eng, seq, n);
    seq->n_computed += n;
    if (seq->n_computed == seq->n_tokens)
        eng->wants[eng->n_wants++] = (struct want){ (int32_t)eng->n_tok - 1, seq, /* prompt_at= */ -1 };
}

static void add_decodes(struct weir_engine *eng)
{
    for (struct weir_session *ses = eng->running.first; ses; ses = ses->next)
        for (uint32_t i = 0; i < ses->params.n_choices; i++)
            if (ses->seqs[i].state == SEQ_DECODE)
                add_tokens(eng, &ses->seqs[i], 1);
}

void sched_fill(struct weir_engine *eng, uint32_t *ret_prefill, uint32_t *ret_decode)
{
    uint32_t budget;

    eng->n_tok = eng->n_wants = 0;
    add_decodes(eng);
    *ret_decode = eng->n_tok;
    budget = eng->opts.step_tokens > eng->n_tok + WEIR_KV_BLOCK ? eng->opts.step_tokens - eng->n_tok
                                                                : WEIR_KV_BLOCK; /* [H1] */
    for (struct weir_session *ses = eng->running.first; ses && budget > 0; ses = ses->next) {
        struct seq *seq = &ses->seqs[0];
        if (seq->state != SEQ_PROMPT)
            continue;
        uint32_t left = seq->n_tokens - seq->n_computed, n = left < budget ? left : budget;
        add_tokens(eng, seq, n);
        budget -= n;
    }
    *ret_prefill = eng->n_tok - *ret_decode;
}
