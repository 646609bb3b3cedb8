/* admin.c - requests to the admin API, and its JSON as text and tables. */
#include "ctl/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "discovery/http.h"

#define REPLY_BYTES_MAX (64u << 20)
#define CALL_TIMEOUT_MS 20000
#define LIST_MAX 1000000

/* ---- fields ---- */
static bool find_member(struct ctl *ctl, struct weir_str object, struct weir_str name, struct weir_str *ret)
{
    struct weir_json j;
    struct weir_str key;
    bool found = false;

    weir_json_init(&j, object.ptr, object.len, &ctl->arena);
    if (weir_json_peek(&j) != WEIR_JSON_OBJECT || !weir_json_object(&j))
        return false;
    while (!found && weir_json_key(&j, &key))
        found = key.len == name.len && memcmp(key.ptr, name.ptr, key.len) == 0 ? weir_json_raw(&j, ret)
                                                                               : (weir_json_skip(&j), false);
    return found;
}

static const char *as_text(struct ctl *ctl, struct weir_str json)
{
    struct weir_json j;
    struct weir_str text;

    weir_json_init(&j, json.ptr, json.len, &ctl->arena);
    if (weir_json_peek(&j) == WEIR_JSON_STRING && weir_json_string(&j, &text))
        return ctl_text(ctl, text);
    return weir_str_eq(json, "null") ? "" : ctl_text(ctl, json);
}

const char *ctl_field(struct ctl *ctl, struct weir_str object, const char *name)
{
    while (*name) {
        size_t len = strcspn(name, ".");
        if (!find_member(ctl, object, (struct weir_str){ name, len }, &object))
            return "";
        name += len + (name[len] == '.');
    }
    return as_text(ctl, object);
}

/* ---- requests ---- */
static enum ctl_exit find_router(struct ctl *ctl)
{
    struct weir_discovery_opts opts = ctl_discovery(ctl);
    const struct weir_disc_snapshot *snap;
    const struct weir_disc_entry *entries = NULL;
    struct weir_why why = { 0 };

    if (ctl->admin)
        return CTL_OK;
    weir_err rc = weir_discovery_read(&opts, ctl_path(ctl, "routers/"), &snap, &why);
    if (rc != WEIR_OK)
        return ctl_fail(rc, "%s (to look up a router; or give --admin)", why.text);
    int n = weir_disc_prefix(snap, ctl_path(ctl, "routers/"), &entries);
    for (int i = 0; i < n && !ctl->admin; i++) {
        struct weir_router_record rec;
        if (weir_router_record_parse(entries[i].value, &ctl->arena, &rec, NULL) == WEIR_OK && rec.admin.len)
            ctl->admin = ctl_text(ctl, rec.admin);
    }
    weir_disc_snapshot_unref(snap);
    return ctl->admin ? CTL_OK : ctl_fail(WEIR_UNAVAILABLE, "the fleet has no router to ask");
}

/* The field that an error's details name; "" when none. */
static const char *field_of(struct ctl *ctl, struct weir_str reply)
{
    struct weir_json j;
    struct weir_str details, first;

    if (!find_member(ctl, reply, WEIR_STR("details"), &details))
        return "";
    weir_json_init(&j, details.ptr, details.len, &ctl->arena);
    return weir_json_array(&j) && weir_json_next(&j) && weir_json_raw(&j, &first)
               ? ctl_field(ctl, first, "field")
               : "";
}

static enum ctl_exit refused(struct ctl *ctl, int status, struct weir_str reply)
{
    const char *message = ctl_field(ctl, reply, "message"), *field = field_of(ctl, reply);

    if (!message[0])
        return ctl_fail(WEIR_UPSTREAM, "router %s answers %d", ctl->admin, status);
    bool is_named = field[0] && !strstr(message, field);
    return ctl_fail(WEIR_UPSTREAM, "%s%s%s%s", is_named ? field : "", is_named ? ": " : "", message,
                    status == 401 ? " (--admin-token or WEIR_ADMIN_TOKEN)" : "");
}

enum ctl_exit ctl_admin_call(struct ctl *ctl, const char *method, const char *path, struct weir_str body,
                             struct weir_str *ret_reply)
{
    struct weir_why why = { 0 };
    struct weir_buf reply;
    int status = 0;
    enum ctl_exit code = find_router(ctl);

    if (code != CTL_OK)
        return code;
    bool is_url = strncmp(ctl->admin, "http://", 7) == 0 || strncmp(ctl->admin, "https://", 8) == 0;
    bool has_tls = ctl->admin_ca || ctl->admin_cert;
    struct weir_http_request req = {
        .method = method,
        .url = ctl_format(ctl, "%s%s%s",
                          is_url    ? ""
                          : has_tls ? "https://"
                                    : "http://",
                          ctl->admin, path),
        .bearer = ctl->admin_token,
        .ca_file = ctl->admin_ca,
        .cert_file = ctl->admin_cert,
        .key_file = ctl->admin_key,
        .json = body,
        .timeout_ms = CALL_TIMEOUT_MS,
    };
    weir_buf_init(&reply, REPLY_BYTES_MAX);
    weir_err rc = weir_http_call(&req, &reply, &status, &why);
    struct weir_str text = { weir_buf_ptr(&reply), weir_buf_len(&reply) };
    text = weir_str(ctl_text(ctl, text));
    weir_buf_release(&reply);
    if (rc != WEIR_OK)
        return ctl_fail(rc, "router %s: %s", ctl->admin, why.text);
    if (status != 200)
        return refused(ctl, status, text);
    *ret_reply = text;
    return CTL_OK;
}

/* Appends the elements of one page. */
static enum ctl_exit take_page(struct ctl *ctl, struct weir_str reply, const char *member,
                               struct weir_str **items, int *n, int *cap)
{
    struct weir_json j;
    struct weir_str array;

    if (!find_member(ctl, reply, weir_str(member), &array))
        return ctl_fail(WEIR_UPSTREAM, "router %s: its answer has no %s", ctl->admin, member);
    weir_json_init(&j, array.ptr, array.len, &ctl->arena);
    if (!weir_json_array(&j))
        return ctl_fail(WEIR_UPSTREAM, "router %s: %s is not an array", ctl->admin, member);
    while (weir_json_next(&j)) {
        if (*n == *cap) {
            *cap = *cap ? 2 * *cap : 64;
            struct weir_str *grown = weir_arena_alloc(&ctl->arena, (size_t)*cap * sizeof *grown);
            WEIR_BUG_ON(!grown);
            if (*n)
                memcpy(grown, *items, (size_t)*n * sizeof *grown);
            *items = grown;
        }
        if (weir_json_raw(&j, &(*items)[*n]))
            ++*n;
    }
    return CTL_OK;
}

enum ctl_exit ctl_admin_list(struct ctl *ctl, const char *path, const char *member, struct weir_str **ret,
                             int *ret_n)
{
    const char *token = "";
    int cap = 0;
    enum ctl_exit code;

    *ret = NULL;
    *ret_n = 0;
    do {
        struct weir_str reply;
        code = ctl_admin_call(ctl, "GET",
                              ctl_format(ctl, "%s?pageSize=200&pageToken=%s", path, ctl_escape(ctl, token)),
                              (struct weir_str){ NULL, 0 }, &reply);
        if (code == CTL_OK)
            code = take_page(ctl, reply, member, ret, ret_n, &cap);
        token = code == CTL_OK ? ctl_field(ctl, reply, "nextPageToken") : "";
    } while (code == CTL_OK && token[0] && *ret_n < LIST_MAX);
    return code;
}

const char *ctl_escape(struct ctl *ctl, const char *text)
{
    struct weir_buf out;

    weir_buf_init(&out, /* limit_bytes= */ 0);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-_.~", c))
            weir_buf_addc(&out, (char)c);
        else
            weir_buf_addf(&out, "%%%02X", c);
    }
    const char *copy = ctl_text(ctl, (struct weir_str){ weir_buf_ptr(&out), weir_buf_len(&out) });
    weir_buf_release(&out);
    return copy;
}

/* ---- bodies ---- */
static void put_list(struct weir_jw *w, const char *text)
{
    weir_jw_array(w);
    while (*text) {
        size_t len = strcspn(text, ",");
        if (len)
            weir_jw_str(w, (struct weir_str){ text, len });
        text += len + (text[len] == ',');
    }
    weir_jw_array_end(w);
}

bool ctl_is_json(const char *text)
{
    struct weir_json j;

    weir_json_init(&j, text, strlen(text), /* arena= */ NULL);
    return weir_json_skip(&j) && weir_json_end(&j, NULL) == WEIR_OK;
}

static enum ctl_exit put_member(struct weir_jw *w, const struct ctl_member *m)
{
    const char *text = *m->value;

    weir_jw_key(w, m->name);
    switch (m->kind) {
    case CTL_STR:
        weir_jw_cstr(w, text);
        return CTL_OK;
    case CTL_LIST:
        put_list(w, text);
        return CTL_OK;
    case CTL_NUMBER:
        if (!text[0] || strspn(text, "0123456789") != strlen(text) || strlen(text) > 18)
            return ctl_usage("--%s %s: not a number", m->option, text);
        weir_jw_u64(w, strtoull(text, NULL, 10));
        return CTL_OK;
    case CTL_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return ctl_usage("--%s %s: true or false", m->option, text);
        weir_jw_bool(w, text[0] == 't');
        return CTL_OK;
    case CTL_JSON:
        if (!ctl_is_json(text))
            return ctl_usage("--%s %s: not JSON", m->option, text);
        weir_jw_raw(w, weir_str(text));
        return CTL_OK;
    }
    return CTL_OK;
}

enum ctl_exit ctl_body(const struct ctl_member *members, struct weir_buf *out)
{
    struct weir_jw w;
    enum ctl_exit code = CTL_OK;

    weir_jw_init(&w, out);
    weir_jw_object(&w);
    for (; members->name && code == CTL_OK; members++)
        if (*members->value)
            code = put_member(&w, members);
    if (code == CTL_OK)
        weir_jw_object_end(&w);
    return code;
}

/* ---- showing ---- */
static void add_members(struct ctl *ctl, struct ctl_table *table, const char *before, struct weir_str object)
{
    struct weir_json j;
    struct weir_str key, value;

    weir_json_init(&j, object.ptr, object.len, &ctl->arena);
    if (!weir_json_object(&j))
        return;
    while (weir_json_key(&j, &key)) {
        const char *name = ctl_format(ctl, "%s%.*s", before, WEIR_STR_FMT(key));
        bool is_object = weir_json_peek(&j) == WEIR_JSON_OBJECT;
        if (!weir_json_raw(&j, &value))
            return;
        if (is_object)
            add_members(ctl, table, ctl_format(ctl, "%s.", name), value);
        else
            ctl_table_row(table, (const char *[]){ name, as_text(ctl, value) });
    }
}

static enum ctl_exit print_raw(struct weir_str json)
{
    struct weir_buf out;

    weir_buf_init(&out, /* limit_bytes= */ 0);
    weir_buf_add(&out, json.ptr, json.len);
    if (json.len == 0 || json.ptr[json.len - 1] != '\n')
        weir_buf_addc(&out, '\n');
    enum ctl_exit code = ctl_print(&out);
    weir_buf_release(&out);
    return code;
}

static enum ctl_exit print_table(const struct ctl_table *table)
{
    struct weir_buf out;

    weir_buf_init(&out, /* limit_bytes= */ 0);
    ctl_table_write(table, &out);
    enum ctl_exit code = ctl_print(&out);
    weir_buf_release(&out);
    return code;
}

enum ctl_exit ctl_show_one(struct ctl *ctl, struct weir_str object)
{
    static const char *const headers[] = { "FIELD", "VALUE", NULL };
    struct ctl_table table;

    if (ctl->json)
        return print_raw(object);
    ctl_table_init(&table, &ctl->arena, headers);
    add_members(ctl, &table, "", object);
    return print_table(&table);
}

enum ctl_exit ctl_admin_show(struct ctl *ctl, const char *method, const char *path,
                             const struct ctl_member *members)
{
    struct weir_buf body;
    struct weir_str reply;
    enum ctl_exit code = CTL_OK;

    weir_buf_init(&body, /* limit_bytes= */ 0);
    if (members)
        code = ctl_body(members, &body);
    if (code == CTL_OK)
        code = ctl_admin_call(ctl, method, path,
                              (struct weir_str){ members ? weir_buf_ptr(&body) : NULL, weir_buf_len(&body) },
                              &reply);
    weir_buf_release(&body);
    return code == CTL_OK ? ctl_show_one(ctl, reply) : code;
}

enum ctl_exit ctl_show_list(struct ctl *ctl, const struct weir_str *objects, int n,
                            const struct ctl_column *columns)
{
    const char *headers[CTL_COLUMNS_MAX + 1] = { NULL }, *cells[CTL_COLUMNS_MAX];
    struct ctl_table table;
    struct weir_buf out;
    struct weir_jw w;

    if (ctl->json) {
        weir_buf_init(&out, /* limit_bytes= */ 0);
        weir_jw_init(&w, &out);
        weir_jw_array(&w);
        for (int i = 0; i < n; i++)
            weir_jw_raw(&w, objects[i]);
        weir_jw_array_end(&w);
        weir_buf_addc(&out, '\n');
        enum ctl_exit code = ctl_print(&out);
        weir_buf_release(&out);
        return code;
    }
    for (int k = 0; columns[k].header; k++)
        headers[k] = columns[k].header;
    ctl_table_init(&table, &ctl->arena, headers);
    for (int i = 0; i < n; i++) {
        for (int k = 0; columns[k].header; k++) {
            const char *text = ctl_field(ctl, objects[i], columns[k].field);
            cells[k] = text[0] ? text : "-";
        }
        ctl_table_row(&table, cells);
    }
    return print_table(&table);
}
