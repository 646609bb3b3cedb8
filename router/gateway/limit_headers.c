/* limit_headers.c - both generations of x-ratelimit headers. What remains is said in the unit of the limit: it refills
 * without end, in no fixed windows. */
#include "router/gateway/limit_headers.h"

#include <stdio.h>

struct row {
    enum weir_meter meter;
    const char *name;
};
static const struct row current[] = { { WEIR_METER_PROMPT, "tokens-prompt" },
                                      { WEIR_METER_UNCACHED, "tokens-cache-adjusted-prompt" },
                                      { WEIR_METER_GENERATED, "tokens-generated" } };
static const struct row older[] = { { WEIR_METER_REQUESTS, "requests" },
                                    { WEIR_METER_PROMPT, "tokens-prompt" },
                                    { WEIR_METER_GENERATED, "tokens-generated" } };

static void add(struct weir_http_fields *fields, const char *kind, const char *name, double a_minute,
                double per)
{
    char full[64];

    snprintf(full, sizeof full, "x-ratelimit-%s-%s", kind, name);
    weir_http_fields_addf(fields, full, "%.0f", a_minute > 0 ? a_minute / per : 0);
}

void weir_limit_headers_add(struct weir_http_fields *fields, const struct weir_limit_note *note,
                            enum weir_limit_unit unit)
{
    const struct weir_limits_verdict *verdict = &note->verdict;
    const struct row *rows = note->legacy ? older : current;
    double per = !note->legacy && unit == WEIR_LIMIT_PER_SECOND ? 60 : 1;

    if (!note->metered)
        return;
    for (int i = 0; i < 3; i++) {
        add(fields, "limit", rows[i].name, verdict->limits[rows[i].meter], per);
        add(fields, "remaining", rows[i].name, verdict->remaining[rows[i].meter], per);
    }
    weir_http_fields_adds(fields, "x-ratelimit-over-limit",
                          verdict->over_limit || !verdict->admitted ? "yes" : "no");
}
