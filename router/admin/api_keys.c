/* api_keys.c - API keys: made here, shown once, kept only as their SHA-256.
 *
 * A key is "weir_" and 256 random bits in hex: nothing to guess, so a fast hash without salt is enough, and routers can
 * look it up by digest. A key of one's own (moved from another service) must be long for the same reason. */
#include <ctype.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "router/admin/api_int.h"

#define KEY_RANDOM_BYTES 32
#define OWN_KEY_MIN 20
#define OWN_KEY_MAX 256
#define DIGEST_HEX 64
#define SHOWN_PREFIX 8 /* characters of a key, to recognise it by */

static void write_key(struct weir_jw *w, struct weir_str digest, const struct weir_key_record *rec,
                      struct weir_str secret)
{
    char text[WEIR_TIME_TEXT];

    weir_jw_object(w);
    weir_jw_key(w, "keyId");
    weir_jw_str(w,
                (struct weir_str){ digest.ptr, digest.len < WEIR_KEY_ID_LEN ? digest.len : WEIR_KEY_ID_LEN });
    weir_jw_key(w, "account");
    weir_jw_str(w, rec->account);
    weir_jw_key(w, "displayName");
    weir_jw_str(w, rec->name);
    if (secret.len) {
        weir_jw_key(w, "key");
        weir_jw_str(w, secret);
    }
    if (rec->prefix.len) {
        weir_jw_key(w, "prefix");
        weir_jw_str(w, rec->prefix);
    }
    if (rec->created_s) {
        weir_time_format(rec->created_s, text);
        weir_jw_key(w, "createTime");
        weir_jw_cstr(w, text);
    }
    if (rec->expires_s) {
        weir_time_format(rec->expires_s, text);
        weir_jw_key(w, "expireTime");
        weir_jw_cstr(w, text);
    }
    weir_jw_key(w, "sha256");
    weir_jw_str(w, digest);
    weir_jw_object_end(w);
}

/* ---- create ---- */
static weir_err choose_secret(struct api_job *job, struct weir_str own, struct weir_str *ret)
{
    uint8_t bits[KEY_RANDOM_BYTES];
    char hex[2 * KEY_RANDOM_BYTES + 1];

    if (own.len == 0) {
        weir_random(bits, sizeof bits);
        weir_hex(bits, sizeof bits, hex);
        *ret = weir_str(weir_arena_printf(&job->arena, "weir_%s", hex));
        return ret->len ? WEIR_OK : weir_fail(&job->why, WEIR_NOMEM, "no memory");
    }
    bool ok = own.len >= OWN_KEY_MIN && own.len <= OWN_KEY_MAX;
    for (size_t i = 0; i < own.len && ok; i++)
        ok = isgraph((unsigned char)own.ptr[i]);
    *ret = own;
    return ok ? WEIR_OK
              : weir_fail_param(&job->why, "key", WEIR_INVALID,
                                "key: %d to %d visible ASCII characters without spaces", OWN_KEY_MIN,
                                OWN_KEY_MAX);
}

static weir_err read_body(struct api_job *job, struct weir_key_record *rec, struct weir_str *ret_secret)
{
    weir_err err = WEIR_OK;

    weir_key_record_init(rec);
    if (job->body.len > 0)
        err = weir_key_record_read(job->body, &job->arena, /* is_patch= */ true, rec, &job->why);
    rec->created_s = weir_wall_ns() / WEIR_S;
    if (err == WEIR_OK && rec->name.len == 0)
        rec->name = WEIR_STR("default");
    if (err == WEIR_OK && rec->expires_s && rec->expires_s <= rec->created_s)
        err = weir_fail_param(&job->why, "expireTime", WEIR_INVALID, "expireTime: it is past");
    if (err == WEIR_OK)
        err = choose_secret(job, rec->secret, ret_secret);
    return err;
}

/* One try: the account must be there as we saw it, the key must not. WEIR_CONFLICT: once more, unless job->grpc says that
 * the key exists. */
static weir_err create_once(struct api_job *job, struct weir_str account, const char *digest,
                            struct weir_str value)
{
    const char *account_path = api_key_path(job, "accounts/", account);
    const char *path = api_key_path(job, "keys/", weir_str(digest));
    struct weir_disc_cond conds[2];
    struct weir_str record;
    int64_t revision;

    if (!account_path || !path)
        return weir_fail(&job->why, WEIR_NOMEM, "no memory");
    weir_err err = api_get(job, account_path, &record, &revision);
    if (err == WEIR_NOTFOUND)
        return weir_fail(&job->why, WEIR_NOTFOUND, "there is no account %.*s", WEIR_STR_FMT(account));
    if (err != WEIR_OK)
        return err;
    conds[0] = (struct weir_disc_cond){ weir_str(account_path), revision };
    conds[1] = (struct weir_disc_cond){ weir_str(path), 0 };
    err = api_change(job, path, value, conds, 2);
    if (err != WEIR_CONFLICT || api_get(job, path, &record, &revision) != WEIR_OK)
        return err;
    job->grpc = API_GRPC_ALREADY_EXISTS;
    return weir_fail(&job->why, WEIR_CONFLICT, "this key exists already, as %.*s", WEIR_KEY_ID_LEN, digest);
}

static weir_err create(struct api_job *job, struct weir_str account)
{
    struct weir_key_record rec;
    struct weir_str secret;
    struct weir_buf value;
    struct weir_jw w;
    uint8_t digest[32];
    char hex[DIGEST_HEX + 1];
    weir_err err = read_body(job, &rec, &secret);

    if (err != WEIR_OK)
        return err;
    weir_sha256(secret.ptr, secret.len, digest);
    weir_hex(digest, sizeof digest, hex);
    rec.account = account;
    rec.prefix = (struct weir_str){ secret.ptr, SHOWN_PREFIX };
    weir_buf_init(&value, 0);
    weir_key_record_write(&value, &rec);
    err = value.failed ? weir_fail(&job->why, WEIR_NOMEM, "no memory for the key") : WEIR_CONFLICT;
    for (int i = 0; i < API_TRIES_MAX && err == WEIR_CONFLICT && !job->grpc; i++)
        err = create_once(job, account, hex, (struct weir_str){ weir_buf_ptr(&value), weir_buf_len(&value) });
    weir_buf_release(&value);
    if (err != WEIR_OK)
        return err;
    weir_jw_init(&w, &job->out);
    write_key(&w, weir_str(hex), &rec, secret);
    return WEIR_OK;
}

/* ---- list and delete ---- */
static weir_err list(struct api_job *job, struct weir_str account)
{
    struct api_list l;
    struct weir_arena scratch;
    struct weir_jw w;
    struct weir_str digest, value;
    bool all = weir_str_eq(account, "-");
    weir_err err = api_list_begin(job, "keys/", &l);

    if (err != WEIR_OK)
        return err;
    weir_arena_init(&scratch, 0);
    weir_jw_init(&w, &job->out);
    weir_jw_object(&w);
    weir_jw_key(&w, "apiKeys");
    weir_jw_array(&w);
    while (api_list_next(&l, &digest, &value)) {
        struct weir_key_record rec;
        weir_key_record_init(&rec);
        weir_arena_clear(&scratch);
        if (weir_key_record_read(value, &scratch, /* is_patch= */ false, &rec, NULL) != WEIR_OK)
            rec.account = rec.name = WEIR_STR("?"); /* shown all the same, so that it can be deleted */
        if (!all && weir_str_cmp(rec.account, account) != 0)
            continue;
        api_list_took(&l, digest);
        write_key(&w, digest, &rec, (struct weir_str){ NULL, 0 });
    }
    weir_jw_array_end(&w);
    api_list_end(&l, &w);
    weir_jw_object_end(&w);
    weir_arena_release(&scratch);
    return WEIR_OK;
}

/* The path of the one key whose digest begins with id, and the digest in it. */
static weir_err find(struct api_job *job, struct weir_str id, char **ret_path, struct weir_str *ret_digest)
{
    const struct weir_disc_entry *entries = NULL;
    const struct weir_disc_snapshot *snap = weir_discovery_snapshot(api_opts(job)->discovery);
    const char *prefix = api_key_path(job, "keys/", id);
    weir_err err;

    if (!snap || !prefix)
        err = weir_fail(&job->why, WEIR_UNAVAILABLE, "the router has not read its keys yet");
    else if (id.len < WEIR_KEY_ID_LEN || weir_disc_prefix(snap, prefix, &entries) != 1)
        err = weir_fail(&job->why, WEIR_NOTFOUND, "there is no API key %.*s",
                        (int)(id.len < 64 ? id.len : 64), id.ptr);
    else
        err = (*ret_path = weir_arena_strndup(&job->arena, entries[0].key.ptr, entries[0].key.len))
                  ? WEIR_OK
                  : weir_fail(&job->why, WEIR_NOMEM, "no memory");
    if (err == WEIR_OK)
        *ret_digest = weir_str(*ret_path + strlen(prefix) - id.len);
    weir_disc_snapshot_unref(snap);
    return err;
}

static weir_err revoke(struct api_job *job, struct weir_str account, struct weir_str id)
{
    struct weir_key_record rec;
    struct weir_str value, digest;
    struct weir_jw w;
    int64_t revision;
    char *path;
    weir_err err = find(job, id, &path, &digest);

    if (err == WEIR_OK)
        err = api_get(job, path, &value, &revision);
    if (err != WEIR_OK)
        return err;
    weir_key_record_init(&rec);
    bool is_read = weir_key_record_read(value, &job->arena, /* is_patch= */ false, &rec, NULL) == WEIR_OK;
    bool is_theirs = weir_str_cmp(rec.account, account) == 0;
    if (!weir_str_eq(account, "-") && (!is_read || !is_theirs))
        return weir_fail(&job->why, WEIR_NOTFOUND, "the account %.*s has no API key %.*s",
                         WEIR_STR_FMT(account), WEIR_STR_FMT(id));
    struct weir_disc_cond cond = { weir_str(path), revision };
    err = api_change(job, path, (struct weir_str){ NULL, 0 }, &cond, 1);
    if (err != WEIR_OK)
        return err;
    weir_jw_init(&w, &job->out);
    write_key(&w, digest, &rec, (struct weir_str){ NULL, 0 });
    return WEIR_OK;
}

/* {"keyId": "..."} */
static weir_err delete_by_body(struct api_job *job, struct weir_str account)
{
    struct weir_json j;
    struct weir_str key, id = { "", 0 };

    weir_json_init(&j, job->body.ptr, job->body.len, &job->arena);
    if (weir_json_object(&j))
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, "keyId"))
                weir_json_string(&j, &id);
            else
                weir_json_fail(&j, WEIR_INVALID, "there is only keyId");
        }
    weir_err err = weir_json_end(&j, &job->why);
    return err == WEIR_OK ? revoke(job, account, id) : err;
}

weir_err api_keys(struct api_job *job, struct weir_str account)
{
    if (job->n_parts == 4 && !job->verb.len)
        return api_is(job, "DELETE") ? revoke(job, account, job->parts[3]) : api_method_error(job, "DELETE");
    if (job->n_parts != 3)
        return weir_fail(&job->why, WEIR_NOTFOUND, "no such path");
    if (weir_str_eq(job->verb, "delete"))
        return api_is(job, "POST") ? delete_by_body(job, account) : api_method_error(job, "POST");
    if (job->verb.len)
        return weir_fail(&job->why, WEIR_NOTFOUND, "API keys have :delete");
    return api_is(job, "GET")    ? list(job, account)
           : api_is(job, "POST") ? create(job, account)
                                 : api_method_error(job, "GET and POST");
}
