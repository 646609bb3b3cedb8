/* engine.h - a loaded model that serves many sequences at once; a session is one request's timeline.
 *
 * engine = loaded model, KV pool, scheduler. A session holds n choices (sequences) over one prompt.
 * Everything here is called by the step thread alone, except what says "any thread". No I/O, no clock: now_ns
 * comes in as an argument.
 *
 * The bit law: in every operation the order of summation for an output row depends on weight shape and
 * absolute positions only: never on batch size, chunk edges, thread count, batch mates or cache state.
 * Randomness comes from (seed, choice, position). So a request's tokens are the same alone or in company. */
#ifndef WEIR_REPLICA_ENGINE_ENGINE_H
#define WEIR_REPLICA_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "kernels/kernels.h"

struct weir_engine;
struct weir_session;

struct weir_engine_opts {
    const char *model_dir;    /* a Hugging Face folder */
    uint32_t n_threads;       /* 0 = as many as there are cores */
    uint32_t tensor_parallel; /* ranks; 0 or 1 = none */
    const char *backend;      /* "cpu", "cuda", or "auto": cuda when there is a device; NULL = cpu */
    const char *weights;      /* how they are kept: "native", "q8", "q4" or "fp8"; NULL = native */
    const char *kv;           /* keys and values: "f32" or "bf16"; NULL = bf16 */
    const char *activations;  /* on a CPU: "fast", as kernels.h tells of `exact`, or "exact"; NULL = fast */
    uint32_t n_slots;         /* sequences at once */
    uint32_t n_queue_max;     /* sessions waiting */
    uint64_t kv_bytes;        /* of the page pool; 0 = enough for n_slots whole contexts, at most 1 GiB */
    uint32_t step_tokens;     /* token budget of a step; 0 = 256 */
    uint32_t step_ms_max;     /* of a step in which somebody decodes: prompts get what fits, at the rate they
                               * are computed; 0 = no bound in time */
    uint32_t queue_ms_max;    /* of prompts waiting, at the rate they are computed; 0 = no bound in time */
    uint32_t starve_ms;       /* who waits longer goes before every class; 0 = 10000 */
    uint32_t cache_share_pct; /* of the pages: an account that has more takes the place of its own cached
                               * ones, not of others'; 0 = 50 */
    bool deterministic; /* on a GPU: products with many tokens keep the bit law, too; a CPU always does */
    bool no_run_ahead;  /* no step is launched before the tokens of the last one are known */
    /* Opens a rank's back end, of whatever kind; NULL: by `backend`. */
    weir_err (*open_backend)(const struct weir_backend_opts *opts, struct weir_backend **ret,
                             struct weir_why *why);
};

struct weir_engine_info {
    const char *architecture; /* "LlamaForCausalLM" */
    const char *backend;      /* "cpu avx512", ... */
    uint64_t n_params, weight_bytes;
    uint32_t n_vocab, n_context;
    const int32_t *eos_ids; /* from generation_config.json, else config.json */
    int n_eos_ids;
    /* generation_config.json's defaults; NaN / -1 where it has none */
    double temperature, top_p, min_p;
    int top_k;
    uint8_t weights_hash[32]; /* of the safetensors headers and sizes */
};

/* WEIR_IO, WEIR_CORRUPT (with file and member), WEIR_UNIMPLEMENTED (architecture), WEIR_NOMEM. Any thread. */
WEIR_MUST_CHECK weir_err weir_engine_open(const struct weir_engine_opts *opts, struct weir_engine **ret,
                                          struct weir_why *why);
void weir_engine_close(struct weir_engine *eng); /* takes NULL; sessions must be closed */
const struct weir_engine_info *weir_engine_info(const struct weir_engine *eng); /* any thread; constant */

/* What an answer must be, one for each choice. All on the step thread. */
struct weir_constraint_ops {
    /* Writes (n_vocab + 31) / 32 words: bit id % 32 of word id / 32 is set when the token may come next; none is
     * when nothing may: the choice then ends. */
    void (*mask)(void *state, uint32_t *bits, uint32_t n_vocab);
    bool (*accept)(void *state, int32_t id); /* false: it can't go on; the choice ends with an error */
    void (*close)(void *state);
};
struct weir_constraint {
    const struct weir_constraint_ops *ops;
    void *state;
};

/* A number of the second half that is 0 is off. */
struct weir_session_params {
    const int32_t *prompt; /* copied */
    uint32_t n_prompt;     /* 1 or more, below the context length */
    uint32_t n_choices;    /* 1 to n_slots */
    uint32_t max_tokens;   /* per choice, 1 or more; cut so that prompt + output fits the context */
    uint64_t seed;
    double temperature; /* 0 = greedy */
    double top_p;       /* 1 = off */
    double min_p;       /* 0 = off */
    int top_k;          /* 0 = off */
    bool logprobs;
    int n_top_logprobs; /* 0 to WEIR_TOPS_MAX */
    bool ignore_eos;
    uint32_t priority; /* class, 0 to 7; lower goes first */
    struct weir_str
        account;        /* copied; whose turn it is among those that wait, and whose share of the cache */
    bool has_cache_max; /* at most cache_max tokens are found in the cache; 0: nothing is kept either */
    uint32_t cache_max;
    double typical_p;
    double
        repetition_penalty; /* of tokens in prompt and output: divides a positive logit, multiplies others */
    double frequency_penalty, presence_penalty; /* of tokens in the output: times their number; once */
    double mirostat_target,
        mirostat_lr; /* a perplexity; takes the place of top-k, top-p, min-p and typical-p */
    const struct weir_logit_bias *logit_bias; /* copied */
    uint32_t n_logit_bias;
    uint32_t min_tokens; /* no end token before */
    uint32_t
        n_prompt_logprobs; /* of the prompt's last tokens: PROMPT events before the first TOKEN; those tokens
                                 * are computed, not found. With n_top_logprobs of each. */
    const struct weir_constraint
        *constraints; /* NULL, or n_choices of them; the session closes them, once it is
                                                * open */
    struct weir_str cache_salt;
    void *user; /* comes back with every event */
};
/* Queues it. WEIR_FULL: the queue is at its bound, in number or in time. WEIR_INVALID: a parameter, or its worst case exceeds the
 * pool, which no waiting cures. WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err weir_session_open(struct weir_engine *eng, const struct weir_session_params *params,
                                           uint64_t now_ns, struct weir_session **ret, struct weir_why *why);
/* Frees its blocks at once, wherever it is in its life; its events no longer come. */
void weir_session_close(struct weir_session *ses);
/* This choice needs no more tokens (a stop string was met): it ends without a further event. */
void weir_session_stop_choice(struct weir_session *ses, uint32_t choice);
void *weir_session_user(const struct weir_session *ses);

enum weir_finish { WEIR_FINISH_NONE, WEIR_FINISH_STOP, WEIR_FINISH_LENGTH, WEIR_FINISH_ERROR };

/* What one step brought, in order. */
struct weir_engine_event {
    enum { WEIR_EV_STARTED, WEIR_EV_PROMPT, WEIR_EV_TOKEN, WEIR_EV_FINISHED } kind;
    struct weir_session *session;
    uint32_t choice;
    int32_t id;    /* TOKEN; an end token is told too, with FINISHED after it */
    float logprob; /* of the chosen token, before anything that sampling does; PROMPT: of the
                                         * prompt's token, NaN for the very first */
    const struct weir_top_logprob *top; /* n_top_logprobs of them, best first; id -1 past the vocabulary;
                                         * until the next step */
    enum weir_finish finish;            /* FINISHED: once per choice */
    uint32_t cached_tokens;             /* STARTED */
    uint64_t queue_ns;                  /* STARTED */
};
struct weir_engine_step {
    const struct weir_engine_event *events; /* until the next step */
    int n_events;
    uint32_t n_prefill, n_decode; /* tokens computed, in batches that this call saw the end of */
};
/* One batch: admits, computes, samples. Returns at once with nothing done when there is no work. Where the back end draws
 * tokens, a batch may be on its way when this returns: its tokens are then among the next call's events, and until then
 * weir_engine_has_work() says so, even when all its sessions have been closed. WEIR_IO: the device or a rank failed;
 * there are no further steps, and all that is left is to close. */
WEIR_MUST_CHECK weir_err weir_engine_step(struct weir_engine *eng, uint64_t now_ns,
                                          struct weir_engine_step *ret, struct weir_why *why);
bool weir_engine_has_work(const struct weir_engine *eng);

struct weir_engine_load {
    uint32_t n_running, n_waiting, n_slots; /* sequences, sessions, sequences */
    uint32_t n_suspended;   /* sessions that gave up their pages to older ones, and go on before any starts */
    uint64_t queued_tokens; /* prompt tokens not yet computed, running and waiting */
    uint64_t kv_blocks_used, kv_blocks;
};
void weir_engine_load(const struct weir_engine *eng, struct weir_engine_load *ret);

#endif
