/* adjust.h - what a request asks for is done to the logits before a token is chosen: bias, penalties, bans.
 *
 * Order: bias, repetition, frequency and presence, then the bans (end tokens that come too early, and what a
 * constraint does not permit), which nothing undoes. Log-probabilities that are told are of the logits before. */
#ifndef WEIR_REPLICA_ENGINE_ADJUST_H
#define WEIR_REPLICA_ENGINE_ADJUST_H

#include "replica/engine/engine.h"

struct adjust {     /* scratch of one engine */
    float *logits;  /* [n_vocab] */
    uint32_t *bits; /* [(n_vocab + 31) / 32] */
    uint32_t *n_seen,
        *stamp; /* [n_vocab]: occurrences in the output, or a place in a list; the turn that they are of */
    uint32_t turn, n_vocab;
};

struct adjust_context {
    const struct weir_session_params *params;
    const int32_t *tokens; /* prompt and output */
    uint32_t n_tokens, n_out;
    const int32_t *end_ids;
    int n_end_ids;
    const struct weir_constraint *constraint; /* NULL: none */
};

WEIR_MUST_CHECK weir_err adjust_init(struct adjust *adjust, uint32_t n_vocab, struct weir_why *why);
void adjust_release(struct adjust *adjust); /* takes a zeroed one */
/* The logits to choose from: `logits` itself when nothing was asked for, else a changed copy in the scratch. */
const float *adjust_logits(struct adjust *adjust, const float *logits, const struct adjust_context *ctx);
/* The rules as lists, for a back end that draws: whether there is a repetition penalty, a count of any kind; the ids that these
 * are of, in `seen` [n_tokens, or n_vocab when that is less], and how many; whether the end tokens come too early. */
bool adjust_repeats(const struct weir_session_params *p);
bool adjust_counts(const struct weir_session_params *p);
uint32_t adjust_seen(struct adjust *adjust, const struct adjust_context *ctx, struct weir_seen *seen);
bool adjust_too_early(const struct adjust_context *ctx);

#endif
