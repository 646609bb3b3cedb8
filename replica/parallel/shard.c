/* shard.c - see shard.h.
 *
 *   [S1] Over all ranks, each head, column and row of the vocabulary is there exactly once (a key head: at least once).
 *   [S2] A query head and its key head are on the same rank. */
#include "replica/parallel/shard.h"

/* Cuts are at multiples of it where there is enough to cut: groups of quantized weights and vectors stay whole. */
#define GRAIN 64

static struct shard_range cut(uint32_t total, uint32_t rank, uint32_t n_ranks)
{
    uint32_t grain = total / n_ranks >= GRAIN ? GRAIN : 1, n_grains = (total + grain - 1) / grain;
    uint64_t from = (uint64_t)n_grains * rank / n_ranks * grain;
    uint64_t to = (uint64_t)n_grains * (rank + 1) / n_ranks * grain;

    return (struct shard_range){ (uint32_t)from, (uint32_t)((to < total ? to : total) - from) };
}

static weir_err refuse(struct weir_why *why, uint32_t n_ranks, const char *what)
{
    return weir_fail_param(why, "tensor_parallel", WEIR_INVALID,
                           "tensor_parallel: %u ranks can't share the model's %s", n_ranks, what);
}

weir_err shard_of(const struct model_config *c, uint32_t rank, uint32_t n_ranks, struct shard *ret,
                  struct weir_why *why)
{
    struct shard s = { .rank = rank, .n_ranks = n_ranks };

    if (n_ranks == 0 || n_ranks > SHARD_RANKS_MAX || rank >= n_ranks)
        return refuse(why, n_ranks, "weights: there must be 1 to 64");
    if (c->n_head % n_ranks != 0)
        return refuse(why, n_ranks, "heads evenly");
    if (c->n_kv_head % n_ranks != 0 && n_ranks % c->n_kv_head != 0)
        return refuse(why, n_ranks, "key heads evenly");
    if (c->d_ffn < n_ranks || (c->n_expert && c->d_expert < n_ranks) || c->n_vocab < n_ranks)
        return refuse(why, n_ranks, "columns: there are too few");
    s.heads = (struct shard_range){ c->n_head / n_ranks * rank, c->n_head / n_ranks };
    if (c->n_kv_head >= n_ranks)
        s.kv_heads = (struct shard_range){ c->n_kv_head / n_ranks * rank, c->n_kv_head / n_ranks };
    else
        s.kv_heads = (struct shard_range){ rank / (n_ranks / c->n_kv_head), 1 }; /* [S2] */
    s.ffn = cut(c->d_ffn, rank, n_ranks);
    s.expert = c->n_expert ? cut(c->d_expert, rank, n_ranks) : (struct shard_range){ 0, 0 };
    s.vocab_rows = (c->n_vocab + n_ranks - 1) / n_ranks;
    s.vocab.from = s.vocab_rows * rank < c->n_vocab ? s.vocab_rows * rank : c->n_vocab;
    s.vocab.n = c->n_vocab - s.vocab.from < s.vocab_rows ? c->n_vocab - s.vocab.from : s.vocab_rows;
    *ret = s;
    return WEIR_OK;
}
