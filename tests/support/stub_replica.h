/* stub_replica.h - a replica without a model: an Attach server whose behaviour is set by a plan.
 *
 * For tests of the router and for measuring it: an answer costs some ten nanoseconds a delta to write, so
 * that what is measured is the router. Calls either get their whole answer at once (gap_ns 0: in the callback
 * that brought the request) or one delta each at every step of gap_ns, as a real replica does: one frame a
 * step and attachment. All functions: any thread, not from its own callbacks. */
#ifndef WEIR_TESTS_SUPPORT_STUB_REPLICA_H
#define WEIR_TESTS_SUPPORT_STUB_REPLICA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/rpc.h"

struct weir_stub;

enum weir_stub_mode {
    WEIR_STUB_SERVE,   /* accepted, started, n_deltas, done */
    WEIR_STUB_REJECT,  /* TERMINAL_REJECTED */
    WEIR_STUB_INVALID, /* TERMINAL_INVALID with code, message, param */
    WEIR_STUB_FAIL,    /* TERMINAL_FAILED */
    WEIR_STUB_STALL,   /* accepted, then nothing */
    WEIR_STUB_BREAK,   /* accepted, then the stream breaks */
    WEIR_STUB_ROGUE,   /* a delta before accepted: against the protocol */
};

/* How calls that begin from now on are answered. Strings are copied and cut to some hundred bytes. */
struct weir_stub_plan {
    enum weir_stub_mode mode;
    uint32_t n_deltas;         /* of each choice; at least 1 */
    uint32_t tokens_per_delta; /* at least 1 */
    uint64_t gap_ns;           /* 0: all at once */
    uint32_t break_after;      /* the stream breaks after so many steps of a call; 0: never; needs a gap */
    uint32_t cached_tokens;
    bool decode;      /* read the request: honours n and max_tokens; costs some microseconds */
    const char *text; /* of one token; NULL: " tok" */
    const char *code, *message, *param; /* of INVALID */
};
void weir_stub_plan_init(struct weir_stub_plan *plan); /* SERVE, 8 deltas of 1 token, at once */

struct weir_stub_load {
    uint32_t running, waiting;
    uint64_t queued_tokens;
    double prefill_tokens_s, decode_tokens_s, predicted_wait_ms;
};

struct weir_stub_opts {
    struct weir_rpc *rpc;
    const char *listen; /* NULL: 127.0.0.1:0 */
    struct weir_rpc_tls tls;
    const char *id, *model;
    uint32_t version;           /* 0: the right one */
    uint32_t slots, queue_max;  /* of the hello; 0: 64, and 1,000,000 */
    uint32_t request_bytes_max; /* of the hello; 0: none */
    bool mute;                  /* never says hello */
};

WEIR_MUST_CHECK weir_err weir_stub_open(const struct weir_stub_opts *opts, struct weir_stub **ret,
                                        struct weir_why *why);
void weir_stub_close(struct weir_stub *stub); /* like a kill: streams break; takes NULL */
int weir_stub_port(const struct weir_stub *stub);

void weir_stub_set_plan(struct weir_stub *stub, const struct weir_stub_plan *plan);
void weir_stub_set_load(struct weir_stub *stub,
                        const struct weir_stub_load *load);  /* sent at once, then twice a second */
void weir_stub_drain(struct weir_stub *stub);                /* says drain to everybody */
void weir_stub_break(struct weir_stub *stub);                /* breaks all streams; the server stays */
void weir_stub_silence(struct weir_stub *stub, bool silent); /* sends nothing any more, streams stay */

struct weir_stub_counts {
    uint64_t attaches, begins, cancels, finished; /* since open */
    uint64_t request_bytes;                       /* of requests that arrived whole */
    uint64_t chunk_bytes_max;                     /* the largest piece seen */
    uint64_t malformed;                           /* frames that broke the protocol */
    uint64_t interleaved; /* times a small request began while a large one was still arriving */
    uint32_t live;        /* calls now */
};
void weir_stub_counts(struct weir_stub *stub, struct weir_stub_counts *ret);

/* What the last whole request said. */
struct weir_stub_last {
    uint8_t call_id[16], cache_salt[32];
    char account[128], model[128];
    uint32_t attempt, priority, total_bytes;
    uint64_t seed, now_unix, tag;
    uint64_t data_hash; /* weir_hash64 with seed 0 of the encoded request */
};
void weir_stub_last(struct weir_stub *stub, struct weir_stub_last *ret);

#endif
