/* hist.c - see hist.h. Bucket i covers [1.02^i, 1.02^(i+1)) times 100 ns; the last reaches a minute and more. */
#include "bench/hist.h"

#include <math.h>

#define BASE_NS 100.0
#define GROWTH 1.02

void hist_add(struct hist *h, uint64_t ns)
{
    double i = (double)ns <= BASE_NS ? 0 : log((double)ns / BASE_NS) / log(GROWTH);

    h->counts[i >= HIST_BUCKETS - 1 ? HIST_BUCKETS - 1 : (int)i]++;
    h->n++;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

uint64_t hist_quantile_ns(const struct hist *h, double q)
{
    uint64_t rank = (uint64_t)(q * (double)h->n), seen = 0;

    if (h->n == 0)
        return 0;
    for (int i = 0; i < HIST_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen > rank)
            return (uint64_t)(BASE_NS * pow(GROWTH, i + 0.5));
    }
    return h->max_ns;
}

void hist_write(const struct hist *h, struct weir_jw *w)
{
    static const struct {
        const char *name;
        double q;
    } rows[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p999", 0.999 } };

    weir_jw_object(w);
    weir_jw_key(w, "n");
    weir_jw_u64(w, h->n);
    for (int i = 0; i < 4; i++) {
        weir_jw_key(w, rows[i].name);
        weir_jw_f64(w, (double)(hist_quantile_ns(h, rows[i].q) / 100) / 1e4);
    }
    weir_jw_key(w, "max");
    weir_jw_f64(w, (double)(h->max_ns / 100) / 1e4);
    weir_jw_object_end(w);
}
