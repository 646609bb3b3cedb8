/* cuda_be.h - the back end's own state, for the files that fill its table: cuda.c (opening, memory, steps), pack.c (weights),
 * ops.c (operations), draw.c (tokens), ranks.c (collectives). */
#ifndef WEIR_KERNELS_CUDA_CUDA_BE_H
#define WEIR_KERNELS_CUDA_CUDA_BE_H

#include "kernels/cuda/dev.h"
#include "kernels/cuda/plugin.h"

#define GRAPHS_MAX 64        /* recorded steps kept; the one longest unused gives way */
#define GRAPH_TOKENS_MAX 256 /* steps of more are not recorded */
#define STAGES 2             /* batches on their way to the device */
#define DRAW_SETS 2          /* results of steps: one is read while the next comes */
#define HEADS 2              /* lists of rows on their way to the device */
#define MARK_SET(set) (STAGES + (set))
#define MARK_HEAD(i) (STAGES + DRAW_SETS + (i))
#define EXPERT_LAYERS_MAX 1024
#define WORK_BYTES ((size_t)16 << 20) /* for partial softmaxes */
#define ALLOCS_MAX 8192

struct weir_matrix {
    struct cuda_weights w;
    void *data;
    float *scale;
};

/* A buffer that grows when a step needs more than any before; never in a step that is recorded. */
struct scratch {
    void *ptr;
    size_t bytes;
};

struct graph {
    struct dev_graph *graph; /* NULL: seen once, not yet recorded */
    uint32_t n_tok, n_pos_max;
    uint64_t used; /* the step that last used it */
};

struct cuda_be {
    struct weir_backend be;
    struct dev *d;
    const struct weir_plugin_host *host;
    char name[96];
    bool failed, deterministic;
    struct weir_why why;
    /* The step's batch: staged on the host, then in `device` at a fixed address. */
    void *stage[STAGES];
    size_t stage_bytes;
    uint64_t i_step, i_head;
    struct scratch device, rows, map_host,
        heads[HEADS]; /* map_host and heads: of the host, where copies need no detour */
    struct cuda_batch batch;
    uint32_t n_tok; /* of the step; batch.n_tok is that, or padded */
    /* Recorded steps. */
    struct graph graphs[GRAPHS_MAX], *recording;
    uint32_t n_graphs;
    uint32_t rows_fit; /* rows that every buffer of activations seen so far has room for; 0: none seen */
    struct {
        char *ptr;
        size_t bytes;
    } * allocs;
    uint32_t n_allocs;
    /* Workspace. */
    float *work;
    struct scratch normed, moe, fp8;
    struct expert_table {
        const void *key;
        struct cuda_weights *gate_up, *down; /* of the device */
        enum cuda_kind kind;
    } * tables;
    uint32_t n_tables;
    struct sampler *sampler; /* NULL: sample_open has not been called */
    struct ranks *ranks;     /* NULL: alone */
};

static inline struct cuda_be *cuda_of(struct weir_backend *be)
{
    return (struct cuda_be *)be->ctx;
}

/* Keeps the first failure; end() and map() tell of it. */
void cuda_fail(struct cuda_be *c, weir_err err, const char *what);
/* Asks the device and the ranks; false: something failed, now or before. */
bool cuda_check(struct cuda_be *c);
/* False: no memory, and cuda_fail was told. Contents are lost when it grows. */
bool scratch_fit(struct cuda_be *c, struct scratch *s, size_t bytes);
bool scratch_fit_host(struct cuda_be *c, struct scratch *s, size_t bytes);
/* Rows an operation of the step computes: those of the padded batch for its own n_tok. Notes that `buf` takes so many. */
uint32_t step_rows(struct cuda_be *c, const void *buf, size_t row_bytes, uint32_t n_tok);
void graphs_drop(struct cuda_be *c);

/* pack.c */
weir_err cuda_pack(struct weir_backend *be, const struct weir_weights *parts, int n_parts, uint32_t n_in,
                   enum weir_quant quant, struct weir_matrix **ret);
void cuda_unpack(struct weir_backend *be, struct weir_matrix *m);
uint64_t cuda_matrix_bytes(const struct weir_matrix *m);

/* ops.c */
void cuda_fill_ops(struct weir_backend *be);

/* draw.c */
void sampler_fill_ops(struct weir_backend *be);
void sampler_close(struct cuda_be *c); /* takes one that has none */
const struct weir_drawn *
sampler_latest(const struct cuda_be *c); /* on the device; sample_open has been called */

/* ranks.c: collectives. WEIR_UNAVAILABLE, WEIR_NOMEM, WEIR_IO. */
WEIR_MUST_CHECK weir_err ranks_open(struct cuda_be *c, struct weir_group *group, struct weir_why *why);
void ranks_close(struct cuda_be *c);        /* takes one that has none */
bool ranks_record(const struct cuda_be *c); /* whether its collectives may stand in a recorded step */
void ranks_check(struct cuda_be *c);        /* cuda_fail() when the device gave up waiting for another rank */
/* Over the emulator: ranks opened from now on sum by the one-shot kernel, which waits so long for each other. 0: in the process. */
void ranks_emulate_one_shot(uint64_t patience_ns);
void cuda_all_reduce(struct weir_backend *be, void *x, size_t n);
void cuda_all_gather(struct weir_backend *be, float *out, const float *x, uint32_t n_rows, uint32_t n);

#endif
