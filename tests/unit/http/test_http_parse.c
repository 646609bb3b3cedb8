/* test_http_parse.c - each case is parsed whole, byte by byte, and cut in two at each place, alike. [H1] */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http/http_parse.h"

enum { BODY_MAX = 100 };

/* Feeds one piece, as an exact copy so that ASan sees a read past its end, and appends what happened to
 * `out`: "METHOD path[?query] (close)", " body...", ";" for the end, "!label" for a refusal. */
static void feed(struct weir_http_parser *p, const char *data, size_t len, struct weir_buf *out)
{
    char *copy = malloc(len ? len : 1);
    enum weir_http_event event = WEIR_HTTP_MORE;
    size_t used = 0;

    assert_non_null(copy);
    memcpy(copy, data, len);
    do {
        size_t n = weir_http_parse(p, copy + used, len - used, &event);
        assert_true(n <= len - used);
        assert_true(weir_buf_len(&p->head) <= WEIR_HTTP_LINE_MAX + WEIR_HTTP_HEAD_MAX); /* [H2] */
        used += n;
        switch (event) {
        case WEIR_HTTP_HEAD:
            weir_buf_add(out, p->method.ptr, p->method.len);
            weir_buf_addc(out, ' ');
            weir_buf_add(out, p->path.ptr, p->path.len);
            if (p->query.len)
                weir_buf_addf(out, "?%.*s", WEIR_STR_FMT(p->query));
            weir_buf_adds(out, p->keep_alive ? "" : " close");
            weir_buf_adds(out, p->expect_continue ? " expect" : "");
            for (size_t i = 0; i < p->n_headers; i++) {
                if (p->headers[i].name.ptr[0] == 'x')
                    weir_buf_addf(out, " [%.*s]", WEIR_STR_FMT(p->headers[i].value));
            }
            weir_buf_addc(out, ' ');
            break;
        case WEIR_HTTP_BODY:
            assert_true(p->chunk.ptr >= copy && p->chunk.ptr + p->chunk.len <= copy + len);
            weir_buf_add(out, p->chunk.ptr, p->chunk.len);
            break;
        case WEIR_HTTP_END:
            weir_buf_addc(out, ';');
            weir_http_parser_clear(p);
            assert_true(weir_http_parser_idle(p));
            break;
        case WEIR_HTTP_ERROR:
            if (out->tail == out->head || out->data[out->tail - 1] != '.')
                weir_buf_addf(out, "!%s.", weir_http_refusal_info(p->refusal)->label);
            break;
        case WEIR_HTTP_MORE:
            assert_int_equal(used, len);
            break;
        }
    } while (event != WEIR_HTTP_MORE && event != WEIR_HTTP_ERROR);
    free(copy);
}

static char *outcome(const char *in, size_t len, size_t cut, size_t step)
{
    struct weir_http_parser p;
    struct weir_buf out;

    weir_http_parser_init(&p, BODY_MAX);
    weir_buf_init(&out, 0);
    if (step == 0) {
        feed(&p, in, cut, &out);
        feed(&p, in + cut, len - cut, &out);
    } else {
        for (size_t at = 0; at < len; at += step)
            feed(&p, in + at, at + step < len ? step : len - at, &out);
    }
    char *text = strdup(weir_buf_cstr(&out) ? weir_buf_cstr(&out) : "");
    weir_buf_release(&out);
    weir_http_parser_release(&p);
    return text;
}

static void check(const char *in, size_t len, const char *want)
{
    for (size_t cut = 0; cut <= len + 1; cut++) {
        char *got = cut <= len ? outcome(in, len, cut, 0) : outcome(in, len, 0, 1);
        if (strcmp(got, want) != 0)
            fail_msg("cut at %zu of %zu\n  input %.300s\n  want  %s\n  got   %s", cut, len, in, want, got);
        free(got);
    }
}

struct row {
    const char *in;
    size_t len;
    const char *want;
};
#define ROW(in, want)                                                                                        \
    {                                                                                                        \
        in, sizeof(in) - 1, want                                                                             \
    }
#define H "Host: a\r\n"

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check(rows[i].in, rows[i].len, rows[i].want);
}
#define CHECK_ROWS(rows) check_rows(rows, sizeof(rows) / sizeof((rows)[0]))

static void test_well_formed_requests(void **state)
{
    static const struct row rows[] = {
        ROW("GET / HTTP/1.1\r\n" H "\r\n", "GET / ;"),
        ROW("GET /a%2Fb/../c?x=%20&y HTTP/1.1\r\n" H "\r\n", "GET /a%2Fb/../c?x=%20&y ;"),
        ROW("GET /? HTTP/1.1\r\n" H "\r\n", "GET / ;"),
        ROW("GET /?a?b HTTP/1.1\r\n" H "\r\n", "GET /?a?b ;"),
        ROW("OPTIONS * HTTP/1.1\r\n" H "\r\n", "OPTIONS * ;"),
        ROW("\r\nGET / HTTP/1.1\r\n" H "\r\n", "GET / ;"),
        ROW("M-SEARCH! / HTTP/1.1\r\n" H "\r\n", "M-SEARCH! / ;"),
        ROW("GET / HTTP/1.1\r\nhost:a\r\nx-a:\r\nx-b: \t b\tc \t\r\nx-c:\xc3\xa9\r\n\r\n",
            "GET / [] [b\tc] [\xc3\xa9] ;"),
        ROW("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET / ;"),
        ROW("GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / ;"),
        ROW("GET / HTTP/1.0\r\n\r\n", "GET / close ;"),
        ROW("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET / close ;"),
        ROW("GET / HTTP/1.1\r\n" H "Connection: Close\r\n\r\n", "GET / close ;"),
        ROW("GET / HTTP/1.1\r\n" H "Connection: foo , close\r\n\r\n", "GET / close ;"),
        ROW("GET / HTTP/1.1\r\n" H "Connection: keep-alive\r\n\r\n", "GET / ;"),
        ROW("GET http://a/b?c HTTP/1.1\r\n" H "\r\n", "GET /b?c ;"),
        ROW("GET HTTPS://A HTTP/1.1\r\n" H "\r\n", "GET / ;"),
        ROW("GET http://a?q HTTP/1.1\r\n" H "\r\n", "GET /?q ;"),
    };
    (void)state;
    CHECK_ROWS(rows);
}

static void test_bodies(void **state)
{
    static const struct row rows[] = {
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc", "POST / abc;"),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", "POST / ;"),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nab", "POST / ab"),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 3\r\nExpect: 100-Continue\r\n\r\nabc",
            "POST / expect abc;"),
        ROW("POST / HTTP/1.1\r\n" H
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "POST / abc0123456789;"),
        ROW("POST / HTTP/1.1\r\n" H
            "transfer-encoding: CHUNKED\r\n\r\n003;a=b;c=\"d e\"\r\nabc\r\n000\r\nx: y\r\nz:\r\n\r\n",
            "POST / abc;"),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\n" H "\r\n",
            "POST / abc;GET /2 ;"),
        ROW("POST / HTTP/1.1\r\n" H
            "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n" H "\r\n",
            "POST / a;GET /2 ;"),
    };
    (void)state;
    CHECK_ROWS(rows);
}

static void test_two_readings_are_refused(void **state)
{
    static const struct row rows[] = {
        /* Both a length and an encoding. */
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "!length_and_encoding."),
        ROW("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
            "!length_and_encoding."),
        ROW("POST / HTTP/1.1\r\n" H "Transfer-Encoding: x\r\nContent-Length: 0\r\n\r\n",
            "!length_and_encoding."),
        /* Lengths. */
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 4\r\n\r\n", "!content_length."),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", "!content_length."),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 3, 3\r\n\r\n", "!content_length."),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 1,1\r\n\r\n", "!content_length."),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: +15\r\n\r\n", "!content_length."),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", "!content_length."),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 0x1\r\n\r\n", "!content_length."),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 1 2\r\n\r\n", "!content_length."),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", "!content_length."),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551617\r\n\r\n", "!content_length."),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 9223372036854775808\r\n\r\n", "!body_too_large."),
        ROW("POST / HTTP/1.1\r\n" H "Content-Length: 101\r\n\r\n", "!body_too_large."),
        /* Encodings. */
        ROW("POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", "!transfer_encoding."),
        ROW("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, chunked\r\n\r\n", "!transfer_encoding."),
        ROW("POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", "!transfer_encoding."),
        ROW("POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n", "!transfer_encoding."),
        ROW("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked;q=1\r\n\r\n", "!transfer_encoding."),
        ROW("POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n", "!transfer_encoding."),
        ROW("POST / HTTP/1.1\r\n" H "Transfer-Encoding: \x0b"
            "chunked\r\n\r\n",
            "!header_value."),
        ROW("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "!encoding_repeated."),
        ROW("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
            "!encoding_repeated."),
        ROW("POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n", "!encoding_repeated."),
        /* Names and values. */
        ROW("POST / HTTP/1.1\r\n" H "Content-Length : 3\r\n\r\nabc", "!header_name."),
        ROW("POST / HTTP/1.1\r\n" H "Transfer-Encoding\t: chunked\r\n\r\n", "!header_name."),
        ROW("GET / HTTP/1.1\r\n" H "x-a: b\r\n c\r\n\r\n", "!header_fold."),
        ROW("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "!header_fold."),
        ROW("GET / HTTP/1.1\r\n" H "\tx: a\r\n\r\n", "!header_fold."),
        ROW("GET / HTTP/1.1\r\n" H ": a\r\n\r\n", "!header_name."),
        ROW("GET / HTTP/1.1\r\n" H "nocolon\r\n\r\n", "!header_name."),
        ROW("GET / HTTP/1.1\r\n" H "x\xe9: a\r\n\r\n", "!header_name."),
        ROW("GET / HTTP/1.1\r\n" H "x\0y: a\r\n\r\n", "!header_name."),
        ROW("GET / HTTP/1.1\r\n" H "x: a\0b\r\n\r\n", "!header_value."),
        ROW("GET / HTTP/1.1\r\n" H "x: a\rb\r\n\r\n", "!header_value."),
        ROW("GET / HTTP/1.1\r\n" H "x: a\r\r\n\r\n", "!header_value."),
        ROW("GET / HTTP/1.1\r\n" H "x: a\x7f\r\n\r\n", "!header_value."),
        /* Ends of lines. */
        ROW("GET / HTTP/1.1\nHost: a\n\n", "!bare_lf."),
        ROW("GET / HTTP/1.1\r\nHost: a\n\r\n", "!bare_lf."),
        ROW("GET / HTTP/1.1\r\n" H "\n", "!bare_lf."),
        ROW("GET / HTTP/1.1\r\n" H "\r\r\n\r\n", "!header_name."),
        ROW("\nGET / HTTP/1.1\r\n" H "\r\n", "!bare_lf."),
        ROW("\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", "!request_line."),
        ROW("\rGET / HTTP/1.1\r\n" H "\r\n", "!request_line."),
        /* Hosts. */
        ROW("GET / HTTP/1.1\r\n\r\n", "!host."),
        ROW("GET / HTTP/1.1\r\n" H H "\r\n", "!host."),
        ROW("GET / HTTP/1.0\r\n" H H "\r\n", "!host."),
        ROW("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "!host."),
        ROW("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "!host."),
        ROW("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "!host."),
        ROW("GET http://b/ HTTP/1.1\r\n" H "\r\n", "!host."),
        ROW("GET http://u@a/ HTTP/1.1\r\n" H "\r\n", "!host."),
    };
    (void)state;
    CHECK_ROWS(rows);
}

static void test_malformed_request_lines(void **state)
{
    static const struct row rows[] = {
        ROW("\x16\x03\x01\x02", "!not_http."),
        ROW(" GET / HTTP/1.1\r\n" H "\r\n", "!not_http."),
        ROW("GET  / HTTP/1.1\r\n" H "\r\n", "!request_line."),
        ROW("GET /  HTTP/1.1\r\n" H "\r\n", "!request_line."),
        ROW("GET / HTTP/1.1 \r\n" H "\r\n", "!request_line."),
        ROW("GET /\tHTTP/1.1\r\n" H "\r\n", "!request_line."),
        ROW("GET /\r\n\r\n", "!request_line."),
        ROW("GET\r\n\r\n", "!request_line."),
        ROW("G(T / HTTP/1.1\r\n" H "\r\n", "!request_line."),
        ROW("GET / http/1.1\r\n" H "\r\n", "!request_line."),
        ROW("GET / HTTP/1.10\r\n" H "\r\n", "!request_line."),
        ROW("GET / HTTP/+.1\r\n" H "\r\n", "!request_line."),
        ROW("GET / HTTP/1.2\r\n" H "\r\n", "!version."),
        ROW("GET / HTTP/0.9\r\n" H "\r\n", "!version."),
        ROW("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "!version."),
        ROW("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n" H "\r\n", "!request_line."),
        ROW("GET * HTTP/1.1\r\n" H "\r\n", "!target."),
        ROW("GET a HTTP/1.1\r\n" H "\r\n", "!target."),
        ROW("GET ftp://a/ HTTP/1.1\r\n" H "\r\n", "!target."),
        ROW("GET http:/a HTTP/1.1\r\n" H "\r\n", "!target."),
        ROW("GET http:///a HTTP/1.1\r\n" H "\r\n", "!target."),
        ROW("GET /#f HTTP/1.1\r\n" H "\r\n", "!target."),
        ROW("GET /\\a HTTP/1.1\r\n" H "\r\n", "!target."),
        ROW("GET /\x01 HTTP/1.1\r\n" H "\r\n", "!target."),
        ROW("GET /\0 HTTP/1.1\r\n" H "\r\n", "!target."),
        ROW("GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n", "!target."),
        ROW("CONNECT a:1 HTTP/1.1\r\n" H "\r\n", "!connect."),
        ROW("POST / HTTP/1.1\r\n" H "Expect: 200-ok\r\n\r\n", "!expect."),
    };
    (void)state;
    CHECK_ROWS(rows);
}

#define CHUNKED "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
static void test_malformed_chunks(void **state)
{
    static const struct row rows[] = {
        ROW(CHUNKED "\r\n", "POST / !chunk."),
        ROW(CHUNKED ";a\r\n", "POST / !chunk."),
        ROW(CHUNKED "g\r\n", "POST / !chunk."),
        ROW(CHUNKED "-1\r\n", "POST / !chunk."),
        ROW(CHUNKED "+1\r\na\r\n", "POST / !chunk."),
        ROW(CHUNKED "0x1\r\na\r\n", "POST / !chunk."),
        ROW(CHUNKED " 1\r\na\r\n", "POST / !chunk."),
        ROW(CHUNKED "1 \r\na\r\n", "POST / !chunk."),
        ROW(CHUNKED "1\na\r\n", "POST / !chunk."),
        ROW(CHUNKED "1\r\nab\r\n", "POST / a!chunk."),
        ROW(CHUNKED "1\r\na\n0\r\n\r\n", "POST / a!chunk."),
        ROW(CHUNKED "1\r\na0\r\n\r\n", "POST / a!chunk."),
        ROW(CHUNKED "1\rX\na\r\n", "POST / !chunk."),
        ROW(CHUNKED "1;a\nb\r\na\r\n", "POST / !chunk."),
        ROW(CHUNKED "1;a\0\r\na\r\n", "POST / !chunk."),
        ROW(CHUNKED "00000000000000001\r\na\r\n", "POST / !chunk."),
        ROW(CHUNKED "ffffffffffffffff\r\n", "POST / !body_too_large."),
        ROW(CHUNKED "1\r\na\r\nffffffffffffffff\r\n", "POST / a!body_too_large."),
        ROW(CHUNKED "65\r\n", "POST / !body_too_large."),
        ROW(CHUNKED "0\r\nx: a\n\r\n", "POST / !trailer."),
        ROW(CHUNKED "0\r\n x: a\r\n\r\n", "POST / !trailer."),
        ROW(CHUNKED "0\r\nx : a\r\n\r\n", "POST / !trailer."),
        ROW(CHUNKED "0\r\nx: a\0\r\n\r\n", "POST / !trailer."),
        ROW(CHUNKED "0\r\n\rX", "POST / !trailer."),
    };
    (void)state;
    CHECK_ROWS(rows);
}

static char *fill(char *at, size_t n)
{
    memset(at, 'a', n);
    return at + n;
}

/* Each bound: the last size that passes and the first that does not; in one piece, in pieces of 1 and of
 * 1000. [H2] */
static void expect_both(const char *in, const char *want)
{
    size_t len = strlen(in);
    static const size_t steps[] = { 1, 1000, SIZE_MAX / 2 };
    for (size_t i = 0; i < 3; i++) {
        char *got = outcome(in, len, 0, steps[i]);
        const char *end = *want ? strrchr(got, *want) : got;
        assert_non_null(end);
        assert_string_equal(end, want);
        free(got);
    }
}

static void test_bounds(void **state)
{
    static char in[64 * 1024];
    (void)state;

    for (int over = 0; over <= 1; over++) {
        char *at = stpcpy(in, "GET /");
        at = fill(at, WEIR_HTTP_LINE_MAX - strlen("GET / HTTP/1.1\r\n") + (size_t)over);
        strcpy(at, " HTTP/1.1\r\n" H "\r\n");
        expect_both(in, over ? "!line_too_long." : ";");

        at = fill(in, WEIR_HTTP_LINE_MAX + (size_t)over); /* a line without an end */
        *at = '\0';
        expect_both(in, over ? "!line_too_long." : "");

        at = stpcpy(in, "GET / HTTP/1.1\r\n" H "b: ");
        at = fill(at, WEIR_HTTP_HEAD_MAX - strlen(H "b: \r\n\r\n") + (size_t)over);
        strcpy(at, "\r\n\r\n");
        expect_both(in, over ? "!head_too_large." : ";");

        at = stpcpy(in, "GET / HTTP/1.1\r\n" H);
        for (int i = 1; i < WEIR_HTTP_HEADERS_MAX + over; i++)
            at = stpcpy(at, "b: c\r\n");
        strcpy(at, "\r\n");
        expect_both(in, over ? "!too_many_headers." : ";");

        at = stpcpy(in, CHUNKED "1;");
        at = fill(at, WEIR_HTTP_CHUNK_EXT_MAX - 1);
        at = stpcpy(at, "\r\nb\r\n0;");
        at = fill(at, 1 + (size_t)over); /* the bound is for the whole message */
        strcpy(at, "\r\n\r\n");
        expect_both(in, over ? "!chunk." : ";");

        at = stpcpy(in, CHUNKED "0\r\nb:");
        at = fill(at, WEIR_HTTP_TRAILER_MAX - strlen("b:\r\n\r\n") + (size_t)over);
        strcpy(at, "\r\n\r\n");
        expect_both(in, over ? "!trailer." : ";");

        at = stpcpy(in, CHUNKED "0000000000000032\r\n");
        at = fill(at, BODY_MAX / 2);
        at += sprintf(at, "\r\n%x\r\n", BODY_MAX / 2 + over);
        at = fill(at, BODY_MAX / 2 + (size_t)over);
        strcpy(at, "\r\n0\r\n\r\n");
        expect_both(in, over ? "!body_too_large." : ";");
    }
}

/* [H3] */
static void test_nothing_is_read_after_a_refusal(void **state)
{
    struct weir_http_parser p;
    enum weir_http_event event;
    static const char bad[] = "GET / HTTP/9.9\r\n\r\n", good[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    (void)state;
    weir_http_parser_init(&p, BODY_MAX);
    (void)weir_http_parse(&p, bad, sizeof bad - 1, &event);
    assert_int_equal(event, WEIR_HTTP_ERROR);
    assert_int_equal(weir_http_parse(&p, good, sizeof good - 1, &event), 0);
    assert_int_equal(event, WEIR_HTTP_ERROR);
    assert_int_equal(p.refusal, WEIR_HTTP_REFUSE_VERSION);
    weir_http_parser_release(&p);
}

static void test_find_ignores_case_and_takes_the_first(void **state)
{
    static const struct weir_http_header headers[] = {
        { WEIR_STR("Content-Type"), WEIR_STR("a") },
        { WEIR_STR("content-type"), WEIR_STR("b") },
    };
    (void)state;
    assert_true(weir_str_eq(weir_http_find(headers, 2, "content-type"), "a"));
    assert_null(weir_http_find(headers, 2, "content").ptr);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_well_formed_requests),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_two_readings_are_refused),
        cmocka_unit_test(test_malformed_request_lines),
        cmocka_unit_test(test_malformed_chunks),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_nothing_is_read_after_a_refusal),
        cmocka_unit_test(test_find_ignores_case_and_takes_the_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
