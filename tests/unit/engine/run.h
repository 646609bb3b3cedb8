/* run.h - an engine over a random model, and requests that collect what they are told.
 *
 * Checks at every event that the rules of engine.h hold: STARTED once and first, nothing after FINISHED. */
#ifndef WEIR_TESTS_UNIT_ENGINE_RUN_H
#define WEIR_TESTS_UNIT_ENGINE_RUN_H

#include "replica/engine/engine.h"
#include "tests/support/tiny_model.h"

enum { RUN_CHOICES_MAX = 8, RUN_TOKENS_MAX = 256, RUN_PROMPT_MAX = 256, RUN_TOPS = 3 };

struct run_choice {
    int n, n_finished;
    int32_t ids[RUN_TOKENS_MAX];
    float logprobs[RUN_TOKENS_MAX];
    struct weir_top_logprob tops[RUN_TOKENS_MAX][RUN_TOPS];
    enum weir_finish finish;
};

struct run_request {
    struct weir_session_params params; /* prompt points to `prompt` */
    int32_t prompt[RUN_PROMPT_MAX];
    struct weir_session *session;
    int n_started, started_as; /* started_as: 0 for the first session that the engine started, and so on */
    uint32_t cached_tokens;
    int n_told; /* PROMPT events */
    int32_t told_ids[RUN_PROMPT_MAX];
    float told[RUN_PROMPT_MAX];
    struct run_choice choices[RUN_CHOICES_MAX];
};

/* Opens the folder, with sensible values where `opts` has 0. */
struct weir_engine *run_open(const char *dir, const struct weir_engine_opts *opts);
/* A request with a random prompt: greedy, one choice, log-probabilities, until max_tokens. */
void run_request_init(struct run_request *r, uint64_t seed, uint32_t n_vocab, uint32_t n_prompt,
                      uint32_t max_tokens);
void run_submit(struct weir_engine *eng, struct run_request *r);
/* One step; its events go to the requests. */
struct weir_engine_step run_step(struct weir_engine *eng);
bool run_done(const struct run_request *r); /* every choice has finished */
/* Steps until all are done, then closes them. */
void run_all(struct weir_engine *eng, struct run_request *requests, int n);
void run_one(struct weir_engine *eng, struct run_request *r);
/* The same tokens, and the same bits of every number. */
void run_same(const struct run_choice *a, const struct run_choice *b);
/* Nothing is held, promised, running or waiting. */
void run_idle(struct weir_engine *eng);

#endif
