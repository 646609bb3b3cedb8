/* tmpl_wrap.c - the filter wordwrap: lines of at most so many characters, cut as Python's textwrap cuts them.
 *
 * A line is first cut into chunks that stay together: white space, words, and the parts of words with hyphens or dashes.
 * Then as many chunks as fit go on each line; white space where lines meet is dropped. Each character is looked at a bounded
 * number of times.
 * Source: textwrap.py of Python 3.11. */
#include "replica/text/tmpl_filter.h"

#include <string.h>

#include <utf8proc.h>

struct wrap {
    struct tmpl_run *run;
    struct weir_str text;  /* a line of what is given */
    const uint32_t *chars; /* its characters */
    const size_t *offsets; /* in bytes; n + 1 */
    size_t *ends;          /* where chunks end, in characters; room for n */
    size_t n, n_ends;
    size_t width;
    bool break_words, cut_at_hyphens, break_at_hyphens; /* the second: chunks end behind hyphens */
    struct weir_str between;
    struct weir_buf *out;
};

/* ---- characters ---- */

static uint32_t char_at(const struct wrap *w, size_t i)
{
    return i < w->n ? w->chars[i] : 0;
}

static bool is_blank(uint32_t c) /* textwrap's own white space */
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_word(uint32_t c) /* \w */
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);

    return c == '_' || (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
           (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

static bool is_letter(uint32_t c) /* [^\d\W] */
{
    return is_word(c) && utf8proc_category((utf8proc_int32_t)c) != UTF8PROC_CATEGORY_ND;
}

static bool is_word_or_mark(uint32_t c)
{
    return is_word(c) || (c && c < 0x80 && strchr("!\"'&.,?", (int)c));
}

/* ---- chunks ---- */

/* Behind a word's character: two dashes or more with a word behind them; where they end, or i. */
static size_t dash_end(const struct wrap *w, size_t i)
{
    size_t end = i;

    if (i == 0 || !is_word_or_mark(w->chars[i - 1]))
        return i;
    while (char_at(w, end) == '-')
        end++;
    return end - i >= 2 && is_word(char_at(w, end)) ? end : i;
}

/* A hyphen with two letters, or a letter, a hyphen and a letter, before it, and the like behind it. */
static bool at_hyphen(const struct wrap *w, size_t i)
{
    if (char_at(w, i) != '-' || i < 2 || !is_letter(w->chars[i - 1]))
        return false;
    bool before =
        is_letter(w->chars[i - 2]) || (i > 2 && w->chars[i - 2] == '-' && is_letter(w->chars[i - 3]));
    size_t behind = i + 2 + (char_at(w, i + 2) == '-');
    return before && is_letter(char_at(w, i + 1)) && is_letter(char_at(w, behind));
}

static size_t chunk_end(const struct wrap *w, size_t i)
{
    size_t end = i;

    if (is_blank(w->chars[i])) {
        while (end < w->n && is_blank(w->chars[end]))
            end++;
        return end;
    }
    if (w->cut_at_hyphens && dash_end(w, i) > i)
        return dash_end(w, i);
    for (end = i + 1; end < w->n && !is_blank(w->chars[end]); end++) {
        if (w->cut_at_hyphens && at_hyphen(w, end))
            return end + 1;
        if (w->cut_at_hyphens && dash_end(w, end) > end)
            return end;
    }
    return end;
}

/* ---- lines ---- */

/* As strip() sees it; nothing is white space, too. */
static bool is_space(const struct wrap *w, size_t begin, size_t end)
{
    while (begin < end && tmpl_is_space(w->chars[begin]))
        begin++;
    return begin == end;
}

/* How much of a chunk that is too long for any line goes on one with so much room. */
static size_t part_of(const struct wrap *w, size_t begin, size_t room)
{
    size_t hyphen = begin + room, other = begin;

    if (!w->break_at_hyphens)
        return room;
    while (hyphen > begin && w->chars[hyphen - 1] != '-')
        hyphen--;
    while (other < hyphen && w->chars[other] == '-')
        other++;
    return other < hyphen ? hyphen - begin : room;
}

static bool put_line(struct wrap *w, size_t begin, size_t end, bool first)
{
    struct weir_str line = { w->text.ptr + w->offsets[begin], w->offsets[end] - w->offsets[begin] };

    return (first || tmpl_put(w->run, w->out, w->between)) && tmpl_put(w->run, w->out, line) &&
           tmpl_tick(w->run, line.len + w->between.len);
}

static bool put_lines(struct wrap *w)
{
    bool first = true;

    for (size_t at = 0, k = 0; at < w->n;) {
        size_t last, n_chunks = 0; /* last: where the line's last chunk begins */
        if (!first && is_space(w, at, w->ends[k]))
            at = w->ends[k++];
        size_t begin = last = at;
        for (; k < w->n_ends && w->ends[k] - begin <= w->width; n_chunks++) {
            last = at;
            at = w->ends[k++];
        }
        if (k < w->n_ends && w->ends[k] - at > w->width && (w->break_words || n_chunks == 0)) {
            last = at;
            at = w->break_words ? at + part_of(w, at, w->width - (at - begin)) : w->ends[k++];
            n_chunks++;
        }
        if (n_chunks > 0 && is_space(w, last, at)) {
            n_chunks--;
            if (n_chunks > 0 && !put_line(w, begin, last, first))
                return false;
        } else if (n_chunks > 0 && !put_line(w, begin, at, first)) {
            return false;
        }
        first = first && n_chunks == 0;
    }
    return true;
}

static bool wrap_text(struct wrap *w)
{
    struct tmpl_run *run = w->run;
    uint32_t *chars = weir_arena_alloc(&run->arena, (w->text.len + 1) * sizeof *chars);
    size_t *offsets = weir_arena_alloc(&run->arena, (w->text.len + 1) * sizeof *offsets);
    size_t *ends = weir_arena_alloc(&run->arena, (w->text.len + 1) * sizeof *ends), i = 0;

    if (!chars || !offsets || !ends)
        return tmpl_fail_mem(run);
    w->chars = chars;
    w->offsets = offsets;
    w->ends = ends;
    w->n = w->n_ends = 0;
    for (; i < w->text.len; w->n++) {
        offsets[w->n] = i;
        i += tmpl_char_at(w->text, i, &chars[w->n]);
    }
    offsets[w->n] = i;
    for (size_t k = 0; k < w->n; k = ends[w->n_ends++])
        ends[w->n_ends] = chunk_end(w, k);
    return tmpl_tick(run, 8 * w->text.len) && put_lines(w);
}

bool tmpl_wordwrap(struct tmpl_run *run, struct tmpl_value in, const struct tmpl_value *argv,
                   const struct tmpl_args *args, struct tmpl_value *ret)
{
    bool hyphens = tmpl_arg_bool(argv[3], true),
         exact = argv[3].kind == TMPL_UNSET || argv[3].kind == TMPL_BOOL;
    struct tmpl_value lines;
    struct weir_buf out;
    int64_t width;

    (void)args;
    if (in.kind != TMPL_STR || (tmpl_arg_given(argv[2]) && argv[2].kind != TMPL_STR) ||
        argv[0].kind == TMPL_NONE)
        return tmpl_fail(run, WEIR_INVALID, "wordwrap: it takes a text, a width and a text");
    if (!tmpl_arg_int(run, argv[0], 79, &width) ||
        !tmpl_splitlines(run, in.str, /* keep_ends= */ false, &lines))
        return false;
    if (width <= 0 && lines.list->n > 0)
        return tmpl_fail(run, WEIR_INVALID, "wordwrap: a width of less than 1");
    struct wrap w = { .run = run,
                      .width = (size_t)width,
                      .break_words = tmpl_arg_bool(argv[1], true),
                      .cut_at_hyphens = hyphens && exact, /* textwrap asks whether it is True itself */
                      .break_at_hyphens = hyphens,
                      .between = tmpl_arg_given(argv[2]) ? argv[2].str : WEIR_STR("\n"),
                      .out = &out };
    bool ok = true;
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    for (size_t i = 0; i < lines.list->n && ok; i++) {
        w.text = lines.list->at[i].str;
        ok = (i == 0 || tmpl_put(run, &out, w.between)) && wrap_text(&w);
    }
    if (ok)
        return tmpl_take(run, &out, ret) && run->err == WEIR_OK;
    weir_buf_release(&out);
    return false;
}
