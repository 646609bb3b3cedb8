/* cuda.c - the CUDA back end: opening, memory, and steps.
 *
 * A step's batch is laid out in host memory that copies directly, and goes to the device in one piece, to the same address
 * every time; then come the launches, which nothing waits for, but map().
 *
 * Small steps in which every token is of another sequence - decoding - are recorded and replayed: the second time a size
 * is seen it is recorded, from the third on begin() says so and end() replays it. So that few sizes serve all, a step is padded
 * with rows that have no position (pos -1), where the buffers have room, and lengths are rounded up to powers of 2.
 *   [C1] A recorded step has in it only addresses that stay: activations, the batch's, workspace. When one of these has to
 *        grow, what was recorded is dropped.
 *   [C2] Nothing is allocated in a step whose size was seen before.
 *   [C3] The first failure stays: end() and map() tell of it from then on.
 * Threads: the step thread of the rank. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/cuda_be.h"

#define POS_UNIT 256 /* the least n_pos_max */

void cuda_fail(struct cuda_be *c, weir_err err, const char *what)
{
    if (!c->failed) /* [C3] */
        weir_fail(&c->why, err, "%s: %s", c->name, what);
    c->failed = true;
}

bool cuda_check(struct cuda_be *c)
{
    struct weir_why told = { 0 };

    if (!c->failed && dev_check(c->d, &told) != WEIR_OK)
        cuda_fail(c, WEIR_IO, told.text);
    ranks_check(c);
    return !c->failed;
}

/* ---- memory ---- */
static void *be_alloc(struct weir_backend *be, size_t bytes)
{
    struct cuda_be *c = cuda_of(be);

    if (c->n_allocs == ALLOCS_MAX)
        return NULL;
    void *ptr = dev_alloc(c->d, bytes);
    if (ptr) {
        c->allocs[c->n_allocs].ptr = ptr;
        c->allocs[c->n_allocs++].bytes = bytes;
    }
    return ptr;
}

static void be_free(struct weir_backend *be, void *ptr)
{
    struct cuda_be *c = cuda_of(be);

    graphs_drop(c); /* [C1] */
    for (uint32_t i = 0; ptr && i < c->n_allocs; i++)
        if (c->allocs[i].ptr == ptr) {
            c->allocs[i] = c->allocs[--c->n_allocs];
            break;
        }
    dev_free(c->d, ptr);
}

static float *be_upload(struct weir_backend *be, const float *host, size_t n)
{
    struct cuda_be *c = cuda_of(be);
    float *ptr = be_alloc(be, n * sizeof *ptr);

    if (ptr) {
        dev_upload(c->d, ptr, host, n * sizeof *ptr);
        dev_sync(c->d);
    }
    return ptr;
}

bool scratch_fit(struct cuda_be *c, struct scratch *s, size_t bytes)
{
    if (bytes <= s->bytes)
        return true;
    graphs_drop(c); /* [C1] */
    dev_free(c->d, s->ptr);
    bytes += bytes / 2;
    s->ptr = dev_alloc(c->d, bytes);
    s->bytes = s->ptr ? bytes : 0;
    if (!s->ptr)
        cuda_fail(c, WEIR_NOMEM, "no memory on the device");
    return s->ptr != NULL;
}

bool scratch_fit_host(struct cuda_be *c, struct scratch *s, size_t bytes)
{
    if (bytes <= s->bytes)
        return true;
    dev_sync(c->d);
    dev_host_free(c->d, s->ptr);
    bytes += bytes / 2;
    s->ptr = dev_host_alloc(c->d, bytes);
    s->bytes = s->ptr ? bytes : 0;
    if (!s->ptr)
        cuda_fail(c, WEIR_NOMEM, "no memory of the host that copies directly");
    return s->ptr != NULL;
}

/* Bytes from `ptr` to the end of the allocation it lies in. */
static size_t room_at(const struct cuda_be *c, const char *ptr)
{
    for (uint32_t i = 0; i < c->n_allocs; i++)
        if (ptr >= c->allocs[i].ptr && ptr < c->allocs[i].ptr + c->allocs[i].bytes)
            return (size_t)(c->allocs[i].ptr + c->allocs[i].bytes - ptr);
    return 0;
}

uint32_t step_rows(struct cuda_be *c, const void *buf, size_t row_bytes, uint32_t n_tok)
{
    if (n_tok != c->n_tok)
        return n_tok;
    if (c->i_step == 1) { /* the first step sees every buffer */
        size_t rows = room_at(c, buf) / row_bytes;
        c->rows_fit = rows < c->rows_fit ? (uint32_t)rows : c->rows_fit;
    }
    return c->batch.n_tok;
}

/* ---- recorded steps ---- */
void graphs_drop(struct cuda_be *c)
{
    for (uint32_t i = 0; i < c->n_graphs; i++)
        dev_graph_free(c->graphs[i].graph);
    c->n_graphs = 0;
}

/* The entry of a size; a new one takes the place of that longest unused. *known: it was seen before. */
static struct graph *graph_of(struct cuda_be *c, uint32_t n_tok, uint32_t n_pos_max, bool *known)
{
    struct graph *g = c->graphs;

    *known = true;
    for (uint32_t i = 0; i < c->n_graphs; i++)
        if (c->graphs[i].n_tok == n_tok && c->graphs[i].n_pos_max == n_pos_max)
            return &c->graphs[i];
    *known = false;
    for (uint32_t i = 1; i < c->n_graphs; i++)
        g = c->graphs[i].used < g->used ? &c->graphs[i] : g;
    if (c->n_graphs < GRAPHS_MAX) {
        g = &c->graphs[c->n_graphs++];
        g->graph = NULL;
    }
    dev_graph_free(g->graph);
    *g = (struct graph){ .n_tok = n_tok, .n_pos_max = n_pos_max };
    return g;
}

/* 1 to 8, then by 8 to 64, then by 16. */
static uint32_t padded(const struct cuda_be *c, uint32_t n_tok)
{
    uint32_t unit = n_tok <= 8 ? 1 : n_tok <= 64 ? 8 : 16, n = (n_tok + unit - 1) / unit * unit;

    return n <= c->rows_fit && c->i_step > 1 ? n : n_tok;
}

/* ---- the batch ---- */
struct layout {
    size_t ids, pos, seq, from, runs, table, bytes;
};

static struct layout lay_out(uint32_t n_tok, uint32_t n_seq, uint32_t n_block)
{
    struct layout l = { 0 };
    size_t column = ((size_t)n_tok * 4 + 255) & ~(size_t)255;

    l.pos = column;
    l.seq = 2 * column;
    l.from = 3 * column;
    l.runs = 4 * column;
    l.table = l.runs + 2 * column;
    l.bytes = l.table + (size_t)n_seq * n_block * 4;
    return l;
}

static bool stage_fit(struct cuda_be *c, size_t bytes)
{
    bytes = bytes < (64u << 10) ? 64u << 10 : bytes;
    if (!scratch_fit(c, &c->device, bytes))
        return false;
    if (bytes <= c->stage_bytes)
        return true;
    dev_sync(c->d);
    c->stage_bytes = bytes + bytes / 2;
    for (int i = 0; i < STAGES; i++) {
        dev_host_free(c->d, c->stage[i]);
        c->stage[i] = dev_host_alloc(c->d, c->stage_bytes);
        if (!c->stage[i]) {
            c->stage_bytes = 0;
            cuda_fail(c, WEIR_NOMEM, "no memory of the host that copies directly");
            return false;
        }
    }
    return true;
}

/* Tokens that follow each other in one sequence, CUDA_RUN at a time. */
static uint32_t find_runs(struct cuda_run *runs, const struct weir_batch *batch, uint32_t *run_max)
{
    uint32_t n_run = 0;

    *run_max = 1;
    for (uint32_t t = 0; t < batch->n_tok; t++) {
        struct cuda_run *last = n_run ? &runs[n_run - 1] : NULL;
        if (last && last->n < CUDA_RUN && batch->seq[t] == batch->seq[t - 1])
            last->n++;
        else
            runs[n_run++] = (struct cuda_run){ (int32_t)t, 1 };
        *run_max = (uint32_t)runs[n_run - 1].n > *run_max ? (uint32_t)runs[n_run - 1].n : *run_max;
    }
    return n_run;
}

static uint32_t positions(const struct weir_batch *batch)
{
    uint32_t n = POS_UNIT;
    int32_t top = 0;

    for (uint32_t t = 0; t < batch->n_tok; t++)
        top = batch->pos[t] > top ? batch->pos[t] : top;
    while (n <= (uint32_t)top)
        n *= 2;
    return n;
}

static bool decodes(const struct weir_batch *batch)
{
    for (uint32_t t = 1; t < batch->n_tok; t++)
        if (batch->seq[t] == batch->seq[t - 1])
            return false;
    return batch->n_tok <= GRAPH_TOKENS_MAX;
}

static void fill_stage(char *stage, const struct layout *l, const struct weir_batch *batch,
                       struct cuda_batch *on)
{
    int32_t *ids = (int32_t *)(stage + l->ids), *pos = (int32_t *)(stage + l->pos),
            *seq = (int32_t *)(stage + l->seq);
    struct cuda_run *runs = (struct cuda_run *)(stage + l->runs);
    uint32_t n = batch->n_tok,
             n_copy = batch->n_block_max < on->n_block_max ? batch->n_block_max : on->n_block_max;

    memset(stage, 0, l->table);
    memcpy(ids, batch->ids, n * sizeof *ids);
    memcpy(pos, batch->pos, n * sizeof *pos);
    memcpy(seq, batch->seq, n * sizeof *seq);
    if (batch->drawn)
        memcpy(stage + l->from, batch->drawn, n * sizeof *batch->drawn);
    for (uint32_t t = n; t < on->n_tok; t++)
        pos[t] = -1;
    on->n_run = find_runs(runs, batch, &on->run_max) + (on->n_tok - n); /* the padding's have no tokens */
    for (uint32_t i = 0; i < batch->n_seq; i++)
        memcpy(stage + l->table + (size_t)i * on->n_block_max * 4,
               batch->table + (size_t)i * batch->n_block_max, n_copy * 4);
}

/* To the device, without waiting but for the stage's last use. */
static bool upload_batch(struct cuda_be *c, const struct weir_batch *batch, uint32_t n_pad)
{
    uint32_t n_pos_max = positions(batch), i = (uint32_t)(c->i_step % STAGES);
    struct layout l = lay_out(n_pad, batch->n_seq > n_pad ? batch->n_seq : n_pad, n_pos_max / WEIR_KV_BLOCK);

    if (!stage_fit(c, l.bytes))
        return false;
    dev_await(c->d, i);
    c->batch = (struct cuda_batch){ .n_tok = n_pad,
                                    .n_block_max = n_pos_max / WEIR_KV_BLOCK,
                                    .n_pos_max = n_pos_max };
    fill_stage(c->stage[i], &l, batch, &c->batch);
    char *at = c->device.ptr;
    c->batch.ids = (int32_t *)(at + l.ids);
    c->batch.pos = (int32_t *)(at + l.pos);
    c->batch.seq = (int32_t *)(at + l.seq);
    c->batch.runs = (struct cuda_run *)(at + l.runs);
    c->batch.table = (int32_t *)(at + l.table);
    dev_upload(c->d, at, c->stage[i], l.bytes);
    dev_mark(c->d, i);
    if (batch->drawn) /* ahead of what is recorded, which finds all ids in their place */
        cuda_take_drawn(dev_stream(c->d), (int32_t *)(at + l.ids), (int32_t *)(at + l.from),
                        sampler_latest(c), batch->n_tok);
    return true;
}

/* ---- steps ---- */
static int be_begin(struct weir_backend *be, const struct weir_batch *batch)
{
    struct cuda_be *c = cuda_of(be);
    bool small = decodes(batch) && ranks_record(c), known = false;

    c->i_step++;
    c->n_tok = batch->n_tok;
    c->recording = NULL;
    if (c->failed || !upload_batch(c, batch, small ? padded(c, batch->n_tok) : batch->n_tok))
        return 1; /* end() says why */
    if (!small || c->i_step == 1)
        return 0;
    struct graph *g = graph_of(c, c->batch.n_tok, c->batch.n_pos_max, &known);
    g->used = c->i_step;
    if (!known)
        return 0;
    c->recording = g;
    if (g->graph)
        return 1;
    dev_record(c->d);
    return 0;
}

static weir_err be_end(struct weir_backend *be, struct weir_why *why)
{
    struct cuda_be *c = cuda_of(be);
    struct graph *g = c->recording;

    c->recording = NULL;
    c->n_tok = 0;
    if (g && !c->failed) {
        if (!g->graph)
            g->graph = dev_record_end(c->d);
        if (g->graph)
            dev_replay(c->d, g->graph);
        else
            cuda_fail(c, WEIR_IO, "a step could not be recorded");
    }
    return cuda_check(c) ? WEIR_OK : weir_fail(why, WEIR_IO, "%s", c->why.text);
}

static const void *be_map(struct weir_backend *be, const void *buf, size_t bytes)
{
    struct cuda_be *c = cuda_of(be);

    if (!scratch_fit_host(c, &c->map_host, bytes) || c->failed)
        return NULL;
    dev_download(c->d, c->map_host.ptr, buf, bytes);
    dev_sync(c->d);
    return cuda_check(c) ? c->map_host.ptr : NULL;
}

/* ---- opening ---- */
static void be_close(struct weir_backend *be)
{
    struct cuda_be *c = cuda_of(be);

    if (c->d) {
        ranks_close(c);
        sampler_close(c);
        graphs_drop(c);
        for (uint32_t i = 0; i < c->n_tables; i++) {
            dev_free(c->d, c->tables[i].gate_up);
            dev_free(c->d, c->tables[i].down);
        }
        struct scratch *const all[] = { &c->device, &c->rows, &c->normed, &c->moe, &c->fp8 };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            dev_free(c->d, all[i]->ptr);
        for (int i = 0; i < STAGES; i++)
            dev_host_free(c->d, c->stage[i]);
        for (int i = 0; i < HEADS; i++)
            dev_host_free(c->d, c->heads[i].ptr);
        dev_host_free(c->d, c->map_host.ptr);
        dev_free(c->d, c->work);
    }
    dev_close(c->d);
    weir_free(c->tables);
    weir_free(c->allocs);
    weir_free(c);
}

static void fill_table(struct cuda_be *c)
{
    c->be = (struct weir_backend){ .name = c->name,
                                   .act = WEIR_BF16,
                                   .n_ranks = 1,
                                   .ctx = c,
                                   .close = be_close,
                                   .alloc = be_alloc,
                                   .free = be_free,
                                   .upload = be_upload,
                                   .pack = cuda_pack,
                                   .unpack = cuda_unpack,
                                   .matrix_bytes = cuda_matrix_bytes,
                                   .begin = be_begin,
                                   .end = be_end,
                                   .map = be_map,
                                   .all_reduce = cuda_all_reduce,
                                   .all_gather = cuda_all_gather };
    cuda_fill_ops(&c->be);
    sampler_fill_ops(&c->be);
}

weir_err cuda_open(const struct weir_plugin_host *host, const struct weir_backend_opts *opts,
                   struct weir_backend **ret, struct weir_why *why)
{
    struct cuda_be *c;
    int n_dev = dev_count();
    weir_err err;

    if (n_dev == 0)
        return weir_fail(why, WEIR_UNAVAILABLE, "cuda: no device was found, or no driver for one");
    c = weir_alloc0(sizeof *c);
    if (!c)
        return weir_fail(why, WEIR_NOMEM, "no memory for the CUDA back end");
    fill_table(c);
    c->host = host;
    c->rows_fit = UINT32_MAX;
    c->deterministic = opts->deterministic;
    c->allocs = weir_calloc(ALLOCS_MAX, sizeof *c->allocs);
    /* Ranks take devices in turn; more ranks than devices share them. */
    err = c->allocs ? dev_open(opts->rank % (uint32_t)n_dev, &c->d, why)
                    : weir_fail(why, WEIR_NOMEM, "no memory for the CUDA back end");
    if (err == WEIR_OK) {
        snprintf(c->name, sizeof c->name, "cuda %s", dev_about(c->d)->name);
        c->work = dev_alloc(c->d, WORK_BYTES);
        if (!c->work)
            err = weir_fail(why, WEIR_NOMEM, "%s: no memory on the device", c->name);
    }
    c->be.rank = opts->rank;
    if (err == WEIR_OK)
        err = ranks_open(c, opts->group, why);
    if (err != WEIR_OK) {
        be_close(&c->be);
        return err;
    }
    *ret = &c->be;
    return WEIR_OK;
}
