/* limits_table.c - the numbers of all limits, seen and changed while the fleet runs. */
#include <string.h>

#include "base/json.h"
#include "ctl/admin.h"

#define PATH "/v1/fleet/limitsTable"
#define CHANGES_MAX 64
#define DEPTH_MAX 3 /* ceiling.SMALL.tokensPrompt */

static const struct ctl_option no_options[] = { { NULL, NULL, NULL, NULL } };

/* "start.tokensPrompt=5" as "start":{"tokensPrompt":5}. What is named twice is read in order, so each of a row's numbers can be
 * given by itself. */
static enum ctl_exit put_change(struct weir_jw *w, struct ctl *ctl, const char *change)
{
    const char *value = strchr(change, '='), *name = change;
    int depth = 0;

    if (!value || value == change || !ctl_is_json(value + 1))
        return ctl_usage("limits table set: %s is not KEY=VALUE with a number or JSON", change);
    while (depth < DEPTH_MAX) {
        size_t len = strcspn(name, ".=");
        weir_jw_key_str(w, weir_str(ctl_text(ctl, (struct weir_str){ name, len })));
        name += len + 1;
        if (name == value + 1)
            break;
        weir_jw_object(w);
        depth++;
    }
    if (name != value + 1)
        return ctl_usage("limits table set: %s has too many dots", change);
    weir_jw_raw(w, weir_str(value + 1));
    while (depth-- > 0)
        weir_jw_object_end(w);
    return CTL_OK;
}

static enum ctl_exit run_set(struct ctl *ctl, int n_operands, char **operands)
{
    enum ctl_exit code = CTL_OK;
    struct weir_buf body;
    struct weir_str reply;
    struct weir_jw w;

    weir_buf_init(&body, /* limit_bytes= */ 0);
    weir_jw_init(&w, &body);
    weir_jw_object(&w);
    for (int i = 0; i < n_operands && code == CTL_OK; i++)
        code = put_change(&w, ctl, operands[i]);
    weir_jw_object_end(&w);
    if (code == CTL_OK)
        code = ctl_admin_call(ctl, "PATCH", PATH,
                              (struct weir_str){ weir_buf_ptr(&body), weir_buf_len(&body) }, &reply);
    weir_buf_release(&body);
    return code == CTL_OK ? ctl_show_one(ctl, reply) : code;
}

static enum ctl_exit run_get(struct ctl *ctl, int n_operands, char **operands)
{
    (void)n_operands;
    (void)operands;
    return ctl_admin_show(ctl, "GET", PATH, /* members= */ NULL);
}

static enum ctl_exit run_reset(struct ctl *ctl, int n_operands, char **operands)
{
    (void)n_operands;
    (void)operands;
    return ctl_admin_show(ctl, "DELETE", PATH, /* members= */ NULL);
}

const struct ctl_command ctl_limits_table_get = { "limits table get", "", "the numbers of all limits",
                                                  no_options,         0,  run_get };
const struct ctl_command ctl_limits_table_set = {
    "limits table set", "KEY=VALUE...", "change numbers of all limits, such as start.tokensGenerated=72000",
    no_options,         CHANGES_MAX,    run_set
};
const struct ctl_command ctl_limits_table_reset = { "limits table reset", "", "back to the defaults",
                                                    no_options,           0,  run_reset };
