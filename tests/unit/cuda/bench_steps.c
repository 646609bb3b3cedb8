/* bench_steps.c - whole steps of a model of Llama 3 8B's shape through the back end's table, as replica/model asks for them:
 * decoding with a context, and a prompt. Weights are random; they come from one buffer of numbers behind every name, which is
 * what the functions of safetensors.h here say - the real ones are not linked.
 *
 * A decoding step is the model, the head and the draw; the tokens go into the next step where they are, and to the host. Its time
 * is that of many, each asked for while the one before still runs, as the engine does; `host` is what the host needs to ask for one,
 * and `alone` what a step costs from asking to tokens when each waits for the one before: what the host costs where it is not
 * hidden is in the difference to the first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda_be.h"
#include "replica/model/model.h"
#include "tests/unit/cuda/bench.h"

enum { STEPS_MAX = 64, WARM = 4, PROMPTS_MAX = 5, NAME = 64, ROOM_MIB = 6144 };

/* ---- weights ---- */
struct safetensors {
    struct tensor *items;
    char (*names)[NAME];
    size_t n;
    uint16_t *numbers;
};

static void add(struct safetensors *st, const char *name, uint64_t rows, uint64_t columns)
{
    struct tensor *t = &st->items[st->n];

    snprintf(st->names[st->n], NAME, "%s", name);
    *t = (struct tensor){ .name = { st->names[st->n], strlen(st->names[st->n]) },
                          .data = st->numbers,
                          .dtype = WEIR_BF16,
                          .n_dims = columns ? 2 : 1,
                          .dims = { rows, columns } };
    st->n++;
}

static void add_layer(struct safetensors *st, const struct bench_shape *s, uint32_t i)
{
    uint64_t q = (uint64_t)s->n_head * s->d_head, kv = (uint64_t)s->n_kv_head * s->d_head, d = s->d_model;
    const struct {
        const char *name;
        uint64_t rows, columns;
    } parts[] = { { "input_layernorm", d, 0 },      { "post_attention_layernorm", d, 0 },
                  { "self_attn.q_proj", q, d },     { "self_attn.k_proj", kv, d },
                  { "self_attn.v_proj", kv, d },    { "self_attn.o_proj", d, q },
                  { "mlp.gate_proj", s->d_ffn, d }, { "mlp.up_proj", s->d_ffn, d },
                  { "mlp.down_proj", d, s->d_ffn } };
    char name[NAME];

    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
        snprintf(name, sizeof name, "model.layers.%u.%s.weight", i, parts[k].name);
        add(st, name, parts[k].rows, parts[k].columns);
    }
}

static void weights_open(struct safetensors *st, const struct bench_shape *s)
{
    /* All tensors begin at the same numbers: as many as the largest has. */
    size_t rows = s->n_vocab > s->d_ffn ? s->n_vocab : s->d_ffn, n = rows * s->d_model;
    uint64_t state = 88172645463325252u;

    *st = (struct safetensors){ .items = calloc(9 * s->n_layer + 3, sizeof *st->items),
                                .names = calloc(9 * s->n_layer + 3, NAME),
                                .numbers = malloc(n * sizeof *st->numbers) };
    if (!st->items || !st->names || !st->numbers) {
        fprintf(stderr, "no memory for random weights\n");
        exit(1);
    }
    for (size_t i = 0; i < n; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        st->numbers[i] = (uint16_t)(0x3c00 | (state >> 40 & 0x81ff));
    }
    for (uint32_t i = 0; i < s->n_layer; i++)
        add_layer(st, s, i);
    add(st, "model.embed_tokens.weight", s->n_vocab, s->d_model);
    add(st, "lm_head.weight", s->n_vocab, s->d_model);
    add(st, "model.norm.weight", s->d_model, 0);
}

static void weights_close(struct safetensors *st)
{
    free(st->items);
    free(st->names);
    free(st->numbers);
}

const struct tensor *safetensors_find(const struct safetensors *st, const char *name)
{
    for (size_t i = 0; i < st->n; i++)
        if (strcmp(st->names[i], name) == 0)
            return &st->items[i];
    return NULL;
}

size_t safetensors_count(const struct safetensors *st)
{
    return st->n;
}

const struct tensor *safetensors_at(const struct safetensors *st, size_t i)
{
    return &st->items[i];
}

size_t safetensors_index(const struct safetensors *st, const struct tensor *t)
{
    return (size_t)(t - st->items);
}

void safetensors_will_read(const struct safetensors *st, const char *prefix)
{
    (void)st, (void)prefix;
}

void safetensors_have_read(const struct safetensors *st, const char *prefix)
{
    (void)st, (void)prefix;
}

/* ---- the model ---- */
struct steps {
    struct bench *b;
    enum weir_quant quant;
    struct weir_backend *be;
    struct model *model;
    struct weir_matrix *head; /* the model's is its own; this is another like it */
    void *x;                  /* rows that the head takes */
    float *norm, *logits;
    uint32_t n_page, n_block; /* pages there are; of a sequence */
    int32_t *ids, *pos, *seq, *rows, *table;
    struct weir_draw *draws;
    bool failed;
};

static weir_err parse(const struct bench_shape *s, struct model_config *ret, struct weir_why *why)
{
    char text[1024];
    int n = snprintf(
        text, sizeof text,
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":%u,"
        "\"intermediate_size\":%u,\"num_hidden_layers\":%u,\"num_attention_heads\":%u,"
        "\"num_key_value_heads\":%u,\"head_dim\":%u,\"vocab_size\":%u,\"max_position_embeddings\":%u,"
        "\"rms_norm_eps\":1e-05,\"rope_theta\":500000.0,\"tie_word_embeddings\":false,\"eos_token_id\":0}",
        s->d_model, s->d_ffn, s->n_layer, s->n_head, s->n_kv_head, s->d_head, s->n_vocab, s->n_prompt);

    return model_config_parse((struct weir_str){ text, (size_t)n }, (struct weir_str){ "", 0 }, ret, why);
}

static double weight_bytes(enum weir_quant quant)
{
    return quant == WEIR_NATIVE ? 2 : quant == WEIR_Q4 ? 0.53125 : 1;
}

/* Of the layers; the head has n_vocab * d_model. */
static double layer_weights(const struct bench_shape *s)
{
    double q = (double)s->n_head * s->d_head, kv = (double)s->n_kv_head * s->d_head;

    return s->n_layer * ((double)s->d_model * (2 * q + 2 * kv) + 3.0 * s->d_model * s->d_ffn);
}

static double kv_bytes(const struct bench_shape *s) /* of a token */
{
    return 4.0 * s->n_layer * s->n_kv_head * s->d_head;
}

/* As many pages as the largest batch wants, or as fit. */
static uint32_t pages_that_fit(const struct bench *b, enum weir_quant quant)
{
    const struct bench_shape *s = &b->shape;
    double wanted = (double)s->batch[BENCH_BATCHES - 1] * s->n_ctx / WEIR_KV_BLOCK;
    double both = (double)s->n_vocab * s->d_model * (2 + 2 * weight_bytes(quant));
    double free_bytes = 0.92 * (double)dev_about(b->d)->memory_bytes -
                        layer_weights(s) * weight_bytes(quant) - both -
                        (dev_is_emulated() ? 0 : ROOM_MIB * 1048576.0);
    double fit = free_bytes / (kv_bytes(s) * WEIR_KV_BLOCK);

    return (uint32_t)(fit < 0 ? 0 : fit < wanted ? fit : wanted);
}

static weir_err open_steps(struct steps *s, struct weir_why *why)
{
    const struct bench_shape *shape = &s->b->shape;
    const struct weir_backend_opts opts = { .n_threads = 1 };
    uint32_t n_seq = shape->batch[BENCH_BATCHES - 1],
             n_tok = shape->n_prompt > n_seq ? shape->n_prompt : n_seq;
    struct model_limits limits = { .n_tok_max = n_tok, .n_logits_max = 1 };
    struct model_config config;
    struct safetensors st;

    s->n_page = limits.n_blocks = pages_that_fit(s->b, s->quant);
    if (s->n_page < shape->n_prompt / WEIR_KV_BLOCK)
        return weir_fail(why, WEIR_NOMEM, "the device has no room for the model and a prompt");
    weights_open(&st, shape);
    const struct weir_weights part = { st.numbers, WEIR_BF16, shape->n_vocab, shape->d_model };
    weir_err err = parse(shape, &config, why);
    if (err == WEIR_OK)
        err = cuda_open(weir_plugin_host(), &opts, &s->be, why);
    if (err == WEIR_OK)
        err = model_open(&st, &config, s->be, s->quant, &limits, &s->model, why);
    if (err == WEIR_OK && s->be->pack(s->be, &part, 1, shape->d_model, s->quant, &s->head) != WEIR_OK)
        err = weir_fail(why, WEIR_NOMEM, "the device has no room for the head");
    weights_close(&st);
    if (err != WEIR_OK)
        return err;
    s->x = s->be->alloc(s->be, (size_t)n_seq * shape->d_model * 2);
    s->norm = s->be->alloc(s->be, (size_t)shape->d_model * 4);
    s->logits = s->be->alloc(s->be, (size_t)n_seq * shape->n_vocab * 4);
    s->ids = calloc(n_tok, 4);
    s->pos = calloc(n_tok, 4);
    s->seq = calloc(n_tok, 4);
    s->rows = calloc(n_seq, 4);
    s->draws = calloc(n_seq, sizeof *s->draws);
    s->n_block = (shape->n_prompt > shape->n_ctx ? shape->n_prompt : shape->n_ctx) / WEIR_KV_BLOCK;
    s->table = calloc((size_t)n_seq * s->n_block, 4);
    if (!s->x || !s->norm || !s->logits || !s->ids || !s->pos || !s->seq || !s->table || !s->rows ||
        !s->draws)
        return weir_fail(why, WEIR_NOMEM, "no memory for a step");
    dev_zero(cuda_of(s->be)->d, s->x, (size_t)n_seq * shape->d_model * 2);
    dev_zero(cuda_of(s->be)->d, s->norm, (size_t)shape->d_model * 4);
    return s->be->sample_open(s->be, n_seq, shape->n_vocab, /* list_bytes= */ 64, why);
}

static void close_steps(struct steps *s)
{
    struct weir_backend *be = s->be;

    model_close(s->model);
    if (be) {
        be->unpack(be, s->head);
        be->free(be, s->x);
        be->free(be, s->norm);
        be->free(be, s->logits);
    }
    weir_backend_close(be);
    free(s->ids);
    free(s->pos);
    free(s->seq);
    free(s->table);
    free(s->rows);
    free(s->draws);
}

/* ---- steps ---- */
static struct dev *device(const struct steps *s)
{
    return cuda_of(s->be)->d;
}

static void forward(struct steps *s, const struct weir_batch *batch)
{
    struct weir_why why;

    if (!s->failed && model_forward(s->model, batch, &why) != WEIR_OK) {
        fprintf(stderr, "a step failed: %s\n", why.text);
        s->failed = true;
    }
}

/* Sequences of n_ctx tokens, their pages in no order. */
static void lay_pages(struct steps *s, uint32_t n_ctx)
{
    uint32_t n_block = n_ctx / WEIR_KV_BLOCK, n_seq = s->b->shape.batch[BENCH_BATCHES - 1];

    for (uint32_t i = 0; i < n_seq; i++)
        for (uint32_t k = 0; k < n_block; k++)
            s->table[(size_t)i * n_block + k] = (int32_t)((uint64_t)(i * n_block + k) * 40503 % s->n_page);
}

/* Tokens [from, from + n) of all sequences one behind the other. */
static struct weir_batch tokens(struct steps *s, uint64_t from, uint32_t n, uint32_t n_ctx)
{
    for (uint32_t i = 0; i < n; i++) {
        s->ids[i] = (int32_t)((from + i) * 2654435761u % s->b->shape.n_vocab);
        s->pos[i] = (int32_t)((from + i) % n_ctx);
        s->seq[i] = (int32_t)((from + i) / n_ctx);
    }
    return (struct weir_batch){ .n_tok = n,
                                .ids = s->ids,
                                .pos = s->pos,
                                .seq = s->seq,
                                .table = s->table,
                                .n_seq = s->b->shape.batch[BENCH_BATCHES - 1],
                                .n_block_max = n_ctx / WEIR_KV_BLOCK };
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void prompt(struct steps *s)
{
    const struct bench_shape *shape = &s->b->shape;
    int n = shape->n_steps < PROMPTS_MAX ? 1 : PROMPTS_MAX;
    double seconds[PROMPTS_MAX], rate = s->quant == WEIR_FP8 && s->b->fp8_s > 0 ? s->b->fp8_s : s->b->flops_s;
    double flops = 2 * layer_weights(shape) * shape->n_prompt +
                   2.0 * shape->n_layer * shape->n_prompt * shape->n_prompt * shape->n_head * shape->d_head;

    lay_pages(s, shape->n_prompt);
    struct weir_batch batch = tokens(s, 0, shape->n_prompt, shape->n_prompt);
    batch.n_seq = 1;
    for (int i = -1; i < n; i++) {
        dev_sync(device(s));
        dev_mark(device(s), BENCH_MARK);
        forward(s, &batch);
        dev_mark(device(s), BENCH_MARK + 1);
        dev_sync(device(s));
        if (i >= 0)
            seconds[i] = dev_seconds(device(s), BENCH_MARK, BENCH_MARK + 1);
    }
    qsort(seconds, (size_t)n, sizeof *seconds, by_size);
    double median = seconds[n / 2], limit = rate > 0 ? flops / rate : 0;
    printf("| prompt of %u | 1 | %.0f | %.0f | %.0f %% of the matrix rate | %.0f | | |\n", shape->n_prompt,
           median * 1e6, limit * 1e6, 100 * limit / median, shape->n_prompt / median);
    fflush(stdout);
}

/* Tokens of the step before go in from where they were drawn. */
static void decode_step(struct steps *s, uint32_t n, uint32_t i)
{
    const struct bench_shape *shape = &s->b->shape;
    struct weir_backend *be = s->be;

    for (uint32_t k = 0; k < n; k++) {
        s->ids[k] = (int32_t)(k * 7919 % shape->n_vocab);
        s->pos[k] = (int32_t)(shape->n_ctx - shape->n_steps + i % shape->n_steps);
        s->seq[k] = s->rows[k] = (int32_t)k;
        s->draws[k] = (struct weir_draw){
            .temperature = 0.7, .top_p = 0.95, .repetition = 1, .seed = k, .position = i, .row = (int32_t)k
        };
    }
    const struct weir_batch batch = { .n_tok = n,
                                      .ids = s->ids,
                                      .pos = s->pos,
                                      .seq = s->seq,
                                      .table = s->table,
                                      .n_seq = n,
                                      .n_block_max = shape->n_ctx / WEIR_KV_BLOCK,
                                      .drawn = i ? s->rows : NULL };
    forward(s, &batch);
    be->head(be, s->logits, s->x, s->rows, n, s->norm, 1e-5f, s->head);
    be->sample(be, i % 2, 0, s->logits, shape->n_vocab, s->draws, n);
}

/* The tokens of step i on the host. */
static void read_step(struct steps *s, uint32_t i)
{
    s->failed = s->failed || !s->be->drawn(s->be, i % 2);
}

static void decode(struct steps *s, uint32_t n)
{
    const struct bench_shape *shape = &s->b->shape;
    uint32_t n_steps = shape->n_steps;
    double host[STEPS_MAX], alone[STEPS_MAX], n_head = (double)shape->n_vocab * shape->d_model;

    if ((uint64_t)n * shape->n_ctx / WEIR_KV_BLOCK > s->n_page) {
        printf("| decoding | %u | no room for its pages | | | | | |\n", n);
        return;
    }
    for (uint32_t i = 0; i < WARM; i++)
        decode_step(s, n, i);
    read_step(s, WARM - 1);
    dev_mark(device(s), BENCH_MARK);
    for (uint32_t i = 0; i < n_steps; i++) {
        decode_step(s, n, WARM + i);
        if (i > 0)
            read_step(s, WARM + i - 1);
    }
    dev_mark(device(s), BENCH_MARK + 1);
    read_step(s, WARM + n_steps - 1);
    dev_sync(device(s));
    double seconds = dev_seconds(device(s), BENCH_MARK, BENCH_MARK + 1) / n_steps;
    for (uint32_t i = 0; i < n_steps; i++) {
        double begin = bench_now();
        decode_step(s, n, WARM + i);
        host[i] = bench_now() - begin;
        read_step(s, WARM + i);
        alone[i] = bench_now() - begin;
    }
    qsort(host, n_steps, sizeof *host, by_size);
    qsort(alone, n_steps, sizeof *alone, by_size);
    double limit =
        ((layer_weights(shape) + n_head) * weight_bytes(s->quant) + kv_bytes(shape) * n * shape->n_ctx) /
        s->b->bytes_s;
    printf("| decoding at %u | %u | %.0f | %.0f | %.0f %% of memory | %.0f | %.0f | %.0f |\n", shape->n_ctx,
           n, seconds * 1e6, limit * 1e6, 100 * limit / seconds, n / seconds, host[n_steps / 2] * 1e6,
           alone[n_steps / 2] * 1e6);
    fflush(stdout);
}

/* Keys and values of every sequence that there is room for. */
static void fill(struct steps *s)
{
    const struct bench_shape *shape = &s->b->shape;
    uint32_t n_seq = (uint32_t)((uint64_t)s->n_page * WEIR_KV_BLOCK / shape->n_ctx);
    uint64_t n_all;

    n_seq = n_seq < shape->batch[BENCH_BATCHES - 1] ? n_seq : shape->batch[BENCH_BATCHES - 1];
    n_all = (uint64_t)n_seq * shape->n_ctx;
    lay_pages(s, shape->n_ctx);
    for (uint64_t from = 0; from < n_all && !s->failed; from += shape->n_prompt) {
        uint64_t n = n_all - from < shape->n_prompt ? n_all - from : shape->n_prompt;
        struct weir_batch batch = tokens(s, from, (uint32_t)n, shape->n_ctx);
        forward(s, &batch);
    }
    dev_sync(device(s));
}

bool bench_steps(struct bench *b, enum weir_quant quant)
{
    static const char *const names[] = {
        [WEIR_NATIVE] = "bf16", [WEIR_Q8] = "int8", [WEIR_Q4] = "4 bits", [WEIR_FP8] = "FP8"
    };
    struct steps s = { .b = b, .quant = quant };
    struct weir_why why = { 0 };
    weir_err err = open_steps(&s, &why);

    printf("\n%u layers of Llama 3 8B's shape, weights %s:\n\n", b->shape.n_layer, names[quant]);
    if (err == WEIR_OK) {
        printf("| step | batch | us | limit us | reached | tokens/s | host us | alone us "
               "|\n|---|---|---|---|---|---|---|---|\n");
        prompt(&s);
        fill(&s);
        for (int i = 0; i < BENCH_BATCHES && !s.failed; i++)
            decode(&s, b->shape.batch[i]);
        err = s.failed ? WEIR_IO : dev_check(device(&s), &why);
    } else {
        printf("not measured: %s\n", why.text);
    }
    close_steps(&s);
    return err == WEIR_OK || err == WEIR_NOMEM; /* a smaller device measures what it has room for */
}
