/* catalog.h - the models that an account sees: records of tenancy/ and what the fleet serves, as one list.
 *
 * A model with a record is listed while its deployment is in the fleet's view, under the record's id; a model that the
 * fleet serves and that no record speaks of is listed as it calls itself. Any thread. */
#ifndef WEIR_ROUTER_CALL_CATALOG_H
#define WEIR_ROUTER_CALL_CATALOG_H

#include "router/fabric/fleet.h"
#include "router/tenancy/keys.h"

/* Names are valid during the call of `each`. */
void weir_catalog_list(struct weir_keys *keys, struct weir_fleet *fleet, struct weir_str account,
                       void (*each)(void *ctx, const struct weir_fleet_model *model), void *ctx);
/* One of them; ret->id is `id`. WEIR_NOMODEL, and as weir_keys_model. */
WEIR_MUST_CHECK weir_err weir_catalog_find(struct weir_keys *keys, struct weir_fleet *fleet,
                                           struct weir_str account, struct weir_str id,
                                           struct weir_fleet_model *ret, struct weir_why *why);

#endif
