/* gate.c - the model's name becomes a deployment. The answer keeps the name that the client gave: it took its copy when
 * the request came. */
#include "router/call/gate.h"

#include <string.h>

#include "router/tenancy/keys.h"

weir_err weir_gate_enter(const struct weir_gate *gate, struct weir_request *req, struct weir_why *why)
{
    struct weir_model model;
    weir_err err =
        weir_keys_model(gate->keys, req->account, weir_str(req->msg->model), &req->arena, &model, why);

    if (err == WEIR_OK)
        req->msg->model = (char *)(uintptr_t)model.deployment.ptr; /* NUL-terminated, the arena's */
    return err;
}
