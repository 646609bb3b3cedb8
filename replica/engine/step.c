/* step.c - a step: admit, fill, forward, draw, tell; and the next one launched before this one's tokens are known.
 *
 * Where the back end draws tokens (kernels.h: sample), a step in which every token is drawn there is left in flight: the call
 * returns, and the next call plans and launches its own step first - what decodes takes its id on the device, from the
 * flight's results - and then waits for the flight and tells of it. So the host's work is done while the device computes.
 * With somebody in the batch whose draw has lists that the flight's token belongs in (DRAW_DEVICE: penalties, constraints) the
 * forward and the head are launched ahead all the same, for they need no token here; the flight is waited for while the device
 * computes them, and then come the draws. A step with a token that the host draws (DRAW_HOST), or a log-probability of the
 * prompt, is not left in flight but told of in its own call: then everybody still gets a token in every step, and no
 * order of who waits for whom has to be kept.
 *
 *   [N1] A choice's tokens depend on its prompt, parameters, seed, choice and position alone: see kernels.h for the sums and
 *        sample.h for the randomness. Nothing here may look at batch mates when it decides what a token is; when a step is
 *        launched decides nothing either.
 *   [O1] At most one step is in flight when a step is planned, one without any token to draw included; and none when somebody is
 *        suspended.
 *   [O2] A sequence that ends by a token of the flight has a row in the step behind it, which was launched already: that row's
 *        token is discarded, or not even drawn (step_forget). Its pages may be another's at once: whoever takes one writes to
 *        it in a later step, and the back end runs steps in order.
 *   [O3] Only pages of tokens that are known here are published; and they are as soon as that, as the next token may end it.
 * Threads: the step thread. */
#include "base/clock.h"
#include "replica/engine/engine_int.h"

/* ---- pages ---- */
/* The prompt is computed: the other choices share its full pages and get a copy of the last, half-full one. */
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
}

/* Full pages get their names, so that the next request with this prefix finds them. */
static void publish(struct weir_engine *eng, struct seq *seq)
{
    const struct weir_session_params *p = &seq->session->params;
    uint32_t n_known = seq->n_computed < seq->n_tokens ? seq->n_computed : seq->n_tokens; /* [O3] */

    if (p->has_cache_max && p->cache_max == 0)
        return;
    while ((seq->n_named + 1) * WEIR_KV_BLOCK <= n_known) {
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

/* ---- running ---- */
/* Those whose prompts, or what they had said before, are computed: from here on they decode. */
static void begin_decoding(struct weir_engine *eng)
{
    for (uint32_t i = 0; i < eng->n_wants; i++) {
        struct seq *seq = eng->wants[i].seq;
        if (eng->wants[i].prompt_at >= 0)
            continue;
        if (seq->state == SEQ_IDLE)
            fork(eng, &seq->session->seqs[0], seq);
        seq->state = SEQ_DECODE;
    }
}

static weir_err forward(struct weir_engine *eng, struct weir_why *why)
{
    struct weir_batch batch = { .n_tok = eng->n_tok,
                                .ids = eng->ids,
                                .pos = eng->pos,
                                .seq = eng->seq,
                                .table = eng->table,
                                .n_seq = eng->opts.n_slots,
                                .n_block_max = eng->n_page_max,
                                .drawn = eng->takes_drawn ? eng->drawn : NULL };
    weir_err err = parallel_forward(eng->model, &batch, why);

    if (err != WEIR_OK)
        return err;
    publish_all(eng); /* before sampling: a sequence that ends here leaves its pages to the cache */
    begin_decoding(eng);
    return WEIR_OK;
}

/* One pass through the head for as many of the wants from `begin` on as it takes; *n: so many. Choices of one prompt share a
 * row. */
static weir_err head(struct weir_engine *eng, uint32_t begin, uint32_t *n, struct weir_why *why)
{
    struct want *wants = eng->wants + begin;
    uint32_t n_left = eng->n_wants - begin, n_rows = 0, i = 0;

    for (; i < n_left; i++) {
        bool same = i > 0 && wants[i].row == wants[i - 1].row;
        if (!same && n_rows == eng->n_rows_max)
            break;
        if (!same)
            eng->rows[n_rows++] = wants[i].row;
        wants[i].i_row = n_rows - 1;
    }
    *n = i;
    return parallel_head(eng->model, eng->rows, n_rows, why);
}

/* ---- a step told of at once ---- */
static weir_err tell(struct weir_engine *eng, const struct want *want, const struct weir_drawn *drawn,
                     struct weir_why *why)
{
    const float *logits = NULL;

    if (!want->seq)
        return WEIR_OK;
    if (want->i_drawn >= 0) {
        outcome_drawn(eng, want->seq, &drawn[want->i_drawn]);
        return WEIR_OK;
    }
    weir_err err = parallel_row(eng->model, want->i_row, &logits, why);
    if (err != WEIR_OK)
        return err;
    if (want->prompt_at >= 0)
        outcome_prompt(eng, want->seq, want->prompt_at, logits);
    else
        outcome_logits(eng, want->seq, logits);
    return WEIR_OK;
}

static weir_err draw_now(struct weir_engine *eng, struct weir_why *why)
{
    weir_err err = WEIR_OK;

    for (uint32_t begin = 0, n = 0; err == WEIR_OK && begin < eng->n_wants; begin += n) {
        const struct weir_drawn *drawn = NULL;
        uint32_t n_drawn = 0;
        err = head(eng, begin, &n, why);
        if (err == WEIR_OK)
            err = draws_launch(eng, eng->flight.set, eng->wants + begin, n, &n_drawn, why);
        if (err == WEIR_OK && n_drawn > 0)
            err = parallel_drawn(eng->model, eng->flight.set, &drawn, why);
        for (uint32_t i = 0; err == WEIR_OK && i < n; i++)
            err = tell(eng, &eng->wants[begin + i], drawn, why);
    }
    eng->n_wants = 0;
    return err;
}

/* ---- a step left in flight ---- */
static bool may_fly(const struct weir_engine *eng)
{
    if (!eng->draws || eng->opts.no_run_ahead)
        return false;
    for (uint32_t i = 0; i < eng->n_wants; i++)
        if (eng->wants[i].prompt_at >= 0 || eng->wants[i].seq->session->draw_by == DRAW_HOST)
            return false;
    return true;
}

/* A token of the flight belongs in the lists of somebody's draw. */
static bool lists_await(const struct weir_engine *eng)
{
    for (uint32_t i = 0; i < eng->n_wants; i++)
        if (eng->wants[i].seq->i_drawn >= 0 && eng->wants[i].seq->session->draw_by == DRAW_DEVICE)
            return true;
    return false;
}

/* Into the other set, behind the head's first pass, of n wants. */
static weir_err draw_ahead(struct weir_engine *eng, uint32_t n, struct weir_why *why)
{
    uint32_t n_drawn = 0;
    weir_err err = WEIR_OK;

    for (uint32_t begin = 0; err == WEIR_OK && begin < eng->n_wants; begin += n) {
        if (begin > 0)
            err = head(eng, begin, &n, why);
        if (err == WEIR_OK)
            err = draws_launch(eng, !eng->flight.set, eng->wants + begin, n, &n_drawn, why);
    }
    if (err == WEIR_OK && n_drawn == 0) /* a piece of a prompt, or all have ended: something to wait for */
        err = parallel_draw(eng->model, !eng->flight.set, /* first= */ 0, NULL, /* n= */ 0, why);
    return err;
}

/* Waits for the flight's tokens, and tells of them. */
static weir_err land(struct weir_engine *eng, struct weir_engine_step *ret, struct weir_why *why)
{
    struct flight *f = &eng->flight;
    const struct weir_drawn *drawn = NULL;

    if (!f->flies)
        return WEIR_OK;
    weir_err err = parallel_drawn(eng->model, f->set, &drawn, why);
    for (uint32_t i = 0; err == WEIR_OK && i < f->n_wants; i++) {
        struct seq *seq = f->wants[i].seq;
        if (!seq)
            continue;
        seq->i_drawn = -1;
        outcome_drawn(eng, seq, &drawn[f->wants[i].i_drawn]);
        if (seq->state == SEQ_DECODE)
            publish(eng, seq); /* [O3] */
    }
    ret->n_prefill += f->n_prefill;
    ret->n_decode += f->n_decode;
    f->flies = false;
    f->n_wants = 0;
    return err;
}

/* The step just launched takes the place of the one that has landed. */
static void take_off(struct weir_engine *eng)
{
    struct flight *f = &eng->flight;
    struct want *landed = f->wants;

    WEIR_BUG_ON(f->flies); /* [O1] */
    *f = (struct flight){ .wants = eng->wants,
                          .n_wants = eng->n_wants,
                          .set = !f->set,
                          .flies = true,
                          .n_prefill = eng->n_prefill,
                          .n_decode = eng->n_decode };
    eng->wants = landed;
    eng->n_wants = 0;
    for (uint32_t i = 0; i < f->n_wants; i++)
        if (f->wants[i].seq)
            f->wants[i].seq->i_drawn = f->wants[i].i_drawn;
}

/* What is behind the forward that was just launched, and the flight's tokens, which are waited for as late as may be. */
static weir_err fly(struct weir_engine *eng, struct weir_engine_step *ret, struct weir_why *why)
{
    bool lands_first = lists_await(eng);
    uint32_t n = 0;
    weir_err err = eng->n_wants > 0 ? head(eng, /* begin= */ 0, &n, why) : WEIR_OK;

    if (err == WEIR_OK && lands_first)
        err = land(eng, ret, why);
    if (err == WEIR_OK)
        err = draw_ahead(eng, n, why);
    if (err == WEIR_OK && !lands_first)
        err = land(eng, ret, why);
    if (err == WEIR_OK)
        take_off(eng);
    return err;
}

/* [O2] */
void step_forget(struct weir_engine *eng, const struct seq *seq)
{
    for (uint32_t i = 0; i < eng->n_wants; i++)
        if (eng->wants[i].seq == seq)
            eng->wants[i].seq = NULL;
    for (uint32_t i = 0; i < eng->flight.n_wants; i++)
        if (eng->flight.wants[i].seq == seq)
            eng->flight.wants[i].seq = NULL;
}

/* ---- a step ---- */
/* From one step's beginning to the next, when it computed prompts and there was no pause. */
static void note_rate(struct weir_engine *eng, uint64_t now_ns)
{
    const double weight = 1.0 / 8; /* of the newest */

    if (eng->step_ns == 0 || eng->step_prefill == 0 || now_ns <= eng->step_ns)
        return;
    double rate = eng->step_prefill * 1e9 / (double)(now_ns - eng->step_ns);
    eng->prefill_tokens_s += (rate - eng->prefill_tokens_s) * (eng->prefill_tokens_s > 0 ? weight : 1);
}

static weir_err plan(struct weir_engine *eng, uint64_t now_ns, struct weir_engine_step *ret,
                     struct weir_why *why)
{
    weir_err err = WEIR_OK;

    admit_all(eng, now_ns);
    if (suspend_is_due(eng)) /* [O1] */
        err = land(eng, ret, why);
    if (err == WEIR_OK)
        sched_fill(eng, now_ns);
    return err;
}

static weir_err run(struct weir_engine *eng, struct weir_engine_step *ret, struct weir_why *why)
{
    weir_err err = eng->n_tok > 0 ? forward(eng, why) : WEIR_OK;

    if (err == WEIR_OK && eng->n_tok > 0 && may_fly(eng))
        return fly(eng, ret, why);
    if (err == WEIR_OK)
        err = land(eng, ret, why);
    ret->n_prefill += eng->n_prefill;
    ret->n_decode += eng->n_decode;
    return err == WEIR_OK ? draw_now(eng, why) : err;
}

weir_err weir_engine_step(struct weir_engine *eng, uint64_t now_ns, struct weir_engine_step *ret,
                          struct weir_why *why)
{
    *ret = (struct weir_engine_step){ 0 };
    if (eng->failed != WEIR_OK)
        return weir_fail(why, eng->failed, "the engine failed before");
    eng->n_events = eng->n_tops = 0;
    note_rate(eng, now_ns);
    eng->failed = plan(eng, now_ns, ret, why);
    if (eng->failed == WEIR_OK)
        eng->failed = run(eng, ret, why);
    if (eng->failed != WEIR_OK)
        return eng->failed;
    eng->step_prefill = ret->n_prefill;
    eng->step_ns = weir_engine_has_work(eng) ? now_ns : 0;
    ret->events = eng->events;
    ret->n_events = (int)eng->n_events;
    return WEIR_OK;
}
