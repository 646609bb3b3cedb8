/* gate.h - what a request passes before it is routed: may its account use this model, and what is its deployment.
 *
 * One gate for all loops. A call enters once, whatever the number of its attempts. */
#ifndef WEIR_ROUTER_CALL_GATE_H
#define WEIR_ROUTER_CALL_GATE_H

#include "base/err.h"
#include "router/request.h"

struct weir_keys;

struct weir_gate {
    struct weir_keys *keys; /* borrowed */
};

/* The request's model becomes the name that replicas serve it under. WEIR_NOMODEL, WEIR_FORBIDDEN, WEIR_PAYMENT,
 * WEIR_NOMEM: `why` says what and names the field. */
WEIR_MUST_CHECK weir_err weir_gate_enter(const struct weir_gate *gate, struct weir_request *req,
                                         struct weir_why *why);

#endif
