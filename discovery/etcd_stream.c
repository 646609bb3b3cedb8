/* etcd_stream.c - parser of etcd's JSON gateway (etcd 3.4): bodies, and the lines of a watch.
 *
 * Strict where a mistake would lose data (base64, numbers, types), tolerant where etcd may grow (unknown
 * fields). int64 come as strings because JSON numbers end at 2^53; plain numbers are taken as well.
 * Streaming replies (watch, keep-alive) wrap the message in "result".
 *
 *   [E1] The same bytes give the same messages however they are split.
 *   [E2] No more than line_max bytes of an unfinished line are kept.
 *
 * Memory: everything decoded is in the caller's arena. Fuzzed: tests/fuzz/etcd_stream. */
#include "discovery/etcd_stream.h"

#include <string.h>

#include "base/hash.h"
#include "base/json.h"

/* ---- values ---- */

static bool number_from_text(struct weir_str text, bool *ret_negative, uint64_t *ret)
{
    size_t i = 0;
    uint64_t n = 0;
    bool negative = text.len > 0 && text.ptr[0] == '-';
    for (i = negative; i < text.len; i++) {
        unsigned digit = (unsigned)(unsigned char)text.ptr[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, digit, &n))
            return false;
    }
    *ret_negative = negative;
    *ret = n;
    return i > (size_t)negative;
}

static bool take_u64(struct weir_json *j, uint64_t *ret)
{
    struct weir_str text;
    bool negative;
    if (weir_json_peek(j) != WEIR_JSON_STRING)
        return weir_json_u64(j, ret);
    if (!weir_json_string(j, &text))
        return false;
    if (!number_from_text(text, &negative, ret) || negative)
        return weir_json_fail(j, WEIR_INVALID, "etcd: not an unsigned 64-bit number");
    return true;
}

static bool take_i64(struct weir_json *j, int64_t *ret)
{
    struct weir_str text;
    bool negative;
    uint64_t n;
    if (weir_json_peek(j) != WEIR_JSON_STRING)
        return weir_json_i64(j, ret);
    if (!weir_json_string(j, &text))
        return false;
    if (!number_from_text(text, &negative, &n) || n > (uint64_t)INT64_MAX)
        return weir_json_fail(j, WEIR_INVALID, "etcd: not a 64-bit number");
    *ret = negative ? -(int64_t)n : (int64_t)n;
    return true;
}

static bool take_base64(struct weir_json *j, struct weir_str *ret)
{
    struct weir_str text;
    if (!weir_json_string(j, &text))
        return false;
    char *bytes = weir_arena_alloc(j->arena, 3 * (text.len / 4) + 1);
    if (!bytes)
        return weir_json_fail(j, WEIR_NOMEM, "etcd: no memory for a value of %zu bytes", text.len);
    size_t len = weir_base64_decode(text.ptr, text.len, (uint8_t *)bytes);
    if (len == SIZE_MAX)
        return weir_json_fail(j, WEIR_INVALID, "etcd: malformed base64");
    *ret = (struct weir_str){ bytes, len };
    return true;
}

/* ---- objects ---- */

static bool take_header(struct weir_json *j, struct etcd_msg *msg)
{
    struct weir_str key;
    if (!weir_json_object(j))
        return false;
    msg->has_header = true;
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "cluster_id"))
            take_u64(j, &msg->cluster_id);
        else if (weir_str_eq(key, "revision"))
            take_i64(j, &msg->revision);
        else
            weir_json_skip(j);
    }
    return weir_json_ok(j);
}

static bool take_kv(struct weir_json *j, struct etcd_kv *kv)
{
    struct weir_str key;
    if (!weir_json_object(j))
        return false;
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "key"))
            take_base64(j, &kv->key);
        else if (weir_str_eq(key, "value"))
            take_base64(j, &kv->value);
        else if (weir_str_eq(key, "mod_revision"))
            take_i64(j, &kv->mod_revision);
        else
            weir_json_skip(j);
    }
    if (weir_json_ok(j) && kv->key.len == 0)
        weir_json_fail_key(j, "key", WEIR_INVALID, "etcd: a key-value without a key");
    return weir_json_ok(j);
}

static bool take_event(struct weir_json *j, struct etcd_kv *kv)
{
    struct weir_str key, type = { 0 };
    bool has_kv = false;
    if (!weir_json_object(j))
        return false;
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "type")) {
            if (weir_json_string(j, &type) && !weir_str_eq(type, "PUT") && !weir_str_eq(type, "DELETE"))
                weir_json_fail(j, WEIR_INVALID, "etcd: an event that is neither PUT nor DELETE");
        } else if (weir_str_eq(key, "kv")) {
            has_kv = take_kv(j, kv);
        } else {
            weir_json_skip(j);
        }
    }
    if (weir_json_ok(j) && !has_kv)
        weir_json_fail_key(j, "kv", WEIR_INVALID, "etcd: an event without a key-value");
    kv->is_delete = weir_str_eq(type, "DELETE"); /* a PUT is not spelled out */
    return weir_json_ok(j);
}

/* The array lives in the arena and doubles; the halves left behind are freed with it. */
static struct etcd_kv *grow_kvs(struct weir_json *j, struct etcd_kv *kvs, int n, int *cap)
{
    if (n >= ETCD_KVS_MAX) {
        weir_json_fail(j, WEIR_FULL, "etcd: more than %d key-values in one reply", ETCD_KVS_MAX);
        return NULL;
    }
    int cap_new = *cap ? *cap * 2 : 16;
    struct etcd_kv *grown = weir_arena_alloc(j->arena, (size_t)cap_new * sizeof *grown);
    if (!grown) {
        weir_json_fail(j, WEIR_NOMEM, "etcd: no memory for %d key-values", cap_new);
        return NULL;
    }
    if (n)
        memcpy(grown, kvs, (size_t)n * sizeof *grown);
    *cap = cap_new;
    return grown;
}

static bool take_kvs(struct weir_json *j, struct etcd_msg *msg,
                     bool (*take)(struct weir_json *, struct etcd_kv *))
{
    struct etcd_kv *kvs = NULL;
    int n = 0, cap = 0;
    if (!weir_json_array(j))
        return false;
    while (weir_json_next(j)) {
        if (n == cap && !(kvs = grow_kvs(j, kvs, n, &cap)))
            return false;
        kvs[n] = (struct etcd_kv){ 0 };
        if (!take(j, &kvs[n]))
            return false;
        n++;
    }
    msg->kvs = kvs;
    msg->n_kvs = n;
    return weir_json_ok(j);
}

/* {"error":"text","message":"text","code":3} of a body, or {"error":{"grpc_code":..,"message":..}} of a
 * stream. */
static bool take_error(struct weir_json *j, struct etcd_msg *msg)
{
    struct weir_str key;
    msg->is_error = true;
    if (weir_json_peek(j) == WEIR_JSON_STRING)
        return weir_json_string(j, &msg->error);
    if (!weir_json_object(j))
        return false;
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "grpc_code"))
            take_i64(j, &msg->error_code);
        else if (weir_str_eq(key, "message"))
            weir_json_string(j, &msg->error);
        else
            weir_json_skip(j);
    }
    return weir_json_ok(j);
}

static bool take_message(struct weir_json *j, struct etcd_msg *msg, bool in_result)
{
    struct weir_str key;
    if (!weir_json_object(j))
        return false;
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "result") && !in_result)
            take_message(j, msg, /* in_result= */ true);
        else if (weir_str_eq(key, "header"))
            take_header(j, msg);
        else if (weir_str_eq(key, "kvs"))
            take_kvs(j, msg, take_kv);
        else if (weir_str_eq(key, "events"))
            take_kvs(j, msg, take_event);
        else if (weir_str_eq(key, "more"))
            weir_json_bool(j, &msg->more);
        else if (weir_str_eq(key, "succeeded"))
            weir_json_bool(j, &msg->succeeded);
        else if (weir_str_eq(key, "ID"))
            take_i64(j, &msg->lease_id);
        else if (weir_str_eq(key, "TTL"))
            take_i64(j, &msg->ttl_s);
        else if (weir_str_eq(key, "token"))
            weir_json_string(j, &msg->token);
        else if (weir_str_eq(key, "created"))
            weir_json_bool(j, &msg->created);
        else if (weir_str_eq(key, "canceled"))
            weir_json_bool(j, &msg->canceled);
        else if (weir_str_eq(key, "fragment"))
            weir_json_bool(j, &msg->fragment);
        else if (weir_str_eq(key, "compact_revision"))
            take_i64(j, &msg->compact_revision);
        else if (weir_str_eq(key, "cancel_reason"))
            weir_json_string(j, &msg->cancel_reason);
        else if (weir_str_eq(key, "error"))
            take_error(j, msg);
        else if (weir_str_eq(key, "code"))
            take_i64(j, &msg->error_code);
        else
            weir_json_skip(j);
    }
    return weir_json_ok(j);
}

weir_err etcd_msg_parse(struct weir_str text, struct weir_arena *arena, struct etcd_msg *ret,
                        struct weir_why *why)
{
    struct weir_json j;
    struct etcd_msg msg = { 0 };
    weir_json_init(&j, text.ptr, text.len, arena);
    take_message(&j, &msg, /* in_result= */ false);
    weir_err rc = weir_json_end(&j, why);
    if (rc == WEIR_OK)
        *ret = msg;
    return rc;
}

/* ---- lines ---- */

void etcd_lines_init(struct etcd_lines *lines, size_t line_max)
{
    /* A feed may end one line and begin the next: the bound on unfinished bytes is tested in feed. */
    weir_buf_init(&lines->buf, line_max);
    lines->n_scanned = 0;
}

void etcd_lines_release(struct etcd_lines *lines)
{
    weir_buf_release(&lines->buf);
}

void etcd_lines_clear(struct etcd_lines *lines)
{
    weir_buf_clear(&lines->buf);
    lines->n_scanned = 0;
}

weir_err etcd_lines_feed(struct etcd_lines *lines, const char *data, size_t len, struct weir_why *why)
{
    if (weir_buf_len(&lines->buf) + len > lines->buf.limit) /* [E2] */
        return weir_fail(why, WEIR_TOOLARGE, "etcd: a line of more than %zu bytes", lines->buf.limit);
    weir_buf_add(&lines->buf, data, len);
    return lines->buf.failed ? weir_fail(why, WEIR_NOMEM, "etcd: no memory for a line") : WEIR_OK;
}

bool etcd_lines_next(struct etcd_lines *lines, struct weir_str *ret)
{
    for (;;) {
        const char *text = weir_buf_ptr(&lines->buf);
        size_t len = weir_buf_len(&lines->buf);
        const char *nl =
            len > lines->n_scanned ? memchr(text + lines->n_scanned, '\n', len - lines->n_scanned) : NULL;
        if (!nl) {
            lines->n_scanned = len;
            return false;
        }
        size_t n = (size_t)(nl - text);
        weir_buf_consume(&lines->buf, n + 1); /* the bytes stay where they are until the next feed */
        lines->n_scanned = 0;
        if (n && text[n - 1] == '\r')
            n--;
        if (n == 0)
            continue;
        *ret = (struct weir_str){ text, n };
        return true;
    }
}
