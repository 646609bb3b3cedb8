/* http_reply.c - the handler's side: header fields, whole and streamed answers; refusals.
 *
 * Everything is appended to the exchange's output; the connection sends it at the end of the loop's turn.
 * Framing is this file's alone: a handler cannot write a header or a body that ends up as something else.
 *   [R1] A handler's req is used only while it is held; it is given up exactly once.
 *   [R2] A field value holds no control character, so no value can start another field.
 *   [R3] A streamed answer never has more than output_max bytes waiting. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "http/http_int.h"

static struct http_exchange *held(struct weir_http_req *req)
{
    struct http_exchange *x = (struct http_exchange *)req;
    WEIR_BUG_ON(!x->held); /* [R1] */
    return x;
}

/* Header fields */

void weir_http_fields_init(struct weir_http_fields *fields)
{
    fields->len = 0;
}

void weir_http_fields_add(struct weir_http_fields *fields, const char *name, struct weir_str value)
{
    size_t n_name = strlen(name), n = n_name + 2 + value.len + 2;
    bool fits = n <= sizeof fields->text - fields->len;
    WEIR_CHECK(fits);
    if (!fits)
        return;
    char *out = fields->text + fields->len;
    memcpy(out, name, n_name);
    out += n_name;
    *out++ = ':';
    *out++ = ' ';
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        *out++ = (char)(c < ' ' || c == 0x7f ? '?' : c); /* [R2] */
    }
    *out++ = '\r';
    *out++ = '\n';
    fields->len += n;
}

void weir_http_fields_adds(struct weir_http_fields *fields, const char *name, const char *value)
{
    weir_http_fields_add(fields, name, weir_str(value));
}

void weir_http_fields_addu(struct weir_http_fields *fields, const char *name, uint64_t value)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    weir_http_fields_add(fields, name, (struct weir_str){ digits + at, sizeof digits - at });
}

void weir_http_fields_addf(struct weir_http_fields *fields, const char *name, const char *fmt, ...)
{
    char text[WEIR_HTTP_FIELDS_MAX];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    WEIR_CHECK(n >= 0 && (size_t)n < sizeof text);
    if (n >= 0 && (size_t)n < sizeof text)
        weir_http_fields_add(fields, name, (struct weir_str){ text, (size_t)n });
}

/* The head of an answer */

static const char *reason_of(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 201:
        return "Created";
    case 202:
        return "Accepted";
    case 204:
        return "No Content";
    case 304:
        return "Not Modified";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 402:
        return "Payment Required";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 408:
        return "Request Timeout";
    case 409:
        return "Conflict";
    case 412:
        return "Precondition Failed";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 415:
        return "Unsupported Media Type";
    case 417:
        return "Expectation Failed";
    case 422:
        return "Unprocessable Content";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 499:
        return "Client Closed Request";
    case 500:
        return "Internal Server Error";
    case 501:
        return "Not Implemented";
    case 502:
        return "Bad Gateway";
    case 503:
        return "Service Unavailable";
    case 504:
        return "Gateway Timeout";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Status";
    }
}

/* The date is formatted once a second. */
static const char *date_of(struct http_shard *shard)
{
    uint64_t now_ns = weir_loop_now(shard->loop);
    if (now_ns >= shard->date_until_ns) {
        uint64_t wall_ns = weir_wall_ns();
        time_t wall_s = (time_t)(wall_ns / WEIR_S);
        struct tm tm;
        gmtime_r(&wall_s, &tm);
        strftime(shard->date, sizeof shard->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        shard->date_until_ns = now_ns + WEIR_S - wall_ns % WEIR_S;
    }
    return shard->date;
}

/* The status line and all fields but those that frame the body. */
static void write_head(struct http_exchange *x, int status, const struct weir_http_fields *fields)
{
    struct weir_http_server *server = x->shard->server;
    WEIR_BUG_ON(status < 200 || status > 599);
    weir_counter_add(server->requests[status / 100], 1);
    if (status == 204 || status == 304)
        x->bodiless = true;
    weir_buf_adds(&x->out, "HTTP/1.1 ");
    weir_buf_addu(&x->out, (uint64_t)status);
    weir_buf_addc(&x->out, ' ');
    weir_buf_adds(&x->out, reason_of(status));
    weir_buf_adds(&x->out, "\r\nserver: weir\r\ndate: ");
    weir_buf_adds(&x->out, date_of(x->shard));
    weir_buf_adds(&x->out, "\r\n");
    if (fields)
        weir_buf_add(&x->out, fields->text, fields->len);
    if (x->unread || x->shard->draining)
        x->keep = false;
    if (!x->keep)
        weir_buf_adds(&x->out, "connection: close\r\n");
}

void http_reply_whole(struct http_exchange *x, int status, const struct weir_http_fields *fields,
                      struct weir_str body)
{
    write_head(x, status, fields);
    if (status != 204) {
        weir_buf_adds(&x->out, "content-length: ");
        weir_buf_addu(&x->out, body.len);
        weir_buf_adds(&x->out, "\r\n");
    }
    weir_buf_adds(&x->out, "\r\n");
    if (!x->bodiless)
        weir_buf_add(&x->out, body.ptr, body.len);
}

void http_reply_refusal(struct http_exchange *x, enum weir_http_refusal refusal)
{
    const struct weir_http_refusal_info *info = weir_http_refusal_info(refusal);
    const struct weir_http_hooks *hooks = &x->shard->server->hooks;
    struct weir_http_fields fields;
    weir_http_fields_init(&fields);
    weir_buf_clear(&x->body); /* of a request that is not going to be handled */
    x->keep = false;
    if (hooks->on_error) {
        hooks->on_error(hooks->ctx, info->status, info->text, &fields, &x->body);
    } else {
        weir_http_fields_adds(&fields, "content-type", "text/plain");
        weir_buf_adds(&x->body, info->text);
    }
    http_reply_whole(x, info->status, &fields,
                     (struct weir_str){ weir_buf_ptr(&x->body), weir_buf_len(&x->body) });
}

void http_reply_continue(struct http_exchange *x)
{
    weir_buf_adds(&x->out, "HTTP/1.1 100 Continue\r\n\r\n");
}

/* The handler's calls */

struct weir_str weir_http_header(const struct weir_http_req *req, const char *name)
{
    return weir_http_find(req->headers, req->n_headers, name);
}

void weir_http_respond(struct weir_http_req *req, int status, const struct weir_http_fields *fields,
                       const void *body, size_t len)
{
    struct http_exchange *x = held(req);
    WEIR_BUG_ON(x->begun);
    http_reply_whole(x, status, fields, (struct weir_str){ body, len });
    x->held = false;
    http_conn_answered(x->conn);
}

void weir_http_stream_begin(struct weir_http_req *req, int status, const struct weir_http_fields *fields)
{
    struct http_exchange *x = held(req);
    WEIR_BUG_ON(x->begun);
    x->begun = true;
    write_head(x, status, fields);
    x->plain_stream = x->parser.minor == 0;
    if (!x->plain_stream && !(status == 204 || status == 304))
        weir_buf_adds(&x->out, "transfer-encoding: chunked\r\n");
    weir_buf_adds(&x->out, "\r\n");
    http_conn_write_later(x->conn);
}

weir_err weir_http_stream_write(struct weir_http_req *req, const void *data, size_t len)
{
    enum { FRAME_MAX = 16 + 4 }; /* size, two line ends */
    struct http_exchange *x = held(req);
    struct weir_http_server *server = x->shard->server;
    WEIR_BUG_ON(!x->begun);
    if (len == 0 || x->bodiless)
        return WEIR_OK; /* a chunk of size 0 would end the answer */
    size_t waiting = weir_buf_len(&x->out), output_max = server->opts.output_max;
    if (len > output_max || waiting + len + FRAME_MAX > output_max) { /* [R3] */
        http_refused(server, WEIR_HTTP_REFUSE_OUTPUT_FULL);
        return WEIR_FULL;
    }
    char *out = weir_buf_reserve(&x->out, len + FRAME_MAX);
    if (!out)
        return WEIR_FULL;
    size_t n = 0;
    if (!x->plain_stream) {
        int shift = 60;
        while (shift > 0 && len >> shift == 0)
            shift -= 4;
        for (; shift >= 0; shift -= 4)
            out[n++] = "0123456789abcdef"[len >> shift & 15];
        out[n++] = '\r';
        out[n++] = '\n';
    }
    memcpy(out + n, data, len);
    n += len;
    if (!x->plain_stream) {
        out[n++] = '\r';
        out[n++] = '\n';
    }
    weir_buf_commit(&x->out, n);
    http_conn_write_later(x->conn);
    return WEIR_OK;
}

size_t weir_http_stream_waiting(const struct weir_http_req *req)
{
    return weir_buf_len(&((const struct http_exchange *)req)->out);
}

void weir_http_stream_end(struct weir_http_req *req)
{
    struct http_exchange *x = held(req);
    WEIR_BUG_ON(!x->begun);
    if (!x->plain_stream && !x->bodiless)
        weir_buf_adds(&x->out, "0\r\n\r\n");
    x->held = false;
    http_conn_answered(x->conn);
}

void weir_http_abort(struct weir_http_req *req)
{
    struct http_exchange *x = held(req);
    x->held = false;
    http_conn_abort(x->conn);
}
