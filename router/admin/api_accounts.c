/* api_accounts.c - accounts: made once, changed by patches, suspended and resumed; never deleted, because keys, usage
 * and bills speak of them. */
#include <string.h>

#include "base/clock.h"
#include "router/admin/api_int.h"
#include "router/tenancy/record.h"

#define GRPC_ALREADY_EXISTS 6

static void write_account(struct weir_buf *out, struct weir_str id, const struct weir_account_record *rec)
{
    struct weir_buf members;

    weir_buf_init(&members, 0);
    weir_account_record_write(&members, rec);
    api_write_resource(out, "accounts/", id, &members);
    weir_buf_release(&members);
}

static weir_err save(struct api_job *job, const char *path, struct weir_str id,
                     struct weir_account_record *rec, int64_t revision)
{
    struct weir_disc_cond cond = { weir_str(path), revision };
    struct weir_buf value;

    rec->updated_s = weir_wall_ns() / WEIR_S;
    weir_buf_init(&value, 0);
    weir_account_record_write(&value, rec);
    weir_err err =
        value.failed ? weir_fail(&job->why, WEIR_NOMEM, "no memory for the record")
                     : api_change(job, path, (struct weir_str){ weir_buf_ptr(&value), weir_buf_len(&value) },
                                  &cond, 1);
    weir_buf_release(&value);
    if (err == WEIR_OK)
        write_account(&job->out, id, rec);
    return err;
}

static weir_err create(struct api_job *job)
{
    struct weir_str id = api_param(job, "accountId");
    struct weir_account_record rec;
    const char *path = api_key_path(job, "accounts/", id);
    weir_err err = weir_account_id_check(id, &job->why);

    weir_account_record_init(&rec);
    if (err == WEIR_OK && job->body.len > 0)
        err = weir_account_record_read(job->body, &job->arena, /* is_patch= */ true, &rec, &job->why);
    if (err == WEIR_OK && !path)
        err = weir_fail(&job->why, WEIR_NOMEM, "no memory");
    if (err != WEIR_OK)
        return err;
    rec.created_s = weir_wall_ns() / WEIR_S;
    err = save(job, path, id, &rec, /* revision= */ 0);
    if (err != WEIR_CONFLICT)
        return err;
    job->grpc = GRPC_ALREADY_EXISTS;
    return weir_fail(&job->why, WEIR_CONFLICT, "the account %.*s exists already", WEIR_STR_FMT(id));
}

static weir_err list(struct api_job *job)
{
    struct api_list l;
    struct weir_jw w;
    struct weir_str id, value;
    weir_err err = api_list_begin(job, "accounts/", &l);

    if (err != WEIR_OK)
        return err;
    weir_jw_init(&w, &job->out);
    weir_jw_object(&w);
    weir_jw_key(&w, "accounts");
    weir_jw_array(&w);
    while (api_list_next(&l, &id, &value)) {
        struct weir_account_record rec;
        struct weir_buf one;
        weir_account_record_init(&rec);
        api_list_took(&l, id);
        if (weir_account_record_read(value, &job->arena, /* is_patch= */ false, &rec, NULL) != WEIR_OK)
            continue;
        weir_buf_init(&one, 0);
        write_account(&one, id, &rec);
        weir_jw_raw(&w, (struct weir_str){ weir_buf_ptr(&one), weir_buf_len(&one) });
        weir_buf_release(&one);
    }
    weir_jw_array_end(&w);
    api_list_end(&l, &w);
    weir_jw_object_end(&w);
    return WEIR_OK;
}

static weir_err read_now(struct api_job *job, const char *path, struct weir_str id,
                         struct weir_account_record *rec, int64_t *ret_revision)
{
    struct weir_str value;
    weir_err err = api_get(job, path, &value, ret_revision);

    weir_account_record_init(rec);
    if (err == WEIR_NOTFOUND)
        return weir_fail(&job->why, WEIR_NOTFOUND, "there is no account %.*s", WEIR_STR_FMT(id));
    return err == WEIR_OK
               ? weir_account_record_read(value, &job->arena, /* is_patch= */ false, rec, &job->why)
               : err;
}

/* ":suspend" with {"suspendState":"FAILED_PAYMENTS"} or nothing; ":resume". */
static weir_err apply_verb(struct api_job *job, struct weir_account_record *rec)
{
    struct weir_json j;
    struct weir_str key, text = { NULL, 0 };

    if (weir_str_eq(job->verb, "resume")) {
        rec->suspend = WEIR_SUSPEND_UNSUSPENDED;
        return WEIR_OK;
    }
    rec->suspend = WEIR_SUSPEND_SUSPENDED_BY_OPERATOR;
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
            rec->suspend = (enum weir_suspend)state;
            return WEIR_OK;
        }
    return weir_fail_param(&job->why, "suspendState", WEIR_INVALID,
                           "suspendState: not a reason for a suspension");
}

static weir_err change_once(struct api_job *job, struct weir_str id, const char *path)
{
    struct weir_account_record rec;
    int64_t revision;
    weir_err err = read_now(job, path, id, &rec, &revision);

    if (err == WEIR_OK)
        err = job->verb.len
                  ? apply_verb(job, &rec)
                  : weir_account_record_read(job->body, &job->arena, /* is_patch= */ true, &rec, &job->why);
    return err == WEIR_OK ? save(job, path, id, &rec, revision) : err;
}

/* A patch that meets another change is applied again to what that left. */
static weir_err change(struct api_job *job, struct weir_str id, const char *path)
{
    weir_err err = WEIR_CONFLICT;

    for (int i = 0; i < API_TRIES_MAX && err == WEIR_CONFLICT; i++)
        err = change_once(job, id, path);
    return err;
}

static weir_err one(struct api_job *job, struct weir_str id)
{
    const char *path = api_key_path(job, "accounts/", id);
    struct weir_account_record rec;
    int64_t revision;

    if (!path)
        return weir_fail(&job->why, WEIR_NOMEM, "no memory");
    if (weir_str_eq(job->verb, "suspend") || weir_str_eq(job->verb, "resume"))
        return api_is(job, "POST") ? change(job, id, path) : api_method_error(job, "POST");
    if (job->verb.len)
        return weir_fail(&job->why, WEIR_NOTFOUND, "accounts have :suspend and :resume");
    if (api_is(job, "PATCH"))
        return change(job, id, path);
    if (!api_is(job, "GET"))
        return api_method_error(job, "GET and PATCH; suspend an account with :suspend");
    weir_err err = read_now(job, path, id, &rec, &revision);
    if (err == WEIR_OK)
        write_account(&job->out, id, &rec);
    return err;
}

weir_err api_accounts(struct api_job *job)
{
    if (job->n_parts == 1 && !job->verb.len)
        return api_is(job, "GET")    ? list(job)
               : api_is(job, "POST") ? create(job)
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
