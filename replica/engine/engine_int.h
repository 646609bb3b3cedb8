/* engine_int.h - what the files of the engine share: sequences, sessions, the engine. */
#ifndef WEIR_REPLICA_ENGINE_ENGINE_INT_H
#define WEIR_REPLICA_ENGINE_ENGINE_INT_H

#include "replica/engine/adjust.h"
#include "replica/engine/engine.h"
#include "replica/engine/kv.h"
#include "replica/engine/sample.h"
#include "replica/parallel/parallel.h"

#define LOGITS_ROWS_MAX 32 /* rows through the head at once: bounds the logits, whatever the vocabulary */

#define ENGINE_TOPS_MAX 5 /* top_logprobs of a token */

enum seq_state {
    SEQ_IDLE,   /* its session waits, or another choice computes the prompt */
    SEQ_PROMPT, /* computes the prompt */
    SEQ_DECODE,
    SEQ_DONE, /* holds nothing */
};

/* One choice: its tokens, and the pages that hold what is computed of them. */
struct seq {
    struct weir_session *session;
    enum seq_state state;
    uint32_t choice;
    int32_t i_slot;  /* row of the engine's table; -1 = none */
    int32_t *tokens; /* prompt and output; room for all that may come */
    uint32_t n_tokens, n_computed, n_out;
    uint32_t n_pages, n_named; /* pages held; of these, full ones that were published or found */
    struct kv_name chain;      /* the name of the last named page */
    double surprise_max;       /* mirostat's bound, in bits; 0 before the first token */
    struct seq *next_running;
};

struct weir_session {
    struct weir_engine *eng;
    struct weir_session_params params;
    struct sample_params sample;
    char *salt;
    struct weir_logit_bias *bias;        /* params.logit_bias */
    struct weir_constraint *constraints; /* params.constraints; ours to close */
    int32_t *tokens;                     /* of all choices */
    struct seq *seqs;
    uint32_t n_live, n_promised; /* pages that it may come to hold */
    uint64_t arrived_ns;
    bool running;
    struct weir_session *prev, *next; /* in eng->waiting or eng->running */
};

struct session_list {
    struct weir_session *first, *last;
    uint32_t n;
};

/* A row of the step whose logits are wanted, and for whom. */
struct want {
    int32_t row;
    struct seq *seq;
    int32_t prompt_at; /* -1: for the next token; else for the log-probability of this token of the prompt */
};

struct weir_engine {
    struct weir_engine_opts opts;
    struct weir_engine_info info;
    struct model_config config;
    struct parallel *model;
    struct kv kv;
    char name[64];

    struct session_list waiting, running;
    struct seq **slots; /* [n_slots], NULL = free */
    int32_t *table;     /* [n_slots, n_page_max] */
    uint32_t n_page_max, n_slots_free, n_promised;

    /* one step */
    int32_t *ids, *pos, *seq; /* [n_tok_max] */
    uint32_t n_tok_max, n_tok;
    struct want *wants; /* [n_slots + n_tok_max] */
    uint32_t n_wants;
    struct sample_item *scratch; /* [n_vocab] */
    struct adjust adjust;
    struct weir_engine_event *events;
    uint32_t n_events;
    struct weir_top_logprob *tops; /* [(n_slots + n_tok_max) * ENGINE_TOPS_MAX] */
    uint32_t n_tops;
};

/* sched.c */
void sched_admit(struct weir_engine *eng, uint64_t now_ns);
void sched_fill(struct weir_engine *eng, uint32_t *ret_prefill, uint32_t *ret_decode);

/* session.c */
void seq_release(struct seq *seq); /* pages and slot; SEQ_DONE */
void list_remove_session(struct session_list *list, struct weir_session *ses);
void list_append_session(struct session_list *list, struct weir_session *ses);
int32_t *seq_table(struct seq *seq);

/* engine.c */
struct weir_engine_event *event_add(struct weir_engine *eng, int kind, struct weir_session *ses,
                                    uint32_t choice);

#endif
