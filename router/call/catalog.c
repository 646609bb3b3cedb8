/* catalog.c - a record leads to its deployment; a deployment without a record leads to itself. */
#include "router/call/catalog.h"

struct walk {
    struct weir_keys *keys;
    struct weir_fleet *fleet;
    struct weir_str account;
    void (*each)(void *ctx, const struct weir_fleet_model *model);
    void *ctx;
};

static void on_record(void *ctx, const struct weir_model_record *rec)
{
    struct walk *walk = ctx;
    struct weir_fleet_model model;

    if (!weir_fleet_model(walk->fleet, rec->deployment, &model))
        return;
    model.id = rec->id;
    walk->each(walk->ctx, &model);
}

static void on_served(void *ctx, const struct weir_fleet_model *model)
{
    struct walk *walk = ctx;
    struct weir_arena arena;
    struct weir_model found;

    weir_arena_init(&arena, 0);
    if (weir_keys_model(walk->keys, walk->account, model->id, &arena, &found, NULL) == WEIR_OK &&
        !found.has_record)
        walk->each(walk->ctx, model);
    weir_arena_release(&arena);
}

void weir_catalog_list(struct weir_keys *keys, struct weir_fleet *fleet, struct weir_str account,
                       void (*each)(void *ctx, const struct weir_fleet_model *model), void *ctx)
{
    struct walk walk = { keys, fleet, account, each, ctx };

    weir_keys_models(keys, account, on_record, &walk);
    weir_fleet_models(fleet, on_served, &walk);
}

weir_err weir_catalog_find(struct weir_keys *keys, struct weir_fleet *fleet, struct weir_str account,
                           struct weir_str id, struct weir_fleet_model *ret, struct weir_why *why)
{
    struct weir_arena arena;
    struct weir_model found;

    weir_arena_init(&arena, 0);
    weir_err err = weir_keys_model(keys, account, id, &arena, &found, why);
    if (err == WEIR_OK && !weir_fleet_model(fleet, found.deployment, ret))
        err = weir_fail_param(why, "model", WEIR_NOMODEL, "the model `%.*s` does not exist or is not served",
                              (int)(id.len < 128 ? id.len : 128), id.ptr);
    weir_arena_release(&arena);
    if (err == WEIR_OK)
        ret->id = id;
    return err;
}
