/* tok_regex.c - the one door to PCRE2.
 *
 * The files' patterns are in Oniguruma's (Ruby's) syntax. Where the two read the same pattern differently it
 * is rewritten, and what can't be is refused by name: a pattern that means something else would give wrong
 * tokens without a sound. Texts are checked to be UTF-8 once, by the caller: PCRE2 would check the rest of
 * the text again on every match, which is quadratic. Bounds: JIT code runs on the machine's stack; a match
 * that needs more is done again by the interpreter under limits of steps and heap. Threads: a compiled
 * pattern is only read; match data belong to a run. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "replica/text/tok_int.h"

#include <string.h>

#include "base/mem.h"
#include "replica/text/text_int.h"

enum {
    PATTERN_BYTES_MAX = 64 << 10,
    MATCH_STEPS_MAX = 20 << 20,
    MATCH_HEAP_KIB_MAX = 64 << 10,
};

struct tok_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
    bool jit;
};

static void *heap_alloc(PCRE2_SIZE size, void *unused)
{
    (void)unused;
    return weir_alloc(size);
}

static void heap_free(void *ptr, void *unused)
{
    (void)unused;
    weir_free(ptr);
}

/* ---- Oniguruma's syntax to PCRE2's ---- */

struct rewrite {
    struct weir_str in;
    size_t at;
    int class_depth; /* brackets we are in */
    struct weir_buf out;
    struct weir_why *why;
};

static weir_err refuse(struct rewrite *rw, const char *what, size_t len)
{
    size_t n = weir_utf8_cut(rw->in.ptr + rw->at, rw->in.len - rw->at, len);

    return weir_fail(rw->why, WEIR_UNIMPLEMENTED, "the pattern's %s \"%.*s\" is not supported", what, (int)n,
                     rw->in.ptr + rw->at);
}

static bool starts(const struct rewrite *rw, const char *text)
{
    size_t len = strlen(text);

    return rw->in.len - rw->at >= len && memcmp(rw->in.ptr + rw->at, text, len) == 0;
}

/* What Oniguruma's classes hold, and PCRE2's of the same name do not quite: white space without U+180E, words
 * with marks and connectors, and without most numbers. */
#define SPACE_CLASS "\\p{Z}\\t-\\r\\x{85}"
#define WORD_CLASS TOK_WORD_CLASS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

static weir_err rewrite_escape(struct rewrite *rw)
{
    static const struct {
        char letter;
        const char *in_class, *alone; /* in_class NULL: refused there */
    } classes[] = {
        { 's', SPACE_CLASS, "[" SPACE_CLASS "]" },
        { 'S', NULL, "[^" SPACE_CLASS "]" },
        { 'w', WORD_CLASS, "[" WORD_CLASS "]" },
        { 'W', NULL, "[^" WORD_CLASS "]" },
    };
    char c = rw->at + 1 < rw->in.len ? rw->in.ptr[rw->at + 1] : '\0';

    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (c != classes[i].letter)
            continue;
        const char *text = rw->class_depth ? classes[i].in_class : classes[i].alone;
        if (!text)
            return refuse(rw, "class in a class", 2);
        weir_buf_adds(&rw->out, text);
        rw->at += 2;
        return WEIR_OK;
    }
    if (c == 'u' && rw->at + 5 < rw->in.len) {
        weir_buf_addf(&rw->out, "\\x{%.4s}", rw->in.ptr + rw->at + 2);
        rw->at += 6;
        return WEIR_OK;
    }
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (c == '\0' || (plain && !strchr("dDpPnrtfaeAzZx", c)))
        return refuse(rw, "escape", 2);
    weir_buf_add(&rw->out, rw->in.ptr + rw->at,
                 2); /* a longer character's other bytes follow by themselves */
    rw->at += 2;
    return WEIR_OK;
}

static weir_err rewrite_posix(struct rewrite *rw)
{
    static const struct {
        const char *from, *to;
    } known[] = { { "[:punct:]", "\\p{P}\\p{S}" }, { "[:space:]", SPACE_CLASS }, { "[:digit:]", "\\p{Nd}" } };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (starts(rw, known[i].from)) {
            weir_buf_adds(&rw->out, known[i].to);
            rw->at += strlen(known[i].from);
            return WEIR_OK;
        }
    }
    return refuse(rw, "class", 12);
}

/* A class in a class adds to it, so its brackets can go; unless it is negated. */
static weir_err rewrite_in_class(struct rewrite *rw)
{
    char c = rw->in.ptr[rw->at];

    if (starts(rw, "[:"))
        return rewrite_posix(rw);
    if (starts(rw, "[^") || starts(rw, "[]"))
        return refuse(rw, "class in a class", 16);
    if (starts(rw, "&&"))
        return refuse(rw, "intersection", 16);
    rw->class_depth += c == '[';
    rw->class_depth -= c == ']';
    if (c != '[' && (c != ']' || rw->class_depth == 0))
        weir_buf_addc(&rw->out, c);
    rw->at++;
    return WEIR_OK;
}

static void rewrite_class_start(struct rewrite *rw)
{
    weir_buf_addc(&rw->out, '[');
    rw->at++;
    if (starts(rw, "^")) {
        weir_buf_addc(&rw->out, '^');
        rw->at++;
    }
    if (starts(rw, "]")) { /* a bracket that comes first is itself */
        weir_buf_adds(&rw->out, "\\]");
        rw->at++;
    }
    rw->class_depth = 1;
}

/* {n,m}: a following + repeats it in Ruby, makes it possessive in Perl; {,m} starts at 0 in Ruby. */
static weir_err rewrite_brace(struct rewrite *rw)
{
    size_t end = rw->at + 1;
    bool comma_first = end < rw->in.len && rw->in.ptr[end] == ',';

    while (end < rw->in.len && (rw->in.ptr[end] == ',' || (rw->in.ptr[end] >= '0' && rw->in.ptr[end] <= '9')))
        end++;
    if (end == rw->at + 1 || end >= rw->in.len || rw->in.ptr[end] != '}') {
        weir_buf_addc(&rw->out, rw->in.ptr[rw->at++]); /* a plain brace */
        return WEIR_OK;
    }
    if (end + 1 < rw->in.len && rw->in.ptr[end + 1] == '+')
        return refuse(rw, "repeated interval", end + 2 - rw->at);
    weir_buf_adds(&rw->out, comma_first ? "{0" : "{");
    weir_buf_add(&rw->out, rw->in.ptr + rw->at + 1, end - rw->at);
    rw->at = end + 1;
    return WEIR_OK;
}

static weir_err rewrite_group(struct rewrite *rw)
{
    static const char *const same[] = { "(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:", "(?i)" };

    if (starts(rw, "(*"))
        return refuse(rw, "group", 8);
    if (starts(rw, "(?")) {
        for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
            if (starts(rw, same[i])) {
                weir_buf_adds(&rw->out, same[i]);
                rw->at += strlen(same[i]);
                return WEIR_OK;
            }
        }
        return refuse(rw, "group", 8);
    }
    weir_buf_addc(&rw->out, rw->in.ptr[rw->at++]);
    return WEIR_OK;
}

static weir_err rewrite_all(struct rewrite *rw)
{
    weir_err err = WEIR_OK;

    while (err == WEIR_OK && rw->at < rw->in.len) {
        char c = rw->in.ptr[rw->at];
        if (c == '\\') {
            err = rewrite_escape(rw);
        } else if (rw->class_depth > 0) {
            err = rewrite_in_class(rw);
        } else if (c == '[') {
            rewrite_class_start(rw);
        } else if (c == '{') {
            err = rewrite_brace(rw);
        } else if (c == '(') {
            err = rewrite_group(rw);
        } else {
            weir_buf_addc(&rw->out, c);
            rw->at++;
        }
    }
    if (err == WEIR_OK && rw->out.failed)
        err = weir_fail(rw->why, WEIR_TOOLARGE, "a pattern has more than %d bytes", PATTERN_BYTES_MAX);
    return err;
}

/* ---- compiling ---- */

static weir_err compile(struct tok_regex *re, struct weir_str pattern, struct weir_why *why)
{
    pcre2_general_context *heap = pcre2_general_context_create(heap_alloc, heap_free, NULL);
    pcre2_compile_context *opts = heap ? pcre2_compile_context_create(heap) : NULL;
    int code = 0;
    PCRE2_SIZE offset = 0;
    weir_err err = WEIR_OK;

    re->limits = heap ? pcre2_match_context_create(heap) : NULL;
    if (!opts || !re->limits) {
        err = weir_fail(why, WEIR_NOMEM, "no memory for a pattern");
        goto done;
    }
    pcre2_set_newline(opts, PCRE2_NEWLINE_LF);
    pcre2_set_match_limit(re->limits, MATCH_STEPS_MAX);
    pcre2_set_heap_limit(re->limits, MATCH_HEAP_KIB_MAX);
    /* In Ruby ^ and $ are those of lines. */
    re->code =
        pcre2_compile((PCRE2_SPTR)pattern.ptr, pattern.len,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                      &code, &offset, opts);
    if (!re->code) {
        char text[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        err = weir_fail(why, code == PCRE2_ERROR_NOMEMORY ? WEIR_NOMEM : WEIR_CORRUPT,
                        "a pattern does not compile: %s", text);
        goto done;
    }
    re->jit = pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE) == 0;
done:
    pcre2_compile_context_free(opts);
    pcre2_general_context_free(heap);
    return err;
}

weir_err tok_regex_open(struct weir_str pattern, struct tok_regex **ret, struct weir_why *why)
{
    struct rewrite rw = { .in = pattern, .why = why };
    struct tok_regex *re = weir_alloc0(sizeof *re);
    weir_err err = re ? WEIR_OK : weir_fail(why, WEIR_NOMEM, "no memory for a pattern");

    weir_buf_init(&rw.out, PATTERN_BYTES_MAX);
    if (err == WEIR_OK)
        err = rewrite_all(&rw);
    if (err == WEIR_OK) {
        const char *text = weir_buf_cstr(&rw.out);
        err = text ? compile(re, (struct weir_str){ text, weir_buf_len(&rw.out) }, why)
                   : weir_fail(why, WEIR_NOMEM, "no memory for a pattern");
    }
    weir_buf_release(&rw.out);
    if (err != WEIR_OK) {
        tok_regex_close(re);
        return err;
    }
    *ret = re;
    return WEIR_OK;
}

void tok_regex_close(struct tok_regex *re)
{
    if (!re)
        return;
    pcre2_code_free(re->code);
    pcre2_match_context_free(re->limits);
    weir_free(re);
}

/* ---- matching ---- */

static pcre2_match_data *match_data_open(void)
{
    pcre2_general_context *heap = pcre2_general_context_create(heap_alloc, heap_free, NULL);
    pcre2_match_data *data = heap ? pcre2_match_data_create(1, heap) : NULL;

    pcre2_general_context_free(heap);
    return data;
}

void tok_match_data_free(void *match_data)
{
    pcre2_match_data_free(match_data);
}

int tok_regex_find(const struct tok_regex *re, void **match_data, const char *text, size_t len, size_t from,
                   size_t *ret_start, size_t *ret_end)
{
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;

    if (!*match_data)
        *match_data = match_data_open();
    if (!*match_data)
        return -1;
    if (re->jit)
        rc = pcre2_jit_match(re->code, (PCRE2_SPTR)text, len, from, 0, *match_data, re->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(re->code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         *match_data, re->limits);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0)
        return -1;
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(*match_data);
    if (at[0] > at[1])
        return -1; /* a lookahead that moves the start behind the end (\K); refused when compiled */
    *ret_start = at[0];
    *ret_end = at[1];
    return 1;
}

static int find_next(struct tok_matcher *m, void **match_data, struct weir_str text, size_t *ret_start,
                     size_t *ret_end)
{
    if (m->re)
        return tok_regex_find(m->re, match_data, text.ptr, text.len, m->at, ret_start, ret_end);
    if (m->literal.len == 0)
        return 0;
    const char *hit = memmem(text.ptr + m->at, text.len - m->at, m->literal.ptr, m->literal.len);
    if (!hit)
        return 0;
    *ret_start = (size_t)(hit - text.ptr);
    *ret_end = *ret_start + m->literal.len;
    return 1;
}

int tok_match_next(struct tok_matcher *m, void **match_data, struct weir_str text, size_t *ret_start,
                   size_t *ret_end)
{
    while (m->at <= text.len) {
        int found = find_next(m, match_data, text, ret_start, ret_end);
        if (found != 1)
            return found;
        if (*ret_start == *ret_end && m->any && *ret_end == m->last_end) {
            uint32_t c;
            m->at += m->at < text.len ? tok_char(text.ptr + m->at, &c) : 1;
            continue;
        }
        m->at = m->last_end = *ret_end;
        m->any = true;
        return 1;
    }
    return 0;
}
