/* http_parse.h - a strict HTTP/1.1 request parser: bytes in, events out, no I/O.
 *
 *     n = weir_http_parse(&p, data, len, &event);    consumes n bytes of data and says what happened:
 *         MORE   all is consumed; feed more
 *         HEAD   method, target, headers are there; the body (if any) follows
 *         BODY   p.chunk is a piece of the body: a slice of the caller's data
 *         END    the message is complete; the rest of data is the next one's: weir_http_parser_clear first
 *         ERROR  p.refusal says why; the connection can't go on; the parser stays in this state
 *
 * The events are the same however the bytes are cut (but that a body comes in other pieces). What two parsers
 * could read in two ways is refused, never repaired: that is what request smuggling lives on. Percent
 * encoding is left alone.
 *
 * Memory: one growing buffer for the head, at most WEIR_HTTP_LINE_MAX + WEIR_HTTP_HEAD_MAX bytes. One thread
 * at a time. Source: RFC 9112 (messages), RFC 9110 (semantics). */
#ifndef WEIR_HTTP_HTTP_PARSE_H
#define WEIR_HTTP_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum {
    WEIR_HTTP_LINE_MAX = 8 * 1024,      /* request line */
    WEIR_HTTP_HEAD_MAX = 32 * 1024,     /* header section */
    WEIR_HTTP_HEADERS_MAX = 100,        /* header fields */
    WEIR_HTTP_METHOD_MAX = 32,          /* bytes in a method */
    WEIR_HTTP_CHUNK_DIGITS_MAX = 16,    /* hexadecimal digits in a chunk size */
    WEIR_HTTP_CHUNK_EXT_MAX = 4 * 1024, /* bytes of chunk extensions in a message; they are ignored */
    WEIR_HTTP_TRAILER_MAX = 8 * 1024,   /* bytes of trailers in a message; they are discarded */
};
#define WEIR_HTTP_BODY_MAX_DEFAULT (16ull << 20)

/* Why a request or a connection is refused: X(name, status, label of weir_http_refused_total, what the client
 * is told). */
#define WEIR_HTTP_REFUSALS(X)                                                                                \
    X(NONE, 0, "none", "")                                                                                   \
    X(NOT_HTTP, 400, "not_http", "the bytes are not HTTP; is this TLS on a plaintext port?")                 \
    X(BARE_LF, 400, "bare_lf", "a line ends in a bare LF")                                                   \
    X(REQUEST_LINE, 400, "request_line", "malformed request line")                                           \
    X(TARGET, 400, "target", "malformed request target")                                                     \
    X(VERSION, 505, "version", "only HTTP/1.1 and HTTP/1.0 are spoken here")                                 \
    X(CONNECT, 501, "connect", "CONNECT is not supported")                                                   \
    X(LINE_TOO_LONG, 414, "line_too_long", "the request line is too long")                                   \
    X(HEAD_TOO_LARGE, 431, "head_too_large", "the header section is too large")                              \
    X(TOO_MANY_HEADERS, 431, "too_many_headers", "there are too many header fields")                         \
    X(HEADER_NAME, 400, "header_name", "malformed header field name")                                        \
    X(HEADER_VALUE, 400, "header_value", "a header value holds a control character")                         \
    X(HEADER_FOLD, 400, "header_fold", "a header field is folded over two lines")                            \
    X(HOST, 400, "host", "exactly one well-formed Host header is needed, the same as the target's")          \
    X(LENGTH, 400, "content_length", "malformed or repeated Content-Length")                                 \
    X(LENGTH_AND_ENCODING, 400, "length_and_encoding",                                                       \
      "both Content-Length and Transfer-Encoding are given")                                                 \
    X(ENCODING, 501, "transfer_encoding", "the only transfer encoding known here is one `chunked`")          \
    X(ENCODING_REPEATED, 400, "encoding_repeated", "Transfer-Encoding is repeated or given with HTTP/1.0")   \
    X(EXPECT, 417, "expect", "the only expectation known here is 100-continue")                              \
    X(CHUNK, 400, "chunk", "malformed chunk")                                                                \
    X(TRAILER, 400, "trailer", "malformed or too large trailer section")                                     \
    X(BODY_TOO_LARGE, 413, "body_too_large", "the request body is too large")                                \
    X(HEAD_TIMEOUT, 408, "head_timeout", "the request's head took too long to arrive")                       \
    X(BODY_TIMEOUT, 408, "body_timeout", "the request's body took too long to arrive")                       \
    X(NOMEM, 503, "no_memory", "no memory for this request")                                                 \
    X(BODIES, 503, "bodies", "too many large requests at once; try again")                                   \
    X(CONNECTIONS, 503, "connections", "too many connections")                                               \
    X(DESCRIPTORS, 503, "descriptors", "no file descriptor left")                                            \
    X(TLS, 0, "tls_handshake", "the TLS handshake failed or took too long")                                  \
    X(STALL, 0, "write_stall", "the client stopped reading")                                                 \
    X(OUTPUT_FULL, 0, "output_full", "the client reads too slowly")

enum weir_http_refusal {
#define WEIR_HTTP_REFUSAL_ENUM(name, status, label, text) WEIR_HTTP_REFUSE_##name,
    WEIR_HTTP_REFUSALS(WEIR_HTTP_REFUSAL_ENUM)
#undef WEIR_HTTP_REFUSAL_ENUM
        WEIR_HTTP_REFUSAL_COUNT
};
struct weir_http_refusal_info {
    int status; /* 0: there is nobody to tell */
    const char *label;
    const char *text;
};
const struct weir_http_refusal_info *weir_http_refusal_info(enum weir_http_refusal refusal);

struct weir_http_header {
    struct weir_str name;  /* as sent */
    struct weir_str value; /* without the white space around it */
};

enum weir_http_event {
    WEIR_HTTP_MORE,
    WEIR_HTTP_HEAD,
    WEIR_HTTP_BODY,
    WEIR_HTTP_END,
    WEIR_HTTP_ERROR,
};

struct weir_http_parser {
    /* From HEAD until weir_http_parser_clear; slices of `head`. */
    struct weir_str method;
    struct weir_str target; /* as sent */
    struct weir_str path;   /* starts with '/', or is "*" (OPTIONS) */
    struct weir_str query;  /* after '?'; empty when none */
    struct weir_http_header headers[WEIR_HTTP_HEADERS_MAX];
    size_t n_headers;
    int minor;            /* HTTP/1.<minor> */
    bool keep_alive;      /* HTTP/1.1 without `connection: close` */
    bool chunked;         /* transfer encoding */
    bool expect_continue; /* the client waits for 100 before it sends the body */
    uint64_t body_left;   /* bytes to come: of the body, or of this chunk */

    struct weir_str chunk; /* at BODY: valid until the caller's data goes */
    enum weir_http_refusal refusal;

    /* Private. */
    uint64_t body_max, body_len;
    struct weir_buf head;
    size_t line_start, n_lines; /* in the head: offset of the line that is coming in; lines before it */
    size_t line_len;            /* bytes of the request line */
    bool skipped_empty;         /* an empty line before the request line */
    size_t n_ext, n_trailer;
    int n_digits;
    int state;
};

void weir_http_parser_init(struct weir_http_parser *p, uint64_t body_max);
void weir_http_parser_release(struct weir_http_parser *p);
void weir_http_parser_clear(struct weir_http_parser *p);      /* for the next message; keeps the buffer */
bool weir_http_parser_idle(const struct weir_http_parser *p); /* nothing of a message has come in yet */
size_t weir_http_parse(struct weir_http_parser *p, const char *data, size_t len,
                       enum weir_http_event *ret_event);

/* The first header of this name (ASCII case does not matter); .ptr is NULL when there is none. */
struct weir_str weir_http_find(const struct weir_http_header *headers, size_t n_headers, const char *name);

#endif
