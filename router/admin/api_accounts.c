/* api_accounts.c - accounts: made once, changed by patches, suspended and resumed; never deleted, because keys, usage
 * and bills speak of them. */
#include <string.h>

#include "router/admin/api_int.h"

static void stamp(union api_record *rec, struct weir_str id, uint64_t now_s, bool is_new)
{
    (void)id;
    rec->account.updated_s = now_s;
    if (is_new)
        rec->account.created_s = now_s;
}

static const struct api_kind accounts = {
    .noun = "account",
    .param = "accountId",
    .folder = "accounts/",
    .members = "accounts",
    .fields = &weir_account_kind,
    .check_id = weir_account_id_check,
    .stamp = stamp,
};

/* ":suspend" with {"suspendState":"FAILED_PAYMENTS"} or nothing; ":resume". */
static weir_err apply_verb(struct api_job *job, const struct api_kind *kind, union api_record *rec)
{
    struct weir_json j;
    struct weir_str key, text = { NULL, 0 };

    (void)kind;
    if (weir_str_eq(job->verb, "resume")) {
        rec->account.suspend = WEIR_SUSPEND_UNSUSPENDED;
        return WEIR_OK;
    }
    rec->account.suspend = WEIR_SUSPEND_SUSPENDED_BY_OPERATOR;
    if (job->body.len == 0)
        return WEIR_OK;
    weir_json_init(&j, job->body.ptr, job->body.len, &job->arena);
    if (weir_json_object(&j))
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, "suspendState"))
                weir_json_string(&j, &text);
            else
                weir_json_fail(&j, WEIR_INVALID, "there is only suspendState");
        }
    weir_err err = weir_json_end(&j, &job->why);
    if (err != WEIR_OK || !text.ptr)
        return err;
    for (int state = WEIR_SUSPEND_UNSUSPENDED + 1; state < WEIR_SUSPEND_COUNT; state++)
        if (weir_str_eq(text, weir_suspend_name((enum weir_suspend)state))) {
            rec->account.suspend = (enum weir_suspend)state;
            return WEIR_OK;
        }
    return weir_fail_param(&job->why, "suspendState", WEIR_INVALID,
                           "suspendState: not a reason for a suspension");
}

static weir_err one(struct api_job *job, struct weir_str id)
{
    if (weir_str_eq(job->verb, "suspend") || weir_str_eq(job->verb, "resume"))
        return api_is(job, "POST") ? api_record_change(job, &accounts, id, apply_verb)
                                   : api_method_error(job, "POST");
    if (job->verb.len)
        return weir_fail(&job->why, WEIR_NOTFOUND, "accounts have :suspend and :resume");
    return api_is(job, "GET")     ? api_record_show(job, &accounts, id)
           : api_is(job, "PATCH") ? api_record_change(job, &accounts, id, api_record_patch)
                                  : api_method_error(job, "GET and PATCH; suspend an account with :suspend");
}

weir_err api_accounts(struct api_job *job)
{
    if (job->n_parts == 1 && !job->verb.len)
        return api_is(job, "GET")    ? api_record_list(job, &accounts)
               : api_is(job, "POST") ? api_record_create(job, &accounts)
                                     : api_method_error(job, "GET and POST");
    if (job->n_parts >= 3 && weir_str_eq(job->parts[2], "apiKeys"))
        return api_keys(job, job->parts[1]);
    if (job->n_parts == 3 && !job->verb.len && weir_str_eq(job->parts[2], "limits"))
        return api_limits(job, job->parts[1]);
    if (job->n_parts == 3 && !job->verb.len && weir_str_eq(job->parts[2], "serverlessRateLimits"))
        return api_rate_limits(job, job->parts[1]);
    if (job->n_parts == 2)
        return one(job, job->parts[1]);
    return weir_fail(&job->why, WEIR_NOTFOUND, "no such path");
}
