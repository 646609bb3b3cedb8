/* cap.c - a hard bound of the tokens that a choice may reason for, and the grammar behind it.
 *
 *   [K1] Reasoning that has its tokens is ended by the marker's own tokens, and only they may come. [K2] A grammar
 * sees every token, those of the reasoning too: it waits for the marker by itself (struct weir_grammar_opts).
 *   [K3] What does not begin with the mark (and did not begin in the prompt) is not reasoning, and is not bounded.
 *
 * It has the shape of a grammar's state, so that the engine knows of one thing only. One thread at a time. */
#include <string.h>

#include "base/mem.h"
#include "replica/serve/serve_int.h"

struct cap_state {
    const struct weir_tokenizer *tok;
    const struct weir_think_marks *marks;
    struct weir_grammar_state *grammar; /* NULL: none; ours */
    struct weir_tokens end;             /* the marker's tokens; in the call's arena */
    enum { CAP_BEFORE, CAP_REASONING, CAP_ENDING, CAP_OVER } phase;
    uint32_t n_left, n_ended; /* tokens of reasoning; of the marker that was forced */
    char tail[64];            /* the last of the text: where a marker is looked for */
    size_t n_tail;
};

weir_err cap_prepare(struct weir_serve *serve, struct call *call)
{
    const struct weir_think_marks *marks = weir_think_marks_of(call->format.think);

    if (!call->msg->has_reasoning_tokens_case || !call->format.thinks)
        return WEIR_OK;
    char *text = weir_arena_printf(&call->arena, "%s%s", marks->end, marks->behind);
    if (!text)
        return weir_fail(&call->why, WEIR_NOMEM, "no memory for the bound of reasoning");
    return weir_tokenize(serve->opts.tokenizer, weir_str(text), /* parse_special= */ true,
                         /* add_bos= */ false, /* n_max= */ 64, &call->arena, &call->cap_end, &call->why);
}

weir_err cap_open(struct weir_serve *serve, struct call *call, struct weir_grammar_state *grammar,
                  struct cap_state **ret)
{
    struct cap_state *cap = weir_alloc0(sizeof *cap);

    if (!cap)
        return weir_fail(&call->why, WEIR_NOMEM, "no memory for the bound of reasoning");
    cap->tok = serve->opts.tokenizer;
    cap->marks = weir_think_marks_of(call->format.think);
    cap->grammar = grammar;
    cap->end = call->cap_end;
    cap->n_left = call->msg->reasoning_tokens;
    cap->phase = call->format.in_reasoning ? CAP_REASONING : CAP_BEFORE;
    *ret = cap;
    return WEIR_OK;
}

void cap_close(void *state)
{
    struct cap_state *cap = state;

    if (!cap)
        return;
    weir_grammar_state_close(cap->grammar);
    weir_free(cap);
}

void cap_mask(void *state, uint32_t *bits, uint32_t n_vocab)
{
    struct cap_state *cap = state;
    size_t n_bytes = (n_vocab + 31) / 32 * sizeof *bits;

    if (cap->phase == CAP_ENDING) { /* [K1] */
        uint32_t id = (uint32_t)cap->end.ids[cap->n_ended];
        memset(bits, 0, n_bytes);
        if (id < n_vocab)
            bits[id / 32] |= 1u << id % 32;
    } else if (cap->grammar) {
        weir_grammar_state_mask(cap->grammar, bits, n_vocab);
    } else {
        memset(bits, 0xff, n_bytes);
    }
}

/* Keeps the end of the text, and says whether a marker is in it now. */
static bool tail_has(struct cap_state *cap, struct weir_str bytes, const char *mark)
{
    size_t n_mark = strlen(mark);

    for (size_t i = 0; i < bytes.len; i++) {
        if (cap->n_tail == sizeof cap->tail) {
            memmove(cap->tail, cap->tail + 1, cap->n_tail - 1);
            cap->n_tail--;
        }
        cap->tail[cap->n_tail++] = bytes.ptr[i];
        if (cap->n_tail >= n_mark && memcmp(cap->tail + cap->n_tail - n_mark, mark, n_mark) == 0)
            return true;
    }
    return false;
}

/* White space, then the marker or a part of it. */
static bool may_begin(const struct cap_state *cap)
{
    size_t i = 0;

    while (i < cap->n_tail && strchr(" \t\r\n", cap->tail[i]))
        i++;
    size_t n = cap->n_tail - i;
    return n <= strlen(cap->marks->begin) && memcmp(cap->tail + i, cap->marks->begin, n) == 0;
}

static void follow(struct cap_state *cap, int32_t id)
{
    struct weir_str bytes = weir_token_bytes(cap->tok, id, /* with_special= */ true);

    switch (cap->phase) {
    case CAP_BEFORE:
        if (tail_has(cap, bytes, cap->marks->begin))
            cap->phase = CAP_REASONING;
        else if (!may_begin(cap))
            cap->phase = CAP_OVER; /* [K3] */
        break;
    case CAP_REASONING:
        if (tail_has(cap, bytes, cap->marks->end))
            cap->phase = CAP_OVER;
        else if (--cap->n_left == 0)
            cap->phase = cap->end.n > 0 ? CAP_ENDING : CAP_OVER;
        break;
    case CAP_ENDING:
        if (++cap->n_ended == cap->end.n)
            cap->phase = CAP_OVER;
        break;
    case CAP_OVER:
        break;
    }
}

bool cap_accept(void *state, int32_t id)
{
    struct cap_state *cap = state;

    follow(cap, id);
    return !cap->grammar || weir_grammar_state_accept(cap->grammar, id); /* [K2] */
}
