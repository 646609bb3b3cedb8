/* sched.c - what the next step computes: whose token, how much of whose prompt.
 *
 *   [H1] Every sequence that decodes gets its token in every step (but one whose last is drawn already); prompts share what the budget leaves,
 * oldest first, but never less than a page's worth, so that decoding cannot starve them. [H2] A prompt takes only
 * pages that are there, and leaves one for each copy of its last page that the other choices will need. */
#include "replica/engine/engine_int.h"

static void add_want(struct weir_engine *eng, uint32_t row, struct seq *seq, int32_t prompt_at)
{
    eng->wants[eng->n_wants++] =
        (struct want){ .row = (int32_t)row, .seq = seq, .prompt_at = prompt_at, .i_drawn = -1 };
}

/* The last token of the prompt tells the first of every choice. */
static void want_next(struct weir_engine *eng, struct seq *seq)
{
    struct weir_session *ses = seq->session;

    add_want(eng, eng->n_tok - 1, seq, /* prompt_at= */ -1);
    for (uint32_t i = 1; seq->state == SEQ_PROMPT && i < ses->params.n_choices; i++)
        add_want(eng, eng->n_tok - 1, &ses->seqs[i], /* prompt_at= */ -1);
}

/* Of the n tokens just added, those before a token whose log-probability is wanted. */
static void want_prompt(struct weir_engine *eng, struct seq *seq, uint32_t n)
{
    struct weir_session *ses = seq->session;
    const struct weir_session_params *p = &ses->params;

    if (seq->state != SEQ_PROMPT)
        return;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = seq->n_computed + i + 1;
        if (at < p->n_prompt && at >= ses->tell_from) {
            add_want(eng, eng->n_tok - n + i, seq, (int32_t)at);
            ses->tell_from = at + 1; /* told once, whatever is computed again */
        }
    }
}

static void add_tokens(struct weir_engine *eng, struct seq *seq, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t pos = seq->n_computed + i;
        if (pos / WEIR_KV_BLOCK == seq->n_pages) {
            int32_t page = kv_take(&eng->kv, seq->session->owner);
            WEIR_BUG_ON(page < 0); /* [U1] [H2] */
            seq_table(seq)[seq->n_pages++] = page;
        }
        bool known = pos < seq->n_tokens;
        WEIR_BUG_ON(!known && seq->i_drawn < 0);
        eng->ids[eng->n_tok] = known ? seq->tokens[pos] : 0;
        eng->drawn[eng->n_tok] = known ? -1 : seq->i_drawn;
        eng->takes_drawn = eng->takes_drawn || !known;
        eng->pos[eng->n_tok] = (int32_t)pos;
        eng->seq[eng->n_tok++] = seq->i_slot;
    }
    want_prompt(eng, seq, n);
    seq->n_computed += n;
    if (seq->n_computed == seq_length(seq))
        want_next(eng, seq);
}

static void add_decodes(struct weir_engine *eng)
{
    for (struct weir_session *ses = eng->running.first; ses; ses = ses->next)
        for (uint32_t i = 0; i < ses->params.n_choices; i++)
            if (seq_decodes(&ses->seqs[i]))
                add_tokens(eng, &ses->seqs[i], 1);
}

/* How many of the n next tokens there are pages for; what is left for copies is in *n_copies. [H2] */
static uint32_t n_that_fit(const struct weir_engine *eng, const struct seq *seq, uint32_t n,
                           uint32_t *n_copies)
{
    uint32_t left = kv_n_left(&eng->kv), room = left > *n_copies ? left - *n_copies : 0;
    uint64_t n_max = (uint64_t)(seq->n_pages + room) * WEIR_KV_BLOCK - seq->n_computed;
    uint32_t n_more = seq->session->params.n_choices - 1;

    n = n < n_max ? n : (uint32_t)n_max;
    if (n == 0 || seq->state != SEQ_PROMPT || seq->n_computed + n < seq->n_tokens ||
        seq->n_tokens % WEIR_KV_BLOCK == 0)
        return n;
    if (pages_for(seq->n_tokens) - seq->n_pages + n_more > room)
        return n - 1;
    *n_copies += n_more;
    return n;
}

/* The choice of a session that computes its prompt; of several that do so again, the first: the next one finds what
 * it leaves. */
static struct seq *filling(struct weir_session *ses)
{
    for (uint32_t i = 0; !ses->awaits && i < ses->params.n_choices; i++)
        if (ses->seqs[i].state == SEQ_PROMPT || ses->seqs[i].state == SEQ_REFILL)
            return &ses->seqs[i];
    return NULL;
}

/* Tokens of prompts in this step. The rate is that of whole steps, decoding included, so that steps settle at their bound. [H1] */
static uint32_t prompt_budget(const struct weir_engine *eng)
{
    double in_time = eng->prefill_tokens_s * eng->opts.step_ms_max / 1e3;
    uint32_t n = eng->opts.step_tokens > eng->n_decode ? eng->opts.step_tokens - eng->n_decode : 0;

    if (eng->n_decode > 0 && in_time > 0 && in_time < n)
        n = (uint32_t)in_time;
    return n > WEIR_KV_BLOCK ? n : WEIR_KV_BLOCK;
}

void sched_fill(struct weir_engine *eng, uint64_t now_ns)
{
    uint32_t budget, n_copies = 0;

    eng->n_tok = eng->n_wants = 0;
    eng->takes_drawn = false;
    suspend_for_room(eng, now_ns);
    add_decodes(eng);
    eng->n_decode = eng->n_tok;
    budget = prompt_budget(eng);
    for (struct weir_session *ses = eng->running.first; ses && budget > 0; ses = ses->next) {
        struct seq *seq = filling(ses);
        if (!seq)
            continue;
        if (seq->state == SEQ_REFILL && seq->n_computed == 0) {
            admit_find_prefix(eng, seq);
            admit_share_prompt(eng, seq);
        }
        uint32_t left = seq->n_tokens - seq->n_computed, n = left < budget ? left : budget;
        n = n_that_fit(eng, seq, n, &n_copies);
        if (n > 0)
            add_tokens(eng, seq, n);
        budget -= n;
    }
    eng->n_prefill = eng->n_tok - eng->n_decode;
}
