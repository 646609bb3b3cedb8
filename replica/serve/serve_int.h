/* serve_int.h - what the files of serve/ share: a call's way through the threads.
 *
 *   CQ thread      attach.c   Begin and Chunks arrive; the request is whole -> text queue
 *   text worker    text.c     unpack, prompt.c, format.c, choices opened     -> step queue
 *   step thread    step.c     session, tokens; choice.c: text, calls        -> the attachment's outbox
 *   sender         send.c     one gRPC send in flight per attachment; load reports
 *
 * [S1] Each call belongs to one thread at a time and moves along that route only; the queues hand it over.
 * [S2] Every call that began gets exactly one Terminal, or its attachment is gone.
 * [S3] A cancel reaches the step thread at most one step after it arrived. */
#ifndef WEIR_REPLICA_SERVE_SERVE_INT_H
#define WEIR_REPLICA_SERVE_SERVE_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "base/metrics.h"
#include "base/queue.h"
#include "base/thread.h"
#include "replica/engine/engine.h"
#include "replica/grammar/grammar.h"
#include "replica/serve/serve.h"
#include "replica/text/template.h"
#include "replica/text/tokenizer.h"
#include "replica/text/tool_parse.h"
#include "weir/fabric/v1/fabric.pb-c.h"

#define ATTACH_BUCKETS 256
#define ATTACH_MAX 256 /* routers at once; more are refused */

/* ---- one router's attachment ---- */
struct attach {
    struct weir_serve *serve;
    struct weir_rpc_stream *stream;
    atomic_uint refs; /* the stream's callbacks, the serve list, and each call */
    char router[64];

    pthread_mutex_t lock; /* guards all below; nothing is called under it but buffers and the rpc send */
    struct call *calls[ATTACH_BUCKETS]; /* by tag; every call between Begin and Terminal */
    uint32_t n_calls;
    size_t receiving_bytes;
    struct weir_buf outbox; /* encoded ReplicaFrame pieces: concatenation of two frames is their merge */
    bool sending, closed, said_hello;
    uint64_t load_sent_ns;
    Weir__Fabric__V1__Load load_sent;

    struct attach *next; /* serve's list, under serve->attach_lock */
};

/* ---- one submit ---- */
/* What one step brought of one tool call: its name, when it began, then arguments, side by side in `called`. */
struct call_piece {
    uint32_t i_call;
    size_t begin, n_name, n_arguments;
};

struct choice {
    struct call *call;
    struct weir_detok detok;
    struct weir_stop_state stop;
    struct weir_output_parser *parser; /* NULL: text is text */
    struct weir_constraint constraint; /* ops NULL: anything goes; the engine's once the session is open */
    uint32_t n_out;                    /* tokens */
    uint32_t n_calls;
    bool finished;
    bool has_enough; /* a call has ended, and there is to be only one */
    bool failed;     /* no memory: its next token ends it */
    /* what this step brought, until it is encoded */
    struct weir_buf text, reasoning, raw, called;
    uint32_t *ids;
    size_t n_ids, cap_ids;
    struct call_piece *pieces;
    size_t n_pieces, cap_pieces;
    Weir__V1__TokenLogprob **logprobs; /* in the step arena */
    size_t n_logprobs, cap_logprobs;
    Weir__V1__FinishReason finish;
    bool dirty;
};

struct step_msg {
    struct weir_qnode node;
    enum { STEP_NEW, STEP_CANCEL } kind;
    struct call *call;
};

struct call {
    struct weir_qnode node;  /* in the text queue */
    struct step_msg arrival; /* in the step queue, once each */
    struct step_msg cancel;
    atomic_int refs; /* who has it on its route, and a cancel message under way */
    atomic_bool
        cancelled; /* set once, by the CQ thread; read by the others when they are about to start on it */
    struct attach *att; /* counted */
    struct call *hash_next;
    uint64_t tag;
    bool receiving; /* CQ thread only */

    struct weir_arena arena;
    uint8_t *data; /* the encoded GenerateRequest */
    uint32_t n_data, n_total;
    uint8_t call_id[16];
    uint64_t seed, now_unix;
    uint32_t priority;
    struct weir_str salt, account;
    uint64_t arrived_ns;

    /* after text.c */
    const Weir__V1__GenerateRequest *msg;
    struct weir_tokens prompt;
    bool is_cut; /* the plain prompt's beginning was left out */
    struct weir_stop *stops;
    struct weir_output_format format;
    bool parses;                  /* the answer holds reasoning or calls to be taken out */
    struct weir_grammar *grammar; /* what the answer must be; counted; NULL: anything */
    struct weir_tokens cap_end;   /* reasoning_effort as a count: what ends the reasoning; n 0: not bounded */
    struct weir_str prefill;      /* what the answer is made to begin with */
    struct weir_str prompt_text;  /* as the model saw it, where somebody asked for it */
    struct weir_str echo;         /* given back before the answer */
    uint32_t n_echo;              /* tokens of it: the prompt's last ones */
    uint32_t n_choices;
    weir_err err; /* text failed; why says how */
    struct weir_why why;

    /* on the step thread */
    struct weir_session *session;
    struct choice *choices; /* opened by the text worker */
    bool told_prompt;       /* its ids or text have gone out */
    uint32_t n_live, cached_tokens;
    uint64_t started_ns, first_token_ns, queue_ns;
    bool pending;            /* counted in serve->n_pending; step thread after arrival */
    struct call *dirty_next; /* has news in this step */
    bool dirty;
};

struct serve_metrics {
    struct weir_counter *calls[8]; /* by TerminalReason */
    struct weir_counter *prompt_tokens, *cached_tokens, *completion_tokens, *steps, *frames, *frame_bytes,
        *bad_frames;
    struct weir_gauge *attachments, *running, *waiting, *kv_used, *kv_total;
    struct weir_histogram *step_s, *queue_s, *text_s;
};

struct text_worker {
    struct weir_serve *serve;
    struct weir_queue queue; /* of calls */
    struct weir_thread thread;
};

struct weir_serve {
    struct weir_serve_opts opts;
    const struct weir_engine_info *info;
    uint32_t n_slots;
    struct serve_metrics metrics;
    struct weir_grammar_vocab *vocab;
    struct formats *formats; /* compiled grammars */

    struct weir_queue step_queue;
    struct text_worker *text_workers;
    uint32_t n_text_workers;
    atomic_uint next_text_worker;
    struct weir_thread step_thread, send_thread;
    atomic_bool stopping, draining;
    atomic_bool failed;    /* the engine broke: no more steps; the main thread is told */
    atomic_uint n_calls;   /* between Begin and Terminal */
    atomic_uint n_pending; /* of them, not yet running */

    pthread_mutex_t attach_lock; /* before att->lock */
    struct attach *attaches;
    uint32_t n_attaches;

    /* The sender sleeps on this; the step thread and callbacks raise it. */
    pthread_mutex_t send_lock;
    pthread_cond_t send_cond;
    bool send_wanted;
    Weir__Fabric__V1__Load load; /* under send_lock */

    /* step thread only */
    struct call *dirty;
    struct weir_arena step_arena;
    struct weir_buf scratch, piece;
    struct {
        double prefill_tokens, prefill_s, service_ms; /* running means */
        double prefill_tokens_s;
        uint64_t window_ns, window_tokens;
        double decode_tokens_s;
        uint64_t generated;
    } rate;
};

/* attach.c */
void attach_ref(struct attach *att);
void attach_unref(struct attach *att);
/* Appends encoded pieces to the outbox and cuts the attachment past its bound. Any thread. */
void attach_append(struct attach *att, struct weir_str pieces);
/* One more repeated field of a ReplicaFrame: key, length, message. */
void frame_add(struct weir_buf *out, unsigned field, const ProtobufCMessage *msg);
/* The call's end: Terminal to the router, out of the table. The caller's hold on the call is gone afterwards.
 */
void call_end(struct call *call, Weir__Fabric__V1__Terminal *terminal);
void call_end_err(struct call *call, weir_err err, const struct weir_why *why);
void call_unref(struct call *call);
weir_err attach_open(void *ctx, struct weir_rpc_stream *s, const struct weir_rpc_stream_ops **ret_ops,
                     void **ret_ctx, struct weir_why *why);
extern const struct weir_rpc_stream_ops attach_ops;

/* text.c */
void *text_main(void *worker);
weir_err text_push(struct weir_serve *serve, struct call *call);

/* prompt.c: text worker. Sets prompt, prompt_text, and what format.c sets. */
weir_err prompt_make(struct weir_serve *serve, struct call *call);

/* format.c: text worker */
struct formats *formats_open(void); /* NULL: no memory */
void formats_close(struct formats *formats);
/* Sets format, parses, grammar and prefill. `prompt` is the rendered chat. */
weir_err format_choose(struct weir_serve *serve, struct call *call, struct weir_str prompt);
/* The same for a completion: a grammar, but nothing to take out. */
weir_err format_choose_plain(struct weir_serve *serve, struct call *call);

/* cap.c: a bound of reasoning; the last three have the shape of a grammar's state. */
struct cap_state;
weir_err cap_prepare(struct weir_serve *serve, struct call *call); /* text worker; sets cap_end */
/* Takes the grammar, which may be NULL, on success. */
weir_err cap_open(struct weir_serve *serve, struct call *call, struct weir_grammar_state *grammar,
                  struct cap_state **ret);
void cap_mask(void *state, uint32_t *bits, uint32_t n_vocab);
bool cap_accept(void *state, int32_t id);
void cap_close(void *state); /* takes NULL */

/* choice.c */
#define CALL_ID_SIZE 32
weir_err choices_open(struct weir_serve *serve, struct call *call); /* text worker */
void choices_close(struct call *call);
/* The rest: step thread. */
void choice_prompt(struct weir_serve *serve, struct call *call, const struct weir_engine_event *ev);
void choice_token(struct weir_serve *serve, struct choice *ch, const struct weir_engine_event *ev);
void choice_finish(struct weir_serve *serve, struct choice *ch, Weir__V1__FinishReason reason);
void choice_encode(struct weir_serve *serve, struct choice *ch);

/* step.c */
void *step_main(void *serve);
/* The call has news to tell at the end of this step. Step thread. */
void step_mark(struct weir_serve *serve, struct call *call);
/* Ends a running call when the step thread is gone. */
void step_drop(struct weir_serve *serve, struct call *call);

/* send.c */
void *send_main(void *serve);
void send_wake(struct weir_serve *serve);
/* Starts a send when one is due and none is in flight. Any thread. */
void attach_flush(struct attach *att);

/* load.c: step thread */
void load_note_prefill(struct weir_serve *serve, uint32_t n_prefill, uint64_t step_ns);
void load_note_finished(struct weir_serve *serve, uint64_t service_ns);
void load_publish(struct weir_serve *serve);

#endif
