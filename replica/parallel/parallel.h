/* parallel.h - a model on one or several ranks of this process, behind one face.
 *
 * Rank 0 runs in the caller's thread; each other rank is a thread with its own back end and its own share of the weights,
 * which follows rank 0's calls. With one rank there are no threads and no collectives: the calls go straight to the model.
 *
 * All calls come from one thread (the engine's step thread, or the one that opens it), but parallel_break. */
#ifndef WEIR_REPLICA_PARALLEL_PARALLEL_H
#define WEIR_REPLICA_PARALLEL_PARALLEL_H

#include "replica/model/model.h"

struct parallel;

struct parallel_opts {
    /* Opens a rank's back end: weir_backend_cpu_open or another of its kind. */
    weir_err (*open)(const struct weir_backend_opts *opts, struct weir_backend **ret, struct weir_why *why);
    struct weir_backend_opts
        backend;      /* for each rank, but group and rank; n_threads is for all ranks together */
    uint32_t n_ranks; /* 1 to SHARD_RANKS_MAX */
    enum weir_quant quant;
};

/* Opens the back ends. WEIR_INVALID: the model can't be split so. WEIR_NOMEM, WEIR_IO, and what a back end says. */
WEIR_MUST_CHECK weir_err parallel_open(const struct parallel_opts *opts, const struct model_config *config,
                                       struct parallel **ret, struct weir_why *why);
void parallel_close(struct parallel *p); /* takes NULL */

/* Bytes of a KV page over all layers and ranks. */
uint64_t parallel_page_bytes(const struct parallel *p);
/* Loads <dir>, every rank its share at the same time; once. Errors of safetensors_open and model_open. */
WEIR_MUST_CHECK weir_err parallel_load(struct parallel *p, const char *dir, const struct model_limits *limits,
                                       struct weir_why *why);

/* As model_forward, model_logits and model_copy_page. WEIR_IO: a rank failed; every later step fails too. */
WEIR_MUST_CHECK weir_err parallel_forward(struct parallel *p, const struct weir_batch *batch,
                                          struct weir_why *why);
WEIR_MUST_CHECK weir_err parallel_logits(struct parallel *p, const int32_t *rows, uint32_t n,
                                         const float **ret, struct weir_why *why);
/* As model_head, model_row, model_draw and model_drawn. Every rank draws, from the same logits: each knows the tokens of the
 * next step. */
WEIR_MUST_CHECK weir_err parallel_head(struct parallel *p, const int32_t *rows, uint32_t n,
                                       struct weir_why *why);
WEIR_MUST_CHECK weir_err parallel_row(struct parallel *p, uint32_t i, const float **ret,
                                      struct weir_why *why);
WEIR_MUST_CHECK weir_err parallel_draw(struct parallel *p, uint32_t set, uint32_t first,
                                       const struct weir_draw *draws, uint32_t n, struct weir_why *why);
WEIR_MUST_CHECK weir_err parallel_drawn(struct parallel *p, uint32_t set, const struct weir_drawn **ret,
                                        struct weir_why *why);
void parallel_copy_page(struct parallel *p, uint32_t from, uint32_t to);

/* Any thread: the ranks no longer meet; the step under way and all later ones fail with WEIR_IO. With one rank: nothing. */
void parallel_break(struct parallel *p);

bool parallel_can_draw(const struct parallel *p);    /* the back ends draw tokens; after parallel_open */
const char *parallel_name(const struct parallel *p); /* "cpu avx512", "cpu avx512 x 2" */
uint64_t parallel_n_params(const struct parallel *p);
uint64_t parallel_weight_bytes(const struct parallel *p); /* of all ranks, as packed */
const uint8_t *parallel_weights_hash(const struct parallel *p);

#endif
