/* metrics.c - the registry of metrics and the text that Prometheus reads.
 *
 * Families are a list sorted by name, series a list under their family, newest last; both only grow, so that
 * a handle stays good. A series has its own cache line: two hot counters must not slow each other down.
 *   [P1] The same name and labels give the same handle.
 *   [P2] Within one text a histogram's buckets rise and the last one equals its count.
 * Threads: registering and writing take one mutex; updates are relaxed atomics (a metric orders nothing). */
#include "base/metrics.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/number_int.h"

enum { CACHE_LINE = 64 };

enum family_type { COUNTER, GAUGE, HISTOGRAM };

struct series {
    struct series *next;
    char *labels;
};

struct weir_counter {
    struct series series;
    _Atomic uint64_t value;
};

struct weir_gauge {
    struct series series;
    _Atomic int64_t value;
    atomic_bool removed;
};

struct weir_histogram {
    struct series series;
    const double *bounds; /* the family's */
    int n_bounds;
    _Atomic uint64_t sum_bits;  /* a double */
    _Atomic uint64_t buckets[]; /* n_bounds + 1; each counts its own range only */
};

struct family {
    struct family *next;
    enum family_type type;
    char *name, *help;
    double *bounds;
    int n_bounds;
    struct series *first, **last;
};

const double weir_latency_bounds_s[] = { 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                         0.25,   0.5,   1,      2.5,   5,    10,    30,   60 };
const int weir_n_latency_bounds = sizeof weir_latency_bounds_s / sizeof weir_latency_bounds_s[0];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct family *families; /* under lock */

/* ---- Registration, under the lock ---- */

static void *must(void *ptr)
{
    WEIR_BUG_ON(!ptr && "no memory for a metric");
    return ptr;
}

static struct family *get_family(enum family_type type, const char *name, const char *help,
                                 const double *bounds, int n_bounds)
{
    struct family **at = &families;
    int order = 1;

    while (*at && (order = strcmp((*at)->name, name)) < 0)
        at = &(*at)->next;
    if (*at && order == 0) {
        WEIR_BUG_ON((*at)->type != type && "a metric's name has two types");
        return *at;
    }
    struct family *family = must(weir_alloc0(sizeof *family));
    family->type = type;
    family->name = must(weir_strdup(name));
    family->help = must(weir_strdup(help));
    family->bounds = must(weir_calloc((size_t)n_bounds, sizeof *bounds));
    for (int i = 0; i < n_bounds; i++)
        family->bounds[i] = bounds[i];
    family->n_bounds = n_bounds;
    family->last = &family->first;
    family->next = *at;
    *at = family;
    return family;
}

/* [P1] The series with these labels; made with `size` bytes when it is new. */
static void *get_series(struct family *family, const char *labels, size_t size)
{
    for (struct series *s = family->first; s; s = s->next)
        if (strcmp(s->labels, labels) == 0)
            return s;
    struct series *s = must(weir_alloc_aligned(CACHE_LINE, size));
    memset(s, 0, size);
    s->labels = must(weir_strdup(labels));
    *family->last = s;
    family->last = &s->next;
    return s;
}

struct weir_counter *weir_counter(const char *name, const char *labels, const char *help)
{
    pthread_mutex_lock(&lock);
    struct family *family = get_family(COUNTER, name, help, NULL, 0);
    struct weir_counter *c = get_series(family, labels, sizeof *c);
    pthread_mutex_unlock(&lock);
    return c;
}

struct weir_gauge *weir_gauge(const char *name, const char *labels, const char *help)
{
    pthread_mutex_lock(&lock);
    struct family *family = get_family(GAUGE, name, help, NULL, 0);
    struct weir_gauge *g = get_series(family, labels, sizeof *g);
    pthread_mutex_unlock(&lock);
    return g;
}

struct weir_histogram *weir_histogram(const char *name, const char *labels, const char *help,
                                      const double *bounds, int n_bounds)
{
    pthread_mutex_lock(&lock);
    struct family *family = get_family(HISTOGRAM, name, help, bounds, n_bounds);
    struct weir_histogram *h =
        get_series(family, labels, sizeof *h + ((size_t)family->n_bounds + 1) * sizeof h->buckets[0]);
    if (!h->bounds) { /* new; an old one may be in use */
        h->bounds = family->bounds;
        h->n_bounds = family->n_bounds;
    }
    pthread_mutex_unlock(&lock);
    return h;
}

/* ---- Updates ---- */

void weir_counter_add(struct weir_counter *c, uint64_t n)
{
    atomic_fetch_add_explicit(&c->value, n, memory_order_relaxed);
}

uint64_t weir_counter_get(const struct weir_counter *c)
{
    return atomic_load_explicit(&c->value, memory_order_relaxed);
}

void weir_gauge_set(struct weir_gauge *g, int64_t v)
{
    atomic_store_explicit(&g->value, v, memory_order_relaxed);
    atomic_store_explicit(&g->removed, false, memory_order_relaxed);
}

void weir_gauge_add(struct weir_gauge *g, int64_t v)
{
    atomic_fetch_add_explicit(&g->value, v, memory_order_relaxed);
}

int64_t weir_gauge_get(const struct weir_gauge *g)
{
    return atomic_load_explicit(&g->value, memory_order_relaxed);
}

void weir_gauge_remove(struct weir_gauge *g)
{
    atomic_store_explicit(&g->removed, true, memory_order_relaxed);
}

static double from_bits(uint64_t bits)
{
    double x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint64_t to_bits(double x)
{
    uint64_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

void weir_histogram_observe(struct weir_histogram *h, double v)
{
    int i = 0;

    if (isnan(v))
        return; /* it would stay in the sum for ever */
    while (i < h->n_bounds && v > h->bounds[i])
        i++;
    atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
    uint64_t old = atomic_load_explicit(&h->sum_bits, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&h->sum_bits, &old, to_bits(from_bits(old) + v),
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

/* ---- Text ---- */

static void add_number(struct weir_buf *out, double x)
{
    char text[NUMBER_TEXT_MAX];

    if (isfinite(x))
        weir_buf_add(out, text, number_write(x, text));
    else
        weir_buf_adds(out, isnan(x) ? "NaN" : x > 0 ? "+Inf" : "-Inf");
}

/* name_suffix{labels,extra} and a space */
static void add_series_name(struct weir_buf *out, const char *name, const char *suffix, const char *labels)
{
    weir_buf_adds(out, name);
    weir_buf_adds(out, suffix);
    if (*labels) {
        weir_buf_addc(out, '{');
        weir_buf_adds(out, labels);
        weir_buf_addc(out, '}');
    }
    weir_buf_addc(out, ' ');
}

static void write_histogram(struct weir_buf *out, const struct family *family, const struct weir_histogram *h)
{
    const char *labels = h->series.labels;
    uint64_t count = 0;

    for (int i = 0; i <= h->n_bounds; i++) {
        count += atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
        weir_buf_adds(out, family->name);
        weir_buf_adds(out, "_bucket{");
        weir_buf_adds(out, labels);
        weir_buf_adds(out, *labels ? ",le=\"" : "le=\"");
        add_number(out, i < h->n_bounds ? h->bounds[i] : (double)INFINITY);
        weir_buf_adds(out, "\"} ");
        weir_buf_addu(out, count);
        weir_buf_addc(out, '\n');
    }
    add_series_name(out, family->name, "_sum", labels);
    add_number(out, from_bits(atomic_load_explicit(&h->sum_bits, memory_order_relaxed)));
    weir_buf_addc(out, '\n');
    add_series_name(out, family->name, "_count", labels); /* [P2] from the same reading */
    weir_buf_addu(out, count);
    weir_buf_addc(out, '\n');
}

static void write_series(struct weir_buf *out, const struct family *family, const struct series *s)
{
    if (family->type == HISTOGRAM) {
        write_histogram(out, family, (const struct weir_histogram *)s);
        return;
    }
    if (family->type == GAUGE) {
        const struct weir_gauge *g = (const struct weir_gauge *)s;
        if (atomic_load_explicit(&g->removed, memory_order_relaxed))
            return;
        add_series_name(out, family->name, "", s->labels);
        weir_buf_addf(out, "%lld\n", (long long)weir_gauge_get(g));
        return;
    }
    add_series_name(out, family->name, "", s->labels);
    weir_buf_addu(out, weir_counter_get((const struct weir_counter *)s));
    weir_buf_addc(out, '\n');
}

static void write_head(struct weir_buf *out, const char *name, const char *help, enum family_type type)
{
    static const char *const types[] = { "counter", "gauge", "histogram" };

    weir_buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, types[type]);
}

/* ---- What every process tells ---- */

static int64_t count_open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int64_t n = -3; /* ".", ".." and this very directory */

    if (!dir)
        return 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* /proc/self/stat: field 14 and 15 are CPU ticks, 20 the threads, 24 resident pages. */
static void read_stat(double *ret_cpu_s, int64_t *ret_threads, int64_t *ret_resident)
{
    unsigned long user = 0, system = 0;
    long threads = 0, resident = 0;
    char text[1024];
    FILE *file = fopen("/proc/self/stat", "re");

    if (file) {
        size_t n = fread(text, 1, sizeof text - 1, file);
        text[n] = '\0';
        fclose(file);
        char *at = strrchr(text, ')'); /* the name before may hold anything */
        if (at)
            sscanf(at + 1,
                   " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lu %lu %*s %*s %*s %*s %ld %*s %*s %*s %ld",
                   &user, &system, &threads, &resident);
    }
    *ret_cpu_s = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    *ret_threads = threads;
    *ret_resident = (int64_t)resident * sysconf(_SC_PAGESIZE);
}

static void set_process_gauges(double *ret_cpu_s)
{
    int64_t n_threads, resident_bytes;

    read_stat(ret_cpu_s, &n_threads, &resident_bytes);
    weir_gauge_set(weir_gauge("process_threads", "", "Threads of this process."), n_threads);
    weir_gauge_set(weir_gauge("process_resident_memory_bytes", "", "Resident memory."), resident_bytes);
    weir_gauge_set(weir_gauge("process_open_fds", "", "Open file descriptors."), count_open_fds());
    weir_gauge_set(weir_gauge("weir_build_info", "version=\"" WEIR_VERSION "\"", "The build; always 1."), 1);
    struct weir_counter *checks =
        weir_counter("weir_checks_failed_total", "", "Failed checks of our own: faults.");
    atomic_store_explicit(&checks->value, weir_check_count(), memory_order_relaxed);
    /* Seconds are no integer: the family keeps its place in the order, and the value is written for it. */
    weir_counter("process_cpu_seconds_total", "", "CPU time of this process.");
}

void weir_metrics_write(struct weir_buf *out)
{
    double cpu_s;

    set_process_gauges(&cpu_s);
    pthread_mutex_lock(&lock);
    for (const struct family *family = families; family; family = family->next) {
        write_head(out, family->name, family->help, family->type);
        if (strcmp(family->name, "process_cpu_seconds_total") == 0) {
            weir_buf_adds(out, "process_cpu_seconds_total ");
            add_number(out, cpu_s);
            weir_buf_addc(out, '\n');
            continue;
        }
        for (const struct series *s = family->first; s; s = s->next)
            write_series(out, family, s);
    }
    pthread_mutex_unlock(&lock);
}
