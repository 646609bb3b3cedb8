/* outcome.c - what logits and tokens mean for a sequence: events, its next token, its end.
 *
 *   [N2] Each choice ends with exactly one FINISHED, unless it was stopped or its session closed. */
#include "replica/engine/engine_int.h"

struct weir_engine_event *event_add(struct weir_engine *eng, int kind, struct weir_session *ses,
                                    uint32_t choice)
{
    struct weir_engine_event *ev = &eng->events[eng->n_events++];

    *ev = (struct weir_engine_event){ .kind = kind, .session = ses, .choice = choice };
    return ev;
}

static const struct weir_constraint *bound_of(const struct seq *seq)
{
    return seq->session->constraints ? &seq->session->constraints[seq->choice] : NULL;
}

struct adjust_context outcome_context(const struct weir_engine *eng, const struct seq *seq)
{
    return (struct adjust_context){ &seq->session->params, seq->tokens,           seq->n_tokens, seq->n_out,
                                    eng->config.eos_ids,   eng->config.n_eos_ids, bound_of(seq) };
}

/* ---- ends ---- */
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

void outcome_whole(struct weir_engine *eng, struct seq *seq)
{
    finish(eng, seq, WEIR_FINISH_STOP);
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

/* ---- log-probabilities ---- */
static void add_logprob(struct weir_engine *eng, struct weir_engine_event *ev, const float *logits, int n_top)
{
    struct weir_top_logprob *tops = eng->tops + eng->n_tops;

    ev->logprob = sample_logprob(logits, eng->config.n_vocab, ev->id, tops, n_top);
    ev->top = tops;
    eng->n_tops += (uint32_t)n_top;
}

/* The logits before a token of the prompt say how likely it was. */
void outcome_prompt(struct weir_engine *eng, struct seq *seq, int32_t at, const float *logits)
{
    struct weir_engine_event *ev = event_add(eng, WEIR_EV_PROMPT, seq->session, 0);

    ev->id = seq->tokens[at];
    add_logprob(eng, ev, logits, seq->session->params.n_top_logprobs);
}

/* ---- tokens ---- */
/* The event of the token; NULL: the choice has ended without. */
static struct weir_engine_event *tell(struct weir_engine *eng, struct seq *seq, int32_t id)
{
    const struct weir_constraint *bound = bound_of(seq);

    if (id < 0 || (bound && !bound->ops->accept(bound->state, id))) {
        /* The model's numbers broke, or the text can't go on: this choice ends, the others are not its fault. */
        finish(eng, seq, WEIR_FINISH_ERROR);
        return NULL;
    }
    struct weir_engine_event *ev = event_add(eng, WEIR_EV_TOKEN, seq->session, seq->choice);
    ev->id = id;
    return ev;
}

static void append(struct weir_engine *eng, struct seq *seq, int32_t id)
{
    const struct weir_session_params *p = &seq->session->params;

    seq->tokens[seq->n_tokens++] = id;
    seq->n_out++;
    if (is_eos(eng, id) && (!p->ignore_eos || bound_of(seq)))
        finish(eng, seq, WEIR_FINISH_STOP);
    else if (seq->n_out == p->max_tokens)
        finish(eng, seq, WEIR_FINISH_LENGTH);
}

void outcome_drawn(struct weir_engine *eng, struct seq *seq, const struct weir_drawn *drawn)
{
    const struct weir_session_params *p = &seq->session->params;
    struct weir_engine_event *ev = tell(eng, seq, drawn->id);
    uint32_t n_tops = p->logprobs ? (uint32_t)p->n_top_logprobs : 0;

    if (!ev)
        return;
    ev->logprob = drawn->logprob;
    ev->top = eng->tops + eng->n_tops;
    for (uint32_t i = 0; i < n_tops; i++) /* the set may be begun anew in this call */
        eng->tops[eng->n_tops++] = drawn->tops[i];
    append(eng, seq, drawn->id);
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

void outcome_logits(struct weir_engine *eng, struct seq *seq, const float *logits)
{
    const struct weir_session_params *p = &seq->session->params;
    const struct adjust_context ctx = outcome_context(eng, seq);
    const float *adjusted = adjust_logits(&eng->adjust, logits, &ctx);

    if (is_whole(&eng->adjust, ctx.constraint)) {
        outcome_whole(eng, seq);
        return;
    }
    int32_t id = choose(eng, seq, adjusted);
    struct weir_engine_event *ev = tell(eng, seq, id);
    if (!ev)
        return;
    if (p->logprobs)
        add_logprob(eng, ev, logits, p->n_top_logprobs);
    append(eng, seq, id);
}
