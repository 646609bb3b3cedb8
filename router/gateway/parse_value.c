/* parse_value.c - values out of a body into the request's arena.
 *   [V1] No string with a NUL goes on: protobuf-c strings end there, and a check must see what the model sees. */
#include <string.h>

#include "router/gateway/parse_int.h"

bool parse_nomem(struct parse *p)
{
    return weir_json_fail(&p->j, WEIR_NOMEM, "no memory for the request");
}

void *parse_room(struct parse *p, size_t size)
{
    void *ptr = weir_arena_alloc0(&p->req->arena, size);

    if (!ptr)
        parse_nomem(p);
    return ptr;
}

void parse_copy(struct parse *p, struct weir_str s, char **ret)
{
    if (s.len > 0 && memchr(s.ptr, 0, s.len)) { /* [V1] */
        weir_json_fail(&p->j, WEIR_INVALID, "the string holds a NUL");
        return;
    }
    char *copy = weir_arena_strndup(&p->req->arena, s.len ? s.ptr : "", s.len);
    if (copy)
        *ret = copy;
    else
        parse_nomem(p);
}

void parse_string(struct parse *p, char **ret)
{
    struct weir_str s;

    if (weir_json_string(&p->j, &s))
        parse_copy(p, s, ret);
}

void parse_count(struct parse *p, uint32_t *ret)
{
    int64_t n;

    if (!weir_json_i64(&p->j, &n))
        return;
    if (n < 0 || n > INT32_MAX)
        weir_json_fail(&p->j, WEIR_INVALID, "%lld is not a count", (long long)n);
    else
        *ret = (uint32_t)n;
}

void parse_flag(struct parse *p, protobuf_c_boolean *ret)
{
    bool on;

    if (weir_json_bool(&p->j, &on))
        *ret = on;
}

bool parse_null(struct parse *p)
{
    return weir_json_peek(&p->j) == WEIR_JSON_NULL && weir_json_null(&p->j);
}

/* Doubling wastes at most as much as the list holds. */
static void *grown(struct parse *p, const void *list, size_t n, size_t size)
{
    bool full = n == 0 || (n >= 8 && (n & (n - 1)) == 0);

    if (!full)
        return (void *)(uintptr_t)list;
    void *more = parse_room(p, (n ? 2 * n : 8) * size);
    if (more && n)
        memcpy(more, list, n * size);
    return more;
}

bool parse_list_add(struct parse *p, void ***list, size_t *n, void *item)
{
    void **to = grown(p, *list, *n, sizeof *to);

    if (!to)
        return false;
    to[(*n)++] = item;
    *list = to;
    return true;
}

bool parse_ids_add(struct parse *p, Weir__V1__TokenIds *ids, int64_t id)
{
    if (id < 0 || id > INT32_MAX)
        return weir_json_fail(&p->j, WEIR_INVALID, "%lld is not a token's id", (long long)id);
    uint32_t *to = grown(p, ids->ids, ids->n_ids, sizeof *to);
    if (!to)
        return false;
    to[ids->n_ids++] = (uint32_t)id;
    ids->ids = to;
    return true;
}

void parse_unknown(struct parse *p, bool is_twice)
{
    weir_json_fail(&p->j, WEIR_INVALID, is_twice ? "the field is given twice" : "unknown field");
}

void parse_type(struct parse *p, const char *wanted)
{
    struct weir_str type;

    if (weir_json_string(&p->j, &type) && !weir_str_eq(type, wanted))
        weir_json_fail(&p->j, WEIR_INVALID, "must be \"%s\"", wanted);
}
