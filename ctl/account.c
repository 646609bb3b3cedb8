/* account.c - accounts: made, changed, suspended, resumed. */
#include "ctl/admin.h"

static const char *display_name, *email, *tier, *payment, *unlimited, *policy, *limits, *models, *reason;

#define FIELD_OPTIONS                                                                                        \
    { "display-name", "TEXT", "for people", &display_name }, { "email", "ADDRESS", "whom to tell", &email }, \
        { "tier", "1-5", "spend tier; 5 = unlimited spend", &tier },                                         \
        { "has-payment-method", "true|false", "10 requests a minute without one", &payment },                \
        { "unlimited", "true|false", "no limits at all: probes, benchmarks", &unlimited },                   \
        { "policy", "NAME", "over a limit: INHERIT, REFUSE or DEPRIORITIZE", &policy },                      \
        { "limits", "JSON", "own numbers, e.g. {\"requestsPerMinute\":600}", &limits },                      \
        { "models", "A,B", "may use these models alone; empty = all", &models },                             \
    {                                                                                                        \
        NULL, NULL, NULL, NULL                                                                               \
    }
static const struct ctl_option field_options[] = { FIELD_OPTIONS };
static const struct ctl_option suspend_options[] = {
    { "reason", "STATE",
      "FAILED_PAYMENTS, CREDIT_DEPLETED, MONTHLY_SPEND_LIMIT_EXCEEDED, BLOCKED_BY_ABUSE_RULE", &reason },
    { NULL, NULL, NULL, NULL },
};
static const struct ctl_option no_options[] = { { NULL, NULL, NULL, NULL } };

static const struct ctl_member fields[] = {
    { "display-name", "displayName", &display_name, CTL_STR },
    { "email", "email", &email, CTL_STR },
    { "tier", "spendTier", &tier, CTL_NUMBER },
    { "has-payment-method", "hasPaymentMethod", &payment, CTL_BOOL },
    { "unlimited", "unlimited", &unlimited, CTL_BOOL },
    { "policy", "limitPolicy", &policy, CTL_STR },
    { "limits", "limits", &limits, CTL_JSON },
    { "models", "models", &models, CTL_LIST },
    { NULL, NULL, NULL, CTL_STR },
};

static const char *path_of(struct ctl *ctl, const char *account, const char *verb)
{
    return ctl_format(ctl, "/v1/accounts/%s%s", ctl_escape(ctl, account), verb);
}

static enum ctl_exit run_create(struct ctl *ctl, int n_operands, char **operands)
{
    (void)n_operands;
    return ctl_admin_show(ctl, "POST",
                          ctl_format(ctl, "/v1/accounts?accountId=%s", ctl_escape(ctl, operands[0])), fields);
}

static enum ctl_exit run_update(struct ctl *ctl, int n_operands, char **operands)
{
    (void)n_operands;
    return ctl_admin_show(ctl, "PATCH", path_of(ctl, operands[0], ""), fields);
}

static enum ctl_exit run_suspend(struct ctl *ctl, int n_operands, char **operands)
{
    static const struct ctl_member members[] = { { "reason", "suspendState", &reason, CTL_STR },
                                                 { NULL, NULL, NULL, CTL_STR } };

    (void)n_operands;
    return ctl_admin_show(ctl, "POST", path_of(ctl, operands[0], ":suspend"), members);
}

static enum ctl_exit run_resume(struct ctl *ctl, int n_operands, char **operands)
{
    static const struct ctl_member members[] = { { NULL, NULL, NULL, CTL_STR } };

    (void)n_operands;
    return ctl_admin_show(ctl, "POST", path_of(ctl, operands[0], ":resume"), members);
}

static enum ctl_exit run_get(struct ctl *ctl, int n_operands, char **operands)
{
    (void)n_operands;
    return ctl_admin_show(ctl, "GET", path_of(ctl, operands[0], ""), /* members= */ NULL);
}

static enum ctl_exit run_list(struct ctl *ctl, int n_operands, char **operands)
{
    static const struct ctl_column columns[] = {
        { "NAME", "name" },
        { "TIER", "spendTier" },
        { "PAYMENT", "hasPaymentMethod" },
        { "STATE", "suspendState" },
        { "CREATED", "createTime" },
        { "DISPLAY NAME", "displayName" },
        { NULL, NULL },
    };
    struct weir_str *items;
    int n;
    (void)n_operands;
    (void)operands;
    enum ctl_exit code = ctl_admin_list(ctl, "/v1/accounts", "accounts", &items, &n);
    return code == CTL_OK ? ctl_show_list(ctl, items, n, columns) : code;
}

const struct ctl_command ctl_account_create = { "account create", "ACCOUNT", "a new account",
                                                field_options,    1,         run_create };
const struct ctl_command ctl_account_get = {
    "account get", "ACCOUNT", "one account", no_options, 1, run_get
};
const struct ctl_command ctl_account_list = { "account list", "", "all accounts", no_options, 0, run_list };
const struct ctl_command ctl_account_update = { "account update", "ACCOUNT", "change an account",
                                                field_options,    1,         run_update };
const struct ctl_command ctl_account_suspend = {
    "account suspend", "ACCOUNT", "its requests are refused from now on", suspend_options, 1, run_suspend
};
const struct ctl_command ctl_account_resume = { "account resume", "ACCOUNT", "its requests are served again",
                                                no_options,       1,         run_resume };
