/* model.c - the names that clients give, and the deployments they stand for. Listing is in fleet.c, beside what serves. */
#include "ctl/admin.h"

static const char *deployment, *display_name, *size, *context, *deprecation, *is_public, *payment, *accounts,
    *policy;

static const struct ctl_option field_options[] = {
    { "deployment", "NAME", "what replicas serve it as (--model-name); default: the model's id",
      &deployment },
    { "display-name", "TEXT", "for people", &display_name },
    { "size-class", "CLASS", "SMALL, MEDIUM or LARGE: whose ceilings", &size },
    { "context-length", "TOKENS", "longest prompt and answer together", &context },
    { "deprecation-date", "DATE", "from this day on it is gone", &deprecation },
    { "public", "true|false", "false: only --accounts see it", &is_public },
    { "accounts", "A,B", "who sees a model that is not public", &accounts },
    { "needs-payment-method", "true|false", "402 for accounts without one", &payment },
    { "policy", "NAME", "over a limit: INHERIT, REFUSE or DEPRIORITIZE", &policy },
    { NULL, NULL, NULL, NULL },
};
static const struct ctl_option no_options[] = { { NULL, NULL, NULL, NULL } };
static const struct ctl_member fields[] = {
    { "deployment", "deployment", &deployment, CTL_STR },
    { "display-name", "displayName", &display_name, CTL_STR },
    { "size-class", "sizeClass", &size, CTL_STR },
    { "context-length", "contextLength", &context, CTL_NUMBER },
    { "deprecation-date", "deprecationDate", &deprecation, CTL_STR },
    { "public", "public", &is_public, CTL_BOOL },
    { "accounts", "accounts", &accounts, CTL_LIST },
    { "needs-payment-method", "needsPaymentMethod", &payment, CTL_BOOL },
    { "policy", "limitPolicy", &policy, CTL_STR },
    { NULL, NULL, NULL, CTL_STR },
};

static const char *path_of(struct ctl *ctl, const char *model)
{
    return ctl_format(ctl, "/v1/fleet/models/%s", ctl_escape(ctl, model));
}

static enum ctl_exit run_create(struct ctl *ctl, int n_operands, char **operands)
{
    (void)n_operands;
    return ctl_admin_show(
        ctl, "POST", ctl_format(ctl, "/v1/fleet/models?modelId=%s", ctl_escape(ctl, operands[0])), fields);
}

static enum ctl_exit run_update(struct ctl *ctl, int n_operands, char **operands)
{
    (void)n_operands;
    return ctl_admin_show(ctl, "PATCH", path_of(ctl, operands[0]), fields);
}

static enum ctl_exit run_get(struct ctl *ctl, int n_operands, char **operands)
{
    (void)n_operands;
    return ctl_admin_show(ctl, "GET", path_of(ctl, operands[0]), /* members= */ NULL);
}

static enum ctl_exit run_delete(struct ctl *ctl, int n_operands, char **operands)
{
    (void)n_operands;
    return ctl_admin_show(ctl, "DELETE", path_of(ctl, operands[0]), /* members= */ NULL);
}

const struct ctl_command ctl_model_create = { "model create", "MODEL", "a name for a deployment",
                                              field_options,  1,       run_create };
const struct ctl_command ctl_model_get = {
    "model get", "MODEL", "one model's record", no_options, 1, run_get
};
const struct ctl_command ctl_model_update = { "model update", "MODEL", "change a model's record",
                                              field_options,  1,       run_update };
const struct ctl_command ctl_model_delete = { "model delete", "MODEL", "forget a model's record",
                                              no_options,     1,       run_delete };
