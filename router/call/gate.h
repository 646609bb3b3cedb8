/* gate.h - what a request passes before it is routed: may its account use this model, what is its deployment, and is
 * there room within its limits.
 *
 *     weir_gate_enter     once a call, whatever the number of its attempts: a refusal spends nothing
 *     weir_gate_progress  what it has used so far, as frames come
 *     weir_gate_leave     what it used in all, once
 *
 * One gate for all loops; any thread. */
#ifndef WEIR_ROUTER_CALL_GATE_H
#define WEIR_ROUTER_CALL_GATE_H

#include "base/err.h"
#include "router/limits/limits.h"
#include "router/request.h"
#include "router/tenancy/record.h"

struct weir_keys;
struct weir_shedding;

struct weir_gate {
    struct weir_keys *keys;         /* borrowed */
    struct weir_limits *limits;     /* borrowed; NULL: nothing is metered */
    struct weir_shedding *shedding; /* borrowed; NULL: nobody is told */
    bool legacy;                    /* the fleet's policy where neither the model nor the account has one */
};

/* What a call holds of the limits. */
struct weir_gate_pass {
    bool metered;
    bool started;       /* its prompt is charged */
    uint64_t n_charged; /* of its output, tokens */
};

/* The request's model becomes the name that replicas serve it under; req->note, if any, is written. WEIR_NOMODEL,
 * WEIR_FORBIDDEN, WEIR_PAYMENT: `why` names the field. WEIR_LIMITED: it names the meter, the limit, the use and the wait,
 * which is in *ret_retry_ms. WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err weir_gate_enter(const struct weir_gate *gate, struct weir_request *req,
                                         uint64_t now_ns, struct weir_gate_pass *ret, uint32_t *ret_retry_ms,
                                         struct weir_why *why);
/* Before its first token a call is charged nothing, and holds its estimate: if it fails until then, it is free. */
void weir_gate_progress(const struct weir_gate *gate, struct weir_gate_pass *pass,
                        const struct weir_request *req, uint32_t prompt_tokens, uint32_t cached_tokens,
                        uint64_t generated_tokens, uint64_t now_ns);
/* Of a call that is free: 0 of all. */
void weir_gate_leave(const struct weir_gate *gate, struct weir_gate_pass *pass,
                     const struct weir_request *req, uint32_t prompt_tokens, uint32_t cached_tokens,
                     uint32_t generated_tokens, uint64_t now_ns);

/* Replicas of its deployment had no room for it. */
void weir_gate_shed(const struct weir_gate *gate, const struct weir_request *req, uint64_t now_ns);

/* The numbers of an account on a model, as limits/ takes them. For those who look, too. */
struct weir_account;
void weir_gate_numbers(const struct weir_account *account, enum weir_size_class size,
                       struct weir_limits_account *ret);

#endif
