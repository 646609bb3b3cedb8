/* tmpl_list.c - lists and dicts: making them, filling them, and what a loop sees of any value. */
#include "replica/text/tmpl_int.h"

#include <string.h>

#include "base/hash.h"

enum { DICT_SMALL = 12 };

/* ---- lists ---- */

bool tmpl_new_list(struct tmpl_run *run, enum tmpl_kind kind, struct tmpl_value *ret)
{
    struct tmpl_list *list = weir_arena_alloc0(&run->arena, sizeof *list);

    if (!list)
        return tmpl_fail_mem(run);
    *ret = (struct tmpl_value){ .kind = kind, .list = list };
    return true;
}

/* Room for one more of `n` things of `size` bytes; the old ones stay behind in the arena. */
static bool grow(struct tmpl_run *run, void **at, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    size_t more = *cap ? 2 * *cap : 4;
    void *bigger = weir_arena_alloc(&run->arena, more * size);
    if (!bigger)
        return tmpl_fail_mem(run);
    if (n)
        memcpy(bigger, *at, n * size);
    *at = bigger;
    *cap = more;
    return true;
}

bool tmpl_push(struct tmpl_run *run, struct tmpl_list *list, struct tmpl_value v)
{
    void *at = list->at;

    if (!tmpl_tick(run, 0) || !grow(run, &at, list->n, &list->cap, sizeof *list->at))
        return false;
    list->at = at;
    list->at[list->n++] = v;
    return true;
}

/* ---- dicts ---- */

/* Equal keys hash equally: True, 1 and 1.0 are one key in Python. */
static uint64_t hash_key(struct tmpl_value key)
{
    double f;

    if (key.kind == TMPL_STR)
        return weir_hash64(key.str.ptr, key.str.len, 1);
    if (tmpl_number(key, &f))
        return weir_hash64(&f, sizeof f, 2);
    return (uint64_t)key.kind; /* tuples and the like: rare, and still right */
}

static uint32_t *index_slot(struct tmpl_run *run, const struct tmpl_dict *dict, struct tmpl_value key)
{
    uint32_t i = (uint32_t)hash_key(key) & dict->index_mask;

    while (dict->index[i] != 0 && !tmpl_equal(run, dict->at[dict->index[i] - 1].key, key))
        i = (i + 1) & dict->index_mask;
    return &dict->index[i];
}

static bool build_index(struct tmpl_run *run, struct tmpl_dict *dict)
{
    uint32_t size = 64;

    while (size < 4 * dict->n)
        size *= 2;
    uint32_t *index = weir_arena_alloc0(&run->arena, size * sizeof *index);
    if (!index)
        return tmpl_fail_mem(run);
    dict->index = index;
    dict->index_mask = size - 1;
    for (size_t i = 0; i < dict->n; i++)
        *index_slot(run, dict, dict->at[i].key) = (uint32_t)i + 1;
    return true;
}

bool tmpl_new_dict(struct tmpl_run *run, enum tmpl_kind kind, struct tmpl_value *ret)
{
    struct tmpl_dict *dict = weir_arena_alloc0(&run->arena, sizeof *dict);

    if (!dict)
        return tmpl_fail_mem(run);
    *ret = (struct tmpl_value){ .kind = kind, .dict = dict };
    return true;
}

static struct tmpl_pair *find_pair(struct tmpl_run *run, const struct tmpl_dict *dict, struct tmpl_value key)
{
    if (dict->index) {
        uint32_t i = *index_slot(run, dict, key);
        return i ? &dict->at[i - 1] : NULL;
    }
    for (size_t i = 0; i < dict->n; i++)
        if (tmpl_equal(run, dict->at[i].key, key))
            return &dict->at[i];
    return NULL;
}

const struct tmpl_value *tmpl_dict_get(struct tmpl_run *run, const struct tmpl_dict *dict,
                                       struct tmpl_value key)
{
    const struct tmpl_pair *pair = find_pair(run, dict, key);

    return pair ? &pair->value : NULL;
}

bool tmpl_dict_set(struct tmpl_run *run, struct tmpl_dict *dict, struct tmpl_value key,
                   struct tmpl_value value)
{
    struct tmpl_pair *pair = find_pair(run, dict, key);
    void *at = dict->at;

    if (!tmpl_tick(run, 0))
        return false;
    if (key.kind == TMPL_LIST || key.kind == TMPL_DICT)
        return tmpl_fail(run, WEIR_INVALID, "a %s can't be a key", tmpl_type_name(key));
    if (pair) {
        pair->value = value;
        return true;
    }
    if (!grow(run, &at, dict->n, &dict->cap, sizeof *dict->at))
        return false;
    dict->at = at;
    dict->at[dict->n++] = (struct tmpl_pair){ key, value };
    if (dict->index && 2 * dict->n <= dict->index_mask) {
        *index_slot(run, dict, key) = (uint32_t)dict->n;
        return true;
    }
    return dict->n <= DICT_SMALL || build_index(run, dict);
}

bool tmpl_pairs(struct tmpl_run *run, const struct tmpl_dict *dict, struct tmpl_value *ret)
{
    struct tmpl_value pair;

    if (!tmpl_new_list(run, TMPL_LIST, ret))
        return false;
    for (size_t i = 0; i < dict->n; i++)
        if (!tmpl_new_list(run, TMPL_TUPLE, &pair) || !tmpl_push(run, pair.list, dict->at[i].key) ||
            !tmpl_push(run, pair.list, dict->at[i].value) || !tmpl_push(run, ret->list, pair))
            return false;
    return true;
}

/* ---- what a loop sees ---- */

bool tmpl_items(struct tmpl_run *run, struct tmpl_value v, const struct tmpl_list **ret)
{
    static const struct tmpl_list none;
    struct tmpl_value list = { 0 };

    if (v.kind == TMPL_UNDEF) {
        *ret = &none;
        return true;
    }
    if (v.kind == TMPL_LIST || v.kind == TMPL_TUPLE) {
        *ret = v.list;
        return true;
    }
    if (v.kind == TMPL_GENERATOR) {
        if (!tmpl_new_list(run, TMPL_LIST, &list))
            return false;
        *list.list = *v.list;
        *v.list = none;
        *ret = list.list;
        return true;
    }
    if (v.kind != TMPL_STR && v.kind != TMPL_DICT)
        return tmpl_fail(run, WEIR_INVALID, "a '%s' is not iterable", tmpl_type_name(v));
    if (!tmpl_new_list(run, TMPL_LIST, &list))
        return false;
    if (v.kind == TMPL_DICT) {
        for (size_t i = 0; i < v.dict->n; i++)
            if (!tmpl_push(run, list.list, v.dict->at[i].key))
                return false;
    } else {
        for (size_t i = 0; i < v.str.len;) {
            uint32_t c;
            size_t n = tmpl_char_at(v.str, i, &c);
            if (!tmpl_push(run, list.list, tmpl_str((struct weir_str){ v.str.ptr + i, n })))
                return false;
            i += n;
        }
    }
    *ret = list.list;
    return true;
}
