/* tok_pre.c - the pre-tokenizer: where a text is cut before it is encoded.
 *
 * A chain of steps; each cuts its slice and hands the parts on at once, so that nothing is listed and a text
 * with too many tokens stops early. Steps that change the text (Metaspace, a space in front) write it to a
 * buffer of their own. Source: the behaviour of the `tokenizers` package. */
#include "replica/text/tok_int.h"

#include <string.h>

/* ---- running ---- */

static bool hand_on(struct tok_run *run, uint32_t i_step, struct weir_str slice, size_t start, size_t end,
                    bool is_first)
{
    if (start == end)
        return true;
    return tok_pre(run, i_step + 1, (struct weir_str){ slice.ptr + start, end - start },
                   is_first && start == 0);
}

/* Joins segments as the behaviour says. A segment waits until it is known what comes after it. */
struct joiner {
    struct tok_run *run;
    uint32_t i_step;
    struct weir_str slice;
    bool is_first;
    enum tok_behavior behavior;
    size_t start, end; /* the one that waits */
    bool waits, was_match;
};

static bool join_flush(struct joiner *j)
{
    bool ok = !j->waits || hand_on(j->run, j->i_step, j->slice, j->start, j->end, j->is_first);

    j->waits = false;
    return ok;
}

static bool join_add(struct joiner *j, size_t start, size_t end, bool match)
{
    bool extend = false;

    switch (j->behavior) {
    case TOK_REMOVED:
        return match || hand_on(j->run, j->i_step, j->slice, start, end, j->is_first);
    case TOK_ISOLATED:
        return hand_on(j->run, j->i_step, j->slice, start, end, j->is_first);
    case TOK_CONTIGUOUS:
        extend = j->waits && match == j->was_match;
        break;
    case TOK_MERGED_PREVIOUS:
        extend = j->waits && match && !j->was_match;
        break;
    case TOK_MERGED_NEXT:
        extend = j->waits && j->was_match && !match;
        break;
    }
    if (!extend && !join_flush(j))
        return false;
    if (!extend)
        j->start = start;
    j->end = end;
    j->waits = true;
    j->was_match = match;
    return true;
}

static bool split_matches(struct tok_run *run, uint32_t i_step, struct weir_str slice, bool is_first,
                          struct weir_str literal, enum tok_behavior behavior)
{
    const struct tok_pre_step *step = &run->tok->pre[i_step];
    struct tok_matcher matcher = { .re = step->re, .literal = literal };
    struct joiner join = { run, i_step, slice, is_first, behavior, 0, 0, false, false };
    size_t prev = 0, start, end;
    int found;

    while ((found = tok_match_next(&matcher, &run->match_data, slice, &start, &end)) == 1) {
        if (start > prev && !join_add(&join, prev, start, step->invert))
            return false;
        if (!join_add(&join, start, end, !step->invert))
            return false;
        prev = end;
    }
    if (found < 0)
        return tok_fail(run, WEIR_TOOLARGE, "the text is too much for the tokenizer's pattern");
    if (prev < slice.len && !join_add(&join, prev, slice.len, step->invert))
        return false;
    return join_flush(&join);
}

static bool split_class(struct tok_run *run, uint32_t i_step, struct weir_str slice, bool is_first)
{
    const struct tok_pre_step *step = &run->tok->pre[i_step];
    struct joiner join = { run, i_step, slice, is_first, step->behavior, 0, 0, false, false };
    size_t rest = 0; /* start of the characters outside the class */

    for (size_t i = 0; i < slice.len;) {
        uint32_t c;
        size_t n = tok_char(slice.ptr + i, &c);
        if (step->in_class(c)) {
            if ((i > rest && !join_add(&join, rest, i, false)) || !join_add(&join, i, i + n, true))
                return false;
            rest = i + n;
        }
        i += n;
    }
    if (rest < slice.len && !join_add(&join, rest, slice.len, false))
        return false;
    return join_flush(&join);
}

static bool begins_with(struct weir_str text, struct weir_str prefix)
{
    return text.len >= prefix.len && memcmp(text.ptr, prefix.ptr, prefix.len) == 0;
}

static bool run_metaspace(struct tok_run *run, uint32_t i_step, struct weir_str slice, bool is_first)
{
    const struct tok_pre_step *step = &run->tok->pre[i_step];
    struct weir_buf *out = &run->step_buf[i_step];
    bool wanted = step->prepend == TOK_PREPEND_ALWAYS || (step->prepend == TOK_PREPEND_FIRST && is_first);

    weir_buf_clear(out);
    if (wanted && slice.ptr[0] != ' ' && !begins_with(slice, step->literal))
        weir_buf_add(out, step->literal.ptr, step->literal.len);
    for (size_t i = 0; i < slice.len;) {
        const char *space = memchr(slice.ptr + i, ' ', slice.len - i);
        size_t n = space ? (size_t)(space - slice.ptr) - i : slice.len - i;
        weir_buf_add(out, slice.ptr + i, n);
        if (space)
            weir_buf_add(out, step->literal.ptr, step->literal.len);
        i += n + 1;
    }
    if (out->failed)
        return tok_fail(run, WEIR_TOOLARGE, "the pre-tokenized text is too long");
    struct weir_str text = { weir_buf_ptr(out), weir_buf_len(out) };
    if (step->behavior == TOK_ISOLATED) /* "split": false */
        return tok_pre(run, i_step + 1, text, is_first);
    return split_matches(run, i_step, text, is_first, step->literal, TOK_MERGED_NEXT);
}

static bool run_add_space(struct tok_run *run, uint32_t i_step, struct weir_str slice, bool is_first)
{
    struct weir_buf *out = &run->step_buf[i_step];

    if (slice.ptr[0] == ' ')
        return tok_pre(run, i_step + 1, slice, is_first);
    weir_buf_clear(out);
    weir_buf_addc(out, ' ');
    weir_buf_add(out, slice.ptr, slice.len);
    if (out->failed)
        return tok_fail(run, WEIR_TOOLARGE, "the pre-tokenized text is too long");
    return tok_pre(run, i_step + 1, (struct weir_str){ weir_buf_ptr(out), weir_buf_len(out) }, is_first);
}

bool tok_pre(struct tok_run *run, uint32_t i_step, struct weir_str slice, bool is_first)
{
    if (slice.len == 0)
        return true;
    if (i_step == run->tok->n_pre)
        return tok_bpe(run, slice);
    const struct tok_pre_step *step = &run->tok->pre[i_step];
    switch (step->kind) {
    case TOK_PRE_SPLIT:
        return split_matches(run, i_step, slice, is_first, step->literal, step->behavior);
    case TOK_PRE_CLASS:
        return split_class(run, i_step, slice, is_first);
    case TOK_PRE_METASPACE:
        return run_metaspace(run, i_step, slice, is_first);
    case TOK_PRE_ADD_SPACE:
        return run_add_space(run, i_step, slice, is_first);
    }
    return false;
}

/* ---- loading ---- */

static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/* Here \w takes the join controls in as well. */
#define WORD_CLASS TOK_WORD_CLASS "\\x{200c}\\x{200d}"
static const char word_pattern[] = "[" WORD_CLASS "]+|[^" WORD_CLASS "\\s]+";

static weir_err add_step(struct tok_load *ld, struct tok_pre_step step)
{
    struct weir_tokenizer *tok = ld->tok;

    if (tok->n_pre == TOK_STEPS_MAX) {
        tok_regex_close(step.re);
        return weir_fail(ld->why, WEIR_TOOLARGE, "pre_tokenizer: more than %d steps", TOK_STEPS_MAX);
    }
    tok->pre[tok->n_pre++] = step;
    return WEIR_OK;
}

static weir_err get_behavior(struct tok_load *ld, struct weir_str obj, enum tok_behavior *ret)
{
    static const char *const names[] = { [TOK_REMOVED] = "Removed",
                                         [TOK_ISOLATED] = "Isolated",
                                         [TOK_MERGED_PREVIOUS] = "MergedWithPrevious",
                                         [TOK_MERGED_NEXT] = "MergedWithNext",
                                         [TOK_CONTIGUOUS] = "Contiguous" };
    struct weir_str name = { 0 };
    weir_err err = tok_get_str(ld, obj, "behavior", &name);

    if (err != WEIR_OK || !name.ptr)
        return err;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (weir_str_eq(name, names[i])) {
            *ret = (enum tok_behavior)i;
            return WEIR_OK;
        }
    }
    return tok_unknown(ld, "pre_tokenizer.behavior", name);
}

static weir_err load_split(struct tok_load *ld, struct weir_str obj)
{
    struct tok_pre_step step = { .kind = TOK_PRE_SPLIT, .behavior = TOK_ISOLATED };
    weir_err err = get_behavior(ld, obj, &step.behavior);

    if (err == WEIR_OK)
        err = tok_get_bool(ld, obj, "invert", &step.invert);
    if (err == WEIR_OK)
        err = tok_get_pattern(ld, obj, &step.re, &step.literal);
    return err == WEIR_OK ? add_step(ld, step) : err;
}

static weir_err load_regex(struct tok_load *ld, const char *pattern, enum tok_behavior behavior, bool invert)
{
    struct tok_pre_step step = { .kind = TOK_PRE_SPLIT, .behavior = behavior, .invert = invert };
    weir_err err = tok_regex_open(weir_str(pattern), &step.re, ld->why);

    return err == WEIR_OK ? add_step(ld, step) : err;
}

static weir_err load_byte_level(struct tok_load *ld, struct weir_str obj)
{
    bool add_prefix_space = true, use_regex = true;
    weir_err err = tok_get_bool(ld, obj, "add_prefix_space", &add_prefix_space);

    if (err == WEIR_OK)
        err = tok_get_bool(ld, obj, "use_regex", &use_regex);
    if (err == WEIR_OK && add_prefix_space)
        err = add_step(ld, (struct tok_pre_step){ .kind = TOK_PRE_ADD_SPACE });
    if (err == WEIR_OK && use_regex)
        err = load_regex(ld, gpt2_pattern, TOK_ISOLATED, /* invert= */ false);
    ld->tok->byte_level = true;
    return err;
}

static weir_err load_class(struct tok_load *ld, bool (*in_class)(uint32_t), enum tok_behavior behavior)
{
    return add_step(
        ld, (struct tok_pre_step){ .kind = TOK_PRE_CLASS, .behavior = behavior, .in_class = in_class });
}

static weir_err load_digits(struct tok_load *ld, struct weir_str obj)
{
    bool individual = false;
    weir_err err = tok_get_bool(ld, obj, "individual_digits", &individual);

    return err == WEIR_OK ? load_class(ld, tok_is_numeric, individual ? TOK_ISOLATED : TOK_CONTIGUOUS) : err;
}

static weir_err load_punctuation(struct tok_load *ld, struct weir_str obj)
{
    enum tok_behavior behavior = TOK_ISOLATED;
    weir_err err = get_behavior(ld, obj, &behavior);

    return err == WEIR_OK ? load_class(ld, tok_is_punct, behavior) : err;
}

static weir_err get_prepend(struct tok_load *ld, struct weir_str obj, enum tok_prepend *ret)
{
    struct weir_str scheme = { 0 };
    bool add_prefix_space = true; /* what older files say */
    weir_err err = tok_get_bool(ld, obj, "add_prefix_space", &add_prefix_space);

    if (err == WEIR_OK)
        err = tok_get_str(ld, obj, "prepend_scheme", &scheme);
    if (err != WEIR_OK)
        return err;
    if (!scheme.ptr)
        *ret = add_prefix_space ? TOK_PREPEND_ALWAYS : TOK_PREPEND_NEVER;
    else if (weir_str_eq(scheme, "always"))
        *ret = TOK_PREPEND_ALWAYS;
    else if (weir_str_eq(scheme, "first"))
        *ret = TOK_PREPEND_FIRST;
    else if (weir_str_eq(scheme, "never"))
        *ret = TOK_PREPEND_NEVER;
    else
        return tok_unknown(ld, "pre_tokenizer.prepend_scheme", scheme);
    return WEIR_OK;
}

static weir_err load_metaspace(struct tok_load *ld, struct weir_str obj)
{
    struct tok_pre_step step = { .kind = TOK_PRE_METASPACE, .literal = WEIR_STR("\xe2\x96\x81") };
    bool split = true;
    weir_err err = get_prepend(ld, obj, &step.prepend);

    if (err == WEIR_OK)
        err = tok_get_bool(ld, obj, "split", &split);
    if (err == WEIR_OK)
        err = tok_get_str(ld, obj, "replacement", &step.literal);
    if (err == WEIR_OK && step.literal.len == 0)
        err = weir_fail(ld->why, WEIR_CORRUPT, "pre_tokenizer.replacement is empty");
    if (err == WEIR_OK)
        err = tok_keep(ld, step.literal, &step.literal);
    step.behavior = split ? TOK_MERGED_NEXT : TOK_ISOLATED;
    return err == WEIR_OK ? add_step(ld, step) : err;
}

static weir_err load_delimiter(struct tok_load *ld, struct weir_str obj)
{
    struct tok_pre_step step = { .kind = TOK_PRE_SPLIT, .behavior = TOK_REMOVED };
    weir_err err = tok_get_str(ld, obj, "delimiter", &step.literal);

    if (err == WEIR_OK)
        err = tok_keep(ld, step.literal, &step.literal);
    return err == WEIR_OK ? add_step(ld, step) : err;
}

weir_err tok_load_pre(struct tok_load *ld, struct weir_str obj, int depth)
{
    struct weir_str kind = { 0 };
    weir_err err = tok_get_str(ld, obj, "type", &kind);

    if (err != WEIR_OK)
        return err;
    if (ld->tok->byte_level) /* later steps would see the byte alphabet */
        return tok_unknown(ld, "pre_tokenizer: a step behind ByteLevel,", kind);
    if (weir_str_eq(kind, "Sequence"))
        return tok_each_of(ld, obj, "pretokenizers", depth, tok_load_pre);
    if (weir_str_eq(kind, "ByteLevel"))
        return load_byte_level(ld, obj);
    if (weir_str_eq(kind, "Split"))
        return load_split(ld, obj);
    if (weir_str_eq(kind, "Digits"))
        return load_digits(ld, obj);
    if (weir_str_eq(kind, "Metaspace"))
        return load_metaspace(ld, obj);
    if (weir_str_eq(kind, "Punctuation"))
        return load_punctuation(ld, obj);
    if (weir_str_eq(kind, "Whitespace"))
        return load_regex(ld, word_pattern, TOK_REMOVED, /* invert= */ true);
    if (weir_str_eq(kind, "WhitespaceSplit"))
        return load_class(ld, tok_is_space, TOK_REMOVED);
    if (weir_str_eq(kind, "CharDelimiterSplit"))
        return load_delimiter(ld, obj);
    if (weir_str_eq(kind, "BertPreTokenizer")) {
        err = load_class(ld, tok_is_space, TOK_REMOVED);
        return err == WEIR_OK ? load_class(ld, tok_is_punct, TOK_ISOLATED) : err;
    }
    return tok_unknown(ld, "pre_tokenizer", kind);
}
