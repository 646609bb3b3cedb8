/* harness.h - a server with a handful of methods, and an end that records what its stream tells it. */
#ifndef WEIR_TESTS_PROTO_HARNESS_H
#define WEIR_TESTS_PROTO_HARNESS_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/rpc.h"

/* One end of a stream. Everything is written by callbacks under the lock. */
struct end {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct weir_rpc_stream *s; /* a reference of our own */
    int n_got;
    size_t bytes;
    char last[32768]; /* the latest message, cut, and a NUL */
    size_t last_len;
    bool hold;          /* say "no more" to each message */
    bool resume_inside; /* with `hold`: resumes before it says so */
    int n_sent, n_unsent;
    bool peer_done;
    int n_closed, status;
    char text[1024];
    char seen_meta[256]; /* server: "x-test"; client, at the end: "x-trailing" */
    char peer[80];
    uint64_t deadline_ns;
};
void end_init(struct end *end);
void end_release(struct end *end);
extern const struct weir_rpc_stream_ops end_ops; /* ctx: a struct end */

/* Waits until `expr`, about `end`, holds; fails the test after 30 s. */
#define END_WAIT(end, expr)                                                                                  \
    do {                                                                                                     \
        pthread_mutex_lock(&(end)->lock);                                                                    \
        bool held_ = true;                                                                                   \
        while (!(expr) && held_)                                                                             \
            held_ = end_wait_change(end);                                                                    \
        pthread_mutex_unlock(&(end)->lock);                                                                  \
        if (!held_)                                                                                          \
            fail_msg("never came: %s", #expr);                                                               \
    } while (0)
/* `expr`, about `end`, now: for what callbacks may still write. */
#define END_NOW(end, expr)                                                                                   \
    do {                                                                                                     \
        pthread_mutex_lock(&(end)->lock);                                                                    \
        bool holds_ = (expr);                                                                                \
        pthread_mutex_unlock(&(end)->lock);                                                                  \
        if (!holds_)                                                                                         \
            fail_msg("does not hold: %s", #expr);                                                            \
    } while (0)
bool end_wait_change(struct end *end); /* false: 30 s without */

/* The methods, all of service t.T:
 *   Echo      each message comes back; ends OK after the client's half close
 *   Count     one message, a decimal n: n messages "0".."n-1", then OK; n_counted counts those given to the
 * door Refuse    refused in on_open as WEIR_LIMITED, "acme is over its limit" Hold      stays open, nothing
 * but what the test does to server_end; one at a time Trailing  one message: finished with status 9 "held",
 * metadata x-trailing: gone */
struct world {
    struct weir_rpc *rpc;
    struct weir_rpc_server *server;
    struct weir_rpc_channel *channel;
    struct end server_end; /* Hold's */
    char address[64];
};
extern _Atomic int n_counted;
extern const struct weir_rpc_handler world_handlers[];
enum { WORLD_HANDLERS = 5 };

/* Opens a server (zeroed fields of `sopts` are filled in) and a channel to it. */
void world_open(struct world *w, struct weir_rpc_server_opts sopts, struct weir_rpc_channel_opts copts);
void world_close(struct world *w);
/* A call on the world's channel that `end` records. */
void world_call(struct world *w, struct end *end, const char *method, uint64_t deadline_ns);
/* Another, on a channel of the caller's. */
void channel_call(struct weir_rpc_channel *channel, struct end *end, const char *method,
                  uint64_t deadline_ns);
/* Sends and waits until it has left. */
void end_send(struct end *end, const char *text);
void end_send_bytes(struct end *end, const void *bytes, size_t n);

#endif
