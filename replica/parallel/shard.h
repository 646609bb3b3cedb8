/* shard.h - which part of a model a rank holds: heads, columns and rows, as plain arithmetic.
 *
 * Products whose outputs are split (q, k, v; gate, up; head) need no exchange; those whose inputs are split (out, down) give
 * partial sums, which an all_reduce adds up. Source: Shoeybi et al. 2019 (arXiv 1909.08053). */
#ifndef WEIR_REPLICA_PARALLEL_SHARD_H
#define WEIR_REPLICA_PARALLEL_SHARD_H

#include <stdint.h>

#include "base/err.h"
#include "replica/model/config.h"

#define SHARD_RANKS_MAX 64

struct shard_range {
    uint32_t from, n;
};

struct shard {
    uint32_t rank, n_ranks;
    struct shard_range heads,
        kv_heads;                   /* a key head of several ranks when there are fewer of them than ranks */
    struct shard_range ffn, expert; /* numbers between gate and down, of dense layers and of each expert */
    struct shard_range vocab;       /* rows of the head; n may be 0 on the last ranks */
    uint32_t vocab_rows; /* rows of the head on every rank: the same on all; zeros behind vocab.n */
};

/* WEIR_INVALID: the model can't be split so; `why` names tensor_parallel. */
WEIR_MUST_CHECK weir_err shard_of(const struct model_config *config, uint32_t rank, uint32_t n_ranks,
                                  struct shard *ret, struct weir_why *why);

#endif
