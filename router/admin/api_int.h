/* api_int.h - one admin request as the worker sees it, and what the resources share. Private to admin/. */
#ifndef WEIR_ROUTER_ADMIN_API_INT_H
#define WEIR_ROUTER_ADMIN_API_INT_H

#include "base/arena.h"
#include "base/json.h"
#include "http/loop.h"
#include "router/admin/api.h"
#include "router/tenancy/record.h"

#define API_PARTS_MAX 6
#define API_PAGE_DEFAULT 50
#define API_PAGE_MAX 200
#define API_TRIES_MAX 8 /* of a change that meets another one */

struct api_job {
    struct weir_qnode node;
    struct weir_task done;
    struct weir_admin_api *api;
    struct weir_http_req *http; /* the loop's; NULL once the client is gone */
    struct weir_loop *loop;
    struct weir_arena arena; /* all strings below */
    struct weir_str method, query, body;
    struct weir_str parts[API_PARTS_MAX]; /* of the path, decoded, after /v1/ */
    int n_parts;
    struct weir_str verb; /* after a colon in the last part: "suspend" */
    /* what the worker made of it */
    weir_err err;
    int grpc; /* code in an error's body, where the table's is not exact; 0 = the table's */
    struct weir_buf out;
    struct weir_why why;
};

/* Each resource answers or fails; WEIR_NOTFOUND and WEIR_METHOD for what it does not have. */
weir_err api_accounts(struct api_job *job);
weir_err api_keys(struct api_job *job, struct weir_str account);
weir_err api_models(struct api_job *job);
weir_err api_limits(struct api_job *job, struct weir_str account);
weir_err api_rate_limits(struct api_job *job, struct weir_str account);
weir_err api_mesh(struct api_job *job);
weir_err api_table(struct api_job *job);

/* ---- for them (api.c) ---- */
const struct weir_admin_api_opts *api_opts(const struct api_job *job);
bool api_is(const struct api_job *job, const char *method);
weir_err api_method_error(struct api_job *job, const char *takes); /* WEIR_METHOD */
/* A parameter of the query, decoded; empty when absent. WEIR_INVALID: it is malformed; `why` names it. */
weir_err api_param(struct api_job *job, const char *name, struct weir_str *ret);

/* ---- records in etcd (api_store.c) ---- */
char *api_key_path(struct api_job *job, const char *folder,
                   struct weir_str id); /* "/weir/accounts/a"; NULL: no memory */
/* Puts (or, with value.ptr NULL, deletes) a key if all conditions hold; then waits a moment until our view shows it. */
weir_err api_change(struct api_job *job, const char *path, struct weir_str value,
                    const struct weir_disc_cond *conds, int n_conds);
/* The value and mod revision as etcd has them now. */
weir_err api_get(struct api_job *job, const char *path, struct weir_str *ret_value, int64_t *ret_revision);
/* What came of reading a record that etcd has: what is wrong in it is not the client's fault. WEIR_CORRUPT. */
weir_err api_stored(struct api_job *job, weir_err err);
/* {"name":"<folder>/<id>", and then the members of the JSON object that `members` holds. */
void api_write_resource(struct weir_buf *out, const char *folder, struct weir_str id,
                        const struct weir_buf *members);

/* ---- lists (api_store.c) ---- */
/* A list in pages: entries of a folder in the order of their names, from the page token on. */
struct api_list {
    const struct weir_disc_snapshot *snap;
    const struct weir_disc_entry *entries;
    int n, i; /* the next one */
    size_t prefix_len;
    uint32_t n_left; /* of the page */
    struct weir_str last;
};
/* WEIR_UNAVAILABLE: there is no view yet. WEIR_INVALID: pageSize or pageToken. */
weir_err api_list_begin(struct api_job *job, const char *folder, struct api_list *ret);
bool api_list_next(struct api_list *list, struct weir_str *ret_id, struct weir_str *ret_value);
void api_list_took(struct api_list *list, struct weir_str id); /* it is on the page */
/* Writes nextPageToken when there is more; gives the snapshot back. */
void api_list_end(struct api_list *list, struct weir_jw *w);

/* ---- accounts and models alike (api_record.c) ---- */
union api_record {
    struct weir_account_record account;
    struct weir_model_record model;
};
struct api_kind {
    const char *noun;    /* "account", in messages */
    const char *param;   /* "accountId": names a new one */
    const char *folder;  /* "accounts/", of etcd's keys and of resource names */
    const char *members; /* "accounts", of a list */
    const struct weir_record_kind *fields;
    weir_err (*check_id)(struct weir_str id, struct weir_why *why);
    /* Before it is written: its times, and what follows from its id. */
    void (*stamp)(union api_record *rec, struct weir_str id, uint64_t now_s, bool is_new);
};
weir_err api_record_list(struct api_job *job, const struct api_kind *kind);
weir_err api_record_create(struct api_job *job, const struct api_kind *kind);
weir_err api_record_show(struct api_job *job, const struct api_kind *kind, struct weir_str id);
/* `apply` changes the record as the job says; it may run again, when the change meets another one. */
weir_err api_record_change(struct api_job *job, const struct api_kind *kind, struct weir_str id,
                           weir_err (*apply)(struct api_job *job, const struct api_kind *kind,
                                             union api_record *rec));
weir_err api_record_patch(struct api_job *job, const struct api_kind *kind,
                          union api_record *rec); /* an apply */
weir_err api_record_delete(struct api_job *job, const struct api_kind *kind, struct weir_str id);

#define API_GRPC_ALREADY_EXISTS 6

#endif
