/* api_key.c - API keys: made and shown once by the admin API, listed, revoked. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "ctl/admin.h"

#define OWN_KEY_MAX 256

static const char *account_opt, *name_opt, *expire_opt, *key_opt;

static const struct ctl_option create_options[] = {
    { "account", "NAME", "whose limits and bill (needed)", &account_opt },
    { "key-name", "NAME", "what to call the key (needed)", &name_opt },
    { "expire-time", "TIME", "2027-01-31 or 2027-01-31 12:00:00, UTC; else never", &expire_opt },
    { "key", "KEY", "take this key instead of a new one; - reads it from standard input", &key_opt },
    { NULL, NULL, NULL, NULL },
};
static const struct ctl_option list_options[] = {
    { "account", "NAME", "only this account's", &account_opt },
    { NULL, NULL, NULL, NULL },
};
static const struct ctl_option delete_options[] = {
    { "name", "NAME", "instead of KEY-ID: the key of this name", &name_opt },
    { "account", "NAME", "and of this account", &account_opt },
    { NULL, NULL, NULL, NULL },
};

static const char *key_from_stdin(struct ctl *ctl)
{
    char line[OWN_KEY_MAX + 2];
    if (!fgets(line, sizeof line, stdin))
        return "";
    line[strcspn(line, "\r\n")] = '\0';
    return ctl_text(ctl, weir_str(line));
}

static const char *keys_path(struct ctl *ctl)
{
    return ctl_format(ctl, "/v1/accounts/%s/apiKeys", account_opt ? ctl_escape(ctl, account_opt) : "-");
}

static enum ctl_exit run_create(struct ctl *ctl, int n_operands, char **operands)
{
    static const struct ctl_member members[] = { { "key-name", "displayName", &name_opt, CTL_STR },
                                                 { "expire-time", "expireTime", &expire_opt, CTL_STR },
                                                 { "key", "key", &key_opt, CTL_STR },
                                                 { NULL, NULL, NULL, CTL_STR } };
    struct weir_buf body;
    struct weir_str reply;
    (void)n_operands;
    (void)operands;
    if (!account_opt || !name_opt)
        return ctl_usage("api-key create needs --account and --key-name");
    if (key_opt && strcmp(key_opt, "-") == 0)
        key_opt = key_from_stdin(ctl);
    weir_buf_init(&body, /* limit_bytes= */ 0);
    enum ctl_exit code = ctl_body(members, &body);
    if (code == CTL_OK)
        code = ctl_admin_call(ctl, "POST", keys_path(ctl),
                              (struct weir_str){ weir_buf_ptr(&body), weir_buf_len(&body) }, &reply);
    weir_buf_release(&body);
    if (code != CTL_OK)
        return code;
    if (ctl->json)
        return ctl_show_one(ctl, reply);
    /* The key alone on standard output, for $(...). */
    fprintf(stderr, "key %s (%s) of account %s; keep it now, it is not shown again\n", name_opt,
            ctl_field(ctl, reply, "keyId"), account_opt);
    weir_buf_init(&body, /* limit_bytes= */ 0);
    weir_buf_addf(&body, "%s\n", ctl_field(ctl, reply, "key"));
    code = ctl_print(&body);
    weir_buf_release(&body);
    return code;
}

static enum ctl_exit run_list(struct ctl *ctl, int n_operands, char **operands)
{
    static const struct ctl_column columns[] = {
        { "KEY ID", "keyId" },  { "ACCOUNT", "account" },    { "NAME", "displayName" },
        { "PREFIX", "prefix" }, { "CREATED", "createTime" }, { "EXPIRES", "expireTime" },
        { NULL, NULL },
    };
    struct weir_str *items;
    int n;
    (void)n_operands;
    (void)operands;
    enum ctl_exit code = ctl_admin_list(ctl, keys_path(ctl), "apiKeys", &items, &n);
    return code == CTL_OK ? ctl_show_list(ctl, items, n, columns) : code;
}

/* The id of the one key that --name and --account select. */
static enum ctl_exit find_by_name(struct ctl *ctl, const char **ret_id)
{
    struct weir_str *items;
    int n, n_found = 0;
    enum ctl_exit code = ctl_admin_list(ctl, keys_path(ctl), "apiKeys", &items, &n);

    for (int i = 0; i < n && code == CTL_OK; i++)
        if (strcmp(ctl_field(ctl, items[i], "displayName"), name_opt) == 0) {
            *ret_id = ctl_field(ctl, items[i], "keyId");
            n_found++;
        }
    if (code != CTL_OK)
        return code;
    return n_found == 1 ? CTL_OK
           : n_found == 0
               ? ctl_fail(WEIR_NOTFOUND, "no key is named %s", name_opt)
               : ctl_fail(WEIR_CONFLICT, "%d keys are named %s: give --account or the KEY-ID of api-key list",
                          n_found, name_opt);
}

static enum ctl_exit run_delete(struct ctl *ctl, int n_operands, char **operands)
{
    const char *id = n_operands ? operands[0] : NULL;
    struct weir_str reply;
    struct weir_buf out;

    if (!id == !name_opt)
        return ctl_usage("api-key delete needs a KEY-ID or --name");
    enum ctl_exit code = id ? CTL_OK : find_by_name(ctl, &id);
    if (code == CTL_OK)
        code = ctl_admin_call(ctl, "DELETE", ctl_format(ctl, "%s/%s", keys_path(ctl), ctl_escape(ctl, id)),
                              (struct weir_str){ NULL, 0 }, &reply);
    if (code != CTL_OK || ctl->json)
        return code == CTL_OK ? ctl_show_one(ctl, reply) : code;
    weir_buf_init(&out, /* limit_bytes= */ 0);
    weir_buf_addf(&out, "deleted %s of account %s; routers refuse it within a second\n",
                  ctl_field(ctl, reply, "displayName"), ctl_field(ctl, reply, "account"));
    code = ctl_print(&out);
    weir_buf_release(&out);
    return code;
}

const struct ctl_command ctl_key_create = { "api-key create", "", "a new API key of an account, shown once",
                                            create_options,   0,  run_create };
const struct ctl_command ctl_key_list = { "api-key list", "", "API keys by id, account and name",
                                          list_options,   0,  run_list };
const struct ctl_command ctl_key_delete = { "api-key delete", "[KEY-ID]", "revoke an API key",
                                            delete_options,   1,          run_delete };
