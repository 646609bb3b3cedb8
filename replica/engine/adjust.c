/* adjust.c - see adjust.h.
 *
 *   [J1] The result depends on the logits, the request's own tokens and its parameters alone. [J2] A banned token
 * is -infinity, whatever its bias.
 * Cost: one copy of the logits, one walk over the tokens so far when there is a penalty. */
#include "replica/engine/adjust.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

weir_err adjust_init(struct adjust *a, uint32_t n_vocab, struct weir_why *why)
{
    a->n_vocab = n_vocab;
    a->logits = weir_calloc(n_vocab, sizeof *a->logits);
    a->bits = weir_calloc((n_vocab + 31) / 32, sizeof *a->bits);
    a->n_seen = weir_calloc(n_vocab, sizeof *a->n_seen);
    a->stamp = weir_calloc(n_vocab, sizeof *a->stamp);
    if (!a->logits || !a->bits || !a->n_seen || !a->stamp)
        return weir_fail(why, WEIR_NOMEM, "no memory to adjust logits");
    return WEIR_OK;
}

void adjust_release(struct adjust *a)
{
    weir_free(a->logits);
    weir_free(a->bits);
    weir_free(a->n_seen);
    weir_free(a->stamp);
    *a = (struct adjust){ 0 };
}

bool adjust_repeats(const struct weir_session_params *p)
{
    return p->repetition_penalty > 0 && p->repetition_penalty != 1;
}

bool adjust_counts(const struct weir_session_params *p)
{
    return p->frequency_penalty != 0 || p->presence_penalty != 0;
}

/* Each token is met once, however often it occurred. */
static void penalize(struct adjust *a, const struct adjust_context *ctx)
{
    const struct weir_session_params *p = ctx->params;
    uint32_t first = ctx->n_tokens - ctx->n_out; /* of the output */

    a->turn++;
    for (uint32_t i = 0; i < ctx->n_tokens; i++) {
        uint32_t id = (uint32_t)ctx->tokens[i];
        if (a->stamp[id] != a->turn) {
            a->stamp[id] = a->turn;
            a->n_seen[id] = 0;
            if (adjust_repeats(p))
                a->logits[id] = (float)(a->logits[id] > 0 ? a->logits[id] / p->repetition_penalty
                                                          : a->logits[id] * p->repetition_penalty);
        }
        if (i < first)
            continue;
        if (a->n_seen[id]++ == 0)
            a->logits[id] -= (float)p->presence_penalty;
        a->logits[id] -= (float)p->frequency_penalty;
    }
}

uint32_t adjust_seen(struct adjust *a, const struct adjust_context *ctx, struct weir_seen *seen)
{
    uint32_t first = ctx->n_tokens - ctx->n_out, n = 0;
    bool counts = adjust_counts(ctx->params);

    a->turn++;
    for (uint32_t i = adjust_repeats(ctx->params) ? 0 : first; i < ctx->n_tokens; i++) {
        uint32_t id = (uint32_t)ctx->tokens[i];
        if (a->stamp[id] != a->turn) {
            a->stamp[id] = a->turn;
            a->n_seen[id] = n;
            seen[n++] = (struct weir_seen){ (int32_t)id, 0 };
        }
        seen[a->n_seen[id]].n_out += counts && i >= first;
    }
    return n;
}

/* What is bound to a form ends when the form is whole. */
bool adjust_too_early(const struct adjust_context *ctx)
{
    return ctx->n_out < ctx->params->min_tokens && ctx->n_end_ids > 0 && !ctx->constraint;
}

static void ban_ends(struct adjust *a, const struct adjust_context *ctx)
{
    for (int i = 0; i < ctx->n_end_ids; i++)
        if (ctx->end_ids[i] >= 0 && (uint32_t)ctx->end_ids[i] < a->n_vocab)
            a->logits[ctx->end_ids[i]] = -INFINITY;
}

static void ban_by_constraint(struct adjust *a, const struct weir_constraint *c)
{
    c->ops->mask(c->state, a->bits, a->n_vocab);
    for (uint32_t word = 0; word < (a->n_vocab + 31) / 32; word++) {
        uint32_t bits = a->bits[word], n = a->n_vocab - word * 32;
        if (bits == UINT32_MAX)
            continue;
        for (uint32_t i = 0; i < 32 && i < n; i++)
            if (!(bits >> i & 1))
                a->logits[word * 32 + i] = -INFINITY; /* [J2] */
    }
}

const float *adjust_logits(struct adjust *a, const float *logits, const struct adjust_context *ctx)
{
    const struct weir_session_params *p = ctx->params;
    bool too_early = adjust_too_early(ctx);

    if (p->n_logit_bias == 0 && !adjust_repeats(p) && !adjust_counts(p) && !too_early && !ctx->constraint)
        return logits;
    memcpy(a->logits, logits, a->n_vocab * sizeof *logits);
    for (uint32_t i = 0; i < p->n_logit_bias; i++)
        a->logits[p->logit_bias[i].id] += p->logit_bias[i].bias;
    if (adjust_repeats(p) || adjust_counts(p))
        penalize(a, ctx);
    if (too_early)
        ban_ends(a, ctx);
    if (ctx->constraint)
        ban_by_constraint(a, ctx->constraint);
    return a->logits;
}
