/* http_int.h - what the files of this folder share: server, shard (its part on one loop),
 * connection, exchange.
 *
 * An idle connection is a `struct http_conn` alone; all that a request needs (parser, body, output) hangs on
 * a `struct http_exchange`, taken from the shard's pool with the request's first byte and given back when the
 * answer has left. */
#ifndef WEIR_HTTP_HTTP_INT_H
#define WEIR_HTTP_HTTP_INT_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "base/metrics.h"
#include "http/http_server.h"

enum {
    HTTP_SCRATCH = 64 * 1024,   /* bytes read at once, into a buffer that all connections of a loop share */
    HTTP_READS_MAX = 4,         /* reads of one connection in one turn */
    HTTP_POOL_MAX = 256,        /* exchanges kept by a loop */
    HTTP_KEEP_MAX = 64 * 1024,  /* bytes of a buffer that a kept exchange may own */
    HTTP_LINGER_MAX = 16 << 20, /* bytes of a refused body that are read and thrown away */
    HTTP_ACCEPTS_MAX = 64,      /* connections taken in one turn */
    HTTP_ACCEPT_PAUSE_MS = 100, /* after running out of descriptors */
    HTTP_PEER_MAX = 56,         /* "[ipv6]:port" */
    HTTP_CODE_CLASSES = 6,      /* 1xx to 5xx, by number */
};

enum { HTTP_IO_END = 0, HTTP_IO_AGAIN = -1, HTTP_IO_BROKEN = -2 };
struct http_conn;

/* Bytes moved (1 or more), or one of HTTP_IO_*. */
struct http_io {
    ssize_t (*read)(struct http_conn *conn, void *buf, size_t len);
    ssize_t (*write)(struct http_conn *conn, const void *buf, size_t len);
};

struct http_exchange {        /* one request and its answer */
    struct weir_http_req req; /* first: a handler's req is its exchange */
    struct http_shard *shard;
    struct http_conn *conn;     /* NULL: a refusal without a connection */
    struct http_exchange *next; /* in the pool */
    bool held;                  /* the handler has req */
    bool begun;                 /* a streamed answer's head is written */
    bool keep;                  /* the connection goes on after the answer */
    bool unread;                /* the request's body is not all read */
    bool bodiless;              /* the answer is a head alone: to HEAD, or 204, or 304 */
    bool plain_stream;          /* streamed without chunks: HTTP/1.0 */
    uint64_t body_bytes;        /* this request's share of the server's */
    struct weir_buf body, out;
    struct weir_http_parser parser;
};

enum http_phase {
    HTTP_HANDSHAKE, /* TLS */
    HTTP_IDLE,      /* no byte of a request; no exchange */
    HTTP_HEAD,      /* reading */
    HTTP_BODY,
    HTTP_HANDLE, /* the handler has it */
    HTTP_FLUSH,  /* the answer is complete, and leaving */
    HTTP_LINGER, /* our side is closed; reading what the client still sends; no exchange */
    HTTP_ABORT,  /* to be reset at the end of the turn */
};

struct http_conn {
    struct weir_watch watch;
    struct weir_timer timer; /* set to the deadline or sooner */
    struct weir_later later; /* sends, and goes on */
    struct http_shard *shard;
    struct http_conn *next, **pprev;
    struct http_exchange *x;
    const struct http_io *io;
    SSL *ssl;
    struct weir_buf in; /* bytes after the request in hand: pipelined; at most HTTP_SCRATCH */
    uint64_t since_ns;  /* the phase's start, or the last progress in sending */
    uint32_t n_lingered;
    enum http_phase phase;
    bool readable, writable; /* edge-triggered: true until a call said AGAIN */
    bool eof;                /* the client has closed its side */
    bool broken;             /* reset */
    bool stalled;            /* the last turn's sending left bytes over */
    bool tls_up;
    char peer[HTTP_PEER_MAX];
};

struct http_drain_msg { /* outlives the server when the loop has not run it yet */
    struct weir_task task;
    struct http_shard *shard; /* NULL: the server is gone */
    uint32_t timeout_ms;
};

struct http_shard {
    struct weir_http_server *server;
    struct weir_loop *loop;
    struct weir_watch listener; /* fd -1 = closed */
    bool listening;             /* watched; not during a pause */
    struct weir_timer pause;
    struct weir_timer drain_timer;
    struct http_drain_msg *drain_msg; /* until it has run */
    bool draining, drained;
    int reserve_fd; /* given up to refuse a connection when there are no descriptors left */
    struct http_conn *conns;
    struct http_exchange *pool;
    size_t n_pool;
    uint64_t date_until_ns;
    char date[32];
    char scratch[HTTP_SCRATCH];
};

struct weir_http_server {
    struct weir_http_opts opts;
    struct weir_http_hooks hooks;
    SSL_CTX *tls;
    int port;
    atomic_uint n_conns;              /* the bound's count; relaxed: it guards nothing else */
    atomic_uint_least64_t body_bytes; /* of all requests in hand; relaxed likewise */
    atomic_size_t n_undrained;        /* shards; the last to leave calls on_drained */
    atomic_bool drain_requested;
    struct weir_gauge *connections;
    struct weir_counter *requests[HTTP_CODE_CLASSES];
    struct weir_counter *refused[WEIR_HTTP_REFUSAL_COUNT];
    struct weir_counter *gone, *received, *sent;
    size_t n_shards;
    struct http_shard **shards;
};

/* http_listen.c: sockets. */
WEIR_MUST_CHECK weir_err http_listen_open(const char *listen, size_t n, int *ret_fds, int *ret_port,
                                          struct weir_why *why);
void http_peer_format(const struct sockaddr_storage *addr, char out[HTTP_PEER_MAX]);

/* http_tls.c: the door to OpenSSL's connections. */
WEIR_MUST_CHECK weir_err http_tls_open(const struct weir_http_opts *opts, SSL_CTX **ret,
                                       struct weir_why *why);
void http_tls_close(SSL_CTX *tls);
/* NULL: no memory. */
SSL *http_tls_accept(SSL_CTX *tls, int fd);
ssize_t http_tls_handshake(struct http_conn *conn); /* 1 = done, or HTTP_IO_* */
void http_tls_end(struct http_conn *conn);          /* says goodbye when it can, and frees */
extern const struct http_io http_tls_io;

/* http_conn.c: one connection's life. */
void http_conn_accept(struct http_shard *shard, int fd, const struct sockaddr_storage *addr);
void http_conn_close(struct http_conn *conn, bool reset); /* on_gone when the handler has the request */
void http_conn_drain(struct http_conn *conn);             /* closes it unless a request is under way */
void http_conn_write_later(struct http_conn *conn);       /* at the end of this turn */
void http_conn_answered(struct http_conn *conn); /* the handler is done: send what is left, then go on */
void http_conn_abort(struct http_conn *conn);    /* the handler is done: reset at the end of this turn */

/* http_reply.c: what an answer looks like. All append to x->out; no memory shows there as `failed`. */
void http_reply_whole(struct http_exchange *x, int status, const struct weir_http_fields *fields,
                      struct weir_str body);
void http_reply_refusal(struct http_exchange *x,
                        enum weir_http_refusal refusal); /* the last on its connection */
void http_reply_continue(struct http_exchange *x);

/* http_server.c */
void http_refused(struct weir_http_server *server, enum weir_http_refusal refusal); /* counts */
struct http_exchange *http_exchange_take(struct http_shard *shard);                 /* NULL: no memory */
void http_exchange_give(struct http_shard *shard, struct http_exchange *x);
void http_shard_conn_came(struct http_shard *shard); /* counts */
void http_shard_conn_gone(struct http_shard *shard); /* the count is down by one; drained? */

#endif
