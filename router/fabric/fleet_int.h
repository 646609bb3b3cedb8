/* fleet_int.h - the view on its way to the fleet thread. */
#ifndef WEIR_ROUTER_FABRIC_FLEET_INT_H
#define WEIR_ROUTER_FABRIC_FLEET_INT_H

#include "base/arena.h"
#include "router/fabric/fleet.h"

struct view_record {
    struct weir_replica_record rec;
    bool has_attach; /* the fleet thread's mark */
};
struct view {
    struct weir_arena arena;     /* of the records and their strings */
    struct view_record *records; /* sorted by model and id, each once */
    uint32_t n;
};
void view_close(struct view *view); /* takes NULL */
/* The record of the same model and id. */
struct view_record *view_find(struct view *view, const struct weir_replica_record *rec);

void fleet_give_view(struct weir_fleet *fleet, struct view *view); /* takes it; replaces one not yet seen */
const char *fleet_prefix(const struct weir_fleet *fleet);

#endif
