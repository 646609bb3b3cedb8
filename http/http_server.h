/* http_server.h - the REST front door: a small strict HTTP/1.1 server over weir_loop.
 *
 * A server spans one or more loops: each has a listening socket of its own (SO_REUSEPORT), and a connection
 * stays on its loop for life. The handler is one hook, called on the loop's thread when the whole request is
 * there:
 *
 *     static void on_request(void *ctx, struct weir_http_req *req)
 *     {
 *         if (!weir_str_eq(req->path, "/v1/models")) {
 *             weir_http_respond(req, 404, NULL, "no", 2);
 *             return;                                            (req is gone)
 *         }
 *         req->user = call;                                      (answer later, on this loop's thread)
 *         req->on_gone = call_client_gone;
 *     }
 *     later:  weir_http_stream_begin(req, 200, &fields); weir_http_stream_write(req, data, len) ...;
 *             weir_http_stream_end(req);
 *
 * LIFETIME. `req` and all it points to are the handler's from on_request until exactly one of these:
 *   - weir_http_respond, weir_http_stream_end or weir_http_abort was called on it: gone when that returns;
 *   - req->on_gone(req) was called: gone when the hook returns; the hook itself must call none of these.
 * A handler that returns without having answered must have set on_gone. It comes at most once, never from
 * inside a call of the handler's own, and means: the client closed or half-closed or reset the connection, or
 * stopped reading, or the server is being closed. It comes as soon as the kernel knows, also before the first
 * byte of the answer.
 *
 * THREADS. All functions on a req are for its loop's thread (req->loop): others post a task to it.
 *
 * WRITES of one turn of the loop leave in one send. Answers of several requests on one connection come in
 * order: the next request is looked at when the answer before it has left. */
#ifndef WEIR_HTTP_HTTP_SERVER_H
#define WEIR_HTTP_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "http/http_parse.h"
#include "http/loop.h"

struct weir_http_server;

/* What a 0 in an option means is in brackets. Strings are borrowed until weir_http_server_close. */
struct weir_http_opts {
    const char *name;    /* label `listener` of the metrics, and of log lines: "rest" */
    const char *listen;  /* "host:port", "[::1]:port", ":port" (all addresses); port 0 picks a free one */
    uint64_t body_max;   /* bytes in a request body [16 MiB] */
    uint64_t bodies_max; /* bytes of all request bodies at once, over all loops [1 GiB] */
    size_t output_max;   /* bytes of a streamed answer waiting in one connection [1 MiB] */
    uint32_t connections_max; /* over all loops [20000] */
    uint32_t head_ms;         /* from a request's first byte to its complete head [10000] */
    uint32_t body_ms;         /* from the head to the complete body, plus the time body_rate grants [30000] */
    uint32_t
        body_rate; /* bytes of body that have come extend body_ms as if sent at this many a second [16384] */
    uint32_t idle_ms;   /* without a request: before the first one and between two [75000] */
    uint32_t stall_ms;  /* no progress while the client owes us reading [30000] */
    uint32_t tls_ms;    /* TLS handshake [10000] */
    uint32_t linger_ms; /* for a refused client to take our answer before the reset [2000] */
    /* TLS 1.2 and up when tls_cert is given: PEM files. WEIR_INVALID: one of the others without it. */
    const char *tls_cert; /* chain, leaf first */
    const char *tls_key;
    const char *tls_client_ca; /* clients must show a certificate of this CA; NULL = none is asked for */
};

struct weir_http_req {
    /* The server's; slices live as long as req. */
    struct weir_str method;
    struct weir_str path;  /* starts with '/', still percent-encoded; or "*" */
    struct weir_str query; /* after '?', still percent-encoded */
    struct weir_str body;  /* one piece; empty in on_head */
    const struct weir_http_header *headers;
    size_t n_headers;
    const char *peer; /* "192.0.2.1:51234", "[2001:db8::1]:51234" */
    struct weir_loop *loop;
    struct weir_http_server *server;
    uint64_t start_ns; /* when its first byte was seen */
    /* The handler's. */
    void *user;
    void (*on_gone)(struct weir_http_req *req);
};

/* The header fields of an answer, built by the handler (on its stack) and copied by respond and stream_begin.
 * The server itself adds date, server, content-length or transfer-encoding, and connection: don't give those.
 */
enum { WEIR_HTTP_FIELDS_MAX = 4096 };
struct weir_http_fields {
    size_t len;
    char text[WEIR_HTTP_FIELDS_MAX]; /* "name: value\r\n" each */
};
void weir_http_fields_init(struct weir_http_fields *fields);
/* `name` in lower case. Control characters in a value become '?'. A field that does not fit is left out and
 * counted by WEIR_CHECK. */
void weir_http_fields_add(struct weir_http_fields *fields, const char *name, struct weir_str value);
void weir_http_fields_adds(struct weir_http_fields *fields, const char *name, const char *value);
void weir_http_fields_addu(struct weir_http_fields *fields, const char *name, uint64_t value);
void weir_http_fields_addf(struct weir_http_fields *fields, const char *name, const char *fmt, ...)
    WEIR_PRINTF(3, 4);

struct weir_http_hooks {
    void *ctx;
    void (*on_request)(void *ctx, struct weir_http_req *req);
    /* NULL, or: the head is there, the body is not. It may answer (weir_http_respond), to refuse before the
     * body is read; the connection then closes after the answer if there is a body. It must not keep req
     * otherwise. */
    void (*on_head)(void *ctx, struct weir_http_req *req);
    /* NULL, or: give the body (and its content-type) of an answer that the server itself makes: malformed
     * requests, timeouts, bounds. `text` is a sentence for the client. Without it the answer is `text` as
     * text/plain. */
    void (*on_error)(void *ctx, int status, const char *text, struct weir_http_fields *fields,
                     struct weir_buf *body);
    /* NULL, or: after weir_http_server_drain, the last connection is gone. Once; on the thread of some loop.
     */
    void (*on_drained)(void *ctx);
};

/* Listens on all loops. Before the loops run. `opts` and `hooks` are copied.
 * WEIR_INVALID: malformed or unknown address, unreadable or mismatched TLS files, a hook missing.
 * WEIR_CONFLICT: the port is taken. WEIR_IO, WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err weir_http_server_open(const struct weir_http_opts *opts,
                                               const struct weir_http_hooks *hooks,
                                               struct weir_loop *const *loops, size_t n_loops,
                                               struct weir_http_server **ret, struct weir_why *why);
/* When the loops run no more (or from the thread of the only loop, outside its hooks), and before
 * weir_loop_close: resets what is still open (on_gone) and frees. */
void weir_http_server_close(struct weir_http_server *server);
int weir_http_server_port(const struct weir_http_server *server);             /* the one that is bound */
uint32_t weir_http_server_connections(const struct weir_http_server *server); /* any thread; now open */

/* Any thread, once: stop listening, close idle connections, let answers finish (with connection: close),
 * reset what is left timeout_ms later; on_drained at the end. */
void weir_http_server_drain(struct weir_http_server *server, uint32_t timeout_ms);

/* The first header of this name, ASCII case aside; .ptr NULL when there is none. */
struct weir_str weir_http_header(const struct weir_http_req *req, const char *name);

/* A whole answer; `fields` may be NULL; the body is copied. Ends req. A HEAD request gets the head alone. */
void weir_http_respond(struct weir_http_req *req, int status, const struct weir_http_fields *fields,
                       const void *body, size_t len);

/* A streamed answer: chunked, or to the end of the connection for HTTP/1.0. */
void weir_http_stream_begin(struct weir_http_req *req, int status, const struct weir_http_fields *fields);
/* Copies. len 0 writes nothing. WEIR_FULL: more than output_max would be waiting, or no memory; nothing was
 * taken, and the answer can't be right any more: weir_http_abort. */
WEIR_MUST_CHECK weir_err weir_http_stream_write(struct weir_http_req *req, const void *data, size_t len);
size_t
weir_http_stream_waiting(const struct weir_http_req *req); /* bytes that the client has not taken yet */
void weir_http_stream_end(struct weir_http_req *req);      /* ends req */

/* Reset the connection: an error in mid-stream must not look like an end. Ends req. */
void weir_http_abort(struct weir_http_req *req);

#endif
