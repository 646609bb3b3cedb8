/* fleet.c - who is there: routers and replicas from discovery, their load from a router's admin page.
 *
 * Discovery is the truth about membership; the load is what one router sees and is left out when none
 * answers. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "ctl/ctl.h"
#include "discovery/http.h"

#define ADMIN_TIMEOUT_MS 1000
#define ADMIN_BYTES_MAX (16u << 20)

static const struct ctl_option no_options[] = { { NULL, NULL, NULL, NULL } };

struct load { /* of one replica, as one router sees it */
    struct weir_str id, model, grpc, state, raw;
    int64_t running, waiting, slots;
    double decode_tokens_s, predicted_wait_ms;
};
struct fleet {
    const struct weir_disc_snapshot *snap;
    struct weir_router_record *routers;
    struct weir_replica_record *replicas;
    struct load *loads;
    int n_routers, n_replicas, n_loads, n_bad;
    const char *admin; /* that answered; NULL: none */
};

/* ---- reading ---- */

static enum ctl_exit read_members(struct ctl *ctl, struct fleet *f)
{
    struct weir_discovery_opts opts = ctl_discovery(ctl);
    const struct weir_disc_entry *entries = NULL;
    struct weir_why why = { 0 };
    weir_err rc = weir_discovery_read(&opts, ctl->prefix, &f->snap, &why);
    if (rc != WEIR_OK)
        return ctl_fail(rc, "%s", why.text);
    int n = weir_disc_prefix(f->snap, ctl_path(ctl, "routers/"), &entries);
    f->routers = weir_arena_alloc0(&ctl->arena, ((size_t)n + 1) * sizeof *f->routers);
    WEIR_BUG_ON(!f->routers);
    for (int i = 0; i < n; i++) {
        bool ok = weir_router_record_parse(entries[i].value, &ctl->arena, &f->routers[f->n_routers], &why) ==
                  WEIR_OK;
        f->n_routers += ok;
        f->n_bad += !ok;
    }
    n = weir_disc_prefix(f->snap, ctl_path(ctl, "replicas/"), &entries);
    f->replicas = weir_arena_alloc0(&ctl->arena, ((size_t)n + 1) * sizeof *f->replicas);
    WEIR_BUG_ON(!f->replicas);
    for (int i = 0; i < n; i++) {
        bool ok = weir_replica_record_parse(entries[i].value, &ctl->arena, &f->replicas[f->n_replicas],
                                            &why) == WEIR_OK;
        f->n_replicas += ok;
        f->n_bad += !ok;
    }
    return CTL_OK;
}

static void read_load(struct weir_json *j, struct load *load)
{
    struct weir_str key;
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "id"))
            weir_json_string(j, &load->id);
        else if (weir_str_eq(key, "model"))
            weir_json_string(j, &load->model);
        else if (weir_str_eq(key, "grpc"))
            weir_json_string(j, &load->grpc);
        else if (weir_str_eq(key, "state"))
            weir_json_string(j, &load->state);
        else if (weir_str_eq(key, "running"))
            weir_json_i64(j, &load->running);
        else if (weir_str_eq(key, "waiting"))
            weir_json_i64(j, &load->waiting);
        else if (weir_str_eq(key, "slots"))
            weir_json_i64(j, &load->slots);
        else if (weir_str_eq(key, "decode_tokens_s") && weir_json_peek(j) == WEIR_JSON_NUMBER)
            weir_json_f64(j, &load->decode_tokens_s);
        else if (weir_str_eq(key, "predicted_wait_ms") && weir_json_peek(j) == WEIR_JSON_NUMBER)
            weir_json_f64(j, &load->predicted_wait_ms);
        else
            weir_json_skip(j);
    }
}

/* The page of /debug/fleet; strings point into it. */
static bool read_loads(struct ctl *ctl, struct weir_str page, struct fleet *f)
{
    struct weir_json j;
    struct weir_str key, raw;
    int cap = 0;
    f->n_loads = 0;
    weir_json_init(&j, page.ptr, page.len, &ctl->arena);
    if (!weir_json_object(&j))
        return false;
    while (weir_json_key(&j, &key)) {
        if (!weir_str_eq(key, "replicas")) {
            weir_json_skip(&j);
            continue;
        }
        if (!weir_json_array(&j))
            return false;
        while (weir_json_next(&j) && weir_json_raw(&j, &raw)) {
            struct weir_json one;
            if (f->n_loads == cap) {
                cap = cap ? 2 * cap : 64;
                struct load *grown = weir_arena_alloc(&ctl->arena, (size_t)cap * sizeof *grown);
                WEIR_BUG_ON(!grown);
                if (f->n_loads)
                    memcpy(grown, f->loads, (size_t)f->n_loads * sizeof *grown);
                f->loads = grown;
            }
            struct load *load = &f->loads[f->n_loads];
            *load = (struct load){ .raw = raw };
            weir_json_init(&one, raw.ptr, raw.len, &ctl->arena);
            if (weir_json_object(&one))
                read_load(&one, load);
            if (weir_json_end(&one, NULL) != WEIR_OK)
                return false;
            f->n_loads++;
        }
    }
    return weir_json_end(&j, NULL) == WEIR_OK;
}

static bool ask_admin(struct ctl *ctl, const char *admin, struct fleet *f)
{
    struct weir_buf body;
    int status = 0;
    weir_buf_init(&body, ADMIN_BYTES_MAX);
    weir_err rc = weir_http_get(ctl_format(ctl, "http://%s/debug/fleet", admin), ADMIN_TIMEOUT_MS, &body,
                                &status, NULL);
    bool ok = rc == WEIR_OK && status == 200;
    if (ok) {
        struct weir_str page = { weir_buf_ptr(&body), weir_buf_len(&body) };
        page.ptr = ctl_text(ctl, page);
        ok = read_loads(ctl, page, f);
    }
    weir_buf_release(&body);
    if (ok)
        f->admin = admin;
    else
        f->n_loads = 0;
    return ok;
}

static void find_loads(struct ctl *ctl, struct fleet *f)
{
    if (ctl->admin && ask_admin(ctl, ctl->admin, f))
        return;
    for (int i = 0; i < f->n_routers; i++)
        if (f->routers[i].admin.len && ask_admin(ctl, ctl_text(ctl, f->routers[i].admin), f))
            return;
}

static const struct load *load_of(const struct fleet *f, const struct weir_replica_record *rep)
{
    for (int i = 0; i < f->n_loads; i++)
        if (f->loads[i].id.len == rep->id.len && memcmp(f->loads[i].id.ptr, rep->id.ptr, rep->id.len) == 0 &&
            f->loads[i].model.len == rep->model.len &&
            memcmp(f->loads[i].model.ptr, rep->model.ptr, rep->model.len) == 0)
            return &f->loads[i];
    return NULL;
}

/* ---- fleet ---- */

static const char *age_of(struct ctl *ctl, uint64_t started_s)
{
    uint64_t now_s = weir_wall_ns() / WEIR_S, age = now_s > started_s ? now_s - started_s : 0;
    if (started_s == 0)
        return "-";
    if (age < 120)
        return ctl_format(ctl, "%llu s", (unsigned long long)age);
    if (age < 7200)
        return ctl_format(ctl, "%llu min", (unsigned long long)(age / 60));
    return age < 172800 ? ctl_format(ctl, "%llu h", (unsigned long long)(age / 3600))
                        : ctl_format(ctl, "%llu d", (unsigned long long)(age / 86400));
}

static void add_replica(struct ctl *ctl, struct ctl_table *table, const struct weir_replica_record *rep,
                        const struct load *load)
{
    const char *cells[] = { ctl_text(ctl, rep->id),
                            ctl_text(ctl, rep->model),
                            ctl_text(ctl, rep->grpc),
                            age_of(ctl, rep->started_s),
                            "-",
                            "-",
                            "-",
                            "-",
                            "-",
                            "-" };
    if (load) {
        cells[4] = ctl_text(ctl, load->state);
        cells[5] = ctl_format(ctl, "%lld", (long long)load->running);
        cells[6] = ctl_format(ctl, "%lld", (long long)load->waiting);
        cells[7] = ctl_format(ctl, "%lld", (long long)load->slots);
        cells[8] = ctl_format(ctl, "%.0f", load->decode_tokens_s);
        cells[9] = ctl_format(ctl, "%.0f", load->predicted_wait_ms);
    }
    ctl_table_row(table, cells);
}

static void write_tables(struct ctl *ctl, const struct fleet *f, struct weir_buf *out)
{
    static const char *const router_headers[] = { "ROUTER", "REST", "GRPC", "ADMIN", "UP", NULL };
    static const char *const replica_headers[] = { "REPLICA",  "MODEL",   "GRPC",    "UP",
                                                   "STATE",    "RUNNING", "WAITING", "SLOTS",
                                                   "TOKENS/S", "WAIT MS", NULL };
    struct ctl_table table;
    ctl_table_init(&table, &ctl->arena, router_headers);
    for (int i = 0; i < f->n_routers; i++) {
        const struct weir_router_record *r = &f->routers[i];
        ctl_table_row(&table,
                      (const char *[]){ ctl_text(ctl, r->id), ctl_text(ctl, r->rest), ctl_text(ctl, r->grpc),
                                        ctl_text(ctl, r->admin), age_of(ctl, r->started_s) });
    }
    ctl_table_write(&table, out);
    weir_buf_addc(out, '\n');
    ctl_table_init(&table, &ctl->arena, replica_headers);
    for (int i = 0; i < f->n_replicas; i++)
        add_replica(ctl, &table, &f->replicas[i], load_of(f, &f->replicas[i]));
    ctl_table_write(&table, out);
    if (!f->admin)
        weir_buf_adds(out, "\nno router's admin page answers: load is not known\n");
    if (f->n_bad)
        weir_buf_addf(out, "\n%d records could not be read\n", f->n_bad);
}

static void put_str(struct weir_jw *w, const char *key, struct weir_str s)
{
    weir_jw_key(w, key);
    weir_jw_str(w, s);
}

static void write_json(const struct fleet *f, struct weir_buf *out)
{
    struct weir_jw w;
    weir_jw_init(&w, out);
    weir_jw_object(&w);
    weir_jw_key(&w, "load_from");
    if (f->admin)
        weir_jw_cstr(&w, f->admin);
    else
        weir_jw_null(&w);
    weir_jw_key(&w, "unreadable_records");
    weir_jw_u64(&w, (uint64_t)f->n_bad);
    weir_jw_key(&w, "routers");
    weir_jw_array(&w);
    for (int i = 0; i < f->n_routers; i++) {
        weir_jw_object(&w);
        put_str(&w, "id", f->routers[i].id);
        put_str(&w, "rest", f->routers[i].rest);
        put_str(&w, "grpc", f->routers[i].grpc);
        put_str(&w, "admin", f->routers[i].admin);
        weir_jw_key(&w, "started");
        weir_jw_u64(&w, f->routers[i].started_s);
        weir_jw_object_end(&w);
    }
    weir_jw_array_end(&w);
    weir_jw_key(&w, "replicas");
    weir_jw_array(&w);
    for (int i = 0; i < f->n_replicas; i++) {
        const struct load *load = load_of(f, &f->replicas[i]);
        weir_jw_object(&w);
        put_str(&w, "id", f->replicas[i].id);
        put_str(&w, "model", f->replicas[i].model);
        put_str(&w, "grpc", f->replicas[i].grpc);
        put_str(&w, "admin", f->replicas[i].admin);
        weir_jw_key(&w, "started");
        weir_jw_u64(&w, f->replicas[i].started_s);
        weir_jw_key(&w, "load");
        if (load)
            weir_jw_raw(&w, load->raw);
        else
            weir_jw_null(&w);
        weir_jw_object_end(&w);
    }
    weir_jw_array_end(&w);
    weir_jw_object_end(&w);
    weir_buf_addc(out, '\n');
}

static enum ctl_exit run_fleet(struct ctl *ctl, int n_operands, char **operands)
{
    struct fleet f = { 0 };
    struct weir_buf out;
    (void)n_operands;
    (void)operands;
    enum ctl_exit code = read_members(ctl, &f);
    if (code != CTL_OK)
        return code;
    find_loads(ctl, &f);
    weir_buf_init(&out, /* limit_bytes= */ 0);
    if (ctl->json)
        write_json(&f, &out);
    else
        write_tables(ctl, &f, &out);
    code = ctl_print(&out);
    weir_buf_release(&out);
    weir_disc_snapshot_unref(f.snap);
    return code;
}

/* ---- model list ---- */

/* How many replicas have the model of replica i; 0 if an earlier one had it (keys are sorted by model). */
static int count_model(const struct fleet *f, int i)
{
    struct weir_str model = f->replicas[i].model;
    int n = 0;
    for (int k = 0; k < f->n_replicas; k++) {
        bool is_same = f->replicas[k].model.len == model.len &&
                       memcmp(f->replicas[k].model.ptr, model.ptr, model.len) == 0;
        if (is_same && k < i)
            return 0;
        n += is_same;
    }
    return n;
}

static enum ctl_exit run_models(struct ctl *ctl, int n_operands, char **operands)
{
    static const char *const headers[] = { "MODEL", "REPLICAS", NULL };
    struct fleet f = { 0 };
    struct ctl_table table;
    struct weir_buf out;
    struct weir_jw w;
    (void)n_operands;
    (void)operands;
    enum ctl_exit code = read_members(ctl, &f);
    if (code != CTL_OK)
        return code;
    weir_buf_init(&out, /* limit_bytes= */ 0);
    ctl_table_init(&table, &ctl->arena, headers);
    weir_jw_init(&w, &out);
    if (ctl->json)
        weir_jw_array(&w);
    for (int i = 0; i < f.n_replicas; i++) {
        int n = count_model(&f, i);
        if (n == 0)
            continue;
        if (ctl->json) {
            weir_jw_object(&w);
            put_str(&w, "id", f.replicas[i].model);
            weir_jw_key(&w, "replicas");
            weir_jw_u64(&w, (uint64_t)n);
            weir_jw_object_end(&w);
        } else {
            ctl_table_row(&table,
                          (const char *[]){ ctl_text(ctl, f.replicas[i].model), ctl_format(ctl, "%d", n) });
        }
    }
    if (ctl->json) {
        weir_jw_array_end(&w);
        weir_buf_addc(&out, '\n');
    } else {
        ctl_table_write(&table, &out);
    }
    code = ctl_print(&out);
    weir_buf_release(&out);
    weir_disc_snapshot_unref(f.snap);
    return code;
}

const struct ctl_command ctl_fleet = { "fleet",    "", "routers and replicas, and how busy they are",
                                       no_options, 0,  run_fleet };
const struct ctl_command ctl_model_list = { "model list", "", "models that are served",
                                            no_options,   0,  run_models };
