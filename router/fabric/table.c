/* table.c - one block of memory for models, rings and members: see table.h.
 *   [B1] Models are sorted by id, members within a model too: a table is the same on every router with that
 * view. */
#include "router/fabric/table_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "router/fabric/fabric_int.h"

static int by_model_and_id(const void *a, const void *b)
{
    return attach_compare(*(struct weir_attach *const *)a, *(struct weir_attach *const *)b);
}

static bool is_same_model(const struct weir_attach *a, const struct weir_attach *b)
{
    return strcmp(attach_record(a)->model.ptr, attach_record(b)->model.ptr) == 0;
}

/* The run of attaches[first..) of one model. */
static uint32_t run_of_model(struct weir_attach *const *attaches, uint32_t first, uint32_t n)
{
    uint32_t end = first + 1;

    while (end < n && is_same_model(attaches[first], attaches[end]))
        end++;
    return end - first;
}

static void fill_model(struct weir_table_model *model, struct weir_ring_member *members,
                       struct weir_attach *const *attaches, uint32_t n)
{
    model->id = attach_record(attaches[0])->model;
    model->created_s = UINT64_MAX;
    model->attaches = attaches;
    for (uint32_t i = 0; i < n; i++) {
        const struct weir_replica_record *rec = attach_record(attaches[i]);
        members[i] = (struct weir_ring_member){ .hash = weir_ring_hash(rec->id),
                                                .load = weir_attach_load(attaches[i]) };
        if (rec->started_s < model->created_s)
            model->created_s = rec->started_s;
    }
    model->ring =
        (struct weir_ring){ .members = members, .n = n < WEIR_RING_MEMBERS_MAX ? n : WEIR_RING_MEMBERS_MAX };
}

const struct weir_table *table_open(struct weir_attach **attaches, uint32_t n, uint64_t version,
                                    uint32_t *ret_n_left_out)
{
    struct weir_table *table;
    struct weir_table_model *models;
    struct weir_ring_member *members;
    struct weir_attach **copies;
    char *block = weir_alloc0(sizeof *table + n * (sizeof *models + sizeof *members + sizeof *copies));

    if (!block)
        return NULL;
    table = (struct weir_table *)(void *)block;
    models = (struct weir_table_model *)(void *)(table + 1);
    members = (struct weir_ring_member *)(void *)(models + n);
    copies = (struct weir_attach **)(void *)(members + n);
    *ret_n_left_out = 0;
    if (n > 0)
        qsort(attaches, n, sizeof *attaches, by_model_and_id); /* [B1] */
    for (uint32_t i = 0; i < n; i++)
        copies[i] = weir_attach_ref(attaches[i]);
    *table = (struct weir_table){
        .refs = 1, .version = version, .models = models, .attaches = copies, .n_attaches = n
    };
    for (uint32_t i = 0; i < n;) {
        uint32_t n_run = run_of_model(copies, i, n);
        struct weir_table_model *model = &models[table->n_models++];
        fill_model(model, members + i, copies + i, n_run);
        *ret_n_left_out += n_run - model->ring.n;
        i += n_run;
    }
    return table;
}

const struct weir_table *weir_table_ref(const struct weir_table *table)
{
    struct weir_table *t = (struct weir_table *)(uintptr_t)table;

    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return table;
}

void weir_table_unref(const struct weir_table *table)
{
    struct weir_table *t = (struct weir_table *)(uintptr_t)table;

    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < t->n_attaches; i++)
        weir_attach_unref(t->attaches[i]);
    weir_free(t);
}

const struct weir_table_model *weir_table_find(const struct weir_table *table, struct weir_str model)
{
    uint32_t low = 0, high = table->n_models;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        const struct weir_str id = table->models[mid].id;
        size_t n = id.len < model.len ? id.len : model.len;
        int order = n > 0 ? memcmp(id.ptr, model.ptr, n) : 0;
        if (order == 0)
            order = id.len < model.len ? -1 : id.len > model.len;
        if (order == 0)
            return &table->models[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}
