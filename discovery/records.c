/* records.c - the JSON values of replicas and routers in the fleet's view.
 *
 * Strict about what we would act on (an id, an address), silent about unknown members: a newer member of the
 * fleet may write more. A record that does not parse is one bad record, never a bad fleet: counted here,
 * skipped by the caller. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/metrics.h"
#include "discovery/discovery.h"
#include "discovery/source.h"

#define ID_MAX 128
#define MODEL_MAX 256

static void take_name(struct weir_json *j, struct weir_str *ret, size_t len_max)
{
    if (!weir_json_string(j, ret))
        return;
    if (ret->len == 0 || ret->len > len_max) {
        weir_json_fail(j, WEIR_INVALID, "must have 1 to %zu characters", len_max);
        return;
    }
    for (size_t i = 0; i < ret->len; i++)
        if ((unsigned char)ret->ptr[i] <= ' ' || ret->ptr[i] == 0x7f) {
            weir_json_fail(j, WEIR_INVALID, "has a space or a control character");
            return;
        }
}

static void take_hostport(struct weir_json *j, struct weir_str *ret)
{
    if (weir_json_string(j, ret) && ret->len > 0 && !source_is_hostport(*ret))
        weir_json_fail(j, WEIR_INVALID, "is not host:port");
}

static void take_hex(struct weir_json *j, uint64_t *ret)
{
    struct weir_str text;
    uint64_t n = 0;
    if (!weir_json_string(j, &text))
        return;
    bool good = text.len >= 1 && text.len <= 16;
    for (size_t i = 0; good && i < text.len; i++) {
        const char *digits = "0123456789abcdef";
        const char *digit = text.ptr[i] ? strchr(digits, text.ptr[i]) : NULL;
        good = digit != NULL;
        n = n << 4 | (digit ? (uint64_t)(digit - digits) : 0);
    }
    if (!good)
        weir_json_fail(j, WEIR_INVALID, "is not 1 to 16 lower-case hex digits");
    else
        *ret = n;
}

static void need(struct weir_json *j, const char *key, struct weir_str value)
{
    if (weir_json_ok(j) && value.len == 0)
        weir_json_fail_key(j, key, WEIR_INVALID, "is missing");
}

static weir_err finish(struct weir_json *j, const char *what, struct weir_why *why)
{
    struct weir_why inner = { 0 };
    weir_err rc = weir_json_end(j, &inner);
    if (rc == WEIR_OK)
        return WEIR_OK;
    weir_counter_add(
        weir_counter("weir_discovery_bad_records_total", "", "records of the fleet's view not understood"),
        1);
    /* json names the place in its own complaints (wrong type, malformed) but not in ours. */
    bool is_named = inner.param[0] && strncmp(inner.text, inner.param, strlen(inner.param)) == 0;
    return weir_fail_param(why, inner.param, rc, "%s record: %s%s%s", what, is_named ? "" : inner.param,
                           is_named || !inner.param[0] ? "" : " ", inner.text);
}

weir_err weir_replica_record_parse(struct weir_str json, struct weir_arena *arena,
                                   struct weir_replica_record *ret, struct weir_why *why)
{
    struct weir_json j;
    struct weir_str key;
    struct weir_replica_record rec = { 0 };
    weir_json_init(&j, json.ptr, json.len, arena);
    if (weir_json_object(&j)) {
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, "id"))
                take_name(&j, &rec.id, ID_MAX);
            else if (weir_str_eq(key, "model"))
                take_name(&j, &rec.model, MODEL_MAX);
            else if (weir_str_eq(key, "grpc"))
                take_hostport(&j, &rec.grpc);
            else if (weir_str_eq(key, "admin"))
                take_hostport(&j, &rec.admin);
            else if (weir_str_eq(key, "incarnation"))
                take_hex(&j, &rec.incarnation);
            else if (weir_str_eq(key, "started"))
                weir_json_u64(&j, &rec.started_s);
            else
                weir_json_skip(&j);
        }
        need(&j, "id", rec.id);
        need(&j, "model", rec.model);
        need(&j, "grpc", rec.grpc);
    }
    weir_err rc = finish(&j, "replica", why);
    if (rc == WEIR_OK)
        *ret = rec;
    return rc;
}

weir_err weir_router_record_parse(struct weir_str json, struct weir_arena *arena,
                                  struct weir_router_record *ret, struct weir_why *why)
{
    struct weir_json j;
    struct weir_str key;
    struct weir_router_record rec = { 0 };
    weir_json_init(&j, json.ptr, json.len, arena);
    if (weir_json_object(&j)) {
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, "id"))
                take_name(&j, &rec.id, ID_MAX);
            else if (weir_str_eq(key, "rest"))
                take_hostport(&j, &rec.rest);
            else if (weir_str_eq(key, "grpc"))
                take_hostport(&j, &rec.grpc);
            else if (weir_str_eq(key, "admin"))
                take_hostport(&j, &rec.admin);
            else if (weir_str_eq(key, "mesh"))
                take_hostport(&j, &rec.mesh);
            else if (weir_str_eq(key, "incarnation"))
                take_hex(&j, &rec.incarnation);
            else if (weir_str_eq(key, "started"))
                weir_json_u64(&j, &rec.started_s);
            else
                weir_json_skip(&j);
        }
        need(&j, "id", rec.id);
    }
    weir_err rc = finish(&j, "router", why);
    if (rc == WEIR_OK)
        *ret = rec;
    return rc;
}

static void put_str(struct weir_jw *w, const char *key, struct weir_str value)
{
    weir_jw_key(w, key);
    weir_jw_str(w, value);
}

static void put_tail(struct weir_jw *w, uint64_t incarnation, uint64_t started_s)
{
    char hex[20];
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)incarnation);
    put_str(w, "incarnation", weir_str(hex));
    weir_jw_key(w, "started");
    weir_jw_u64(w, started_s);
    weir_jw_object_end(w);
}

void weir_replica_record_write(struct weir_buf *out, const struct weir_replica_record *rec)
{
    struct weir_jw w;
    weir_jw_init(&w, out);
    weir_jw_object(&w);
    put_str(&w, "id", rec->id);
    put_str(&w, "model", rec->model);
    put_str(&w, "grpc", rec->grpc);
    put_str(&w, "admin", rec->admin);
    put_tail(&w, rec->incarnation, rec->started_s);
}

void weir_router_record_write(struct weir_buf *out, const struct weir_router_record *rec)
{
    struct weir_jw w;
    weir_jw_init(&w, out);
    weir_jw_object(&w);
    put_str(&w, "id", rec->id);
    put_str(&w, "rest", rec->rest);
    put_str(&w, "grpc", rec->grpc);
    put_str(&w, "admin", rec->admin);
    if (rec->mesh.len)
        put_str(&w, "mesh", rec->mesh);
    put_tail(&w, rec->incarnation, rec->started_s);
}
