/* tmpl_lex.c - a template's source becomes tokens.
 *
 * Whitespace is jinja2's with trim_blocks and lstrip_blocks, as transformers sets them: a block or comment
 * that begins a line takes the spaces in front of it, one that ends a line takes the newline; a `-` takes all
 * white space on its side, a `+` takes none. One newline at the source's end goes; every newline becomes \n.
 * Two passes with one walk: the first counts the tokens. */
#include "replica/text/tmpl_int.h"

#include <string.h>

#include "base/utf8.h"

struct lexer {
    struct weir_template *tmpl;
    struct weir_str src;
    size_t at;
    uint32_t line;
    bool line_starts;          /* what was read last ended with a newline */
    struct tmpl_token *tokens; /* NULL: only counting */
    size_t n_tokens;
    weir_err err;
    struct weir_why *why;
};

static bool lex_fail(struct lexer *lx, weir_err err, const char *what)
{
    if (lx->err == WEIR_OK)
        lx->err = weir_fail(lx->why, err, "template line %u: %s", lx->line, what);
    return false;
}

static void emit(struct lexer *lx, enum tmpl_token_kind kind, size_t start, size_t end)
{
    if (lx->tokens)
        lx->tokens[lx->n_tokens] =
            (struct tmpl_token){ kind, lx->line, { lx->src.ptr + start, end - start } };
    lx->n_tokens++;
}

static bool starts(const struct lexer *lx, size_t at, const char *text)
{
    size_t len = strlen(text);

    return lx->src.len - at >= len && memcmp(lx->src.ptr + at, text, len) == 0;
}

static char char_at(const struct lexer *lx, size_t at)
{
    return at < lx->src.len ? lx->src.ptr[at] : '\0';
}

/* Moves on, counting lines. */
static void advance(struct lexer *lx, size_t to)
{
    for (; lx->at < to; lx->at++)
        lx->line += lx->src.ptr[lx->at] == '\n';
}

static size_t skip_space(const struct lexer *lx, size_t at)
{
    while (at < lx->src.len) {
        uint32_t c;
        size_t n = tmpl_char_at(lx->src, at, &c);
        if (!tmpl_is_space(c))
            break;
        at += n;
    }
    return at;
}

/* ---- text between tags ---- */

/* Where the text [start, end) in front of a tag ends, given the tag's sign. */
static size_t strip_text(const struct lexer *lx, size_t start, size_t end, char sign, bool is_print)
{
    struct weir_str text = { lx->src.ptr + start, end - start };

    if (sign == '-')
        return start + tmpl_strip(text, NULL, /* left= */ false, /* right= */ true).len;
    if (sign == '+' || is_print)
        return end;
    const char *newline = memrchr(text.ptr, '\n', text.len);
    size_t line_start = newline ? (size_t)(newline + 1 - text.ptr) : 0;
    struct weir_str tail = { text.ptr + line_start, text.len - line_start };
    bool blank = tmpl_strip(tail, NULL, true, true).len == 0;
    return blank && (newline || lx->line_starts) ? start + line_start : end;
}

static void emit_text(struct lexer *lx, size_t end, char sign, bool is_print)
{
    size_t start = lx->at, stop = strip_text(lx, start, end, sign, is_print);

    if (stop > start)
        emit(lx, TMPL_T_TEXT, start, stop);
    advance(lx, end);
}

/* Behind a tag's end mark at `at`: -%} takes white space, a plain %} takes one newline, +%} nothing. */
static void end_tag(struct lexer *lx, size_t at, char sign, bool takes_newline)
{
    size_t end = at;

    if (sign == '-')
        end = skip_space(lx, at);
    else if (sign != '+' && takes_newline && char_at(lx, at) == '\n')
        end = at + 1;
    advance(lx, end);
    lx->line_starts = end > 0 && lx->src.ptr[end - 1] == '\n';
}

static char sign_at(const struct lexer *lx, size_t at)
{
    char c = char_at(lx, at);

    return c == '-' || c == '+' ? c : '\0';
}

/* Finds `mark` with its sign in front of it, from `at`; SIZE_MAX when there is none. */
static size_t find_end(const struct lexer *lx, size_t at, const char *mark, char *ret_sign)
{
    const char *hit = memmem(lx->src.ptr + at, lx->src.len - at, mark, 2);

    if (!hit)
        return SIZE_MAX;
    size_t end = (size_t)(hit - lx->src.ptr);
    *ret_sign = end > at ? sign_at(lx, end - 1) : '\0';
    return end + 2;
}

static bool lex_comment(struct lexer *lx)
{
    char sign;
    size_t begin = lx->at + 2;
    size_t end = find_end(lx, begin + (sign_at(lx, begin) != '\0'), "#}", &sign); /* one sign is not both */

    if (end == SIZE_MAX)
        return lex_fail(lx, WEIR_CORRUPT, "a comment has no end");
    end_tag(lx, end, sign, /* takes_newline= */ true);
    return true;
}

/* ---- raw ---- */

/* Is there a block {% <word> %} at `at`? Gives where it ends and the sign of its end. */
static bool bare_block(const struct lexer *lx, size_t at, const char *word, size_t *ret_end, char *ret_sign)
{
    size_t i = at + 2;

    i += sign_at(lx, i) != '\0';
    i = skip_space(lx, i);
    if (!starts(lx, i, word))
        return false;
    i = skip_space(lx, i + strlen(word));
    *ret_sign = sign_at(lx, i);
    i += *ret_sign != '\0';
    *ret_end = i + 2;
    return starts(lx, i, "%}");
}

/* The cursor is behind {% raw %}. */
static bool lex_raw(struct lexer *lx)
{
    for (size_t i = lx->at;; i += 2) {
        const char *hit = memmem(lx->src.ptr + i, lx->src.len - i, "{%", 2);
        size_t end;
        char sign;
        if (!hit)
            return lex_fail(lx, WEIR_CORRUPT, "a raw block has no end");
        i = (size_t)(hit - lx->src.ptr);
        if (!bare_block(lx, i, "endraw", &end, &sign))
            continue;
        emit_text(lx, i, sign_at(lx, i + 2), /* is_print= */ false);
        end_tag(lx, end, sign, /* takes_newline= */ true);
        return true;
    }
}

/* ---- inside tags ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name_char(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80);
}

static size_t skip_digits(const struct lexer *lx, size_t at)
{
    while (is_digit(char_at(lx, at)) || (char_at(lx, at) == '_' && is_digit(char_at(lx, at + 1))))
        at++;
    return at;
}

static void lex_number(struct lexer *lx)
{
    size_t start = lx->at, end = start;
    bool is_float = false, after_dot = start > 0 && lx->src.ptr[start - 1] == '.';

    if (char_at(lx, end) == '0' && char_at(lx, end + 1) && strchr("xXoObB", char_at(lx, end + 1))) {
        end += 2;
        while (is_name_char(char_at(lx, end)))
            end++;
    } else {
        end = skip_digits(lx, end);
        if (!after_dot && char_at(lx, end) == '.' && is_digit(char_at(lx, end + 1))) {
            end = skip_digits(lx, end + 1);
            is_float = true;
        }
        size_t exp = end + 1 + (char_at(lx, end + 1) == '+' || char_at(lx, end + 1) == '-');
        if (!after_dot && (char_at(lx, end) | 32) == 'e' && is_digit(char_at(lx, exp))) {
            end = skip_digits(lx, exp);
            is_float = true;
        }
    }
    emit(lx, is_float ? TMPL_T_FLOAT : TMPL_T_INT, start, end);
    advance(lx, end);
}

static int hex_digits(const struct lexer *lx, size_t at, int n, uint32_t *ret)
{
    *ret = 0;
    for (int i = 0; i < n; i++) {
        char c = char_at(lx, at + (size_t)i);
        int value = is_digit(c) ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (value < 0)
            return 0;
        *ret = *ret << 4 | (uint32_t)value;
    }
    return n;
}

/* Python's escapes. `at` is behind the backslash; writes to `out`, returns how much of the source it took. */
static size_t unescape(struct lexer *lx, size_t at, char *out, size_t *n_out)
{
    static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
    char c = char_at(lx, at);
    const char *simple = c ? strchr(from, c) : NULL;
    uint32_t code = 0;
    size_t n = 0;

    if (c == '\n')
        return 1; /* a continued line */
    if (simple) {
        out[(*n_out)++] = to[simple - from];
        return 1;
    }
    if (c >= '0' && c <= '7') {
        for (; n < 3 && char_at(lx, at + n) >= '0' && char_at(lx, at + n) <= '7'; n++)
            code = code << 3 | (uint32_t)(char_at(lx, at + n) - '0');
    } else if (c == 'x' || c == 'u' || c == 'U') {
        n = (size_t)hex_digits(lx, at + 1, c == 'x' ? 2 : c == 'u' ? 4 : 8, &code);
        if (n == 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
            lex_fail(lx, WEIR_CORRUPT, "a string has a malformed escape");
            return 1;
        }
        n++;
    } else if (c == 'N') {
        lex_fail(lx, WEIR_UNIMPLEMENTED, "the escape \\N is not supported");
        return 1;
    } else {
        out[(*n_out)++] = '\\'; /* not an escape: the backslash stays */
        return 0;
    }
    *n_out += weir_utf8_put(code, out + *n_out);
    return n;
}

static bool lex_string(struct lexer *lx)
{
    char quote = lx->src.ptr[lx->at];
    size_t start = lx->at + 1, end = start;

    while (end < lx->src.len && lx->src.ptr[end] != quote)
        end += lx->src.ptr[end] == '\\' ? 2 : 1;
    if (end >= lx->src.len)
        return lex_fail(lx, WEIR_CORRUPT, "a string has no end");
    emit(lx, TMPL_T_STRING, start, end);
    if (lx->tokens && memchr(lx->src.ptr + start, '\\', end - start)) {
        char *text = weir_arena_alloc(&lx->tmpl->arena, end - start + 1); /* an escape is never shorter */
        size_t n = 0;
        if (!text)
            return lex_fail(lx, WEIR_NOMEM, "no memory for the template");
        for (size_t i = start; i < end;) {
            if (lx->src.ptr[i] == '\\')
                i += 1 + unescape(lx, i + 1, text, &n);
            else
                text[n++] = lx->src.ptr[i++];
        }
        lx->tokens[lx->n_tokens - 1].str = (struct weir_str){ text, n };
    }
    advance(lx, end + 1);
    return lx->err == WEIR_OK;
}

static bool lex_op(struct lexer *lx)
{
    static const char *const two[] = { "//", "**", "==", "!=", ">=", "<=" };
    size_t n = 0;

    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (starts(lx, lx->at, two[i]))
            n = 2;
    if (n == 0 && strchr("+-/*%~[](){}><=.:|,;", lx->src.ptr[lx->at]) && lx->src.ptr[lx->at])
        n = 1;
    if (n == 0)
        return lex_fail(lx, WEIR_CORRUPT, "an unexpected character");
    emit(lx, TMPL_T_OP, lx->at, lx->at + n);
    advance(lx, lx->at + n);
    return true;
}

/* Pushes and pops brackets; inside them the tag can't end. */
static bool track_bracket(struct lexer *lx, char *stack, int *depth)
{
    char c = lx->src.ptr[lx->at];
    const char *open = strchr("([{", c), *close = strchr(")]}", c);

    if (c && open) {
        if (*depth == TMPL_NEST_MAX)
            return lex_fail(lx, WEIR_TOOLARGE, "brackets are nested too deep");
        stack[(*depth)++] = ")]}"[open - "([{"];
    } else if (c && close) {
        if (*depth == 0 || stack[*depth - 1] != c)
            return lex_fail(lx, WEIR_CORRUPT, "a closing bracket has no opening one");
        (*depth)--;
    }
    return true;
}

/* The cursor is behind {{ or {%. */
static bool lex_tag(struct lexer *lx, bool is_print)
{
    const char *mark = is_print ? "}}" : "%}";
    char stack[TMPL_NEST_MAX];
    int depth = 0;

    for (;;) {
        advance(lx, skip_space(lx, lx->at));
        if (lx->at >= lx->src.len)
            return lex_fail(lx, WEIR_CORRUPT, "a tag has no end");
        char sign = sign_at(lx, lx->at);
        size_t at = lx->at + (sign == '-' || (sign == '+' && !is_print));
        if (depth == 0 && starts(lx, at, mark)) {
            emit(lx, is_print ? TMPL_T_PRINT_END : TMPL_T_BLOCK_END, at, at + 2);
            end_tag(lx, at + 2, sign, /* takes_newline= */ !is_print);
            return true;
        }
        char c = lx->src.ptr[lx->at];
        size_t start = lx->at;
        if (is_digit(c)) {
            lex_number(lx);
        } else if (is_name_char(c)) {
            size_t end = start;
            while (end < lx->src.len && is_name_char(lx->src.ptr[end]))
                end++;
            emit(lx, TMPL_T_NAME, start, end);
            advance(lx, end);
        } else if (c == '\'' || c == '"') {
            if (!lex_string(lx))
                return false;
        } else if (!track_bracket(lx, stack, &depth) || !lex_op(lx)) {
            return false;
        }
    }
}

/* The next tag at or behind the cursor, or the end. */
static size_t next_tag(const struct lexer *lx)
{
    for (size_t i = lx->at; i + 1 < lx->src.len; i++) {
        const char *brace = memchr(lx->src.ptr + i, '{', lx->src.len - 1 - i);
        if (!brace)
            break;
        i = (size_t)(brace - lx->src.ptr);
        char c = lx->src.ptr[i + 1];
        if (c == '{' || c == '%' || c == '#')
            return i;
    }
    return lx->src.len;
}

static bool lex_all(struct lexer *lx)
{
    bool ok = true;

    lx->at = lx->n_tokens = 0;
    lx->line = 1;
    lx->line_starts = true;
    while (ok) {
        size_t tag = next_tag(lx), end;
        if (tag == lx->src.len) {
            emit_text(lx, tag, '+', true);
            break;
        }
        char c = lx->src.ptr[tag + 1], sign = sign_at(lx, tag + 2), end_sign;
        emit_text(lx, tag, sign, c == '{');
        if (c == '#') {
            ok = lex_comment(lx);
        } else if (c == '%' && bare_block(lx, tag, "raw", &end, &end_sign)) {
            end_tag(lx, end, end_sign, /* takes_newline= */ false);
            ok = lex_raw(lx);
        } else {
            emit(lx, c == '{' ? TMPL_T_PRINT_BEGIN : TMPL_T_BLOCK_BEGIN, tag, tag + 2);
            advance(lx, tag + 2 + (sign != '\0'));
            ok = lex_tag(lx, c == '{');
        }
    }
    emit(lx, TMPL_T_EOF, lx->src.len, lx->src.len);
    return ok;
}

/* \r\n and \r become \n; one newline at the end goes. */
static bool normalize(struct lexer *lx, struct weir_str source)
{
    char *text = weir_arena_alloc(&lx->tmpl->arena, source.len + 1);
    size_t n = 0;

    if (!text)
        return lex_fail(lx, WEIR_NOMEM, "no memory for the template");
    for (size_t i = 0; i < source.len; i++) {
        char c = source.ptr[i];
        if (c == '\r' && i + 1 < source.len && source.ptr[i + 1] == '\n')
            continue;
        text[n++] = c == '\r' ? '\n' : c;
    }
    if (n > 0 && text[n - 1] == '\n')
        n--;
    lx->src = (struct weir_str){ text, n };
    return true;
}

weir_err tmpl_lex(struct weir_template *tmpl, struct weir_str source, struct tmpl_token **ret,
                  struct weir_why *why)
{
    struct lexer lx = { .tmpl = tmpl, .line = 1, .why = why };

    if (source.len > TMPL_SOURCE_BYTES_MAX)
        return weir_fail(why, WEIR_TOOLARGE, "the template has more than %d bytes", TMPL_SOURCE_BYTES_MAX);
    if (!weir_utf8_valid(source.ptr, source.len))
        return weir_fail(why, WEIR_CORRUPT, "the template is not UTF-8");
    if (!normalize(&lx, source) || !lex_all(&lx))
        return lx.err;
    lx.tokens = weir_arena_alloc(&tmpl->arena, lx.n_tokens * sizeof *lx.tokens);
    if (!lx.tokens)
        return weir_fail(why, WEIR_NOMEM, "no memory for the template");
    *ret = lx.tokens;
    return lex_all(&lx) ? WEIR_OK : lx.err;
}
