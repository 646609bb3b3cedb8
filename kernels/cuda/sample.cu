/* sample.cu - from logits to a token on the device, a block a row, without sorting.
 *
 * What sample.h of the engine says, in the same order: bias, penalties, bans, mask; temperature; top-k, top-p, min-p, each keeping
 * the more probable, ties by the lower id; a draw by the number of (seed, choice, position). Probabilities are whole
 * numbers here, 2^40 for the likeliest token, so their sums do not depend on the order in which threads add them.
 * Whatever has to be found in sorted order - the k-th token, the one where the mass reaches p, the one drawn - is found by
 * descending through the bytes of the logit's bits: a histogram of what each byte value holds, the bin where the sum
 * crosses, and into it.
 * Log-probabilities, and the likeliest tokens that are told with one, are of the logits as they were given: each of these is the best
 * below the one before, found by one more look at all.
 *   [D1] The same row gives the same token, whatever stands beside it and however threads run.
 *   [D2] A token outside of the kept set is never drawn; one whose probability is less than 2^-40 of the best's neither. */
#include "kernels/cuda/cuda_int.h"
#include "kernels/cuda/gpu.cuh"

#define SAMPLE_THREADS 512
#define SAMPLE_BINS 256
#define TAKE_THREADS 128
#define SAMPLE_ONE 1099511627776.0 /* 2^40 */
#define RANK_NAN (~0ull)

struct row {
    const struct weir_draw *how;
    const float *logits;
    uint32_t n;
    float best;
    int32_t i_best;
    uint32_t key_min, id_cut; /* kept: keys above key_min, and of those at it ids up to id_cut */
    uint32_t key_floor;       /* and none below this */
};

/* Bits that order as the numbers do. */
__device__ static inline uint32_t key_of(float f)
{
    uint32_t bits = __float_as_uint(f == 0 ? 0.0f : f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ static inline float of_key(uint32_t key)
{
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

__device__ static inline uint64_t mass_of(const struct row *row, float logit)
{
    return (uint64_t)(exp(((double)logit - (double)row->best) / row->how->temperature) * SAMPLE_ONE);
}

__device__ static inline bool kept(const struct row *row, uint32_t i, uint32_t key)
{
    return key >= row->key_floor && (key > row->key_min || (key == row->key_min && i <= row->id_cut));
}

/* ---- sums over the block ---- */
__device__ static uint64_t block_total(uint64_t value)
{
    GPU_SHARED(uint64_t, values, SAMPLE_THREADS);

    values[threadIdx.x] = value;
    __syncthreads();
    for (uint32_t half = SAMPLE_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half)
            values[threadIdx.x] += values[threadIdx.x + half];
        __syncthreads();
    }
    uint64_t total = values[0];
    __syncthreads();
    return total;
}

__device__ static uint64_t total_mass(const struct row *row)
{
    uint64_t sum = 0;

    for (uint32_t i = threadIdx.x; i < row->n; i += SAMPLE_THREADS)
        if (kept(row, i, key_of(row->logits[i])))
            sum += mass_of(row, row->logits[i]);
    return block_total(sum);
}

/* ---- finding ---- */
/* In the order of falling keys, the key where the sum of what is kept (its count, or its mass) first reaches `target`, 1 or
 * more; *before: the sum of the keys above it. Ties share a key. */
__device__ static uint32_t descend(const struct row *row, bool by_mass, uint64_t target, uint64_t *before)
{
    GPU_SHARED(unsigned long long, bins, SAMPLE_BINS);
    GPU_SHARED(unsigned long long, found, 2); /* the byte, the sum before it */
    uint32_t prefix = 0;
    uint64_t above = 0;

    for (int shift = 24; shift >= 0; shift -= 8) {
        for (uint32_t i = threadIdx.x; i < SAMPLE_BINS; i += SAMPLE_THREADS)
            bins[i] = 0;
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < row->n; i += SAMPLE_THREADS) {
            uint32_t key = key_of(row->logits[i]);
            if (((uint64_t)key >> (shift + 8)) == ((uint64_t)prefix >> (shift + 8)) && kept(row, i, key))
                atomicAdd(&bins[key >> shift & 255], (unsigned long long)(by_mass ? mass_of(row, row->logits[i]) : 1));
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            uint64_t sum = above;
            int bin = SAMPLE_BINS - 1;
            for (; bin > 0 && sum + bins[bin] < target; bin--)
                sum += bins[bin];
            found[0] = (unsigned long long)bin;
            found[1] = sum;
        }
        __syncthreads();
        prefix |= (uint32_t)found[0] << shift;
        above = found[1];
        __syncthreads();
    }
    *before = above;
    return prefix;
}

/* In the order of ids, the id at which the sum passes `left`; `only`: each of that key counts 1, or 0: by mass. n when it
 * does not. Threads hold runs of ids. */
__device__ static uint32_t walk(const struct row *row, bool by_mass, uint32_t only, uint64_t left)
{
    GPU_SHARED(uint64_t, sums, SAMPLE_THREADS);
    GPU_SHARED(uint32_t, answer, 1);
    uint32_t run = gpu_ceil_div(row->n, SAMPLE_THREADS), begin = threadIdx.x * run, end = begin + run;
    uint64_t sum = 0;

    end = end < row->n ? end : row->n;
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = begin; i < end; i++) {
            uint32_t key = key_of(row->logits[i]);
            uint64_t amount = !kept(row, i, key) ? 0 : by_mass ? mass_of(row, row->logits[i]) : key == only;
            sum += amount;
            if (pass == 1 && amount && sum > left && sum - amount <= left)
                answer[0] = i; /* one thread, one id */
        }
        if (pass == 1)
            break;
        sums[threadIdx.x] = sum;
        if (threadIdx.x == 0)
            answer[0] = row->n;
        __syncthreads();
        sum = 0;
        for (uint32_t i = 0; i < threadIdx.x; i++)
            sum += sums[i];
    }
    __syncthreads();
    uint32_t ret = answer[0];
    __syncthreads();
    return ret;
}

/* ---- the row ---- */
__device__ static bool has_rules(const struct weir_draw *how)
{
    return how->n_bias || how->n_seen || how->n_bans || how->mask;
}

/* One number after the other, in the order and the precision of the host, so that both choose the same. */
__device__ static float penalized(float logit, const struct weir_draw *how, uint32_t n_out)
{
    logit = (float)(logit > 0 ? (double)logit / how->repetition : (double)logit * how->repetition);
    if (n_out > 0)
        logit -= (float)how->presence;
    for (uint32_t i = 0; i < n_out; i++)
        logit -= (float)how->frequency;
    return logit;
}

/* A changed copy of the logits. */
__device__ static void apply_rules(const struct weir_draw *how, const float *from, float *logits, uint32_t n)
{
    for (uint32_t i = threadIdx.x; i < n; i += SAMPLE_THREADS)
        logits[i] = from[i];
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < how->n_bias; i += SAMPLE_THREADS)
        logits[how->bias[i].id] += how->bias[i].bias;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < how->n_seen; i += SAMPLE_THREADS)
        logits[how->seen[i].id] = penalized(logits[how->seen[i].id], how, how->seen[i].n_out);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < how->n_bans; i += SAMPLE_THREADS)
        logits[how->bans[i]] = -GPU_INF;
    for (uint32_t i = threadIdx.x; how->mask && i < n; i += SAMPLE_THREADS)
        if (!(how->mask[i / 32] >> i % 32 & 1))
            logits[i] = -GPU_INF;
    __syncthreads();
}

/* Key, then the id turned round: the best has the largest, the lowest id among equals. A NaN beats all. */
__device__ static inline unsigned long long rank_of(float logit, uint32_t id)
{
    return logit != logit ? RANK_NAN : (unsigned long long)key_of(logit) << 32 | (0xffffffffu - id);
}

__device__ static inline uint32_t id_of(unsigned long long rank)
{
    return 0xffffffffu - (uint32_t)rank;
}

/* The largest rank up to `limit`; 0: there is none. */
__device__ static unsigned long long best_rank(const float *logits, uint32_t n, unsigned long long limit)
{
    GPU_SHARED(unsigned long long, best, SAMPLE_THREADS);
    unsigned long long mine = 0;

    for (uint32_t i = threadIdx.x; i < n; i += SAMPLE_THREADS) {
        unsigned long long it = rank_of(logits[i], i);
        mine = it <= limit && it > mine ? it : mine;
    }
    best[threadIdx.x] = mine;
    __syncthreads();
    for (uint32_t half = SAMPLE_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half && best[threadIdx.x + half] > best[threadIdx.x])
            best[threadIdx.x] = best[threadIdx.x + half];
        __syncthreads();
    }
    mine = best[0];
    __syncthreads();
    return mine;
}

/* -1: there is a NaN, or none is finite. */
__device__ static int32_t find_best(const float *logits, uint32_t n)
{
    unsigned long long rank = best_rank(logits, n, RANK_NAN);
    uint32_t id = id_of(rank);

    return rank == RANK_NAN || id >= n || logits[id] == GPU_INF || logits[id] == -GPU_INF ? -1 : (int32_t)id;
}

__device__ static double log_sum(const float *logits, uint32_t n, float best)
{
    GPU_SHARED(double, sums, SAMPLE_THREADS);
    double sum = 0;

    for (uint32_t i = threadIdx.x; i < n; i += SAMPLE_THREADS)
        sum += exp((double)logits[i] - (double)best);
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (uint32_t half = SAMPLE_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half)
            sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    sum = sums[0];
    __syncthreads();
    return log(sum) + (double)best;
}

/* As weir_hash_mix() of base/hash.h. */
__device__ static inline uint64_t hash_mix(uint64_t seed, uint64_t value)
{
    uint64_t x = (seed ^ value) + 0x9e3779b97f4a7c15ull + (seed << 6) + (seed >> 2);

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

__device__ static double uniform(const struct weir_draw *how)
{
    uint64_t bits = hash_mix(hash_mix(hash_mix(0x77656972, how->seed), how->choice), how->position);
    return (double)(bits >> 11) * 0x1p-53;
}

__device__ static void keep_top_k(struct row *row)
{
    uint64_t before;
    uint32_t key = descend(row, /* by_mass= */ false, (uint64_t)row->how->top_k, &before);
    uint32_t cut = walk(row, /* by_mass= */ false, key, (uint64_t)row->how->top_k - before - 1);

    row->key_min = key;
    row->id_cut = cut;
}

__device__ static void keep_top_p(struct row *row)
{
    uint64_t before, target = (uint64_t)ceil(row->how->top_p * (double)total_mass(row));
    uint32_t key = descend(row, /* by_mass= */ true, target ? target : 1, &before);
    uint64_t each = mass_of(row, of_key(key));
    uint64_t ties = each && target > before ? (target - before + each - 1) / each : 1;
    uint32_t cut = walk(row, /* by_mass= */ false, key, ties - 1);

    row->id_cut = key == row->key_min && cut > row->id_cut ? row->id_cut : cut;
    row->key_min = key;
}

/* The lowest key whose probability is still min_p of the best's: found by halving, since probabilities rise with keys. */
__device__ static void keep_min_p(struct row *row)
{
    uint32_t low = 0, high = key_of(row->best);

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        double p = exp(((double)of_key(middle) - (double)row->best) / row->how->temperature);
        if (p >= row->how->min_p) /* false for the NaNs below -inf's key */
            high = middle;
        else
            low = middle + 1;
    }
    row->key_floor = high;
}

__device__ static int32_t draw(struct row *row, bool sorted)
{
    uint64_t total = total_mass(row), left = (uint64_t)(uniform(row->how) * (double)total), before;

    left = left < total ? left : total - 1;
    if (!sorted)
        return (int32_t)walk(row, /* by_mass= */ true, 0, left);
    uint32_t key = descend(row, /* by_mass= */ true, left + 1, &before);
    uint64_t each = mass_of(row, of_key(key));
    return (int32_t)walk(row, /* by_mass= */ false, key, each ? (left - before) / each : 0);
}

/* row.i_best is a token. */
__device__ static int32_t choose(struct row *row)
{
    const struct weir_draw *how = row->how;
    bool by_k = how->top_k > 0 && (uint32_t)how->top_k < row->n;

    row->best = row->logits[row->i_best];
    if (how->temperature <= 0 || how->top_k == 1)
        return row->i_best;
    row->id_cut = 0xffffffffu;
    if (by_k)
        keep_top_k(row);
    if (how->top_p < 1)
        keep_top_p(row);
    if (how->min_p > 0)
        keep_min_p(row);
    return draw(row, by_k || how->top_p < 1);
}

/* ---- what is told ---- */
__device__ static void find_tops(struct weir_top_logprob *tops, uint32_t n_tops, const float *logits, uint32_t n,
                                 int32_t i_best, double lse)
{
    unsigned long long rank = i_best < 0 ? 0 : rank_of(logits[i_best], (uint32_t)i_best);

    for (uint32_t k = 0; k < n_tops; k++) {
        if (k > 0 && rank)
            rank = best_rank(logits, n, rank - 1);
        if (threadIdx.x == 0) {
            tops[k].id = rank ? (int32_t)id_of(rank) : -1;
            tops[k].logprob = rank ? (float)((double)logits[id_of(rank)] - lse) : -GPU_INF;
        }
    }
}

/* Log softmax of the token, NaN when there is none or the logits say nothing, and of the likeliest. All threads call it; i_best: of
 * these logits. */
__device__ static void tell_logprobs(struct weir_drawn *told, const struct weir_draw *how, const float *logits,
                                     uint32_t n, int32_t i_best, int32_t id)
{
    double lse = i_best < 0 ? 0 : log_sum(logits, n, logits[i_best]);

    if (threadIdx.x == 0)
        told->logprob = i_best < 0 || id < 0 ? __uint_as_float(0x7fc00000u) : (float)((double)logits[id] - lse);
    find_tops(told->tops, how->n_tops, logits, n, i_best, lse);
}

__global__ void __launch_bounds__(SAMPLE_THREADS) sample_kernel(struct weir_drawn *out, struct cuda_sample_in in)
{
    const struct weir_draw *how = &in.draws[blockIdx.x];
    const float *given = in.logits + (size_t)how->row * in.stride;
    struct weir_drawn *told = &out[blockIdx.x];
    struct row row = {};

    row.how = how;
    row.n = in.n_vocab;
    row.logits = given;
    if (has_rules(how)) {
        float *changed = in.work + (size_t)blockIdx.x * in.n_vocab;
        apply_rules(how, given, changed, in.n_vocab);
        row.logits = changed;
    }
    row.i_best = find_best(row.logits, row.n);
    int32_t id = row.i_best < 0 ? -1 : choose(&row);
    if (threadIdx.x == 0) {
        told->id = id;
        told->logprob = 0;
    }
    if (how->logprob)
        tell_logprobs(told, how, given, row.n, row.logits == given ? row.i_best : find_best(given, row.n), id);
}

void cuda_sample_run(struct dev_stream *s, struct weir_drawn *out, const struct cuda_sample_in *in)
{
    GPU_LAUNCH(sample_kernel, in->n, SAMPLE_THREADS, 0, (gpu_stream)s, out, *in);
}

/* ---- the next step's tokens ---- */
__global__ void take_kernel(int32_t *ids, const int32_t *from, const struct weir_drawn *drawn, uint32_t n)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;

    if (i < n && from[i] >= 0)
        ids[i] = drawn[from[i]].id < 0 ? 0 : drawn[from[i]].id;
}

void cuda_take_drawn(struct dev_stream *s, int32_t *ids, const int32_t *from, const struct weir_drawn *drawn,
                     uint32_t n)
{
    GPU_LAUNCH(take_kernel, gpu_ceil_div(n, TAKE_THREADS), TAKE_THREADS, 0, (gpu_stream)s, ids, from, drawn, n);
}
