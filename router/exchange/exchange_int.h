/* exchange_int.h - what the files of the exchange share: links out, streams in, and the lock that guards both.
 *
 *   exchange.c       the view, the mesh thread, sights and faults, lifecycle
 *   exchange_out.c   our streams to the others
 *   exchange_in.c    the others' streams to us
 *
 * `lock` guards links, incoming and counters. It is held while a call is opened (on_closed takes it, so it finds the stream
 * stored), never while an op runs. Functions that end in _locked are called with it. Private to exchange/. */
#ifndef WEIR_ROUTER_EXCHANGE_EXCHANGE_INT_H
#define WEIR_ROUTER_EXCHANGE_EXCHANGE_INT_H

#include <pthread.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "router/exchange/exchange.h"

#define EXCHANGE_METHOD "/weir.mesh.v1.Mesh/Exchange"
#define EXCHANGE_VERSION 1 /* of the protocol */
#define EXCHANGE_INCOMING_MAX                                                                                \
    (2 * WEIR_MESH_PEERS_MAX) /* streams from others: an old and a new one of each */
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 2000
#define ADDRESS_MAX 280

struct link { /* our stream to one router; counted: one reference of the list, one of each stream */
    uint32_t refs;
    struct weir_exchange *ex;
    struct link *next;
    struct weir_mesh_peer peer;
    char address[ADDRESS_MAX];
    bool wanted; /* in the view */
    bool cut;    /* on purpose */
    struct weir_rpc_channel *channel;
    struct weir_rpc_stream *stream; /* NULL: none */
    bool ready;                     /* it said welcome, and is who we wanted */
    bool sending;                   /* [X1] */
    uint64_t retry_ns, hello_by_ns;
    uint32_t backoff_ms;
    /* for describe; of frames from it, whichever stream they came on */
    uint64_t frames_sent, frames_received, bytes_sent, bytes_received, heard_ns;
};

struct weir_exchange {
    struct weir_exchange_opts opts;
    char *prefix; /* "/weir/routers/" */
    struct weir_rpc_handler handler;
    struct weir_rpc_server *server;
    struct weir_thread thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a stream ended, or it is time to stop */
    struct link *links;     /* sorted by id */
    uint32_t n_links, n_streams, n_incoming;
    bool stopping, cut_all;
    uint64_t random;
    struct weir_counter *frames_sent, *frames_received, *bytes_sent, *bytes_received, *frames_held,
        *bad_frames;
    struct weir_gauge *peers, *connected;
    struct weir_gauge *lag_ms;
};

/* exchange.c */
struct link *link_find_locked(struct weir_exchange *ex, const char *id); /* NULL: not in the view */
/* Those cut off hear nothing: the stream goes, and none is opened while it lasts. */
bool link_is_cut_locked(struct weir_exchange *ex, const char *id);

/* exchange_out.c */
void link_connect_locked(struct link *link, uint64_t now_ns);
void link_unref_locked(struct link *link);

/* exchange_in.c: for the server's handler; its context is the exchange */
weir_err incoming_open(void *ctx, struct weir_rpc_stream *s, const struct weir_rpc_stream_ops **ret_ops,
                       void **ret_ctx, struct weir_why *why);

#endif
