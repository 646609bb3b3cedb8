/* conf.c - configuration from a table.
 *
 * Four passes over the same rows: defaults, file, environment, flags; each later one overwrites. A value goes
 * through one setter whoever set it, so that bounds and errors are the same for all.
 *   [C1] A value that was set has passed its row's form and bounds, the default included.
 *   [C2] After a failure `values` holds nothing (its strings are gone).
 *   [C3] A secret is never printed.
 * Start-up thread only. */
#include "base/conf.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/number_int.h"

enum { FILE_BYTES_MAX = 1 << 20, NAME_MAX_BYTES = 128 };

enum origin { FROM_DEFAULT, FROM_FILE, FROM_ENV, FROM_FLAG };

struct weir_conf {
    struct weir_conf_spec spec;
    void *values;
    enum origin *from;         /* one per row */
    const char *path;          /* of the file; NULL when none */
    struct weir_arena strings; /* the values' and the file's */
};

void weir_conf_close(struct weir_conf *conf)
{
    if (!conf)
        return;
    weir_arena_release(&conf->strings);
    weir_free(conf->from);
    weir_free(conf);
}

/* ---- Names ---- */

/* The row's variable: <PREFIX>_<NAME> in capitals. */
static void env_name(const struct weir_conf_spec *spec, const char *name, char ret[NAME_MAX_BYTES])
{
    snprintf(ret, NAME_MAX_BYTES, "%s_%s", spec->env_prefix, name);
    for (char *p = ret; *p; p++)
        *p = (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p == '-' ? '_' : *p);
}

/* Is `name` (of len bytes) this row's name? '-' and '_' are the same when it comes from a flag. */
static bool same_name(const char *row_name, const char *name, size_t len, bool is_flag)
{
    if (strlen(row_name) != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (name[i] != row_name[i] && !(is_flag && name[i] == '-' && row_name[i] == '_'))
            return false;
    return true;
}

static const struct weir_conf_row *find_row(const struct weir_conf_spec *spec, const char *name, size_t len,
                                            bool is_flag)
{
    for (size_t i = 0; i < spec->n_rows; i++)
        if (same_name(spec->rows[i].name, name, len, is_flag))
            return &spec->rows[i];
    return NULL;
}

/* Edits (insert, delete, replace) from a to b; both are short. */
static size_t edit_distance(const char *a, size_t n_a, const char *b)
{
    size_t row[NAME_MAX_BYTES + 1], n_b = strlen(b);

    if (n_b > NAME_MAX_BYTES)
        return SIZE_MAX;
    for (size_t k = 0; k <= n_b; k++)
        row[k] = k;
    for (size_t i = 1; i <= n_a; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t k = 1; k <= n_b; k++) {
            size_t best = diagonal + (a[i - 1] != b[k - 1] && !(a[i - 1] == '-' && b[k - 1] == '_'));
            diagonal = row[k];
            if (row[k] + 1 < best)
                best = row[k] + 1;
            if (row[k - 1] + 1 < best)
                best = row[k - 1] + 1;
            row[k] = best;
        }
    }
    return row[n_b];
}

/* "unknown key 'x'; did you mean 'y'?" */
static weir_err fail_unknown(const struct weir_conf_spec *spec, const char *kind, const char *name,
                             size_t len, struct weir_why *why)
{
    static const char *const own[] = { "config", "help", "version", "check_config" };
    const char *nearest = NULL;
    size_t best = SIZE_MAX;

    len = len < NAME_MAX_BYTES ? len : NAME_MAX_BYTES;
    for (size_t i = 0; i < spec->n_rows + 4; i++) {
        const char *candidate = i < spec->n_rows ? spec->rows[i].name : own[i - spec->n_rows];
        size_t distance = edit_distance(name, len, candidate);
        if (distance < best) {
            best = distance;
            nearest = candidate;
        }
    }
    return weir_fail_param(why, nearest, WEIR_INVALID, "unknown %s '%.*s'; the nearest known is '%s'", kind,
                           (int)len, name, nearest);
}

static bool is_secret(const char *name)
{
    static const char *const ends[] = { "_secret", "_token", "_password" };
    size_t len = strlen(name);

    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        size_t n = strlen(ends[i]);
        if (len >= n && strcmp(name + len - n, ends[i]) == 0)
            return true;
    }
    return false;
}

/* ---- One value ---- */

/* Where a value comes from, in words: "default", "file a.json", "WEIR_X", "flag". */
static const char *origin_words(const struct weir_conf *conf, const struct weir_conf_row *row,
                                enum origin from, char ret[256])
{
    char env[NAME_MAX_BYTES];

    switch (from) {
    case FROM_FILE:
        snprintf(ret, 256, "file %s", conf->path);
        break;
    case FROM_ENV:
        env_name(&conf->spec, row->name, env);
        snprintf(ret, 256, "environment variable %s", env);
        break;
    case FROM_FLAG:
        snprintf(ret, 256, "flag --%s", row->name);
        break;
    default:
        snprintf(ret, 256, "default");
    }
    return ret;
}

static weir_err fail_value(const struct weir_conf *conf, const struct weir_conf_row *row, enum origin from,
                           struct weir_why *why, const char *text, const char *what)
{
    char words[256];

    return weir_fail_param(why, row->name, WEIR_INVALID, "%s (%s): '%.60s' %s", row->name,
                           origin_words(conf, row, from, words), is_secret(row->name) ? "***" : text, what);
}

static bool parse_u64(const char *text, uint64_t *ret)
{
    uint64_t n = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        if (__builtin_mul_overflow(n, (uint64_t)10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
            return false;
    }
    *ret = n;
    return true;
}

static bool parse_f64(const char *text, double *ret)
{
    char *end;

    if (!((*text >= '0' && *text <= '9') || *text == '-' || *text == '.'))
        return false;
    double x = number_read(text, &end);
    if (*end || !isfinite(x) || strpbrk(text, "xX"))
        return false;
    *ret = x;
    return true;
}

static bool parse_bool(const char *text, bool *ret)
{
    static const char *const words[] = { "false", "true", "0", "1", "no", "yes", "off", "on" };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(text, words[i]) == 0) {
            *ret = i & 1;
            return true;
        }
    }
    return false;
}

static bool has_bounds(const struct weir_conf_row *row)
{
    return row->min != 0 || row->max != 0;
}

/* Exact for whole numbers of any size: a double bound is compared as an integer. */
static bool u64_in_bounds(const struct weir_conf_row *row, uint64_t n)
{
    if (!has_bounds(row))
        return true;
    bool low = row->min > 0 && (double)n < row->min;
    bool high = row->max < 18446744073709551615.0 && n > (uint64_t)row->max;
    return !low && !high;
}

/* "must be between 1 and 16 peers" */
static weir_err fail_bounds(const struct weir_conf *conf, const struct weir_conf_row *row, enum origin from,
                            struct weir_why *why, const char *text)
{
    char what[160], min[NUMBER_TEXT_MAX], max[NUMBER_TEXT_MAX];
    const char *unit =
        row->unit && row->kind != WEIR_CONF_STR ? row->unit : ""; /* a text's bounds are of its length */

    number_write(row->min, min);
    number_write(row->max, max);
    snprintf(what, sizeof what, "must %s between %s and %s%s%.40s",
             row->kind == WEIR_CONF_STR ? "have a length" : "be", min, max, unit[0] ? " " : "", unit);
    return fail_value(conf, row, from, why, text, what);
}

static weir_err set_str(struct weir_conf *conf, const struct weir_conf_row *row, const char *text,
                        enum origin from, void *field, struct weir_why *why)
{
    size_t len = strlen(text);

    if (has_bounds(row) && ((double)len < row->min || (double)len > row->max))
        return fail_bounds(conf, row, from, why, text);
    char *copy = weir_arena_strndup(&conf->strings, text, len);
    if (!copy)
        return weir_fail_param(why, row->name, WEIR_NOMEM, "%s: no memory", row->name);
    memcpy(field, &copy, sizeof copy);
    return WEIR_OK;
}

static weir_err set_unsigned(struct weir_conf *conf, const struct weir_conf_row *row, const char *text,
                             enum origin from, void *field, struct weir_why *why)
{
    uint64_t n;

    if (!parse_u64(text, &n))
        return fail_value(conf, row, from, why, text, "is not a whole number");
    if (!u64_in_bounds(row, n))
        return fail_bounds(conf, row, from, why, text);
    if (row->kind == WEIR_CONF_U64) {
        memcpy(field, &n, sizeof n);
        return WEIR_OK;
    }
    if (n > UINT32_MAX)
        return fail_value(conf, row, from, why, text, "is larger than 4294967295");
    uint32_t n32 = (uint32_t)n;
    memcpy(field, &n32, sizeof n32);
    return WEIR_OK;
}

/* [C1] The one setter. */
static weir_err set_value(struct weir_conf *conf, const struct weir_conf_row *row, const char *text,
                          enum origin from, struct weir_why *why)
{
    void *field = (char *)conf->values + row->offset;
    weir_err rc = WEIR_OK;
    double x;
    bool flag;

    switch (row->kind) {
    case WEIR_CONF_STR:
        rc = set_str(conf, row, text, from, field, why);
        break;
    case WEIR_CONF_U32:
    case WEIR_CONF_U64:
        rc = set_unsigned(conf, row, text, from, field, why);
        break;
    case WEIR_CONF_F64:
        if (!parse_f64(text, &x))
            return fail_value(conf, row, from, why, text, "is not a number");
        if (has_bounds(row) && (x < row->min || x > row->max))
            return fail_bounds(conf, row, from, why, text);
        memcpy(field, &x, sizeof x);
        break;
    case WEIR_CONF_BOOL:
        if (!parse_bool(text, &flag))
            return fail_value(conf, row, from, why, text, "is not true or false");
        memcpy(field, &flag, sizeof flag);
        break;
    }
    if (rc == WEIR_OK)
        conf->from[row - conf->spec.rows] = from;
    return rc;
}

/* ---- The four passes ---- */

static weir_err set_defaults(struct weir_conf *conf, struct weir_why *why)
{
    for (size_t i = 0; i < conf->spec.n_rows; i++) {
        const struct weir_conf_row *row = &conf->spec.rows[i];
        weir_err rc = set_value(conf, row, row->init ? row->init : "", FROM_DEFAULT, why);
        if (rc != WEIR_OK)
            return rc;
    }
    return WEIR_OK;
}

static weir_err read_file(struct weir_conf *conf, struct weir_str *ret, struct weir_why *why)
{
    FILE *file = fopen(conf->path, "re");
    if (!file)
        return weir_fail_param(why, "config", WEIR_IO, "config file %s: %s", conf->path, strerror(errno));

    char *text = weir_arena_alloc(&conf->strings, FILE_BYTES_MAX + 1);
    size_t len = text ? fread(text, 1, FILE_BYTES_MAX + 1, file) : 0;
    int failed = ferror(file) ? errno : 0;
    fclose(file);
    if (!text)
        return weir_fail_param(why, "config", WEIR_NOMEM, "config file %s: no memory", conf->path);
    if (failed)
        return weir_fail_param(why, "config", WEIR_IO, "config file %s: %s", conf->path, strerror(failed));
    if (len > FILE_BYTES_MAX)
        return weir_fail_param(why, "config", WEIR_INVALID, "config file %s: larger than %d bytes",
                               conf->path, FILE_BYTES_MAX);
    *ret = (struct weir_str){ text, len };
    return WEIR_OK;
}

/* The member's value as the text that a flag would give; false with the reader's error set when it has the
 * wrong type for the row. */
static bool member_text(struct weir_json *j, const struct weir_conf_row *row, struct weir_str *ret)
{
    bool flag;

    switch (row->kind) {
    case WEIR_CONF_STR:
        return weir_json_string(j, ret);
    case WEIR_CONF_BOOL:
        if (!weir_json_bool(j, &flag))
            return false;
        *ret = weir_str(flag ? "true" : "false");
        return true;
    default:
        if (weir_json_peek(j) != WEIR_JSON_NUMBER)
            return weir_json_fail(j, WEIR_INVALID, "%s: expected a number", row->name);
        return weir_json_raw(j, ret);
    }
}

static weir_err set_member(struct weir_conf *conf, struct weir_json *j, struct weir_str key,
                           struct weir_why *why)
{
    const struct weir_conf_row *row = find_row(&conf->spec, key.ptr, key.len, /* is_flag= */ false);
    struct weir_str text = { NULL, 0 };
    uint64_t n;

    if (!row)
        return fail_unknown(&conf->spec, "key in the config file:", key.ptr, key.len, why);
    if (conf->from[row - conf->spec.rows] == FROM_FILE)
        return weir_fail_param(why, row->name, WEIR_INVALID, "config file %s: %s comes twice", conf->path,
                               row->name);
    if (!member_text(j, row, &text))
        return WEIR_OK; /* the reader keeps the error */
    if (memchr(text.ptr, '\0', text.len))
        return weir_fail_param(why, row->name, WEIR_INVALID, "config file %s: %s holds a NUL", conf->path,
                               row->name);
    char *copy = weir_arena_strndup(&conf->strings, text.ptr, text.len);
    if (!copy)
        return weir_fail_param(why, row->name, WEIR_NOMEM, "%s: no memory", row->name);
    if (row->kind == WEIR_CONF_U32 || row->kind == WEIR_CONF_U64) {
        /* A whole number may be written as 1e3 in JSON. */
        struct weir_json one;
        weir_json_init(&one, text.ptr, text.len, NULL);
        if (weir_json_u64(&one, &n))
            copy = weir_arena_printf(&conf->strings, "%llu", (unsigned long long)n);
        if (!copy)
            return weir_fail_param(why, row->name, WEIR_NOMEM, "%s: no memory", row->name);
    }
    return set_value(conf, row, copy, FROM_FILE, why);
}

static weir_err set_from_file(struct weir_conf *conf, struct weir_why *why)
{
    struct weir_str text = { NULL, 0 }, key;
    struct weir_json j;
    struct weir_why inner;

    if (!conf->path)
        return WEIR_OK;
    weir_err rc = read_file(conf, &text, why);
    if (rc != WEIR_OK)
        return rc;
    weir_json_init(&j, text.ptr, text.len, &conf->strings);
    weir_json_object(&j);
    while (weir_json_ok(&j) && weir_json_key(&j, &key)) {
        rc = set_member(conf, &j, key, why);
        if (rc != WEIR_OK)
            return rc;
    }
    rc = weir_json_end(&j, &inner);
    if (rc != WEIR_OK)
        return weir_fail_param(why, inner.param, rc, "config file %s: %s", conf->path, inner.text);
    return WEIR_OK;
}

static weir_err set_from_env(struct weir_conf *conf, struct weir_why *why)
{
    char name[NAME_MAX_BYTES];

    for (size_t i = 0; i < conf->spec.n_rows; i++) {
        const struct weir_conf_row *row = &conf->spec.rows[i];
        env_name(&conf->spec, row->name, name);
        const char *text = getenv(name);
        weir_err rc = text ? set_value(conf, row, text, FROM_ENV, why) : WEIR_OK;
        if (rc != WEIR_OK)
            return rc;
    }
    return WEIR_OK;
}

/* ---- Flags ---- */

enum own_flag { NOT_OWN, OWN_CONFIG, OWN_HELP, OWN_VERSION, OWN_CHECK };

struct flag {
    const char *name; /* behind the dashes */
    size_t len;
    const char *value; /* NULL when there was no '=' */
    bool negated;      /* --no-x */
    enum own_flag own;
    const struct weir_conf_row *row; /* when it is not one of our own */
};

static weir_err read_flag(const struct weir_conf_spec *spec, const char *arg, struct flag *flag,
                          struct weir_why *why)
{
    static const struct {
        const char *name;
        enum own_flag own;
    } own[] = { { "config", OWN_CONFIG },
                { "help", OWN_HELP },
                { "version", OWN_VERSION },
                { "check_config", OWN_CHECK } };

    if (strcmp(arg, "-h") == 0)
        arg = "--help";
    if (strncmp(arg, "--", 2) != 0 || !arg[2])
        return weir_fail_param(why, arg, WEIR_INVALID, "unexpected argument '%.80s'; options start with --",
                               arg);
    const char *equals = strchr(arg, '=');
    *flag = (struct flag){ .name = arg + 2, .value = equals ? equals + 1 : NULL };
    flag->len = equals ? (size_t)(equals - flag->name) : strlen(flag->name);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (same_name(own[i].name, flag->name, flag->len, /* is_flag= */ true)) {
            flag->own = own[i].own;
            return WEIR_OK;
        }
    }
    flag->row = find_row(spec, flag->name, flag->len, /* is_flag= */ true);
    if (!flag->row && flag->len > 3 &&
        (strncmp(flag->name, "no-", 3) == 0 || strncmp(flag->name, "no_", 3) == 0)) {
        const struct weir_conf_row *row = find_row(spec, flag->name + 3, flag->len - 3, /* is_flag= */ true);
        if (row && row->kind == WEIR_CONF_BOOL && !flag->value) {
            flag->row = row;
            flag->negated = true;
        }
    }
    if (!flag->row)
        return fail_unknown(spec, "option --", flag->name, flag->len, why);
    return WEIR_OK;
}

/* The flag's value: its own, "true" for a bare BOOL, or the next argument. */
static const char *flag_value(const struct flag *flag, int argc, char **argv, int *i)
{
    if (flag->negated)
        return "false";
    if (flag->value)
        return flag->value;
    if (flag->own > OWN_CONFIG || (flag->row && flag->row->kind == WEIR_CONF_BOOL))
        return "true";
    return *i + 1 < argc ? argv[++*i] : NULL;
}

/* Twice over the arguments: first for our own flags (the file is read before any other flag counts), then for
 * the rows. */
static weir_err walk_flags(struct weir_conf *conf, int argc, char **argv, bool only_own, bool asked[],
                           struct weir_why *why)
{
    for (int i = 1; i < argc; i++) {
        struct flag flag = { 0 };
        weir_err rc = read_flag(&conf->spec, argv[i], &flag, why);
        if (rc != WEIR_OK)
            return rc;
        const char *value = flag_value(&flag, argc, argv, &i);
        if (!value)
            return weir_fail_param(why, flag.row ? flag.row->name : "config", WEIR_INVALID,
                                   "option --%.*s needs a value", (int)flag.len, flag.name);
        if (!only_own && flag.row)
            rc = set_value(conf, flag.row, value, FROM_FLAG, why);
        if (rc != WEIR_OK)
            return rc;
        asked[flag.own] = true;
        if (flag.own == OWN_CONFIG && only_own &&
            !(conf->path = weir_arena_strndup(&conf->strings, value, strlen(value))))
            return weir_fail_param(why, "config", WEIR_NOMEM, "option --config: no memory");
        if (only_own && flag.own == OWN_HELP)
            return WEIR_OK; /* whatever comes after it */
    }
    return WEIR_OK;
}

/* ---- What is printed ---- */

static void print_help(const struct weir_conf_spec *spec)
{
    char env[NAME_MAX_BYTES], min[NUMBER_TEXT_MAX], max[NUMBER_TEXT_MAX];

    env_name(spec, "config", env);
    printf("%s - %s\n\nUsage: %s [--name=value ...]\n\n", spec->program, spec->summary, spec->program);
    printf("  --config=FILE\n      a JSON object with the names below as keys [%s]\n", env);
    printf(
        "  --check-config\n      print the configuration as JSON, with the origin of each value, and exit\n");
    printf("  --version, --help\n\nA flag wins over the environment, that over the file, that over the "
           "default.\n\n");
    for (size_t i = 0; i < spec->n_rows; i++) {
        static const char *const kinds[] = { "TEXT", "N", "N", "X", "" };
        const struct weir_conf_row *row = &spec->rows[i];
        env_name(spec, row->name, env);
        printf("  --%s%s%s\n      %s\n      ", row->name, row->kind == WEIR_CONF_BOOL ? "" : "=",
               kinds[row->kind], row->help);
        if (row->unit && row->unit[0])
            printf("unit %s, ", row->unit);
        if (has_bounds(row)) {
            number_write(row->min, min);
            number_write(row->max, max);
            printf("%s%s to %s, ", row->kind == WEIR_CONF_STR ? "length " : "", min, max);
        }
        printf("default %s [%s]\n", row->init && row->init[0] ? row->init : "empty", env);
    }
}

static void print_version(const struct weir_conf_spec *spec)
{
    printf("%s %s (%s%s%s, compiler %s)\n", spec->program, WEIR_VERSION, WEIR_BUILD_TYPE,
           WEIR_BUILD_SANITIZE[0] ? ", sanitizer " : "", WEIR_BUILD_SANITIZE, __VERSION__);
}

static void dump_value(const struct weir_conf *conf, const struct weir_conf_row *row, struct weir_jw *w)
{
    const char *field = (const char *)conf->values + row->offset;
    const char *text;
    uint32_t n32;
    uint64_t n64;
    double x;
    bool flag;

    if (is_secret(row->name)) { /* [C3] */
        weir_jw_cstr(w, "***");
        return;
    }
    switch (row->kind) {
    case WEIR_CONF_STR:
        memcpy(&text, field, sizeof text);
        weir_jw_cstr(w, text);
        break;
    case WEIR_CONF_U32:
        memcpy(&n32, field, sizeof n32);
        weir_jw_u64(w, n32);
        break;
    case WEIR_CONF_U64:
        memcpy(&n64, field, sizeof n64);
        weir_jw_u64(w, n64);
        break;
    case WEIR_CONF_F64:
        memcpy(&x, field, sizeof x);
        weir_jw_f64(w, x);
        break;
    case WEIR_CONF_BOOL:
        memcpy(&flag, field, sizeof flag);
        weir_jw_bool(w, flag);
        break;
    }
}

void weir_conf_dump(const struct weir_conf *conf, struct weir_buf *out)
{
    static const char *const origins[] = { "default", "file", "env", "flag" };
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_object(&w);
    for (size_t i = 0; i < conf->spec.n_rows; i++) {
        const struct weir_conf_row *row = &conf->spec.rows[i];
        weir_jw_key(&w, row->name);
        weir_jw_object(&w);
        weir_jw_key(&w, "value");
        dump_value(conf, row, &w);
        weir_jw_key(&w, "from");
        weir_jw_cstr(&w, origins[conf->from[i]]);
        weir_jw_object_end(&w);
    }
    weir_jw_object_end(&w);
}

static weir_err print_dump(const struct weir_conf *conf, struct weir_why *why)
{
    struct weir_buf out;

    weir_buf_init(&out, 0);
    weir_conf_dump(conf, &out);
    weir_buf_addc(&out, '\n');
    const char *text = weir_buf_cstr(&out);
    if (text)
        fputs(text, stdout);
    weir_buf_release(&out);
    return text ? WEIR_OK : weir_fail(why, WEIR_NOMEM, "no memory for the configuration's dump");
}

/* ---- All of it ---- */

static weir_err parse(struct weir_conf *conf, int argc, char **argv, enum weir_conf_action *ret_action,
                      struct weir_why *why)
{
    bool asked[OWN_CHECK + 1] = { false };
    char name[NAME_MAX_BYTES];

    env_name(&conf->spec, "config", name);
    const char *path = getenv(name);
    if (path && path[0] && !(conf->path = weir_arena_strndup(&conf->strings, path, strlen(path))))
        return weir_fail_param(why, "config", WEIR_NOMEM, "%s: no memory", name);
    weir_err rc = walk_flags(conf, argc, argv, /* only_own= */ true, asked, why);
    if (rc != WEIR_OK)
        return rc;
    *ret_action = asked[OWN_HELP] || asked[OWN_VERSION] || asked[OWN_CHECK] ? WEIR_CONF_EXIT : WEIR_CONF_RUN;
    if (asked[OWN_HELP] || asked[OWN_VERSION]) {
        if (asked[OWN_HELP])
            print_help(&conf->spec);
        else
            print_version(&conf->spec);
        return WEIR_OK;
    }
    if ((rc = set_defaults(conf, why)) != WEIR_OK || (rc = set_from_file(conf, why)) != WEIR_OK ||
        (rc = set_from_env(conf, why)) != WEIR_OK)
        return rc;
    rc = walk_flags(conf, argc, argv, /* only_own= */ false, asked, why);
    if (rc == WEIR_OK && asked[OWN_CHECK])
        rc = print_dump(conf, why);
    return rc;
}

/* The struct's size is not in the spec: only the fields are ours to clear. */
static void clear_values(const struct weir_conf_spec *spec, void *values)
{
    static const size_t sizes[] = { sizeof(char *), sizeof(uint32_t), sizeof(uint64_t), sizeof(double),
                                    sizeof(bool) };

    for (size_t i = 0; i < spec->n_rows; i++)
        memset((char *)values + spec->rows[i].offset, 0, sizes[spec->rows[i].kind]);
}

weir_err weir_conf_open(const struct weir_conf_spec *spec, int argc, char **argv, void *values,
                        struct weir_conf **ret, enum weir_conf_action *ret_action, struct weir_why *why)
{
    enum weir_conf_action action = WEIR_CONF_RUN;
    weir_err rc = WEIR_NOMEM;

    clear_values(spec, values);
    struct weir_conf *conf = weir_alloc0(sizeof *conf);
    if (!conf)
        return weir_fail(why, WEIR_NOMEM, "configuration: no memory");
    conf->spec = *spec;
    conf->values = values;
    weir_arena_init(&conf->strings, 0);
    conf->from = weir_calloc(spec->n_rows, sizeof *conf->from);
    if (conf->from)
        rc = parse(conf, argc, argv, &action, why);
    else
        weir_fail(why, WEIR_NOMEM, "configuration: no memory");
    if (rc != WEIR_OK) {
        weir_conf_close(conf);
        clear_values(spec, values); /* [C2] */
        return rc;
    }
    *ret = conf;
    *ret_action = action;
    return WEIR_OK;
}
