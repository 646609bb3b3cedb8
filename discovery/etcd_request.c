/* etcd_request.c - request bodies for etcd's JSON gateway.
 *
 * Written straight into a buffer. The end of a prefix is the prefix with its last byte raised by one, bytes
 * 0xff cut off first ("/weir/" -> "/weir0"); etcd reads a single zero byte as "to the end of everything". */
#include "discovery/etcd_request.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"

static void put_base64(struct weir_jw *w, const char *key, const char *data, size_t len)
{
    weir_jw_key(w, key);
    weir_jw_raw(w, WEIR_STR("\"")); /* takes the comma; the rest of the string follows */
    char *room = weir_buf_reserve(w->out, 4 * ((len + 2) / 3) + 1);
    if (room)
        weir_buf_commit(w->out, weir_base64(data, len, room));
    weir_buf_addc(w->out, '"');
}

static void put_key(struct weir_jw *w, const char *name, struct weir_str s)
{
    put_base64(w, name, s.ptr, s.len);
}

static void put_i64(struct weir_jw *w, const char *key, int64_t n)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)n);
    weir_jw_key(w, key);
    weir_jw_cstr(w, text);
}

static void put_prefix_end(struct weir_jw *w, struct weir_str prefix)
{
    char end[256];
    size_t len = prefix.len < sizeof end ? prefix.len : sizeof end;
    memcpy(end, prefix.ptr, len);
    while (len > 0 && (unsigned char)end[len - 1] == 0xff)
        len--;
    if (len == 0)
        end[len++] = '\0';
    else
        end[len - 1] = (char)((unsigned char)end[len - 1] + 1);
    put_base64(w, "range_end", end, len);
}

static void begin(struct weir_jw *w, struct weir_buf *out)
{
    weir_buf_clear(out);
    weir_jw_init(w, out);
    weir_jw_object(w);
}

void etcd_request_range(struct weir_buf *out, struct weir_str first, struct weir_str prefix, int64_t revision,
                        int limit)
{
    struct weir_jw w;
    begin(&w, out);
    put_key(&w, "key", first);
    put_prefix_end(&w, prefix);
    if (revision)
        put_i64(&w, "revision", revision);
    put_i64(&w, "limit", limit);
    weir_jw_object_end(&w);
}

void etcd_request_get(struct weir_buf *out, struct weir_str key)
{
    struct weir_jw w;
    begin(&w, out);
    put_key(&w, "key", key);
    weir_jw_object_end(&w);
}

void etcd_request_ping(struct weir_buf *out, struct weir_str prefix)
{
    struct weir_jw w;
    begin(&w, out);
    put_key(&w, "key", prefix);
    weir_jw_key(&w, "count_only");
    weir_jw_bool(&w, true);
    weir_jw_object_end(&w);
}

void etcd_request_watch(struct weir_buf *out, struct weir_str prefix, int64_t start_revision)
{
    struct weir_jw w;
    begin(&w, out);
    weir_jw_key(&w, "create_request");
    weir_jw_object(&w);
    put_key(&w, "key", prefix);
    put_prefix_end(&w, prefix);
    put_i64(&w, "start_revision", start_revision);
    /* Progress moves our resume point while nothing under the prefix changes; fragments bound the lines. */
    weir_jw_key(&w, "progress_notify");
    weir_jw_bool(&w, true);
    weir_jw_key(&w, "fragment");
    weir_jw_bool(&w, true);
    weir_jw_object_end(&w);
    weir_jw_object_end(&w);
}

static void put_fields(struct weir_jw *w, struct weir_str key, struct weir_str value, int64_t lease_id)
{
    put_key(w, "key", key);
    put_key(w, "value", value);
    if (lease_id)
        put_i64(w, "lease", lease_id);
}

void etcd_request_put(struct weir_buf *out, struct weir_str key, struct weir_str value, int64_t lease_id)
{
    struct weir_jw w;
    begin(&w, out);
    put_fields(&w, key, value, lease_id);
    weir_jw_object_end(&w);
}

static void put_compare(struct weir_jw *w, struct weir_str key, const char *target, const char *field,
                        int64_t n)
{
    weir_jw_object(w);
    put_key(w, "key", key);
    weir_jw_key(w, "target");
    weir_jw_cstr(w, target);
    weir_jw_key(w, "result");
    weir_jw_cstr(w, "EQUAL");
    put_i64(w, field, n);
    weir_jw_object_end(w);
}

static void put_delete(struct weir_jw *w, struct weir_str key)
{
    weir_jw_object(w);
    weir_jw_key(w, "request_delete_range");
    weir_jw_object(w);
    put_key(w, "key", key);
    weir_jw_object_end(w);
    weir_jw_object_end(w);
}

void etcd_request_delete_leased(struct weir_buf *out, struct weir_str key, int64_t lease_id)
{
    struct weir_jw w;
    begin(&w, out);
    weir_jw_key(&w, "compare");
    weir_jw_array(&w);
    put_compare(&w, key, "LEASE", "lease", lease_id);
    weir_jw_array_end(&w);
    weir_jw_key(&w, "success");
    weir_jw_array(&w);
    put_delete(&w, key);
    weir_jw_array_end(&w);
    weir_jw_object_end(&w);
}

void etcd_request_txn(struct weir_buf *out, const struct weir_disc_cond *conds, int n_conds,
                      const struct weir_disc_op *ops, int n_ops)
{
    struct weir_jw w;
    begin(&w, out);
    weir_jw_key(&w, "compare");
    weir_jw_array(&w);
    for (int i = 0; i < n_conds; i++) {
        /* Absent keys have no mod_revision to compare with: their create_revision reads as 0. */
        if (conds[i].mod_revision == 0)
            put_compare(&w, conds[i].key, "CREATE", "create_revision", 0);
        else
            put_compare(&w, conds[i].key, "MOD", "mod_revision", conds[i].mod_revision);
    }
    weir_jw_array_end(&w);
    weir_jw_key(&w, "success");
    weir_jw_array(&w);
    for (int i = 0; i < n_ops; i++) {
        if (ops[i].kind == WEIR_DISC_DELETE) {
            put_delete(&w, ops[i].key);
            continue;
        }
        weir_jw_object(&w);
        weir_jw_key(&w, "request_put");
        weir_jw_object(&w);
        put_fields(&w, ops[i].key, ops[i].value, /* lease_id= */ 0);
        weir_jw_object_end(&w);
        weir_jw_object_end(&w);
    }
    weir_jw_array_end(&w);
    weir_jw_object_end(&w);
}

void etcd_request_grant(struct weir_buf *out, uint32_t ttl_s)
{
    struct weir_jw w;
    begin(&w, out);
    put_i64(&w, "TTL", ttl_s);
    weir_jw_object_end(&w);
}

void etcd_request_lease(struct weir_buf *out, int64_t lease_id)
{
    struct weir_jw w;
    begin(&w, out);
    put_i64(&w, "ID", lease_id);
    weir_jw_object_end(&w);
}

void etcd_request_auth(struct weir_buf *out, const char *user, const char *password)
{
    struct weir_jw w;
    begin(&w, out);
    weir_jw_key(&w, "name");
    weir_jw_cstr(&w, user);
    weir_jw_key(&w, "password");
    weir_jw_cstr(&w, password ? password : "");
    weir_jw_object_end(&w);
}
