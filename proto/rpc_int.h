/* rpc_int.h - what the files of the door share. Private to proto. */
#ifndef WEIR_PROTO_RPC_INT_H
#define WEIR_PROTO_RPC_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/thread.h"
#include "proto/rpc.h"
#include "proto/rpc_core.h"

/* ---- runtime: rpc.c ---- */
struct rpc_queue {
    grpc_completion_queue *cq;
    struct weir_thread thread;
};
struct weir_rpc {
    int n_queues;
    _Atomic unsigned turn;  /* relaxed: any spread will do */
    _Atomic long n_streams; /* relaxed: read after the threads are joined */
    struct rpc_queue queues[];
};
grpc_completion_queue *rpc_pick_queue(struct weir_rpc *rpc);

/* ---- addresses: rpc_address.c ---- */
/* "host:port" or "[v6]:port"; `field` is named in `why`. */
WEIR_MUST_CHECK weir_err rpc_address_split(const char *field, const char *text, char host[256], char port[8],
                                           struct weir_why *why);
/* A socket's other end as "1.2.3.4:5" or "[::1]:5"; empty when it has none. */
void rpc_address_of_peer(int fd, char *out, size_t n);

/* ---- one call: rpc_stream.c ---- */
enum rpc_recv { RPC_RECV_NONE, RPC_RECV_POSTED, RPC_RECV_CALLBACK, RPC_RECV_PAUSED, RPC_RECV_ENDED };
enum rpc_out { RPC_OUT_NONE, RPC_OUT_MESSAGE, RPC_OUT_HALF_CLOSE, RPC_OUT_STATUS };

struct weir_rpc_stream {
    _Atomic uint32_t refs;
    struct weir_rpc *rpc;
    const struct weir_rpc_stream_ops *ops;
    void *ctx;
    struct weir_rpc_channel *channel; /* client: counted */
    struct weir_rpc_server *server;   /* server: told of the end by rpc_server_left() */

    struct rpc_tag open_tag, recv_tag, send_tag, end_tag;
    grpc_call_details details;   /* server */
    grpc_metadata_array meta;    /* server: the client's initial metadata; client: the trailing metadata */
    grpc_metadata_array headers; /* client: the server's initial metadata, which nobody asks for */
    grpc_metadata *meta_out;     /* client: initial; server: trailing; n_meta_out, kept until closed */
    size_t n_meta_out;
    grpc_byte_buffer *received;
    uint64_t deadline_ns;
    char peer[80];
    int cancelled;           /* server: core's verdict */
    grpc_status_code status; /* client: received; server: to be sent */
    grpc_slice status_text;  /* the same */

    pthread_mutex_t lock; /* guards what follows; nothing of the core is started under it */
    grpc_call *call;      /* gone once closed; steady while n_pending > 0 */
    int n_pending;        /* batches in the core, or about to be */
    enum rpc_recv recv;
    bool resume;       /* asked for during on_message */
    enum rpc_out out;  /* in the core */
    bool no_more;      /* half-closed or finished: send says WEIR_UNAVAILABLE */
    bool last_waits;   /* the half close or the status queues behind `out` */
    bool headers_sent; /* server */
    bool ended;        /* the status, or the server's close, is here */
    bool closed;
};

/* NULL: no memory. One reference, the stream's own, given up after on_closed. */
struct weir_rpc_stream *rpc_stream_new(struct weir_rpc *rpc);
/* One that never started, with what it holds. */
void rpc_stream_drop(struct weir_rpc_stream *s);
/* Client: `call` and meta_out are in place. Starts all that a call starts; the callbacks may run. */
void rpc_stream_start_client(struct weir_rpc_stream *s);
/* Server: `call` is in place. Watches for its end; then, when the ops are in place, receives. */
void rpc_stream_start_server(struct weir_rpc_stream *s);
void rpc_stream_receive_first(struct weir_rpc_stream *s);
/* The core's form of metadata, or WEIR_INVALID naming what the core would refuse. */
WEIR_MUST_CHECK weir_err rpc_meta_build(const struct weir_rpc_meta *meta, int n_meta, grpc_metadata **ret,
                                        struct weir_why *why);
void rpc_meta_free(grpc_metadata *meta, size_t n_meta);

/* ---- client: rpc_client.c ---- */
void rpc_channel_unref(struct weir_rpc_channel *ch);

/* ---- server: rpc_server.c ---- */
void rpc_server_left(struct weir_rpc_server *server); /* a stream has ended; not to be touched after */

/* ---- the accept loop: rpc_accept.c ---- */
struct rpc_accept;
/* Listens on every address of host:port; gives fds to `server`. */
WEIR_MUST_CHECK weir_err rpc_accept_open(const char *listen, uint32_t connections_max,
                                         struct rpc_accept **ret, struct weir_why *why);
int rpc_accept_port(const struct rpc_accept *acc);
WEIR_MUST_CHECK weir_err rpc_accept_start(struct rpc_accept *acc, grpc_server *server, struct weir_why *why);
void rpc_accept_close(struct rpc_accept *acc); /* joins; takes NULL */

/* ---- TLS: rpc_tls.c ---- */
bool rpc_tls_on(const struct weir_rpc_tls *tls);
WEIR_MUST_CHECK weir_err rpc_tls_client(const struct weir_rpc_tls *tls, grpc_channel_credentials **ret,
                                        struct weir_why *why);
WEIR_MUST_CHECK weir_err rpc_tls_server(const struct weir_rpc_tls *tls, grpc_server_credentials **ret,
                                        struct weir_why *why);

#endif
