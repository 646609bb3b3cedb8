/* limits.c - what an account's meters stand at, and why the last request was refused. */
#include <string.h>

#include "base/json.h"
#include "ctl/admin.h"

static const char *account_opt, *model_opt;

static const struct ctl_option options[] = {
    { "account", "NAME", "whose (needed)", &account_opt },
    { "model", "MODEL", "on this model; default: all", &model_opt },
    { NULL, NULL, NULL, NULL },
};

static bool find_array(struct ctl *ctl, struct weir_str object, const char *name, struct weir_json *j)
{
    const char *text = ctl_field(ctl, object, name);

    weir_json_init(j, text, strlen(text), &ctl->arena);
    return weir_json_peek(j) == WEIR_JSON_ARRAY && weir_json_array(j);
}

static void add_key(struct ctl *ctl, struct ctl_table *meters, struct ctl_table *routers, struct weir_str key)
{
    static const char *const fields[] = { "metric", "limit", "usedLastMinute",  "level",
                                          "held",   "burst", "rampClockSeconds" };
    const char *deployment = ctl_field(ctl, key, "deployment"),
               *refused = ctl_field(ctl, key, "lastRefusal.metric");
    const char *cells[CTL_COLUMNS_MAX];
    struct weir_json j;
    struct weir_str one;

    if (!deployment[0])
        deployment = "(account)";
    for (bool more = find_array(ctl, key, "meters", &j);
         more && weir_json_next(&j) && weir_json_raw(&j, &one);) {
        cells[0] = deployment;
        for (int i = 0; i < 7; i++)
            cells[i + 1] = ctl_field(ctl, one, fields[i]);
        cells[8] = strcmp(refused, cells[1]) == 0
                       ? ctl_format(ctl, "%.8s s ago", ctl_field(ctl, key, "lastRefusal.secondsAgo"))
                       : "-";
        ctl_table_row(meters, cells);
    }
    for (bool more = find_array(ctl, key, "routers", &j);
         more && weir_json_next(&j) && weir_json_raw(&j, &one);) {
        cells[0] = deployment;
        cells[1] = ctl_field(ctl, one, "router");
        cells[2] = ctl_field(ctl, one, "used");
        cells[3] = ctl_field(ctl, one, "held");
        cells[4] = ctl_field(ctl, one, "demand");
        cells[5] = ctl_field(ctl, one, "silentSeconds");
        ctl_table_row(routers, cells);
    }
}

static enum ctl_exit run(struct ctl *ctl, int n_operands, char **operands)
{
    static const char *const meter_headers[] = { "DEPLOYMENT", "METER", "LIMIT/MIN", "LAST MIN",     "LEVEL",
                                                 "HELD",       "BURST", "RAMP S",    "LAST REFUSAL", NULL };
    static const char *const router_headers[] = {
        "DEPLOYMENT", "ROUTER", "USED (PROMPT,UNCACHED,GENERATED)", "HELD", "DEMAND/S", "SILENT S", NULL
    };
    struct ctl_table meters, routers;
    struct weir_str reply, key;
    struct weir_json j;
    struct weir_buf out;
    (void)n_operands;
    (void)operands;
    if (!account_opt)
        return ctl_usage("limits show needs --account");
    enum ctl_exit code =
        ctl_admin_call(ctl, "GET",
                       ctl_format(ctl, "/v1/accounts/%s/limits?model=%s", ctl_escape(ctl, account_opt),
                                  ctl_escape(ctl, model_opt ? model_opt : "")),
                       (struct weir_str){ NULL, 0 }, &reply);
    if (code != CTL_OK || ctl->json)
        return code == CTL_OK ? ctl_show_one(ctl, reply) : code;
    ctl_table_init(&meters, &ctl->arena, meter_headers);
    ctl_table_init(&routers, &ctl->arena, router_headers);
    for (bool more = find_array(ctl, reply, "limits", &j);
         more && weir_json_next(&j) && weir_json_raw(&j, &key);)
        add_key(ctl, &meters, &routers, key);
    weir_buf_init(&out, /* limit_bytes= */ 0);
    ctl_table_write(&meters, &out);
    weir_buf_addc(&out, '\n');
    ctl_table_write(&routers, &out);
    code = ctl_print(&out);
    weir_buf_release(&out);
    return code;
}

const struct ctl_command ctl_limits_show = {
    "limits show", "", "an account's limits, use, holds and ramp clocks", options, 0, run
};
