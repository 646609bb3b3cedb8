/* answer_int.h - what the files of an answer share: its state, and the writers of the parts of a body.
 *
 *   answer.c        its life: calls, the sink, one body at the end
 *   answer_error.c  errors
 *   answer_sse.c    server-sent events
 *   answer_write.c  choices, log-probabilities, usage as JSON */
#ifndef WEIR_ROUTER_GATEWAY_ANSWER_INT_H
#define WEIR_ROUTER_GATEWAY_ANSWER_INT_H

#include "base/json.h"
#include "router/gateway/answer.h"

/* A tool call of a choice, gathered. */
struct called {
    char *id;
    struct weir_buf name, arguments;
};

struct choice {
    struct weir_buf text, reasoning, raw;
    struct weir_buf logprobs; /* elements of the array, comma-separated */
    struct weir_buf
        legacy[4];       /* token_logprobs, top_logprobs, text_offset, token_ids: the older shape is arrays
                                * side by side */
    struct weir_buf ids; /* numbers, comma-separated */
    struct called *calls;
    size_t n_calls;
    size_t n_logprobs, offset; /* bytes of tokens so far, for text_offset */
    Weir__V1__FinishReason finish;
    bool opened; /* streaming: the role has been said */
};

/* One call: all choices of one prompt. */
struct part {
    struct answer *answer;
    struct weir_call *call; /* NULL: not started, or over */
    uint32_t base;          /* its first choice's index in the answer */
    struct weir_buf prompt_ids, prompt_text;
};

struct answer {
    struct weir_http_req *http;
    struct weir_answer_opts opts;
    struct weir_answer_env *env;
    bool begun, perf;
    bool raw, ids;       /* raw_output, return_token_ids */
    bool starting;       /* calls are being started: whoever does that frees */
    bool over;           /* http is answered */
    bool has_started;    /* `started` is known */
    uint32_t n_per_part; /* choices of one prompt */
    uint32_t n_choices, n_live;
    uint32_t n_parts, n_parts_live;
    uint32_t last_choice; /* whose finish waits for the usage */
    struct choice *choices;
    struct part *parts;
    struct weir_buf head; /* {"id":...,"choices":[{"index": - the part of every chunk that never changes */
    struct weir_call_started started; /* of the first part that started */
    struct weir_call_done done;       /* sums; times are the longest */
    struct weir_limit_note limits;    /* of the last part that asked */
    char replica[128];
    char request_id[WEIR_REQUEST_ID_MAX + 1];
    char id[48];
    char *model, *grammar;
    uint64_t arrived_ns, created_s;
};

/* answer_write.c */
void answer_write_head(struct weir_jw *w, const struct answer *a, const char *object);
void answer_write_finish(struct weir_jw *w, const struct answer *a, Weir__V1__FinishReason finish);
void answer_write_usage(struct weir_jw *w, const struct weir_call_done *done);
void answer_write_perf(struct weir_jw *w, const struct answer *a);
void answer_write_choice(struct weir_jw *w, struct answer *a, uint32_t i);
void answer_write_raw(struct weir_jw *w, struct answer *a, uint32_t i);
void answer_add_logprobs(struct answer *a, struct choice *ch, const Weir__Fabric__V1__Delta *delta);
/* The logprobs member of a choice: what has gathered since the last call. */
void answer_take_logprobs(struct answer *a, struct weir_buf *out, struct choice *ch);
void answer_add_comma(struct weir_buf *buf);
double answer_seconds(uint64_t ns);

/* answer_error.c: with the limits' headers of `a`, which may be NULL */
void answer_error(struct weir_http_req *http, weir_err err, const struct weir_why *why,
                  const char *request_id, uint32_t retry_after_ms, const struct answer *a);

/* answer_sse.c */
void answer_begin_stream(struct answer *a);
/* false: the client is too slow, or there is no memory; http is aborted. */
bool answer_stream_delta(struct answer *a, uint32_t i, const Weir__Fabric__V1__Delta *delta);
void answer_end_stream(struct answer *a);
void answer_fail_stream(struct answer *a, weir_err err, const struct weir_why *why);

/* answer.c */
void answer_add_headers(const struct answer *a, struct weir_http_fields *fields);

#endif
