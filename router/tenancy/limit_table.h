/* limit_table.h - the numbers of all limits as a record: <prefix>limits-table, which every router follows while it runs.
 *
 *   {"start":{"tokensPrompt":N,...},"ceiling":{"SMALL":{"tokensPrompt":N,...},...},"tierFactor":[5],"dayTokens":{"SMALL":N,...},
 *    "requests":N,"requestsUnpaid":N,"burstSeconds":N,"requestsBurstSeconds":N,"rampMinutes":[4],"rampFactor":[4],
 *    "runShare":N,"holdShare":N,"holdTtlSeconds":N,"keyRestSeconds":N}
 *
 * As with the other records one function reads a whole one (after weir_limit_table_init) and a patch: what the JSON lacks keeps its
 * value. A record that is not good is logged, counted and ignored: the last good one stays. Without a record: the defaults.
 *
 * Threads: a watch is the discovery thread's; reading and writing hold no state. */
#ifndef WEIR_ROUTER_TENANCY_LIMIT_TABLE_H
#define WEIR_ROUTER_TENANCY_LIMIT_TABLE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "discovery/discovery.h"
#include "router/limits/limits.h"

#define WEIR_LIMIT_TABLE_KEY "limits-table" /* below discovery's prefix */

/* WEIR_INVALID: `why` names the field, and *table is as it was. With `is_patch` a field that is not known is refused. */
WEIR_MUST_CHECK weir_err weir_limit_table_read(struct weir_str json, struct weir_arena *arena, bool is_patch,
                                               struct weir_limit_table *table, struct weir_why *why);
void weir_limit_table_write(struct weir_buf *out, const struct weir_limit_table *table);

struct weir_table_watch;
WEIR_MUST_CHECK weir_err weir_table_watch_open(const char *prefix, struct weir_limits *limits,
                                               struct weir_table_watch **ret, struct weir_why *why);
void weir_table_watch_close(struct weir_table_watch *watch); /* takes NULL */
void weir_table_watch_on_snapshot(struct weir_table_watch *watch, const struct weir_disc_snapshot *snap);

#endif
