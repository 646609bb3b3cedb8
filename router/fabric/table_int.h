/* table_int.h - making a table; for fleet.c. */
#ifndef WEIR_ROUTER_FABRIC_TABLE_INT_H
#define WEIR_ROUTER_FABRIC_TABLE_INT_H

#include "router/fabric/table.h"

/* Sorts `attaches`, which hold one entry per (model, id), and takes a reference of each. A model's members
 * past WEIR_RING_MEMBERS_MAX are left out and counted in *ret_n_left_out. NULL: no memory. */
const struct weir_table *table_open(struct weir_attach **attaches, uint32_t n, uint64_t version,
                                    uint32_t *ret_n_left_out);

#endif
