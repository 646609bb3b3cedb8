/* chat.c - one message to a model through a router's REST door, the answer printed as it comes.
 *
 * Addresses that are not given come from the fleet file, then from discovery. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "ctl/ctl.h"
#include "discovery/http.h"

#define LINE_MAX_BYTES (8u << 20) /* of one server-sent event, or of an error's body */
#define STDIN_MAX (4u << 20)

static const char *model_opt, *key_opt, *router_opt, *system_opt, *max_tokens_opt, *temperature_opt;

static const struct ctl_option options[] = {
    { "model", "NAME", "which model (default: the fleet's first)", &model_opt },
    { "key", "KEY", "API key (default: WEIR_API_KEY, the fleet file's)", &key_opt },
    { "router", "HOST:PORT", "a router's REST address, or an http(s) URL", &router_opt },
    { "system", "TEXT", "system message", &system_opt },
    { "max-tokens", "N", "longest answer", &max_tokens_opt },
    { "temperature", "T", "0 is the most likely answer", &temperature_opt },
    { NULL, NULL, NULL, NULL },
};

struct chat {
    struct ctl *ctl;
    struct weir_buf line;   /* unfinished event line, or an error's body */
    struct weir_buf answer; /* -o json: the whole text */
    struct weir_buf usage;  /* raw JSON */
    char finish[64], model[256], error[400];
    bool is_finished, is_broken_pipe;
};

/* ---- the request ---- */

static void put_message(struct weir_jw *w, const char *role, struct weir_str content)
{
    weir_jw_object(w);
    weir_jw_key(w, "role");
    weir_jw_cstr(w, role);
    weir_jw_key(w, "content");
    weir_jw_str(w, content);
    weir_jw_object_end(w);
}

static void write_request(struct weir_buf *out, const char *model, struct weir_str text)
{
    struct weir_jw w;
    weir_jw_init(&w, out);
    weir_jw_object(&w);
    weir_jw_key(&w, "model");
    weir_jw_cstr(&w, model);
    weir_jw_key(&w, "messages");
    weir_jw_array(&w);
    if (system_opt)
        put_message(&w, "system", weir_str(system_opt));
    put_message(&w, "user", text);
    weir_jw_array_end(&w);
    weir_jw_key(&w, "stream");
    weir_jw_bool(&w, true);
    weir_jw_key(&w, "stream_options");
    weir_jw_raw(&w, WEIR_STR("{\"include_usage\":true}"));
    if (max_tokens_opt) {
        weir_jw_key(&w, "max_tokens");
        weir_jw_u64(&w, strtoull(max_tokens_opt, NULL, 10));
    }
    if (temperature_opt) {
        weir_jw_key(&w, "temperature");
        weir_jw_f64(&w, strtod(temperature_opt, NULL));
    }
    weir_jw_object_end(&w);
}

/* ---- the answer ---- */

static void take_text(struct chat *c, struct weir_json *j)
{
    struct weir_str text;
    if (weir_json_peek(j) != WEIR_JSON_STRING) {
        weir_json_skip(j);
        return;
    }
    if (!weir_json_string(j, &text) || text.len == 0)
        return;
    if (c->ctl->json)
        weir_buf_add(&c->answer, text.ptr, text.len);
    else if (fwrite(text.ptr, 1, text.len, stdout) != text.len || fflush(stdout) != 0)
        c->is_broken_pipe = true;
}

static void take_choice(struct chat *c, struct weir_json *j)
{
    struct weir_str key, text;
    if (!weir_json_object(j))
        return;
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "delta") && weir_json_object(j)) {
            while (weir_json_key(j, &key)) {
                if (weir_str_eq(key, "content"))
                    take_text(c, j);
                else
                    weir_json_skip(j);
            }
        } else if (weir_str_eq(key, "finish_reason") && weir_json_peek(j) == WEIR_JSON_STRING) {
            if (weir_json_string(j, &text))
                snprintf(c->finish, sizeof c->finish, "%.*s", WEIR_STR_FMT(text));
        } else {
            weir_json_skip(j);
        }
    }
}

static void take_error(struct chat *c, struct weir_json *j)
{
    struct weir_str key, text;
    if (!weir_json_object(j))
        return;
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "message") && weir_json_string(j, &text))
            snprintf(c->error, sizeof c->error, "%.*s", WEIR_STR_FMT(text));
        else
            weir_json_skip(j);
    }
}

/* A chunk of the stream or the body of an error: one object. */
static bool take_object(struct chat *c, struct weir_str json)
{
    struct weir_json j;
    struct weir_str key, text;
    struct weir_arena arena;
    weir_arena_init(&arena, 2 * LINE_MAX_BYTES);
    weir_json_init(&j, json.ptr, json.len, &arena);
    if (weir_json_object(&j))
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, "choices") && weir_json_array(&j)) {
                while (weir_json_next(&j))
                    take_choice(c, &j);
            } else if (weir_str_eq(key, "model")) {
                if (weir_json_string(&j, &text))
                    snprintf(c->model, sizeof c->model, "%.*s", WEIR_STR_FMT(text));
            } else if (weir_str_eq(key, "usage") && weir_json_peek(&j) == WEIR_JSON_OBJECT) {
                weir_buf_clear(&c->usage);
                if (weir_json_raw(&j, &text))
                    weir_buf_add(&c->usage, text.ptr, text.len);
            } else if (weir_str_eq(key, "error")) {
                take_error(c, &j);
            } else {
                weir_json_skip(&j);
            }
        }
    bool ok = weir_json_end(&j, NULL) == WEIR_OK;
    weir_arena_release(&arena);
    return ok;
}

static void take_line(struct chat *c, struct weir_str line)
{
    if (line.len && line.ptr[line.len - 1] == '\r')
        line.len--;
    if (line.len < 5 || memcmp(line.ptr, "data:", 5) != 0)
        return;
    line.ptr += 5;
    line.len -= 5;
    if (line.len && line.ptr[0] == ' ') {
        line.ptr++;
        line.len--;
    }
    if (weir_str_eq(line, "[DONE]"))
        c->is_finished = true;
    else if (!take_object(c, line) && !c->error[0])
        snprintf(c->error, sizeof c->error, "the router sent an event that is not JSON");
}

static bool on_data(void *ctx, int status, const char *data, size_t len)
{
    struct chat *c = ctx;
    weir_buf_add(&c->line, data, len);
    if (c->line.failed)
        return false;
    while (status == 200) {
        const char *text = weir_buf_ptr(&c->line), *nl;
        size_t n = weir_buf_len(&c->line);
        if (n == 0 || !(nl = memchr(text, '\n', n)))
            break;
        take_line(c, (struct weir_str){ text, (size_t)(nl - text) });
        weir_buf_consume(&c->line, (size_t)(nl - text) + 1);
    }
    return !c->is_broken_pipe;
}

/* ---- the command ---- */

static enum ctl_exit find_target(struct ctl *ctl, const char **router, const char **model)
{
    struct weir_discovery_opts opts = ctl_discovery(ctl);
    const struct weir_disc_snapshot *snap;
    const struct weir_disc_entry *entries = NULL;
    struct weir_why why = { 0 };
    *router = router_opt ? router_opt : ctl->router;
    *model = model_opt ? model_opt : ctl->model;
    if (*router && *model)
        return CTL_OK;
    weir_err rc = weir_discovery_read(&opts, ctl->prefix, &snap, &why);
    if (rc != WEIR_OK)
        return ctl_fail(rc, "%s (to look up %s)", why.text, *router ? "--model" : "--router");
    int n = weir_disc_prefix(snap, ctl_path(ctl, "routers/"), &entries);
    for (int i = 0; i < n && !*router; i++) {
        struct weir_router_record rec;
        if (weir_router_record_parse(entries[i].value, &ctl->arena, &rec, NULL) == WEIR_OK && rec.rest.len)
            *router = ctl_text(ctl, rec.rest);
    }
    n = weir_disc_prefix(snap, ctl_path(ctl, "replicas/"), &entries);
    for (int i = 0; i < n && !*model; i++) {
        struct weir_replica_record rec;
        if (weir_replica_record_parse(entries[i].value, &ctl->arena, &rec, NULL) == WEIR_OK)
            *model = ctl_text(ctl, rec.model);
    }
    weir_disc_snapshot_unref(snap);
    if (!*router)
        return ctl_fail(WEIR_UNAVAILABLE, "the fleet has no router");
    return *model ? CTL_OK : ctl_fail(WEIR_UNAVAILABLE, "the fleet has no replica");
}

static enum ctl_exit show_json(struct chat *c)
{
    struct weir_buf out;
    struct weir_jw w;
    weir_buf_init(&out, /* limit_bytes= */ 0);
    weir_jw_init(&w, &out);
    weir_jw_object(&w);
    weir_jw_key(&w, "model");
    weir_jw_cstr(&w, c->model);
    weir_jw_key(&w, "text");
    weir_jw_str(&w, (struct weir_str){ weir_buf_ptr(&c->answer), weir_buf_len(&c->answer) });
    weir_jw_key(&w, "finish_reason");
    weir_jw_cstr(&w, c->finish);
    weir_jw_key(&w, "usage");
    if (weir_buf_len(&c->usage))
        weir_jw_raw(&w, (struct weir_str){ weir_buf_ptr(&c->usage), weir_buf_len(&c->usage) });
    else
        weir_jw_null(&w);
    weir_jw_object_end(&w);
    weir_buf_addc(&out, '\n');
    out.failed |= c->answer.failed || c->usage.failed;
    enum ctl_exit code = ctl_print(&out);
    weir_buf_release(&out);
    return code;
}

static enum ctl_exit judge(struct chat *c, weir_err rc, int status, const char *router, const char *why)
{
    bool has_text = !c->ctl->json && rc == WEIR_OK && status == 200;
    if (c->is_broken_pipe)
        return ctl_fail(WEIR_IO, "cannot write to standard output");
    if (rc != WEIR_OK)
        return ctl_fail(rc, "router %s: %s", router, c->line.failed ? "its answer is too long" : why);
    if (has_text)
        putchar('\n');
    if (status != 200 && !c->error[0])
        (void)take_object(c, (struct weir_str){ weir_buf_ptr(&c->line), weir_buf_len(&c->line) });
    if (status != 200)
        return ctl_fail(WEIR_UPSTREAM, "router %s answers %d: %s", router, status,
                        c->error[0] ? c->error : "it says no more");
    if (c->error[0])
        return ctl_fail(WEIR_UPSTREAM, "the answer broke off: %s", c->error);
    if (!c->is_finished)
        return ctl_fail(WEIR_UPSTREAM, "the answer broke off");
    return c->ctl->json ? show_json(c) : CTL_OK;
}

static const char *read_stdin(struct ctl *ctl)
{
    char *text = weir_arena_alloc(&ctl->arena, STDIN_MAX + 1);
    WEIR_BUG_ON(!text);
    size_t n = fread(text, 1, STDIN_MAX, stdin);
    text[n] = '\0';
    return text;
}

static bool is_number(const char *text, bool is_whole)
{
    char *end;
    errno = 0;
    double n = strtod(text, &end);
    return *text && *end == '\0' && errno == 0 && n >= 0 &&
           (!is_whole || strspn(text, "0123456789") == strlen(text));
}

static bool is_clean(const char *key) /* it becomes a header */
{
    for (; *key; key++)
        if ((unsigned char)*key <= ' ' || (unsigned char)*key >= 0x7f)
            return false;
    return true;
}

static enum ctl_exit run_chat(struct ctl *ctl, int n_operands, char **operands)
{
    struct chat c = { .ctl = ctl };
    struct weir_buf request;
    struct weir_why why = { 0 };
    const char *router, *model, *key = key_opt ? key_opt : ctl->key;
    int status = 0;
    (void)n_operands;
    if (max_tokens_opt && !is_number(max_tokens_opt, /* is_whole= */ true))
        return ctl_usage("--max-tokens %s: not a number", max_tokens_opt);
    if (temperature_opt && !is_number(temperature_opt, /* is_whole= */ false))
        return ctl_usage("--temperature %s: not a number", temperature_opt);
    if (!key || !is_clean(key))
        return ctl_usage("chat needs an API key: --key, WEIR_API_KEY or --fleet");
    enum ctl_exit code = find_target(ctl, &router, &model);
    if (code != CTL_OK)
        return code;
    const char *text = strcmp(operands[0], "-") == 0 ? read_stdin(ctl) : operands[0];
    bool is_url = strncmp(router, "http://", 7) == 0 || strncmp(router, "https://", 8) == 0;
    const char *url = ctl_format(ctl, "%s%s/v1/chat/completions", is_url ? "" : "http://", router);
    weir_buf_init(&c.line, LINE_MAX_BYTES);
    weir_buf_init(&c.answer, /* limit_bytes= */ 0);
    weir_buf_init(&c.usage, /* limit_bytes= */ 0);
    weir_buf_init(&request, /* limit_bytes= */ 0);
    write_request(&request, model, weir_str(text));
    struct weir_str body = { weir_buf_ptr(&request), weir_buf_len(&request) };
    weir_err rc = request.failed ? weir_fail(&why, WEIR_NOMEM, "no memory")
                                 : weir_http_post_stream(url, key, body, /* timeout_ms= */ 0, on_data, &c,
                                                         &status, &why);
    code = judge(&c, rc, status, router, why.text);
    weir_buf_release(&request);
    weir_buf_release(&c.line);
    weir_buf_release(&c.answer);
    weir_buf_release(&c.usage);
    return code;
}

const struct ctl_command ctl_chat = {
    "chat", "TEXT", "say something to a model; - reads it from standard input", options, 1, run_chat
};
