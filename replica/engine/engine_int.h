/* engine_int.h - what the files of the engine share: sequences, sessions, the engine. */
#ifndef WEIR_REPLICA_ENGINE_ENGINE_INT_H
#define WEIR_REPLICA_ENGINE_ENGINE_INT_H

#include "replica/engine/adjust.h"
#include "replica/engine/engine.h"
#include "replica/engine/fair.h"
#include "replica/engine/kv.h"
#include "replica/engine/sample.h"
#include "replica/parallel/parallel.h"

/* Rows through the head at once: bounds the logits, whatever the vocabulary. On a device each pass reads all of its weights. */
#define LOGITS_ROWS_MAX 32
#define LOGITS_ROWS_DEVICE 256

enum seq_state {
    SEQ_IDLE,   /* its session waits, or another choice computes the prompt */
    SEQ_PROMPT, /* computes the prompt */
    SEQ_REFILL, /* was suspended: computes its prompt and output again */
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
    int32_t i_drawn;           /* its next token is this one of the flight; -1: all are in `tokens` */
};

/* Who draws a session's tokens. */
enum draw_by {
    DRAW_HOST,   /* asks for more than the device can do, or there is none */
    DRAW_DEVICE, /* but the host must know a token before the next one can be drawn: masks, penalties */
    DRAW_AHEAD,
};

enum session_place { PLACE_WAITING, PLACE_RUNNING, PLACE_SUSPENDED };

struct weir_session {
    struct weir_engine *eng;
    struct weir_session_params params;
    struct sample_params sample;
    enum draw_by draw_by;
    char *salt, *account;
    struct weir_logit_bias *bias;        /* params.logit_bias */
    struct weir_constraint *constraints; /* params.constraints; ours to close */
    int32_t *tokens;                     /* of all choices */
    struct seq *seqs;
    enum session_place place;
    struct fair_item wait;         /* WAITING */
    uint64_t arrived_ns, since_ns; /* since_ns: suspended */
    uint64_t order;                /* of starting; 0: has not */
    uint32_t n_live, n_worst;      /* choices not done; pages that it may come to hold */
    uint32_t n_output_room;        /* tokens a choice that admission reckons with */
    uint32_t tell_from;            /* the prompt's next token whose log-probability is to be told */
    int32_t owner;                 /* of its pages, while it runs; else -1 */
    bool awaits; /* has a place, and has not started: `leader` computes pages that it needs too */
    struct weir_session *leader;      /* NULL: it has gone */
    uint32_t n_awaited;               /* tokens */
    struct weir_session *prev, *next; /* RUNNING and SUSPENDED: in order */
};

struct session_list {
    struct weir_session *first, *last;
    uint32_t n;
};

/* A row of the step whose logits are wanted, and for whom. */
struct want {
    int32_t row;
    struct seq *seq;   /* NULL: it has ended since */
    int32_t prompt_at; /* -1: for the next token; else for the log-probability of this token of the prompt */
    uint32_t i_row;    /* its logits, among those of the head's last pass */
    int32_t i_drawn;   /* its token, in the set; -1: the host draws it */
};

/* A step that was launched, and whose tokens nobody has looked at; see step.c. */
struct flight {
    struct want *wants; /* [n_wants_max]; seq NULL: it has ended meanwhile */
    uint32_t n_wants, set, n_prefill, n_decode;
    bool flies; /* false: there is none */
};

struct weir_engine {
    struct weir_engine_opts opts;
    struct weir_engine_info info;
    struct model_config config;
    struct parallel *model;
    struct kv kv;
    char name[64];

    struct fair waiting;
    struct session_list running, suspended; /* by order: the oldest first */
    uint64_t n_started, starve_ns;
    double n_output_mean;    /* of choices that ended of late */
    double prefill_tokens_s; /* 0: not known yet */
    uint64_t step_ns;        /* the last step began, if it computed prompts and left work; else 0 */
    uint32_t step_prefill;
    struct seq **slots; /* [n_slots], NULL = free */
    int32_t *table;     /* [n_slots, n_page_max] */
    uint32_t n_page_max, n_slots_free;

    /* one step */
    int32_t *ids, *pos, *seq;                       /* [n_tok_max] */
    int32_t *drawn;                                 /* [n_tok_max] -1, or where in the flight the id is */
    uint32_t n_tok_max, n_tok, n_prefill, n_decode; /* n_tok = n_prefill + n_decode */
    bool takes_drawn;                               /* some are */
    struct want *wants;                             /* [n_slots + n_tok_max] */
    uint32_t n_wants;
    int32_t *rows; /* [n_rows_max] of one pass through the head */
    uint32_t n_rows_max;
    struct flight flight;
    weir_err failed;             /* of a step: it left things half done, and there is no other */
    struct draws *draws;         /* NULL: the host draws */
    struct sample_item *scratch; /* [n_vocab] */
    struct adjust adjust;
    struct weir_engine_event *events;
    uint32_t n_events;
    struct weir_top_logprob *tops; /* [(n_slots + n_tok_max) * WEIR_TOPS_MAX] */
    uint32_t n_tops;
};

/* admit.c */
void admit_all(struct weir_engine *eng, uint64_t now_ns);
uint32_t admit_n_uncached(struct weir_engine *eng, const struct weir_session *ses); /* as things are now */
void admit_find_prefix(struct weir_engine *eng, struct seq *seq);
void admit_share_prompt(struct weir_engine *eng,
                        struct seq *seq); /* REFILL: of another choice that has it again */
void admit_leader_gone(struct weir_engine *eng, const struct weir_session *leader);

/* suspend.c */
bool suspend_is_due(const struct weir_engine *eng);
void suspend_for_room(struct weir_engine *eng, uint64_t now_ns);

/* sched.c */
void sched_fill(struct weir_engine *eng, uint64_t now_ns);

/* session.c */
uint32_t pages_for(uint32_t n_tokens);
void seq_drop_pages(struct seq *seq);          /* and its slot; it is as if nothing were computed */
void seq_release(struct seq *seq);             /* and SEQ_DONE */
uint32_t seq_length(const struct seq *seq);    /* tokens, the one that is drawn and not known included */
bool seq_decodes(const struct seq *seq);       /* has a token to be computed in the next step */
void session_disown(struct weir_session *ses); /* it takes no more pages */
void list_remove_session(struct session_list *list, struct weir_session *ses);
void list_insert_session(struct session_list *list, struct weir_session *ses); /* by order */
int32_t *seq_table(struct seq *seq);

/* step.c */
void step_forget(struct weir_engine *eng, const struct seq *seq); /* it wants no more tokens */

/* draw.c: tokens drawn by the back end. */
WEIR_MUST_CHECK weir_err draws_open(struct weir_engine *eng, struct weir_why *why);
void draws_close(struct draws *draws);                  /* takes NULL */
size_t draws_list_bytes(const struct weir_engine *eng); /* of one call to the back end */
enum draw_by draws_by(const struct weir_engine *eng, const struct weir_session_params *p);
/* Asks the back end for the tokens of those of the wants that it draws, as first, first + 1, .. of the set; i_drawn says which. A
 * choice whose text is whole ends. */
WEIR_MUST_CHECK weir_err draws_launch(struct weir_engine *eng, uint32_t set, struct want *wants, uint32_t n,
                                      uint32_t *first, struct weir_why *why);

/* outcome.c: what logits and tokens mean for a sequence. */
struct weir_engine_event *event_add(struct weir_engine *eng, int kind, struct weir_session *ses,
                                    uint32_t choice);
struct adjust_context outcome_context(const struct weir_engine *eng, const struct seq *seq);
void outcome_whole(struct weir_engine *eng, struct seq *seq); /* nothing may come next: it ends */
void outcome_drawn(struct weir_engine *eng, struct seq *seq, const struct weir_drawn *drawn);
void outcome_logits(struct weir_engine *eng, struct seq *seq, const float *logits);
void outcome_prompt(struct weir_engine *eng, struct seq *seq, int32_t at, const float *logits);

#endif
