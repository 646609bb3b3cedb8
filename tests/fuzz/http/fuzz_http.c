/* fuzz_http.c - the request parser on arbitrary bytes.
 *
 * Input: one byte that seeds the cuts, then the stream. It is parsed whole, in random pieces, byte by byte;
 * each piece is an exact copy on the heap. Properties: the three tell the same story [H1]; nothing outside
 * the piece is read (ASan); the head stays within its bound [H2]; what is accepted has one reading only: no
 * control characters, one Host, not both a length and an encoding, a body within its limit. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http/http_parse.h"

enum { BODY_MAX = 1000, BYTEWISE_MAX = 20000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct story { /* a running hash of what happened */
    uint64_t hash;
    uint64_t n_body; /* of this message */
};

static void tell(struct story *story, char tag, const char *text, size_t len)
{
    story->hash = (story->hash ^ (uint8_t)tag) * 1099511628211ull;
    for (size_t i = 0; i < len; i++)
        story->hash = (story->hash ^ (uint8_t)text[i]) * 1099511628211ull;
}

static void must(int ok)
{
    if (!ok)
        abort();
}

static void check_text(const struct weir_http_parser *p, struct weir_str s)
{
    const char *head = weir_buf_ptr(&p->head);
    must(s.len == 0 || (s.ptr >= head && s.ptr + s.len <= head + weir_buf_len(&p->head)));
    for (size_t i = 0; i < s.len; i++)
        must(((uint8_t)s.ptr[i] >= ' ' || s.ptr[i] == '\t') && s.ptr[i] != 0x7f);
}

static int count(const struct weir_http_parser *p, const char *name)
{
    int n = 0;
    for (size_t i = 0; i < p->n_headers; i++)
        n += weir_str_eq_nocase(p->headers[i].name, name);
    return n;
}

static void check_head(const struct weir_http_parser *p, struct story *story)
{
    int n_host = count(p, "host"), n_length = count(p, "content-length"),
        n_encoding = count(p, "transfer-encoding");
    must(n_host == 1 || (n_host == 0 && p->minor == 0));
    must(n_length + n_encoding <= 1);
    must(p->chunked == (n_encoding == 1));
    must(p->chunked ? p->body_left == 0 : p->body_left <= BODY_MAX);
    must(p->n_headers <= WEIR_HTTP_HEADERS_MAX);
    must(p->path.len > 0 && (p->path.ptr[0] == '/' || weir_str_eq(p->path, "*")));
    check_text(p, p->method);
    check_text(p, p->target);
    check_text(p, p->query);
    tell(story, 'M', p->method.ptr, p->method.len);
    tell(story, 'P', p->path.ptr, p->path.len);
    tell(story, 'Q', p->query.ptr, p->query.len);
    for (size_t i = 0; i < p->n_headers; i++) {
        check_text(p, p->headers[i].name);
        check_text(p, p->headers[i].value);
        tell(story, 'N', p->headers[i].name.ptr, p->headers[i].name.len);
        tell(story, 'V', p->headers[i].value.ptr, p->headers[i].value.len);
    }
    tell(story, (char)('0' + p->minor + 2 * p->keep_alive + 4 * p->chunked + 8 * p->expect_continue), NULL,
         0);
    story->n_body = 0;
}

/* false: refused. */
static int feed(struct weir_http_parser *p, const uint8_t *data, size_t len, struct story *story)
{
    char *copy = malloc(len ? len : 1);
    enum weir_http_event event = WEIR_HTTP_MORE;
    size_t used = 0;
    must(copy != NULL);
    memcpy(copy, data, len);
    do {
        size_t n = weir_http_parse(p, copy + used, len - used, &event);
        must(n <= len - used);
        used += n;
        must(weir_buf_len(&p->head) <= WEIR_HTTP_LINE_MAX + WEIR_HTTP_HEAD_MAX);
        switch (event) {
        case WEIR_HTTP_HEAD:
            check_head(p, story);
            break;
        case WEIR_HTTP_BODY:
            must(p->chunk.len > 0 && p->chunk.ptr >= copy && p->chunk.ptr + p->chunk.len <= copy + len);
            for (size_t i = 0; i < p->chunk.len;
                 i++) /* byte by byte: where a body is cut is no part of the story */
                tell(story, 'B', p->chunk.ptr + i, 1);
            story->n_body += p->chunk.len;
            must(story->n_body <= BODY_MAX);
            break;
        case WEIR_HTTP_END:
            tell(story, 'E', NULL, 0);
            weir_http_parser_clear(p);
            break;
        case WEIR_HTTP_ERROR:
            must(p->refusal != WEIR_HTTP_REFUSE_NONE && weir_http_refusal_info(p->refusal)->status >= 400);
            tell(story, 'X', weir_http_refusal_info(p->refusal)->label, 1);
            tell(story, (char)p->refusal, NULL, 0);
            break;
        case WEIR_HTTP_MORE:
            must(used == len);
            break;
        }
    } while (event != WEIR_HTTP_MORE && event != WEIR_HTTP_ERROR);
    free(copy);
    return event != WEIR_HTTP_ERROR;
}

/* piece_max 0: in one piece. */
static struct story run(const uint8_t *data, size_t size, size_t piece_max, uint64_t seed)
{
    struct weir_http_parser p;
    struct story story = { .hash = 14695981039346656037ull };
    weir_http_parser_init(&p, BODY_MAX);
    for (size_t at = 0; at < size;) {
        size_t n = size - at;
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        if (piece_max != 0 && n > 1 + (seed >> 33) % piece_max)
            n = 1 + (seed >> 33) % piece_max;
        if (!feed(&p, data + at, n, &story))
            break;
        at += n;
    }
    weir_http_parser_release(&p);
    return story;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t seed = data[0];
    struct story whole = run(data + 1, size - 1, /* piece_max= */ 0, seed);
    struct story pieces = run(data + 1, size - 1, /* piece_max= */ (size_t)1 << (1 + seed % 8), seed);
    must(whole.hash == pieces.hash && whole.n_body == pieces.n_body);
    if (size <= BYTEWISE_MAX) {
        struct story bytes = run(data + 1, size - 1, /* piece_max= */ 1, seed);
        must(whole.hash == bytes.hash && whole.n_body == bytes.n_body);
    }
    return 0;
}
