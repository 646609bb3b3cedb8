/* admin.h - weirctl's way to the routers' admin API, and what commands do with its JSON. Private to ctl/.
 *
 * Which router: --admin, the fleet file, else the first one in discovery. The token: --admin-token, WEIR_ADMIN_TOKEN,
 * the fleet file. With --admin-ca the router is spoken to over TLS, with --admin-cert and --admin-key as who we are. */
#ifndef WEIR_CTL_ADMIN_H
#define WEIR_CTL_ADMIN_H

#include "ctl/ctl.h"

/* One request; the reply's JSON in the arena. An answer that is not 200 is told (with the field at fault). */
enum ctl_exit ctl_admin_call(struct ctl *ctl, const char *method, const char *path, struct weir_str body,
                             struct weir_str *ret_reply);
/* All pages of a list: `member` is the array's name. The elements' texts, in the arena. */
enum ctl_exit ctl_admin_list(struct ctl *ctl, const char *path, const char *member, struct weir_str **ret,
                             int *ret_n);
/* An id as part of a path. */
const char *ctl_escape(struct ctl *ctl, const char *text);

/* A member of a JSON object as text: a string's content, anything else as it is written; "" when absent or null.
 * A dot goes one deeper: "limits.dailyTokens". */
const char *ctl_field(struct ctl *ctl, struct weir_str object, const char *name);

/* How an option becomes a member of a request's body. */
enum ctl_kind { CTL_STR, CTL_NUMBER, CTL_BOOL, CTL_LIST, CTL_JSON };
struct ctl_member {
    const char *option, *name;
    const char **value;
    enum ctl_kind kind;
};
/* {"name":value,...} of the options that were given; ends with a NULL name. CTL_USAGE names an option that is not a
 * number, or not true or false. */
enum ctl_exit ctl_body(const struct ctl_member *members, struct weir_buf *out);

bool ctl_is_json(const char *text);

/* What a command prints: with -o json the JSON, else one line a member, or a table of the columns' fields. */
struct ctl_column {
    const char *header, *field;
};
enum ctl_exit ctl_show_one(struct ctl *ctl, struct weir_str object);
/* One request, with a body of the members' options unless they are NULL, and its answer shown. */
enum ctl_exit ctl_admin_show(struct ctl *ctl, const char *method, const char *path,
                             const struct ctl_member *members);
enum ctl_exit ctl_show_list(struct ctl *ctl, const struct weir_str *objects, int n,
                            const struct ctl_column *columns);

#endif
