/* api_key.c - keys: made here, shown once, kept in etcd only as their SHA-256.
 *
 * A key is "weir_" and 256 random bits in hex: nothing to guess, so a fast hash without salt is enough, and
 * routers can look it up by digest. A key of one's own (moved from another service) must be long for the same
 * reason. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "ctl/ctl.h"

#define KEY_RANDOM_BYTES 32
#define OWN_KEY_MIN 20
#define OWN_KEY_MAX 256
#define NAME_MAX_LEN 128
#define DIGEST_HEX 64
#define DIGEST_PREFIX_MIN 6

static const char *account_opt, *name_opt, *key_opt, *digest_opt;

static const struct ctl_option create_options[] = {
    { "account", "NAME", "whose limits and bill (needed)", &account_opt },
    { "key-name", "NAME", "what to call the key (needed)", &name_opt },
    { "key", "KEY", "take this key instead of a new one; - reads it from standard input", &key_opt },
    { NULL, NULL, NULL, NULL },
};
static const struct ctl_option list_options[] = {
    { "account", "NAME", "only this account's", &account_opt },
    { NULL, NULL, NULL, NULL },
};
static const struct ctl_option delete_options[] = {
    { "sha256-prefix", "HEX", "the key whose digest begins so (api-key list)", &digest_opt },
    { "name", "NAME", "the key of this name", &name_opt },
    { "account", "NAME", "and of this account", &account_opt },
    { NULL, NULL, NULL, NULL },
};

struct key_entry {
    struct weir_str digest, account, name;
    uint64_t created_s; /* 0: not known */
    const struct weir_disc_entry *entry;
};

/* ---- create ---- */

static bool is_name(const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] == 0x7f)
            return false;
    return len >= 1 && len <= NAME_MAX_LEN && weir_utf8_valid(text, len);
}

static bool is_key(const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++)
        if (!isgraph((unsigned char)text[i]))
            return false;
    return len >= OWN_KEY_MIN && len <= OWN_KEY_MAX;
}

static const char *new_key(struct ctl *ctl)
{
    uint8_t bits[KEY_RANDOM_BYTES];
    char hex[2 * KEY_RANDOM_BYTES + 1];
    weir_random(bits, sizeof bits);
    weir_hex(bits, sizeof bits, hex);
    return ctl_format(ctl, "weir_%s", hex);
}

static const char *key_from_stdin(struct ctl *ctl)
{
    char line[OWN_KEY_MAX + 2];
    if (!fgets(line, sizeof line, stdin))
        return "";
    line[strcspn(line, "\r\n")] = '\0';
    return ctl_text(ctl, weir_str(line));
}

static void write_value(struct weir_buf *out, const char *account, const char *name)
{
    struct weir_jw w;
    weir_jw_init(&w, out);
    weir_jw_object(&w);
    weir_jw_key(&w, "account");
    weir_jw_cstr(&w, account);
    weir_jw_key(&w, "name");
    weir_jw_cstr(&w, name);
    weir_jw_key(&w, "created");
    weir_jw_u64(&w, weir_wall_ns() / WEIR_S);
    weir_jw_object_end(&w);
}

static enum ctl_exit store(struct ctl *ctl, const char *digest)
{
    struct weir_discovery_opts opts = ctl_discovery(ctl);
    struct weir_why why = { 0 };
    struct weir_buf value;
    struct weir_str path = weir_str(ctl_format(ctl, "%skeys/%s", ctl->prefix, digest));
    weir_buf_init(&value, /* limit_bytes= */ 0);
    write_value(&value, account_opt, name_opt);
    struct weir_disc_cond absent = { path, 0 };
    struct weir_disc_op put = { WEIR_DISC_PUT, path, { weir_buf_ptr(&value), weir_buf_len(&value) } };
    weir_err rc = value.failed ? weir_fail(&why, WEIR_NOMEM, "no memory")
                               : weir_discovery_txn(&opts, &absent, 1, &put, 1, &why);
    weir_buf_release(&value);
    if (rc == WEIR_CONFLICT)
        return ctl_fail(rc, "this key exists already (api-key list shows it as %.12s)", digest);
    return rc == WEIR_OK ? CTL_OK : ctl_fail(rc, "%s", why.text);
}

static enum ctl_exit show_created(struct ctl *ctl, const char *key, const char *digest)
{
    struct weir_buf out;
    struct weir_jw w;
    weir_buf_init(&out, /* limit_bytes= */ 0);
    if (ctl->json) {
        weir_jw_init(&w, &out);
        weir_jw_object(&w);
        weir_jw_key(&w, "key");
        weir_jw_cstr(&w, key);
        weir_jw_key(&w, "account");
        weir_jw_cstr(&w, account_opt);
        weir_jw_key(&w, "name");
        weir_jw_cstr(&w, name_opt);
        weir_jw_key(&w, "sha256");
        weir_jw_cstr(&w, digest);
        weir_jw_object_end(&w);
        weir_buf_addc(&out, '\n');
    } else {
        weir_buf_addf(&out, "%s\n", key);
        fprintf(stderr, "key %s of account %s; keep it now, it is not shown again\n", name_opt, account_opt);
    }
    enum ctl_exit code = ctl_print(&out);
    weir_buf_release(&out);
    return code;
}

static enum ctl_exit run_create(struct ctl *ctl, int n_operands, char **operands)
{
    uint8_t digest[32];
    char hex[DIGEST_HEX + 1];
    (void)n_operands;
    (void)operands;
    if (!account_opt || !name_opt)
        return ctl_usage("api-key create needs --account and --key-name");
    if (!is_name(account_opt) || !is_name(name_opt))
        return ctl_usage("%s: 1 to %d characters without spaces",
                         is_name(account_opt) ? "--key-name" : "--account", NAME_MAX_LEN);
    const char *key = !key_opt ? new_key(ctl) : strcmp(key_opt, "-") == 0 ? key_from_stdin(ctl) : key_opt;
    if (!is_key(key))
        return ctl_usage("--key: %d to %d visible ASCII characters without spaces", OWN_KEY_MIN, OWN_KEY_MAX);
    weir_sha256(key, strlen(key), digest);
    weir_hex(digest, sizeof digest, hex);
    enum ctl_exit code = store(ctl, hex);
    return code == CTL_OK ? show_created(ctl, key, hex) : code;
}

/* ---- list and delete ---- */

static void parse_value(struct ctl *ctl, struct weir_str json, struct key_entry *ret)
{
    struct weir_json j;
    struct weir_str key;
    weir_json_init(&j, json.ptr, json.len, &ctl->arena);
    if (weir_json_object(&j))
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, "account"))
                weir_json_string(&j, &ret->account);
            else if (weir_str_eq(key, "name"))
                weir_json_string(&j, &ret->name);
            else if (weir_str_eq(key, "created"))
                weir_json_u64(&j, &ret->created_s);
            else
                weir_json_skip(&j);
        }
    if (weir_json_end(&j, NULL) != WEIR_OK) /* shown all the same, so that it can be deleted */
        ret->account = ret->name = WEIR_STR("?");
}

static bool starts_with(struct weir_str s, const char *prefix)
{
    size_t n = strlen(prefix);
    return s.len >= n && memcmp(s.ptr, prefix, n) == 0;
}

static bool is_wanted(const struct key_entry *key)
{
    return (!account_opt || weir_str_eq(key->account, account_opt)) &&
           (!name_opt || weir_str_eq(key->name, name_opt)) &&
           (!digest_opt || starts_with(key->digest, digest_opt));
}

/* The keys that the options select, in order of their digests. Unref *ret_snap when done with them. */
static enum ctl_exit read_keys(struct ctl *ctl, const struct weir_disc_snapshot **ret_snap,
                               struct key_entry **ret, int *ret_n)
{
    struct weir_discovery_opts opts = ctl_discovery(ctl);
    struct weir_why why = { 0 };
    const struct weir_disc_snapshot *snap;
    size_t n_prefix = strlen(ctl_path(ctl, "keys/"));
    int n = 0;
    weir_err rc = weir_discovery_read(&opts, ctl_path(ctl, "keys/"), &snap, &why);
    if (rc != WEIR_OK)
        return ctl_fail(rc, "%s", why.text);
    struct key_entry *keys = weir_arena_alloc0(&ctl->arena, ((size_t)snap->n_entries + 1) * sizeof *keys);
    WEIR_BUG_ON(!keys);
    for (int i = 0; i < snap->n_entries; i++) {
        const struct weir_disc_entry *entry = &snap->entries[i];
        keys[n] = (struct key_entry){ .digest = { entry->key.ptr + n_prefix, entry->key.len - n_prefix },
                                      .entry = entry };
        parse_value(ctl, entry->value, &keys[n]);
        n += is_wanted(&keys[n]);
    }
    *ret_snap = snap;
    *ret = keys;
    *ret_n = n;
    return CTL_OK;
}

static void write_json(const struct key_entry *keys, int n, struct weir_buf *out)
{
    struct weir_jw w;
    weir_jw_init(&w, out);
    weir_jw_array(&w);
    for (int i = 0; i < n; i++) {
        weir_jw_object(&w);
        weir_jw_key(&w, "sha256");
        weir_jw_str(&w, keys[i].digest);
        weir_jw_key(&w, "account");
        weir_jw_str(&w, keys[i].account);
        weir_jw_key(&w, "name");
        weir_jw_str(&w, keys[i].name);
        weir_jw_key(&w, "created");
        if (keys[i].created_s)
            weir_jw_u64(&w, keys[i].created_s);
        else
            weir_jw_null(&w);
        weir_jw_object_end(&w);
    }
    weir_jw_array_end(&w);
    weir_buf_addc(out, '\n');
}

static void write_table(struct ctl *ctl, const struct key_entry *keys, int n, struct weir_buf *out)
{
    static const char *const headers[] = { "SHA256", "ACCOUNT", "NAME", "CREATED", NULL };
    struct ctl_table table;
    ctl_table_init(&table, &ctl->arena, headers);
    for (int i = 0; i < n; i++) {
        char digest[16], created[32] = "-";
        time_t when = (time_t)keys[i].created_s;
        struct tm tm;
        snprintf(digest, sizeof digest, "%.*s", (int)(keys[i].digest.len < 12 ? keys[i].digest.len : 12),
                 keys[i].digest.ptr);
        if (when && gmtime_r(&when, &tm))
            strftime(created, sizeof created, "%Y-%m-%d %H:%M UTC", &tm);
        ctl_table_row(&table, (const char *[]){ digest, ctl_text(ctl, keys[i].account),
                                                ctl_text(ctl, keys[i].name), created });
    }
    ctl_table_write(&table, out);
}

static enum ctl_exit run_list(struct ctl *ctl, int n_operands, char **operands)
{
    const struct weir_disc_snapshot *snap;
    struct key_entry *keys;
    struct weir_buf out;
    int n;
    (void)n_operands;
    (void)operands;
    enum ctl_exit code = read_keys(ctl, &snap, &keys, &n);
    if (code != CTL_OK)
        return code;
    weir_buf_init(&out, /* limit_bytes= */ 0);
    if (ctl->json)
        write_json(keys, n, &out);
    else
        write_table(ctl, keys, n, &out);
    code = ctl_print(&out);
    weir_buf_release(&out);
    weir_disc_snapshot_unref(snap);
    return code;
}

static enum ctl_exit delete_one(struct ctl *ctl, const struct key_entry *key)
{
    struct weir_discovery_opts opts = ctl_discovery(ctl);
    struct weir_why why = { 0 };
    struct weir_buf out;
    /* Only as we saw it: a key that changed meanwhile may be another's. */
    struct weir_disc_cond same = { key->entry->key, key->entry->revision };
    struct weir_disc_op del = { WEIR_DISC_DELETE, key->entry->key, { NULL, 0 } };
    weir_err rc = weir_discovery_txn(&opts, &same, 1, &del, 1, &why);
    if (rc != WEIR_OK)
        return ctl_fail(rc, "%s", why.text);
    weir_buf_init(&out, /* limit_bytes= */ 0);
    if (ctl->json)
        write_json(key, 1, &out);
    else
        weir_buf_addf(&out, "deleted %.*s of account %.*s; routers refuse it within a moment\n",
                      WEIR_STR_FMT(key->name), WEIR_STR_FMT(key->account));
    enum ctl_exit code = ctl_print(&out);
    weir_buf_release(&out);
    return code;
}

static bool is_digest_prefix(const char *text)
{
    size_t len = strlen(text);
    return len >= DIGEST_PREFIX_MIN && len <= DIGEST_HEX && strspn(text, "0123456789abcdef") == len;
}

static enum ctl_exit run_delete(struct ctl *ctl, int n_operands, char **operands)
{
    const struct weir_disc_snapshot *snap;
    struct key_entry *keys;
    int n;
    (void)n_operands;
    (void)operands;
    if (!digest_opt && !name_opt)
        return ctl_usage("api-key delete needs --sha256-prefix or --name");
    if (digest_opt && !is_digest_prefix(digest_opt))
        return ctl_usage("--sha256-prefix: %d to %d hex digits, lower case", DIGEST_PREFIX_MIN, DIGEST_HEX);
    enum ctl_exit code = read_keys(ctl, &snap, &keys, &n);
    if (code != CTL_OK)
        return code;
    if (n == 0)
        code = ctl_fail(WEIR_NOTFOUND, "no such key");
    else if (n > 1)
        code =
            ctl_fail(WEIR_CONFLICT, "%d keys match; api-key list shows their digests for --sha256-prefix", n);
    else
        code = delete_one(ctl, &keys[0]);
    weir_disc_snapshot_unref(snap);
    return code;
}

const struct ctl_command ctl_key_create = { "api-key create", "", "make an API key and show it once",
                                            create_options,   0,  run_create };
const struct ctl_command ctl_key_list = { "api-key list", "", "API keys by their digests",
                                          list_options,   0,  run_list };
const struct ctl_command ctl_key_delete = { "api-key delete", "", "take an API key back",
                                            delete_options,   0,  run_delete };
