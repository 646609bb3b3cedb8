/* tok_norm.c - the normalizer: text before it is cut.
 *
 * Unicode forms: decompose by utf8proc's tables, order the marks, compose. The ordering is ours, because
 * utf8proc's is quadratic in a run of marks, and a user can send a megabyte of them. [U1] Marks are ordered
 * by a stable counting sort: linear in the run. Most text is in form C already, and is passed on as it is. */
#include "replica/text/tok_int.h"

#include <string.h>

#include <utf8proc.h>

#include "base/mem.h"
#include "base/utf8.h"

/* ---- Unicode forms ---- */

struct chars {
    int32_t *at;
    size_t n, cap;
};

static bool chars_reserve(struct chars *c, size_t n_more)
{
    if (c->n + n_more <= c->cap)
        return true;
    size_t cap = 2 * c->cap + n_more + 64;
    int32_t *at = weir_realloc(c->at, cap * sizeof *at);
    if (!at)
        return false;
    c->at = at;
    c->cap = cap;
    return true;
}

static bool decompose(struct weir_str text, bool compat, struct chars *ret)
{
    const utf8proc_option_t options = compat ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE;

    for (size_t i = 0; i < text.len;) {
        uint32_t c;
        int boundary = 0;
        i += tok_char(text.ptr + i, &c);
        if (!chars_reserve(ret, 32)) /* the longest decomposition has 18 */
            return false;
        utf8proc_ssize_t n =
            utf8proc_decompose_char((utf8proc_int32_t)c, ret->at + ret->n, 32, options, &boundary);
        if (n < 0 || n > 32)
            return false;
        ret->n += (size_t)n;
    }
    return true;
}

/* [U1] One run of marks, combining class in [1, 255]. */
static void sort_run(int32_t *run, size_t n, int32_t *scratch)
{
    uint32_t start[257] = { 0 };

    for (size_t i = 0; i < n; i++)
        start[utf8proc_get_property(run[i])->combining_class + 1]++;
    for (size_t k = 1; k < 257; k++)
        start[k] += start[k - 1];
    for (size_t i = 0; i < n; i++)
        scratch[start[utf8proc_get_property(run[i])->combining_class]++] = run[i];
    memcpy(run, scratch, n * sizeof *run);
}

/* Short runs, which is all of them in text that people write. */
static void insert_run(int32_t *run, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        int32_t c = run[i];
        size_t k = i;
        for (; k > 0 &&
               utf8proc_get_property(run[k - 1])->combining_class > utf8proc_get_property(c)->combining_class;
             k--)
            run[k] = run[k - 1];
        run[k] = c;
    }
}

static bool order_marks(struct chars *c)
{
    enum { INSERT_MAX = 16 };
    int32_t *scratch = NULL;

    for (size_t i = 0; i < c->n;) {
        size_t end = i;
        while (end < c->n && utf8proc_get_property(c->at[end])->combining_class != 0)
            end++;
        if (end - i > INSERT_MAX) {
            if (!scratch)
                scratch = weir_alloc(c->n * sizeof *scratch);
            if (!scratch)
                return false;
            sort_run(c->at + i, end - i, scratch);
        } else if (end - i > 1) {
            insert_run(c->at + i, end - i);
        }
        i = end + 1;
    }
    weir_free(scratch);
    return true;
}

static bool put_chars(const struct chars *c, struct weir_buf *out)
{
    for (size_t i = 0; i < c->n; i++) {
        char *room = weir_buf_reserve(out, 4);
        if (!room)
            return false;
        weir_buf_commit(out, weir_utf8_put((uint32_t)c->at[i], room));
    }
    return true;
}

static bool unicode_form(struct weir_str text, bool compat, bool composed, struct weir_buf *out)
{
    struct chars c = { 0 };
    bool ok = decompose(text, compat, &c) && order_marks(&c);

    if (ok && composed) {
        utf8proc_ssize_t n =
            utf8proc_normalize_utf32(c.at, (utf8proc_ssize_t)c.n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        ok = n >= 0;
        c.n = ok ? (size_t)n : 0;
    }
    ok = ok && put_chars(&c, out);
    weir_free(c.at);
    return ok;
}

/* Below U+0300 everything is in form C, below U+0080 in every form. */
static bool is_plain(struct weir_str text, bool form_c)
{
    const unsigned char limit = form_c ? 0xcc : 0x80; /* 0xcc begins U+0300 */

    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] >= limit)
            return false;
    return true;
}

/* ---- the other steps ---- */

static void lowercase(struct weir_str text, struct weir_buf *out)
{
    for (size_t i = 0; i < text.len;) {
        uint32_t c;
        i += tok_char(text.ptr + i, &c);
        char *room = weir_buf_reserve(out, 4);
        if (!room)
            return;
        if (c == 0x130) { /* the one letter whose small form is two characters */
            weir_buf_add(out, "i\xcc\x87", 3);
            continue;
        }
        weir_buf_commit(out, weir_utf8_put((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), room));
    }
}

static struct weir_str strip(struct weir_str text, bool left, bool right)
{
    uint32_t c;

    while (left && text.len > 0) {
        size_t n = tok_char(text.ptr, &c);
        if (!tok_is_space(c))
            break;
        text.ptr += n;
        text.len -= n;
    }
    while (right && text.len > 0) {
        size_t start = text.len - 1;
        while ((text.ptr[start] & 0xc0) == 0x80)
            start--;
        tok_char(text.ptr + start, &c);
        if (!tok_is_space(c))
            break;
        text.len = start;
    }
    return text;
}

static bool replace(struct tok_run *run, const struct tok_norm_step *step, struct weir_str text,
                    struct weir_buf *out)
{
    struct tok_matcher matcher = { .re = step->re, .literal = step->pattern };
    size_t prev = 0, start, end;
    int found;

    if (text.len == 0)
        text.ptr = ""; /* a step before may have left nothing, in a buffer that was never used */
    while ((found = tok_match_next(&matcher, &run->match_data, text, &start, &end)) == 1) {
        weir_buf_add(out, text.ptr + prev, start - prev);
        weir_buf_add(out, step->content.ptr, step->content.len);
        prev = end;
        if (out->failed)
            break;
    }
    weir_buf_add(out, text.ptr + prev, text.len - prev);
    return found >= 0 || tok_fail(run, WEIR_TOOLARGE, "the text is too much for the tokenizer's pattern");
}

/* One step; *ret is `text`, a part of it, or in `out`. */
static bool normalize_step(struct tok_run *run, const struct tok_norm_step *step, struct weir_str text,
                           struct weir_buf *out, struct weir_str *ret)
{
    bool compat = step->kind == TOK_NORM_NFKC || step->kind == TOK_NORM_NFKD;
    bool composed = step->kind == TOK_NORM_NFC || step->kind == TOK_NORM_NFKC;
    bool ok = true;

    *ret = text;
    weir_buf_clear(out);
    switch (step->kind) {
    case TOK_NORM_NFC:
    case TOK_NORM_NFD:
    case TOK_NORM_NFKC:
    case TOK_NORM_NFKD:
        if (is_plain(text, step->kind == TOK_NORM_NFC))
            return true;
        ok = unicode_form(text, compat, composed, out);
        break;
    case TOK_NORM_LOWERCASE:
        lowercase(text, out);
        break;
    case TOK_NORM_STRIP:
        *ret = strip(text, step->left, step->right);
        return true;
    case TOK_NORM_PREPEND:
        if (text.len == 0)
            return true;
        weir_buf_add(out, step->content.ptr, step->content.len);
        weir_buf_add(out, text.ptr, text.len);
        break;
    case TOK_NORM_REPLACE:
        ok = replace(run, step, text, out);
        break;
    }
    *ret = (struct weir_str){ weir_buf_ptr(out), weir_buf_len(out) };
    if (run->err != WEIR_OK)
        return false;
    return (ok && !out->failed) || tok_fail(run, WEIR_TOOLARGE, "the normalized text is too long");
}

bool tok_normalize(struct tok_run *run, struct weir_str text, struct weir_str *ret)
{
    uint32_t i_buf = 0;

    for (uint32_t i = 0; i < run->tok->n_norm; i++) {
        struct weir_str next;
        if (!normalize_step(run, &run->tok->norm[i], text, &run->norm_buf[i_buf], &next))
            return false;
        if (next.ptr == weir_buf_ptr(&run->norm_buf[i_buf]))
            i_buf ^= 1; /* the next step reads this one */
        text = next;
    }
    *ret = text;
    return true;
}

/* ---- loading ---- */

static weir_err add_step(struct tok_load *ld, struct tok_norm_step step)
{
    struct weir_tokenizer *tok = ld->tok;

    if (tok->n_norm == TOK_STEPS_MAX) {
        tok_regex_close(step.re);
        return weir_fail(ld->why, WEIR_TOOLARGE, "normalizer: more than %d steps", TOK_STEPS_MAX);
    }
    tok->norm[tok->n_norm++] = step;
    return WEIR_OK;
}

static weir_err load_strip(struct tok_load *ld, struct weir_str obj)
{
    struct tok_norm_step step = { .kind = TOK_NORM_STRIP, .left = true, .right = true };
    weir_err err = tok_get_bool(ld, obj, "strip_left", &step.left);

    if (err == WEIR_OK)
        err = tok_get_bool(ld, obj, "strip_right", &step.right);
    return err == WEIR_OK ? add_step(ld, step) : err;
}

static weir_err load_prepend(struct tok_load *ld, struct weir_str obj)
{
    struct tok_norm_step step = { .kind = TOK_NORM_PREPEND };
    weir_err err = tok_get_str(ld, obj, "prepend", &step.content);

    if (err == WEIR_OK)
        err = tok_keep(ld, step.content, &step.content);
    return err == WEIR_OK ? add_step(ld, step) : err;
}

static weir_err load_replace(struct tok_load *ld, struct weir_str obj)
{
    struct tok_norm_step step = { .kind = TOK_NORM_REPLACE };
    weir_err err = tok_get_str(ld, obj, "content", &step.content);

    if (err == WEIR_OK)
        err = tok_keep(ld, step.content, &step.content);
    if (err == WEIR_OK)
        err = tok_get_pattern(ld, obj, &step.re, &step.pattern);
    return err == WEIR_OK ? add_step(ld, step) : err;
}

weir_err tok_load_norm(struct tok_load *ld, struct weir_str obj, int depth)
{
    static const struct {
        const char *name;
        enum tok_norm_kind kind;
    } plain[] = { { "NFC", TOK_NORM_NFC },
                  { "NFD", TOK_NORM_NFD },
                  { "NFKC", TOK_NORM_NFKC },
                  { "NFKD", TOK_NORM_NFKD },
                  { "Lowercase", TOK_NORM_LOWERCASE } };
    struct weir_str kind = { 0 };
    weir_err err = tok_get_str(ld, obj, "type", &kind);

    if (err != WEIR_OK)
        return err;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (weir_str_eq(kind, plain[i].name))
            return add_step(ld, (struct tok_norm_step){ .kind = plain[i].kind });
    if (weir_str_eq(kind, "Sequence"))
        return tok_each_of(ld, obj, "normalizers", depth, tok_load_norm);
    if (weir_str_eq(kind, "Strip"))
        return load_strip(ld, obj);
    if (weir_str_eq(kind, "Prepend"))
        return load_prepend(ld, obj);
    if (weir_str_eq(kind, "Replace"))
        return load_replace(ld, obj);
    return tok_unknown(ld, "normalizer", kind);
}
