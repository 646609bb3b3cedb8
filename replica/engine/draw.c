/* draw.c - tokens that the back end draws: who may have them so, and the lists that a draw needs.
 *
 *   [T1] Whether the host or the device draws depends on the session's parameters alone, never on batch mates: the two round
 * differently. [T2] What is asked of the back end at once has lists of a bounded size; longer ones go in several calls. */
#include <string.h>

#include "base/mem.h"
#include "replica/engine/engine_int.h"

struct draws {
    struct weir_draw *draws;              /* [n_slots] of one call */
    char *lists;                          /* [list_bytes] what they point to, but for biases and bans */
    size_t list_bytes, n_used, n_counted; /* n_counted: these included */
    uint32_t n, n_words;                  /* n_words: of a mask */
};

static size_t rounded(size_t bytes)
{
    return (bytes + 7) & ~(size_t)7;
}

/* The longest lists of one draw. */
size_t draws_list_bytes(const struct weir_engine *eng)
{
    size_t n_vocab = eng->config.n_vocab;

    return rounded(n_vocab * sizeof(struct weir_seen)) + rounded(n_vocab * sizeof(struct weir_logit_bias)) +
           rounded((n_vocab + 31) / 32 * sizeof(uint32_t)) +
           rounded((size_t)eng->config.n_eos_ids * sizeof(int32_t));
}

weir_err draws_open(struct weir_engine *eng, struct weir_why *why)
{
    struct draws *d = weir_alloc0(sizeof *d);

    if (!d)
        return weir_fail(why, WEIR_NOMEM, "no memory to draw tokens");
    eng->draws = d;
    d->n_words = (eng->config.n_vocab + 31) / 32;
    d->list_bytes = draws_list_bytes(eng);
    d->draws = weir_calloc(eng->opts.n_slots, sizeof *d->draws);
    d->lists = weir_alloc(d->list_bytes);
    if (!d->draws || !d->lists)
        return weir_fail(why, WEIR_NOMEM, "no memory to draw tokens");
    return WEIR_OK;
}

void draws_close(struct draws *d)
{
    if (!d)
        return;
    weir_free(d->draws);
    weir_free(d->lists);
    weir_free(d);
}

/* [T1] */
enum draw_by draws_by(const struct weir_engine *eng, const struct weir_session_params *p)
{
    bool typical = p->typical_p > 0 && p->typical_p < 1;

    if (!eng->draws || p->mirostat_target > 0 || typical)
        return DRAW_HOST;
    if (p->constraints || adjust_repeats(p) || adjust_counts(p))
        return DRAW_DEVICE;
    return DRAW_AHEAD;
}

/* ---- one draw ---- */
static size_t bytes_needed(const struct weir_engine *eng, const struct seq *seq)
{
    const struct weir_session_params *p = &seq->session->params;
    size_t n_seen = seq->n_tokens < eng->config.n_vocab ? seq->n_tokens : eng->config.n_vocab, bytes = 0;

    if (adjust_repeats(p) || adjust_counts(p))
        bytes += rounded(n_seen * sizeof(struct weir_seen));
    if (p->constraints)
        bytes += rounded(eng->draws->n_words * sizeof(uint32_t));
    return bytes + rounded(p->n_logit_bias * sizeof *p->logit_bias) +
           rounded((size_t)eng->config.n_eos_ids * sizeof(int32_t));
}

static void *take(struct draws *d, size_t bytes)
{
    void *at = d->lists + d->n_used;

    d->n_used += rounded(bytes);
    return at;
}

static struct weir_draw plain_draw(const struct seq *seq, uint32_t i_row)
{
    const struct weir_session_params *p = &seq->session->params;

    return (struct weir_draw){ .temperature = p->temperature,
                               .top_p = p->top_p,
                               .min_p = p->min_p,
                               .top_k = p->top_k,
                               .repetition = adjust_repeats(p) ? p->repetition_penalty : 1,
                               .frequency = p->frequency_penalty,
                               .presence = p->presence_penalty,
                               .seed = p->seed,
                               .choice = seq->choice,
                               .position = seq->n_computed, /* whatever of it is known here */
                               .row = (int32_t)i_row,
                               .bias = p->logit_bias,
                               .n_bias = p->n_logit_bias,
                               .logprob = p->logprobs,
                               .n_tops = p->logprobs ? (uint32_t)p->n_top_logprobs : 0 };
}

static bool any(const uint32_t *mask, uint32_t n_words)
{
    uint32_t bits = 0;

    for (uint32_t i = 0; i < n_words; i++)
        bits |= mask[i];
    return bits != 0;
}

/* False: nothing may come. */
static bool add_draw(struct weir_engine *eng, const struct seq *seq, uint32_t i_row)
{
    struct draws *d = eng->draws;
    struct adjust_context ctx = outcome_context(eng, seq);
    struct weir_draw draw = plain_draw(seq, i_row);

    ctx.n_out = seq->n_computed - ctx.params->n_prompt; /* the one that is on its way included */
    if (adjust_too_early(&ctx)) {
        draw.bans = ctx.end_ids;
        draw.n_bans = (uint32_t)ctx.n_end_ids;
    }
    if (ctx.constraint) {
        uint32_t *mask = take(d, d->n_words * sizeof *mask);
        ctx.constraint->ops->mask(ctx.constraint->state, mask, eng->config.n_vocab);
        if (!any(mask, d->n_words))
            return false;
        draw.mask = mask;
    }
    if (adjust_repeats(ctx.params) || adjust_counts(ctx.params)) {
        struct weir_seen *seen = (struct weir_seen *)(d->lists + d->n_used);
        draw.n_seen = adjust_seen(&eng->adjust, &ctx, seen);
        draw.seen = take(d, draw.n_seen * sizeof *seen);
    }
    d->draws[d->n++] = draw;
    return true;
}

/* ---- calls ---- */
static weir_err flush(struct weir_engine *eng, uint32_t set, uint32_t *first, struct weir_why *why)
{
    struct draws *d = eng->draws;
    weir_err err = d->n ? parallel_draw(eng->model, set, *first, d->draws, d->n, why) : WEIR_OK;

    *first += d->n;
    d->n = 0;
    d->n_used = d->n_counted = 0;
    return err;
}

weir_err draws_launch(struct weir_engine *eng, uint32_t set, struct want *wants, uint32_t n, uint32_t *first,
                      struct weir_why *why)
{
    struct draws *d = eng->draws;

    for (uint32_t i = 0; d && i < n; i++) {
        struct seq *seq = wants[i].seq;
        wants[i].i_drawn = -1;
        if (!seq || wants[i].prompt_at >= 0 || seq->session->draw_by == DRAW_HOST)
            continue;
        size_t bytes = bytes_needed(eng, seq);
        if (d->n_counted + bytes > d->list_bytes) { /* [T2] */
            weir_err err = flush(eng, set, first, why);
            if (err != WEIR_OK)
                return err;
        }
        d->n_counted += bytes;
        if (add_draw(eng, seq, wants[i].i_row))
            wants[i].i_drawn = (int32_t)(*first + d->n - 1);
        else
            outcome_whole(eng, seq);
    }
    return d ? flush(eng, set, first, why) : WEIR_OK;
}
