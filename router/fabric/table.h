/* table.h - the routing table: models and their rings, immutable and counted; replaced whole when the view
 * changes. A loop keeps one and looks with weir_fleet_refresh() whether it is still the newest: one atomic
 * read. */
#ifndef WEIR_ROUTER_FABRIC_TABLE_H
#define WEIR_ROUTER_FABRIC_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "router/route/ring.h"

struct weir_attach;
struct weir_fleet;

struct weir_table_model {
    struct weir_str id; /* NUL-terminated too */
    uint64_t created_s; /* the earliest start of a replica */
    struct weir_ring ring;
    struct weir_attach *const *attaches; /* of the ring's members, in the same order: by id */
};
struct weir_table {
    _Atomic uint32_t refs;
    uint64_t version;                      /* rises with each table of the process */
    const struct weir_table_model *models; /* sorted by id */
    uint32_t n_models;
    struct weir_attach *const *attaches; /* all, sorted by model and id */
    uint32_t n_attaches;
};

const struct weir_table *weir_table_ref(const struct weir_table *table);
void weir_table_unref(const struct weir_table *table); /* takes NULL */
const struct weir_table_model *weir_table_find(const struct weir_table *table, struct weir_str model);

/* Makes *table, which may be NULL, the fleet's newest: unrefs the old, refs the new. */
void weir_fleet_refresh(struct weir_fleet *fleet, const struct weir_table **table);

#endif
