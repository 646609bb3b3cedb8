/* metrics_int.h - the fabric's metrics. */
#ifndef WEIR_ROUTER_FABRIC_METRICS_INT_H
#define WEIR_ROUTER_FABRIC_METRICS_INT_H

#include "base/buf.h"
#include "base/metrics.h"

struct fabric_metrics {
    struct weir_gauge *attachments;
    struct weir_counter *frames, *bytes_in, *bytes_out;
    struct weir_counter *outbox_refused, *inbox_full, *malformed, *unknown_tags, *records_skipped;
};
const struct fabric_metrics *fabric_metrics(void);              /* registers them the first time */
struct weir_counter *fabric_breaks_of(struct weir_str replica); /* one series a replica */

#endif
