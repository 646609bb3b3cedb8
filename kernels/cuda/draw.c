/* draw.c - tokens drawn on the device: their parameters go there, ids and log-probabilities come back, those of the likeliest, too.
 *
 * A set is a step's results. Its draws and their lists are laid out in host memory that copies directly, call after call, and
 * go to the same place on the device; each call's results come back behind its kernel, into the set's own memory. So the step
 * after may begin its set, and take its ids from the device, before anybody has looked at these.
 *   [W1] Memory of the host is written again only when the device has passed the set's mark.
 *   [W2] On the device there is one set: the stream's order keeps the next one's behind whoever reads this one's. */
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/cuda_be.h"

#define DRAWS_AT_ONCE 128 /* of one launch: bounds the logits that rules change */

struct sampler {
    uint32_t n_max, n_vocab;
    size_t stage_bytes, used; /* used: of the set that was begun last */
    char *stage[DRAW_SETS], *device;
    struct weir_drawn *told[DRAW_SETS], *drawn; /* [n_max]; `drawn` on the device */
    float *work;                                /* [DRAWS_AT_ONCE, n_vocab] */
};

static size_t rounded(size_t bytes)
{
    return (bytes + 7) & ~(size_t)7;
}

static size_t list_bytes(const struct sampler *d, const struct weir_draw *draw)
{
    size_t mask = draw->mask ? (d->n_vocab + 31) / 32 * sizeof *draw->mask : 0;

    return rounded(draw->n_seen * sizeof *draw->seen) + rounded(draw->n_bias * sizeof *draw->bias) +
           rounded(draw->n_bans * sizeof *draw->bans) + rounded(mask);
}

/* Copies a list behind the others; where it will be on the device. */
static const void *put(struct sampler *d, char *stage, const void *list, size_t bytes)
{
    const char *at = d->device + d->used;

    if (bytes == 0)
        return NULL;
    memcpy(stage + d->used, list, bytes);
    d->used += rounded(bytes);
    return at;
}

/* The draws, each pointing to the lists behind them; their address on the device. */
static const struct weir_draw *lay_out(struct sampler *d, char *stage, const struct weir_draw *draws,
                                       uint32_t n)
{
    struct weir_draw *to = (struct weir_draw *)(stage + d->used);
    const char *at = d->device + d->used;

    d->used += rounded(n * sizeof *to);
    for (uint32_t i = 0; i < n; i++) {
        const struct weir_draw *draw = &draws[i];
        size_t mask = draw->mask ? (d->n_vocab + 31) / 32 * sizeof *draw->mask : 0;
        to[i] = *draw;
        to[i].seen = put(d, stage, draw->seen, draw->n_seen * sizeof *draw->seen);
        to[i].bias = put(d, stage, draw->bias, draw->n_bias * sizeof *draw->bias);
        to[i].bans = put(d, stage, draw->bans, draw->n_bans * sizeof *draw->bans);
        to[i].mask = put(d, stage, draw->mask, mask);
    }
    return (const struct weir_draw *)at;
}

/* Room for so many bytes more of the set; false: there never is. */
static bool make_room(struct cuda_be *c, struct sampler *d, uint32_t set, size_t bytes)
{
    if (bytes > d->stage_bytes)
        return false;
    if (d->used + bytes > d->stage_bytes) {
        dev_await(c->d, MARK_SET(set)); /* [W1]; many lists: from the start again */
        d->used = 0;
    }
    return true;
}

static void sample(struct cuda_be *c, uint32_t set, uint32_t first, const float *logits, uint32_t stride,
                   const struct weir_draw *draws, uint32_t n)
{
    struct sampler *d = c->sampler;
    size_t bytes = rounded(n * sizeof *draws);

    for (uint32_t i = 0; i < n; i++)
        bytes += list_bytes(d, &draws[i]);
    if (first + n > d->n_max || !make_room(c, d, set, bytes)) {
        cuda_fail(c, WEIR_INVALID, "more draws, or longer lists, than sample_open was told of");
        return;
    }
    size_t from = d->used;
    struct cuda_sample_in in = { .logits = logits,
                                 .stride = stride,
                                 .n_vocab = d->n_vocab,
                                 .n = n,
                                 .draws = lay_out(d, d->stage[set], draws, n),
                                 .work = d->work };
    dev_upload(c->d, d->device + from, d->stage[set] + from, bytes);
    cuda_sample_run(dev_stream(c->d), d->drawn + first, &in);
    dev_download(c->d, d->told[set] + first, d->drawn + first, n * sizeof *d->drawn);
    dev_mark(c->d, MARK_SET(set));
}

static void op_sample(struct weir_backend *be, uint32_t set, uint32_t first, const float *logits,
                      uint32_t stride, const struct weir_draw *draws, uint32_t n)
{
    struct cuda_be *c = cuda_of(be);

    if (c->failed)
        return;
    if (first == 0) {
        dev_await(c->d, MARK_SET(set)); /* [W1] */
        c->sampler->used = 0;
    }
    if (n == 0)
        dev_mark(c->d, MARK_SET(set));
    for (uint32_t i = 0; i < n; i += DRAWS_AT_ONCE)
        sample(c, set, first + i, logits, stride, draws + i, n - i < DRAWS_AT_ONCE ? n - i : DRAWS_AT_ONCE);
}

static const struct weir_drawn *op_drawn(struct weir_backend *be, uint32_t set)
{
    struct cuda_be *c = cuda_of(be);

    if (!c->failed)
        dev_await(c->d, MARK_SET(set));
    return cuda_check(c) ? c->sampler->told[set] : NULL;
}

const struct weir_drawn *sampler_latest(const struct cuda_be *c)
{
    return c->sampler->drawn; /* [W2] */
}

void sampler_close(struct cuda_be *c)
{
    struct sampler *d = c->sampler;

    if (!d)
        return;
    for (int i = 0; i < DRAW_SETS; i++) {
        dev_host_free(c->d, d->stage[i]);
        dev_host_free(c->d, d->told[i]);
    }
    dev_free(c->d, d->device);
    dev_free(c->d, d->drawn);
    dev_free(c->d, d->work);
    weir_free(d);
    c->sampler = NULL;
}

static bool alloc_all(struct cuda_be *c, struct sampler *d)
{
    size_t results = d->n_max * sizeof *d->drawn;
    uint32_t n_work = d->n_max < DRAWS_AT_ONCE ? d->n_max : DRAWS_AT_ONCE;

    d->device = dev_alloc(c->d, d->stage_bytes);
    d->drawn = dev_alloc(c->d, results);
    d->work = dev_alloc(c->d, (size_t)n_work * d->n_vocab * sizeof *d->work);
    for (int i = 0; i < DRAW_SETS; i++) {
        d->stage[i] = dev_host_alloc(c->d, d->stage_bytes);
        d->told[i] = dev_host_alloc(c->d, results);
        if (!d->stage[i] || !d->told[i])
            return false;
    }
    return d->device && d->drawn && d->work;
}

static weir_err op_sample_open(struct weir_backend *be, uint32_t n_draws_max, uint32_t n_vocab,
                               size_t bytes_of_lists, struct weir_why *why)
{
    struct cuda_be *c = cuda_of(be);
    struct sampler *d = weir_alloc0(sizeof *d);

    WEIR_BUG_ON(c->sampler);
    if (!d)
        return weir_fail(why, WEIR_NOMEM, "%s: no memory to draw tokens", c->name);
    d->n_max = n_draws_max;
    d->n_vocab = n_vocab;
    d->stage_bytes = rounded(n_draws_max * sizeof(struct weir_draw)) + bytes_of_lists;
    c->sampler = d;
    if (alloc_all(c, d))
        return WEIR_OK;
    sampler_close(c);
    return weir_fail(why, WEIR_NOMEM, "%s: no memory on the device to draw tokens", c->name);
}

void sampler_fill_ops(struct weir_backend *be)
{
    be->sample_open = op_sample_open;
    be->sample = op_sample;
    be->drawn = op_drawn;
}
