/* set_models.c - models by id, and the deployments they stand for. A fleet has few: all are read again when one changes. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "router/tenancy/sets_int.h"

void model_set_unref(struct model_set *set)
{
    if (!set || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1)
        return;
    weir_arena_release(&set->arena);
    weir_free(set->models);
    weir_free(set->deployments);
    weir_free(set);
}

static int compare_strs(const void *a, const void *b)
{
    return weir_str_cmp(*(const struct weir_str *)a, *(const struct weir_str *)b);
}

static int compare_models(const void *a, const void *b)
{
    return weir_str_cmp(((const struct weir_model_record *)a)->id, ((const struct weir_model_record *)b)->id);
}

/* Strings of a record may point into the entry: both are copied first. */
static weir_err read_model(struct model_set *set, const struct weir_disc_entry *entry, size_t prefix_len,
                           struct weir_model_record *rec, struct weir_why *why)
{
    const char *id =
        weir_arena_strndup(&set->arena, entry->key.ptr + prefix_len, entry->key.len - prefix_len);
    const char *json =
        weir_arena_strndup(&set->arena, entry->value.ptr ? entry->value.ptr : "", entry->value.len);

    if (!id || !json)
        return weir_fail(why, WEIR_NOMEM, "no memory");
    weir_model_record_init(rec);
    rec->id = (struct weir_str){ id, entry->key.len - prefix_len };
    weir_err err = weir_model_id_check(rec->id, why);
    if (err == WEIR_OK)
        err = weir_model_record_read((struct weir_str){ json, entry->value.len }, &set->arena,
                                     /* is_patch= */ false, rec, why);
    if (rec->deployment.len == 0)
        rec->deployment = rec->id;
    return err;
}

struct model_set *model_set_open(const char *prefix, const struct weir_disc_entry *entries, int n,
                                 uint64_t *n_bad)
{
    struct model_set *set = weir_alloc0(sizeof *set);
    weir_err err = WEIR_OK;

    if (!set)
        return NULL;
    atomic_init(&set->refs, 1);
    weir_arena_init(&set->arena, 0);
    set->models = weir_calloc((size_t)n + 1, sizeof *set->models);
    set->deployments = weir_calloc((size_t)n + 1, sizeof *set->deployments);
    if (!set->models || !set->deployments)
        err = WEIR_NOMEM;
    for (int i = 0; i < n && err != WEIR_NOMEM; i++) {
        struct weir_why why = { 0 };
        err = read_model(set, &entries[i], strlen(prefix), &set->models[set->n], &why);
        if (err == WEIR_OK) {
            set->deployments[set->n] = set->models[set->n].deployment;
            set->n++;
        } else if (err != WEIR_NOMEM) {
            ++*n_bad;
            set_complain(&entries[i], &why);
        }
    }
    if (err == WEIR_NOMEM) {
        model_set_unref(set);
        return NULL;
    }
    qsort(set->deployments, set->n, sizeof *set->deployments, compare_strs);
    return set;
}

const struct weir_model_record *model_set_find(const struct model_set *set, struct weir_str id)
{
    struct weir_model_record wanted = { .id = id };

    return bsearch(&wanted, set->models, set->n, sizeof *set->models, compare_models);
}

bool model_set_is_deployment(const struct model_set *set, struct weir_str name)
{
    return bsearch(&name, set->deployments, set->n, sizeof *set->deployments, compare_strs) != NULL;
}
