/* rpc.h - the door to the gRPC C core: channels, a server, and streams that look the same from both ends.
 *
 * Every core call is behind this file's wrappers, which also tell the thread sanitizer of hand-overs through
 * the completion queue. Nothing outside proto/ includes a grpc header.
 *
 * Threads: K threads, one completion queue each; a stream's callbacks all come from one of them, one at a
 * time. Callbacks must not block. Functions may be called from any thread, also from within a callback. */
#ifndef WEIR_PROTO_RPC_H
#define WEIR_PROTO_RPC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct weir_rpc;         /* the runtime: core, queues, threads */
struct weir_rpc_channel; /* to one address; reconnects by itself */
struct weir_rpc_server;
struct weir_rpc_stream; /* one call, either end */

/* Early, before other threads: raises the soft limit of open files to the hard one and sets an environment
 * variable that the core reads. */
WEIR_MUST_CHECK weir_err weir_rpc_open(int n_cq_threads, struct weir_rpc **ret, struct weir_why *why);
/* After every channel, server and stream is closed; joins the threads. Takes NULL. */
void weir_rpc_close(struct weir_rpc *rpc);

/* PEM files; all NULL = plaintext. A server with ca_file demands a client certificate signed by it. */
struct weir_rpc_tls {
    const char *ca_file, *cert_file, *key_file;
    const char *server_name; /* client: the name to expect instead of the host; tests */
};

/* ---- metadata ---- */
struct weir_rpc_meta {
    struct weir_str key,
        value; /* lower-case ASCII key; printable ASCII value, or any bytes for a "-bin" key */
};

/* ---- streams ---- */
struct weir_rpc_stream_ops {
    /* One whole message; the bytes are valid during the call. The next receive is posted after it returns,
     * unless it returns false: then not before weir_rpc_stream_resume(), which may come before it returns.
     * While a client takes no messages, a status that the server sent behind them waits too; a break or a
     * cancel does not. May be NULL: messages are dropped. */
    bool (*on_message)(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes);
    /* The one send in flight has left for the wire (or failed: ok false, on_closed follows). May be NULL. */
    void (*on_sent)(void *ctx, struct weir_rpc_stream *s, bool ok);
    /* Server: the client sends no more: a half close, or the call broke and on_closed is about to say so (the
     * core does not tell them apart yet). Not after finish. May be NULL. */
    void (*on_peer_done)(void *ctx, struct weir_rpc_stream *s);
    /* Exactly once, the last callback: at a client the final status; at a server grpc_status 0, or CANCELLED
     * (1) when the client left, its deadline passed or the connection broke before the call was finished. */
    void (*on_closed)(void *ctx, struct weir_rpc_stream *s, int grpc_status, const char *message);
};

/* One send at a time: WEIR_FULL while one is in flight (wait for on_sent). Copies nothing beyond the call:
 * `bytes` is copied into a core slice. WEIR_UNAVAILABLE: closed or finished. */
WEIR_MUST_CHECK weir_err weir_rpc_stream_send(struct weir_rpc_stream *s, struct weir_str bytes);
void weir_rpc_stream_resume(struct weir_rpc_stream *s);
/* Client: no more sends from here. */
void weir_rpc_stream_send_done(struct weir_rpc_stream *s);
/* Either end: give up now. on_closed follows. */
void weir_rpc_stream_cancel(struct weir_rpc_stream *s);
/* Server: send status and trailing metadata after what is in flight; once. grpc_status 0 = OK. */
void weir_rpc_stream_finish(struct weir_rpc_stream *s, int grpc_status, const char *message,
                            const struct weir_rpc_meta *trailing, int n_trailing);
/* Counted: whoever keeps the pointer beyond on_closed holds a reference. The stream itself holds one until
 * on_closed has returned. */
struct weir_rpc_stream *weir_rpc_stream_ref(struct weir_rpc_stream *s);
void weir_rpc_stream_unref(struct weir_rpc_stream *s);

/* Server end, within on_open: what the client said. Borrowed until on_closed returns. */
struct weir_str weir_rpc_stream_method(const struct weir_rpc_stream *s); /* "/weir.v1.Inference/Generate" */
/* Empty when absent. At a client, within on_closed: the server's trailing metadata. */
struct weir_str weir_rpc_stream_meta(const struct weir_rpc_stream *s, const char *key);
/* The other end as host:port; for logs, never for trust. Borrowed as long as the stream. */
struct weir_str weir_rpc_stream_peer(const struct weir_rpc_stream *s);
uint64_t
weir_rpc_stream_deadline_ns(const struct weir_rpc_stream *s); /* on weir_now_ns' clock; UINT64_MAX = none */

/* ---- client ---- */
struct weir_rpc_channel_opts {
    const char *address; /* host:port */
    struct weir_rpc_tls tls;
    uint32_t message_bytes_max; /* received; 0 = 4 MiB */
    uint32_t keepalive_ms;      /* 0 = 10,000; the timeout is half of it */
    uint32_t lookahead_bytes;   /* a stream's receive window; 0 = core's own choice */
};
WEIR_MUST_CHECK weir_err weir_rpc_channel_open(struct weir_rpc *rpc, const struct weir_rpc_channel_opts *opts,
                                               struct weir_rpc_channel **ret, struct weir_why *why);
void weir_rpc_channel_close(struct weir_rpc_channel *ch); /* open streams go on until they end */
/* Never blocks; a dead address shows as on_closed(UNAVAILABLE). deadline_ns (on weir_now_ns' clock) 0 = none.
 * *ret is written before the first callback can run. It is the stream's own reference: to keep the stream,
 * take one in a callback, or here under a lock that on_closed takes. WEIR_INVALID: metadata that gRPC would
 * refuse. */
WEIR_MUST_CHECK weir_err weir_rpc_channel_call(struct weir_rpc_channel *ch, const char *method,
                                               const struct weir_rpc_meta *meta, int n_meta,
                                               uint64_t deadline_ns, const struct weir_rpc_stream_ops *ops,
                                               void *ctx, struct weir_rpc_stream **ret, struct weir_why *why);

/* ---- server ---- */
struct weir_rpc_handler {
    const char *method; /* full path */
    /* A new call: fill the ops and a context of its own, or refuse by returning another code (answered with
     * the table's gRPC status and `why`). */
    weir_err (*on_open)(void *server_ctx, struct weir_rpc_stream *s,
                        const struct weir_rpc_stream_ops **ret_ops, void **ret_ctx, struct weir_why *why);
    void *server_ctx;
};
struct weir_rpc_server_opts {
    const char *listen; /* host:port; port 0 = any */
    struct weir_rpc_tls tls;
    const struct weir_rpc_handler *handlers; /* borrowed until closed */
    int n_handlers;
    bool reflection; /* lists the services of the handlers, health and itself; describes every contract */
    uint32_t message_bytes_max; /* received; 0 = 4 MiB */
    uint32_t connections_max;   /* plaintext accept loop; 0 = 1024 */
    uint32_t streams_max;       /* per connection; 0 = 1000 */
};
/* Plaintext: our own accept loop (core never accepts again after it ran out of descriptors). TLS: core's
 * listener. grpc.health.v1 (Check and Watch) and reflection (v1alpha and v1) are served by the door itself;
 * unknown methods are answered UNIMPLEMENTED. WEIR_IO: the address is taken or not ours; `why` names it. */
WEIR_MUST_CHECK weir_err weir_rpc_server_open(struct weir_rpc *rpc, const struct weir_rpc_server_opts *opts,
                                              struct weir_rpc_server **ret, struct weir_why *why);
int weir_rpc_server_port(const struct weir_rpc_server *server);
/* What health says: for the whole server (""), and for each service with a handler. Not serving until told
 * so. */
void weir_rpc_server_set_serving(struct weir_rpc_server *server, bool serving);
/* No new connections and calls, health says not serving; waits until open calls end, then cancels what is
 * left after timeout_ms; every on_closed has returned when this does. Blocks: not for callbacks. */
void weir_rpc_server_drain(struct weir_rpc_server *server, uint32_t timeout_ms);
void weir_rpc_server_close(struct weir_rpc_server *server); /* drains with timeout 0; takes NULL */

/* ---- protobuf-c ---- */
struct weir_arena;
/* An allocator over an arena, for <message>__unpack; everything goes with the arena. free is a no-op. */
struct ProtobufCAllocator;
void weir_pb_allocator(struct ProtobufCAllocator *ret, struct weir_arena *arena);

#endif
