/* perplexity.c - what smaller weights, keys, values and activations cost: the perplexity of a model on rows of tokens, in each way of keeping them.
 *
 * The file (tools/make_perplexity.py) marks the tokens that count, and has the perplexity of exact weights by another program:
 * that ours agrees shows that the measure is right. With --check the program fails when it does not, or when a way
 * costs more than is said here. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/mem.h"
#include "replica/model/config.h"
#include "replica/parallel/parallel.h"

#define FILE_MAX (16u << 20)
#define ROW_MAX 4096
#define CHUNK 64 /* tokens of a forward */
#define ROWS_AT_ONCE 16

static const struct way {
    const char *name;
    enum weir_quant quant;
    enum weir_dtype kv;
    bool rounded;    /* activations, where the machine does: kernels.h */
    double loss_max; /* of the first way's perplexity, with --check */
} ways[] = { { "native", WEIR_NATIVE, WEIR_F32, false, 0 },
             { "kv bf16", WEIR_NATIVE, WEIR_BF16, false, 0.001 },
             { "q8", WEIR_Q8, WEIR_F32, false, 0.002 },
             { "q4", WEIR_Q4, WEIR_F32, false, 0.02 },
             { "native, rounded", WEIR_NATIVE, WEIR_BF16, true, 0.002 },
             { "q8, rounded", WEIR_Q8, WEIR_BF16, true, 0.003 },
             { "q4, rounded", WEIR_Q4, WEIR_BF16, true, 0.02 } };

struct row {
    int32_t ids[ROW_MAX];
    uint32_t n;
    struct weir_str scored; /* "0" or "1" for each */
};

struct options {
    const char *model, *rows;
    uint32_t n_threads, n_ranks, n_rows_max;
    bool check;
};

struct sum {
    double loss;
    uint64_t n;
};

static void die(const char *what)
{
    fprintf(stderr, "weir-perplexity: %s\n", what);
    exit(1);
}

/* ---- a row through the model ---- */
static double loss_of(const float *logits, uint32_t n, int32_t id)
{
    double max = -INFINITY, total = 0;

    for (uint32_t i = 0; i < n; i++)
        max = fmax(max, (double)logits[i]);
    for (uint32_t i = 0; i < n; i++)
        total += exp((double)logits[i] - max);
    return max + log(total) - (double)logits[id];
}

static void score(struct parallel *p, const struct row *row, uint32_t from, uint32_t n, uint32_t n_vocab,
                  struct sum *sum)
{
    int32_t rows[ROWS_AT_ONCE];
    const float *logits = NULL;
    struct weir_why why;

    for (uint32_t i = 0; i < n; i += ROWS_AT_ONCE) {
        uint32_t some = n - i < ROWS_AT_ONCE ? n - i : ROWS_AT_ONCE;
        for (uint32_t k = 0; k < some; k++)
            rows[k] = (int32_t)(i + k);
        if (parallel_logits(p, rows, some, &logits, &why) != WEIR_OK)
            die(why.text);
        for (uint32_t k = 0; k < some; k++) {
            uint32_t next = from + i + k + 1;
            if (next >= row->n || row->scored.ptr[next] != '1')
                continue;
            sum->loss += loss_of(logits + (size_t)k * n_vocab, n_vocab, row->ids[next]);
            sum->n++;
        }
    }
}

static void run_row(struct parallel *p, const struct row *row, const int32_t *table, uint32_t n_pages,
                    uint32_t n_vocab, struct sum *sum)
{
    int32_t pos[CHUNK], seq[CHUNK] = { 0 };
    struct weir_why why;

    for (uint32_t from = 0, n; from < row->n; from += n) {
        n = row->n - from < CHUNK ? row->n - from : CHUNK;
        struct weir_batch batch = { n, row->ids + from, pos, seq, table, /* n_seq= */ 1, n_pages, NULL };
        for (uint32_t i = 0; i < n; i++)
            pos[i] = (int32_t)(from + i);
        if (parallel_forward(p, &batch, &why) != WEIR_OK)
            die(why.text);
        score(p, row, from, n, n_vocab, sum);
    }
}

static double perplexity(const struct options *o, const struct model_config *config, const struct way *way,
                         const struct row *rows, uint32_t n_rows, uint64_t *ret_bytes)
{
    const struct parallel_opts opts = {
        .open = weir_backend_cpu_open,
        .backend = { .n_threads = o->n_threads, .kv = way->kv, .exact = !way->rounded },
        .n_ranks = o->n_ranks,
        .quant = way->quant
    };
    uint32_t n_pages = (ROW_MAX + WEIR_KV_BLOCK - 1) / WEIR_KV_BLOCK;
    const struct model_limits limits = { .n_tok_max = CHUNK,
                                         .n_logits_max = ROWS_AT_ONCE,
                                         .n_blocks = n_pages };
    int32_t table[ROW_MAX / WEIR_KV_BLOCK];
    struct parallel *p = NULL;
    struct sum sum = { 0, 0 };
    struct weir_why why;

    for (uint32_t i = 0; i < n_pages; i++)
        table[i] = (int32_t)i;
    if (parallel_open(&opts, config, &p, &why) != WEIR_OK ||
        parallel_load(p, o->model, &limits, &why) != WEIR_OK)
        die(why.text);
    for (uint32_t i = 0; i < n_rows; i++)
        run_row(p, &rows[i], table, n_pages, config->n_vocab, &sum);
    *ret_bytes = parallel_weight_bytes(p);
    parallel_close(p);
    return exp(sum.loss / (double)sum.n);
}

/* ---- the file ---- */
static void read_row(struct weir_json *j, struct row *row, uint32_t n_vocab)
{
    struct weir_str key;
    int64_t id = 0;

    weir_json_object(j);
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "scored")) {
            weir_json_string(j, &row->scored);
            continue;
        }
        weir_json_array(j);
        while (weir_json_next(j))
            if (weir_json_i64(j, &id)) {
                if (row->n == ROW_MAX || id < 0 || id >= n_vocab)
                    weir_json_fail(j, WEIR_INVALID, "a row too long, or a token outside the vocabulary");
                else
                    row->ids[row->n++] = (int32_t)id;
            }
    }
    if (weir_json_ok(j) && row->scored.len != row->n)
        weir_json_fail(j, WEIR_INVALID, "ids and scored differ in length");
}

static uint32_t read_rows(const char *text, size_t len, struct weir_arena *arena, struct row *rows,
                          uint32_t max, uint32_t n_vocab, double *ret_wanted)
{
    struct weir_json j;
    struct weir_str key;
    struct weir_why why;
    uint32_t n = 0;

    weir_json_init(&j, text, len, arena);
    weir_json_object(&j);
    while (weir_json_key(&j, &key)) {
        if (weir_str_eq(key, "perplexity"))
            weir_json_f64(&j, ret_wanted);
        else if (weir_str_eq(key, "rows")) {
            weir_json_array(&j);
            while (weir_json_next(&j)) {
                if (n < max)
                    read_row(&j, &rows[n++], n_vocab);
                else {
                    weir_json_skip(&j);
                    *ret_wanted = NAN; /* it is of all rows */
                }
            }
        } else
            weir_json_skip(&j);
    }
    if (weir_json_end(&j, &why) != WEIR_OK)
        die(why.text);
    return n;
}

static int compare(const struct options *o, const struct model_config *config, const struct row *rows,
                   uint32_t n_rows, double wanted)
{
    double native = 0;
    uint64_t bytes = 0;
    int failed = 0;

    printf("%-16s %12s %10s %14s\n", "weights", "perplexity", "loss", "bytes");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        double got = perplexity(o, config, &ways[i], rows, n_rows, &bytes);
        if (i == 0)
            native = got;
        double loss = got / native - 1;
        printf("%-16s %12.5f %9.3f%% %14llu\n", ways[i].name, got, 100 * loss, (unsigned long long)bytes);
        failed |= i > 0 && !(loss <= ways[i].loss_max);
    }
    if (!isnan(wanted)) {
        printf("%-16s %12.5f\n", "float64", wanted);
        failed |= !(fabs(native / wanted - 1) <= 1e-4);
    }
    return o->check && failed;
}

static struct options parse_options(int argc, char **argv)
{
    struct options o = { .n_ranks = 1, .n_rows_max = 64 };

    for (int i = 1; i < argc; i++) {
        bool has = i + 1 < argc;
        if (strcmp(argv[i], "--check") == 0)
            o.check = true;
        else if (has && strcmp(argv[i], "--model") == 0)
            o.model = argv[++i];
        else if (has && strcmp(argv[i], "--rows") == 0)
            o.rows = argv[++i];
        else if (has && strcmp(argv[i], "--max-rows") == 0)
            o.n_rows_max = (uint32_t)atoi(argv[++i]);
        else if (has && strcmp(argv[i], "--threads") == 0)
            o.n_threads = (uint32_t)atoi(argv[++i]);
        else if (has && strcmp(argv[i], "--tp") == 0)
            o.n_ranks = (uint32_t)atoi(argv[++i]);
        else
            die("usage: weir-perplexity --model DIR --rows FILE [--max-rows N] [--threads N] [--tp N] "
                "[--check]");
    }
    if (!o.model || !o.rows || o.n_rows_max == 0 || o.n_rows_max > 4096)
        die("--model and --rows are needed; --max-rows is 1 to 4096");
    return o;
}

int main(int argc, char **argv)
{
    struct options o = parse_options(argc, argv);
    struct model_config config;
    struct weir_arena arena;
    struct weir_why why;
    double wanted = NAN;
    char *text = NULL;
    size_t len = 0;

    if (model_config_load(o.model, &config, &why) != WEIR_OK ||
        model_read_file(o.rows[0] == '/' ? "" : ".", o.rows, FILE_MAX, &text, &len, &why) != WEIR_OK)
        die(why.text);
    struct row *rows = weir_calloc(o.n_rows_max, sizeof *rows);
    weir_arena_init(&arena, 0);
    if (!rows)
        die("no memory");
    uint32_t n = read_rows(text, len, &arena, rows, o.n_rows_max, config.n_vocab, &wanted);
    int rc = n ? compare(&o, &config, rows, n, wanted) : 1;
    weir_arena_release(&arena);
    weir_free(rows);
    weir_free(text);
    return rc;
}
