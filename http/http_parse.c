/* http_parse.c - the strict HTTP/1.1 request parser.
 *
 * The head is gathered line by line and parsed when its empty line has come: pointers into it are then final,
 * and no byte is looked at twice however slowly it arrives. Framing of a chunked body is a machine of one
 * byte a step: it has nothing to remember but numbers. A proxy in front of us and we must agree on where each
 * message ends, so what the RFC lets a recipient repair is refused: bare LF, white space before a colon,
 * folded lines, repeated or signed lengths, a length beside an encoding, any encoding but one `chunked`, a
 * Host that differs from the target's.
 *   [H1] The events are the same however the bytes are cut. Sizes are checked before ends of lines, so that a
 *        line which is both too long and malformed is too long in every cut.
 *   [H2] The head never holds more than WEIR_HTTP_LINE_MAX + WEIR_HTTP_HEAD_MAX bytes; nothing else is kept.
 *   [H3] After ERROR nothing more is consumed.
 * Threads: none of its own. Not here: reading, deadlines (http_conn.c), decoding of targets (the handler).
 * Source: RFC 9112 sections 2.2, 3, 5, 6, 7; RFC 9110 sections 5.5, 5.6.2, 7.2, 10.1.1. */
#include "http/http_parse.h"

#include <string.h>

enum { /* where the next byte belongs */
       ST_HEAD,
       ST_BODY,
       ST_CHUNK_SIZE,
       ST_CHUNK_EXT,
       ST_CHUNK_SIZE_LF,
       ST_CHUNK_DATA,
       ST_CHUNK_DATA_CR,
       ST_CHUNK_DATA_LF,
       ST_TRAILER_START,
       ST_TRAILER_NAME,
       ST_TRAILER_VALUE,
       ST_TRAILER_LF,
       ST_LAST_LF,
       ST_COMPLETE, /* END is to be said */
       ST_DONE,     /* END was said */
       ST_ERROR,
};

enum { TOKEN = 1, VALUE = 2, TARGET = 4, HOST = 8 };
enum { ALL = TOKEN | VALUE | TARGET | HOST };

/* What a byte may be part of: a token (names, methods), a field value, a request target, a host with its
 * port. A target goes without what is never valid in a URI and is read in different ways: # \ " < > ^ `. A
 * host goes without the comma, with which some would see two. */
static const uint8_t class_of[256] = {
    ['\t'] = VALUE,
    [' '] = VALUE,
    ['!'] = ALL,
    ['"'] = VALUE,
    ['#'] = TOKEN | VALUE,
    ['$'] = ALL,
    ['%'] = ALL,
    ['&'] = ALL,
    ['\''] = ALL,
    ['('] = VALUE | TARGET | HOST,
    [')'] = VALUE | TARGET | HOST,
    ['*'] = ALL,
    ['+'] = ALL,
    [','] = VALUE | TARGET,
    ['-'] = ALL,
    ['.'] = ALL,
    ['/'] = VALUE | TARGET,
    ['0' ... '9'] = ALL,
    [':'] = VALUE | TARGET | HOST,
    [';'] = VALUE | TARGET | HOST,
    ['<'] = VALUE,
    ['='] = VALUE | TARGET | HOST,
    ['>'] = VALUE,
    ['?'] = VALUE | TARGET,
    ['@'] = VALUE | TARGET,
    ['A' ... 'Z'] = ALL,
    ['['] = VALUE | TARGET | HOST,
    ['\\'] = VALUE,
    [']'] = VALUE | TARGET | HOST,
    ['^'] = TOKEN | VALUE,
    ['_'] = ALL,
    ['`'] = TOKEN | VALUE,
    ['a' ... 'z'] = ALL,
    ['{'] = VALUE | TARGET,
    ['|'] = TOKEN | VALUE | TARGET,
    ['}'] = VALUE | TARGET,
    ['~'] = ALL,
    [0x80 ... 0xff] = VALUE,
};

static bool is(char c, unsigned class)
{
    return (class_of[(uint8_t)c] & class) != 0;
}

static bool all_are(struct weir_str s, unsigned class)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!is(s.ptr[i], class))
            return false;
    }
    return true;
}

const struct weir_http_refusal_info *weir_http_refusal_info(enum weir_http_refusal refusal)
{
#define ROW(name, status, label, text) { status, label, text },
    static const struct weir_http_refusal_info table[] = { WEIR_HTTP_REFUSALS(ROW) };
#undef ROW
    WEIR_BUG_ON(refusal < 0 || refusal >= WEIR_HTTP_REFUSAL_COUNT);
    return &table[refusal];
}

void weir_http_parser_init(struct weir_http_parser *p, uint64_t body_max)
{
    /* Not the header table: it is only read up to n_headers. */
    p->body_max = body_max;
    weir_buf_init(&p->head, WEIR_HTTP_LINE_MAX + WEIR_HTTP_HEAD_MAX); /* [H2] */
    weir_http_parser_clear(p);
}

void weir_http_parser_release(struct weir_http_parser *p)
{
    weir_buf_release(&p->head);
}

void weir_http_parser_clear(struct weir_http_parser *p)
{
    weir_buf_clear(&p->head);
    p->method = p->target = p->path = p->query = p->chunk = (struct weir_str){ NULL, 0 };
    p->n_headers = 0;
    p->minor = 0;
    p->keep_alive = p->chunked = p->expect_continue = p->skipped_empty = false;
    p->body_left = p->body_len = 0;
    p->refusal = WEIR_HTTP_REFUSE_NONE;
    p->line_start = p->n_lines = p->n_ext = p->n_trailer = 0;
    p->n_digits = 0;
    p->state = ST_HEAD;
}

bool weir_http_parser_idle(const struct weir_http_parser *p)
{
    return p->state == ST_HEAD && weir_buf_len(&p->head) == 0;
}

struct weir_str weir_http_find(const struct weir_http_header *headers, size_t n_headers, const char *name)
{
    for (size_t i = 0; i < n_headers; i++) {
        if (weir_str_eq_nocase(headers[i].name, name))
            return headers[i].value;
    }
    return (struct weir_str){ NULL, 0 };
}

static enum weir_http_event refuse(struct weir_http_parser *p, enum weir_http_refusal refusal)
{
    p->refusal = refusal;
    p->state = ST_ERROR;
    return WEIR_HTTP_ERROR;
}

/* What the headers say about the message itself, gathered before it is judged. */
struct facts {
    struct weir_str authority; /* of a target in absolute form */
    struct weir_str host, length, encoding, expect;
    int n_host, n_length, n_encoding, n_expect;
    bool close;
};

static struct weir_str cut(struct weir_str s, size_t from, size_t to)
{
    return (struct weir_str){ s.ptr + from, to - from };
}

static size_t find(struct weir_str s, char c, size_t from)
{
    const char *at = from < s.len ? memchr(s.ptr + from, c, s.len - from) : NULL;
    return at ? (size_t)(at - s.ptr) : s.len;
}

static struct weir_str trim(struct weir_str s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s = cut(s, 1, s.len);
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* RFC 9112 section 3.2: origin form, absolute form, or `*`. */
static enum weir_http_refusal parse_target(struct weir_http_parser *p, struct facts *facts)
{
    struct weir_str t = p->target;
    if (t.len == 0 || !all_are(t, TARGET))
        return WEIR_HTTP_REFUSE_TARGET;
    if (weir_str_eq(p->method, "CONNECT"))
        return WEIR_HTTP_REFUSE_CONNECT;
    if (weir_str_eq(t, "*")) {
        p->path = t;
        return weir_str_eq(p->method, "OPTIONS") ? WEIR_HTTP_REFUSE_NONE : WEIR_HTTP_REFUSE_TARGET;
    }
    if (t.ptr[0] != '/') {
        size_t scheme = find(t, ':', 0);
        if (!weir_str_eq_nocase(cut(t, 0, scheme), "http") && !weir_str_eq_nocase(cut(t, 0, scheme), "https"))
            return WEIR_HTTP_REFUSE_TARGET;
        if (t.len - scheme < 3 || memcmp(t.ptr + scheme, "://", 3) != 0)
            return WEIR_HTTP_REFUSE_TARGET;
        t = cut(t, scheme + 3, t.len);
        size_t slash = find(t, '/', 0), mark = find(t, '?', 0);
        facts->authority = cut(t, 0, slash < mark ? slash : mark);
        if (facts->authority.len == 0)
            return WEIR_HTTP_REFUSE_TARGET;
        t = cut(t, facts->authority.len, t.len);
    }
    size_t mark = find(t, '?', 0);
    p->path = mark > 0 ? cut(t, 0, mark) : WEIR_STR("/"); /* absolute form without a path */
    p->query = mark < t.len ? cut(t, mark + 1, t.len) : (struct weir_str){ NULL, 0 };
    return WEIR_HTTP_REFUSE_NONE;
}

static enum weir_http_refusal parse_request_line(struct weir_http_parser *p, struct weir_str line,
                                                 struct facts *facts)
{
    size_t sp1 = find(line, ' ', 0), sp2 = find(line, ' ', sp1 + 1);
    if (sp2 == line.len)
        return WEIR_HTTP_REFUSE_REQUEST_LINE;
    p->method = cut(line, 0, sp1);
    p->target = cut(line, sp1 + 1, sp2);
    struct weir_str version = cut(line, sp2 + 1, line.len);
    if (p->method.len == 0 || p->method.len > WEIR_HTTP_METHOD_MAX || !all_are(p->method, TOKEN))
        return WEIR_HTTP_REFUSE_REQUEST_LINE;
    if (version.len != 8 || memcmp(version.ptr, "HTTP/", 5) != 0 || version.ptr[6] != '.')
        return WEIR_HTTP_REFUSE_REQUEST_LINE;
    char major = version.ptr[5], minor = version.ptr[7];
    if (major < '0' || major > '9' || minor < '0' || minor > '9')
        return WEIR_HTTP_REFUSE_REQUEST_LINE;
    if (major != '1' || minor > '1')
        return WEIR_HTTP_REFUSE_VERSION;
    p->minor = minor - '0';
    return parse_target(p, facts);
}

static void note_connection(struct weir_str list, struct facts *facts)
{
    for (size_t from = 0; from <= list.len;) {
        size_t comma = find(list, ',', from);
        if (weir_str_eq_nocase(trim(cut(list, from, comma)), "close"))
            facts->close = true;
        from = comma + 1;
    }
}

static void note_header(const struct weir_http_header *h, struct facts *facts)
{
    switch (h->name.len) { /* so that most names cost one comparison of numbers */
    case 4:
        if (weir_str_eq_nocase(h->name, "host"))
            facts->host = h->value, facts->n_host++;
        break;
    case 6:
        if (weir_str_eq_nocase(h->name, "expect"))
            facts->expect = h->value, facts->n_expect++;
        break;
    case 10:
        if (weir_str_eq_nocase(h->name, "connection"))
            note_connection(h->value, facts);
        break;
    case 14:
        if (weir_str_eq_nocase(h->name, "content-length"))
            facts->length = h->value, facts->n_length++;
        break;
    case 17:
        if (weir_str_eq_nocase(h->name, "transfer-encoding"))
            facts->encoding = h->value, facts->n_encoding++;
        break;
    default:
        break;
    }
}

static enum weir_http_refusal parse_header(struct weir_http_parser *p, struct weir_str line,
                                           struct facts *facts)
{
    if (line.ptr[0] == ' ' || line.ptr[0] == '\t')
        return WEIR_HTTP_REFUSE_HEADER_FOLD;
    size_t colon = find(line, ':', 0);
    struct weir_http_header *h = &p->headers[p->n_headers];
    h->name = cut(line, 0, colon);
    if (colon == line.len || colon == 0 || !all_are(h->name, TOKEN))
        return WEIR_HTTP_REFUSE_HEADER_NAME; /* white space before the colon is no token either */
    h->value = cut(line, colon + 1, line.len);
    if (!all_are(h->value, VALUE))
        return WEIR_HTTP_REFUSE_HEADER_VALUE;
    h->value = trim(h->value);
    note_header(h, facts);
    p->n_headers++;
    return WEIR_HTTP_REFUSE_NONE;
}

static bool same_nocase(struct weir_str a, struct weir_str b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        char x = a.ptr[i], y = b.ptr[i];
        x = (char)(x >= 'A' && x <= 'Z' ? x + 32 : x);
        y = (char)(y >= 'A' && y <= 'Z' ? y + 32 : y);
        if (x != y)
            return false;
    }
    return true;
}

static bool parse_length(struct weir_str text, uint64_t *ret)
{
    uint64_t n = 0;
    if (text.len == 0 || text.len > 19) /* 19 digits can't pass 2^64 */
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    *ret = n;
    return true;
}

/* The headers are all there: what do they say about the message's frame? */
static enum weir_http_refusal judge(struct weir_http_parser *p, const struct facts *facts)
{
    if (facts->n_host > 1 || (facts->n_host == 0 && p->minor == 1) || !all_are(facts->host, HOST) ||
        !all_are(facts->authority, HOST))
        return WEIR_HTTP_REFUSE_HOST;
    if (facts->n_host == 1 && facts->authority.len != 0 && !same_nocase(facts->host, facts->authority))
        return WEIR_HTTP_REFUSE_HOST;

    uint64_t length = 0;
    if (facts->n_length > 1 || (facts->n_length == 1 && !parse_length(facts->length, &length)))
        return WEIR_HTTP_REFUSE_LENGTH;
    if (facts->n_length != 0 && facts->n_encoding != 0)
        return WEIR_HTTP_REFUSE_LENGTH_AND_ENCODING;
    if (facts->n_encoding > 1 || (facts->n_encoding == 1 && p->minor == 0))
        return WEIR_HTTP_REFUSE_ENCODING_REPEATED;
    if (facts->n_encoding == 1 && !weir_str_eq_nocase(facts->encoding, "chunked"))
        return WEIR_HTTP_REFUSE_ENCODING;
    if (p->minor == 1 && facts->n_expect != 0) {
        if (facts->n_expect > 1 || !weir_str_eq_nocase(facts->expect, "100-continue"))
            return WEIR_HTTP_REFUSE_EXPECT;
        p->expect_continue = true;
    }
    if (length > p->body_max)
        return WEIR_HTTP_REFUSE_BODY_TOO_LARGE;

    p->keep_alive = p->minor == 1 && !facts->close;
    p->chunked = facts->n_encoding == 1;
    p->body_left = length;
    p->state = p->chunked ? ST_CHUNK_SIZE : length != 0 ? ST_BODY : ST_COMPLETE;
    return WEIR_HTTP_REFUSE_NONE;
}

/* The buffer holds the request line, the header lines and the empty line, each ended by CRLF. */
static enum weir_http_refusal parse_head(struct weir_http_parser *p)
{
    struct weir_str head = { weir_buf_ptr(&p->head), weir_buf_len(&p->head) };
    struct facts facts = { .n_host = 0 };
    enum weir_http_refusal refusal = WEIR_HTTP_REFUSE_NONE;
    for (size_t from = 0, i_line = 0; i_line < p->n_lines && refusal == WEIR_HTTP_REFUSE_NONE; i_line++) {
        size_t lf = find(head, '\n', from);
        struct weir_str line =
            cut(head, from, lf - 1); /* a CR inside is in no class, so it is refused below */
        refusal = i_line == 0 ? parse_request_line(p, line, &facts) : parse_header(p, line, &facts);
        from = lf + 1;
    }
    return refusal == WEIR_HTTP_REFUSE_NONE ? judge(p, &facts) : refusal;
}

/* A line is complete in the buffer, from line_start. true: it was the empty line, and the head is complete.
 */
static bool end_line(struct weir_http_parser *p, enum weir_http_refusal *ret_refusal)
{
    size_t len = weir_buf_len(&p->head);
    const char *line = weir_buf_ptr(&p->head) + p->line_start;
    size_t n = len - p->line_start;
    if (n < 2 || line[n - 2] != '\r') {
        *ret_refusal = WEIR_HTTP_REFUSE_BARE_LF;
        return false;
    }
    if (n == 2 && p->n_lines != 0)
        return true;
    if (n ==
        2) { /* RFC 9112 section 2.2: one empty line before the request line is let pass, for old clients */
        if (p->skipped_empty)
            *ret_refusal = WEIR_HTTP_REFUSE_REQUEST_LINE;
        p->skipped_empty = true;
        weir_buf_clear(&p->head);
        return false;
    }
    if (p->n_lines > WEIR_HTTP_HEADERS_MAX)
        *ret_refusal = WEIR_HTTP_REFUSE_TOO_MANY_HEADERS;
    if (p->n_lines == 0)
        p->line_len = len;
    p->n_lines++;
    p->line_start = len;
    return false;
}

static size_t feed_head(struct weir_http_parser *p, const char *data, size_t len,
                        enum weir_http_event *ret_event)
{
    enum weir_http_refusal refusal = WEIR_HTTP_REFUSE_NONE;
    size_t used = 0;
    *ret_event = WEIR_HTTP_MORE;
    while (used < len) {
        size_t have = weir_buf_len(&p->head);
        const char *lf = memchr(data + used, '\n', len - used);
        size_t n = lf ? (size_t)(lf - (data + used)) + 1 : len - used;

        if (have == 0 && !is(data[used], TOKEN) && data[used] != '\r' && data[used] != '\n')
            refusal = WEIR_HTTP_REFUSE_NOT_HTTP;
        else if (p->n_lines == 0 && have + n > WEIR_HTTP_LINE_MAX)
            refusal = WEIR_HTTP_REFUSE_LINE_TOO_LONG;
        else if (p->n_lines != 0 && have + n - p->line_len > WEIR_HTTP_HEAD_MAX)
            refusal = WEIR_HTTP_REFUSE_HEAD_TOO_LARGE;
        if (refusal != WEIR_HTTP_REFUSE_NONE)
            break;

        weir_buf_add(&p->head, data + used, n);
        if (p->head.failed) {
            refusal = WEIR_HTTP_REFUSE_NOMEM;
            break;
        }
        used += n;
        bool complete = lf && end_line(p, &refusal);
        if (complete)
            refusal = parse_head(p);
        if (refusal != WEIR_HTTP_REFUSE_NONE)
            break;
        if (complete) {
            *ret_event = WEIR_HTTP_HEAD;
            return used;
        }
    }
    if (refusal != WEIR_HTTP_REFUSE_NONE)
        *ret_event = refuse(p, refusal);
    return used;
}

static size_t feed_body(struct weir_http_parser *p, const char *data, size_t len,
                        enum weir_http_event *ret_event)
{
    if (len == 0) {
        *ret_event = WEIR_HTTP_MORE;
        return 0;
    }
    size_t n = p->body_left < len ? (size_t)p->body_left : len;
    p->chunk = (struct weir_str){ data, n };
    p->body_left -= n;
    p->body_len += n;
    if (p->body_left == 0)
        p->state = p->chunked ? ST_CHUNK_DATA_CR : ST_COMPLETE;
    *ret_event = WEIR_HTTP_BODY;
    return n;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum weir_http_refusal step_chunk_size(struct weir_http_parser *p, char c)
{
    int digit = hex_digit(c);
    if (digit >= 0) {
        if (++p->n_digits > WEIR_HTTP_CHUNK_DIGITS_MAX)
            return WEIR_HTTP_REFUSE_CHUNK;
        p->body_left = p->body_left * 16 + (uint64_t)digit;
        return WEIR_HTTP_REFUSE_NONE;
    }
    if (p->n_digits == 0 || (c != ';' && c != '\r'))
        return WEIR_HTTP_REFUSE_CHUNK;
    if (p->body_left > p->body_max - p->body_len)
        return WEIR_HTTP_REFUSE_BODY_TOO_LARGE;
    p->n_digits = 0;
    p->state = c == ';' ? ST_CHUNK_EXT : ST_CHUNK_SIZE_LF;
    return WEIR_HTTP_REFUSE_NONE;
}

static enum weir_http_refusal expect_byte(struct weir_http_parser *p, char c, char want, int next,
                                          enum weir_http_refusal otherwise)
{
    if (c != want)
        return otherwise;
    p->state = next;
    return WEIR_HTTP_REFUSE_NONE;
}

static enum weir_http_refusal step_trailer(struct weir_http_parser *p, char c)
{
    if (++p->n_trailer > WEIR_HTTP_TRAILER_MAX)
        return WEIR_HTTP_REFUSE_TRAILER;
    switch (p->state) {
    case ST_TRAILER_START:
        p->state = c == '\r' ? ST_LAST_LF : ST_TRAILER_NAME;
        return c == '\r' || is(c, TOKEN) ? WEIR_HTTP_REFUSE_NONE : WEIR_HTTP_REFUSE_TRAILER;
    case ST_TRAILER_NAME:
        if (c == ':')
            p->state = ST_TRAILER_VALUE;
        return c == ':' || is(c, TOKEN) ? WEIR_HTTP_REFUSE_NONE : WEIR_HTTP_REFUSE_TRAILER;
    case ST_TRAILER_VALUE:
        if (c == '\r')
            p->state = ST_TRAILER_LF;
        return c == '\r' || is(c, VALUE) ? WEIR_HTTP_REFUSE_NONE : WEIR_HTTP_REFUSE_TRAILER;
    case ST_TRAILER_LF:
        return expect_byte(p, c, '\n', ST_TRAILER_START, WEIR_HTTP_REFUSE_TRAILER);
    default:
        return expect_byte(p, c, '\n', ST_COMPLETE, WEIR_HTTP_REFUSE_TRAILER);
    }
}

/* One byte of a chunked body's framing. */
static enum weir_http_refusal step_chunked(struct weir_http_parser *p, char c)
{
    switch (p->state) {
    case ST_CHUNK_SIZE:
        return step_chunk_size(p, c);
    case ST_CHUNK_EXT:
        if (c == '\r')
            p->state = ST_CHUNK_SIZE_LF;
        else if (!is(c, VALUE) || ++p->n_ext > WEIR_HTTP_CHUNK_EXT_MAX)
            return WEIR_HTTP_REFUSE_CHUNK;
        return WEIR_HTTP_REFUSE_NONE;
    case ST_CHUNK_SIZE_LF:
        return expect_byte(p, c, '\n', p->body_left != 0 ? ST_CHUNK_DATA : ST_TRAILER_START,
                           WEIR_HTTP_REFUSE_CHUNK);
    case ST_CHUNK_DATA_CR:
        return expect_byte(p, c, '\r', ST_CHUNK_DATA_LF, WEIR_HTTP_REFUSE_CHUNK);
    case ST_CHUNK_DATA_LF:
        return expect_byte(p, c, '\n', ST_CHUNK_SIZE, WEIR_HTTP_REFUSE_CHUNK);
    default:
        return step_trailer(p, c);
    }
}

size_t weir_http_parse(struct weir_http_parser *p, const char *data, size_t len,
                       enum weir_http_event *ret_event)
{
    size_t used = 0;
    for (;;) {
        switch (p->state) {
        case ST_HEAD:
            return feed_head(p, data, len, ret_event);
        case ST_BODY:
        case ST_CHUNK_DATA:
            return used + feed_body(p, data + used, len - used, ret_event);
        case ST_COMPLETE:
            p->state = ST_DONE;
            *ret_event = WEIR_HTTP_END;
            return used;
        case ST_DONE: /* a caller that forgot to clear gets the same answer again */
            *ret_event = WEIR_HTTP_END;
            return used;
        case ST_ERROR:
            *ret_event = WEIR_HTTP_ERROR;
            return used;
        default:
            break;
        }
        if (used == len) {
            *ret_event = WEIR_HTTP_MORE;
            return used;
        }
        enum weir_http_refusal refusal = step_chunked(p, data[used]);
        if (refusal != WEIR_HTTP_REFUSE_NONE) {
            *ret_event = refuse(p, refusal);
            return used;
        }
        used++;
    }
}
