/* tiny_model.c - see tiny_model.h. */
#include "tests/support/tiny_model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"

#define HEADER_MAX 65536

struct tiny_shape tiny_shape(void)
{
    return (struct tiny_shape){ .n_layer = 2,
                                .n_head = 4,
                                .n_kv_head = 2,
                                .d_head = 16,
                                .d_model = 64,
                                .d_ffn = 96,
                                .n_vocab = 97,
                                .n_context = 256,
                                .dtype = "BF16",
                                .seed = 1 };
}

static void require(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        abort();
    }
}

/* ---- numbers ---- */
static float random_weight(const struct tiny_shape *s, const char *tensor, size_t i)
{
    uint64_t bits = weir_hash_mix(weir_hash64(tensor, strlen(tensor), s->seed), i);
    float unit = (float)(int32_t)(uint32_t)bits * 0x1p-31f; /* [-1, 1] */

    if (strstr(tensor, "norm"))
        return 1.0f + 0.3f * unit;
    /* Loud enough for clear favourites among the tokens. */
    return unit *
           (strstr(tensor, "embed") || strstr(tensor, "lm_head") ? 1.0f : 2.5f / sqrtf((float)s->d_model));
}

static uint16_t to_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* Truncated; what is below the smallest normal number becomes 0. */
static uint16_t to_f16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 23 & 255) - 127 + 15;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    return exponent <= 0 ? sign : (uint16_t)(sign | (uint32_t)exponent << 10 | (bits >> 13 & 1023));
}

static size_t element_size(const struct tiny_shape *s)
{
    return strcmp(s->dtype, "F32") == 0 ? 4 : 2;
}

static void store(const struct tiny_shape *s, float x, void *to)
{
    uint16_t half = strcmp(s->dtype, "F16") == 0 ? to_f16(x) : to_bf16(x);

    memcpy(to, element_size(s) == 4 ? (const void *)&x : (const void *)&half, element_size(s));
}

double tiny_weight(const struct tiny_shape *s, const char *tensor, size_t i)
{
    float x = random_weight(s, tensor, i);
    uint32_t bits;

    if (strcmp(s->dtype, "F32") == 0)
        return x;
    if (strcmp(s->dtype, "F16") == 0) {
        uint16_t half = to_f16(x);
        double value = half & 0x7fff ? ldexp(1024 + (half & 1023), (half >> 10 & 31) - 25) : 0;
        return half & 0x8000 ? -value : value;
    }
    bits = (uint32_t)to_bf16(x) << 16;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ---- the folder ---- */
void tiny_file_write(const char *dir, const char *name, const void *data, size_t len)
{
    char path[2 * TINY_DIR_MAX];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    require(file && fwrite(data, 1, len, file) == len && fclose(file) == 0, path);
}

struct writer {
    const struct tiny_shape *shape;
    char header[HEADER_MAX];
    size_t n_header;
    char *data;
    size_t n_data;
};

static void add(struct writer *w, const char *name, uint32_t rows, uint32_t cols)
{
    size_t n = (size_t)rows * (cols ? cols : 1), size = element_size(w->shape), bytes = n * size;
    char shape[32];

    snprintf(shape, sizeof shape, cols ? "%u,%u" : "%u", rows, cols);
    w->n_header += (size_t)snprintf(w->header + w->n_header, sizeof w->header - w->n_header,
                                    "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                                    w->n_header > 1 ? "," : "", name, w->shape->dtype, shape, w->n_data,
                                    w->n_data + bytes);
    require(w->n_header < sizeof w->header - 1, "header");
    w->data = realloc(w->data, w->n_data + bytes);
    require(w->data != NULL, "memory");
    for (size_t i = 0; i < n; i++)
        store(w->shape, random_weight(w->shape, name, i), w->data + w->n_data + i * size);
    w->n_data += bytes;
}

static void add_layer(struct writer *w, uint32_t i)
{
    const struct tiny_shape *s = w->shape;
    uint32_t q = s->n_head * s->d_head, kv = s->n_kv_head * s->d_head;
    const struct {
        const char *name;
        uint32_t rows, cols;
    } tensors[] = {
        { "input_layernorm", s->d_model, 0 },      { "self_attn.q_proj", q, s->d_model },
        { "self_attn.k_proj", kv, s->d_model },    { "self_attn.v_proj", kv, s->d_model },
        { "self_attn.o_proj", s->d_model, q },     { "post_attention_layernorm", s->d_model, 0 },
        { "mlp.gate_proj", s->d_ffn, s->d_model }, { "mlp.up_proj", s->d_ffn, s->d_model },
        { "mlp.down_proj", s->d_model, s->d_ffn },
    };

    for (size_t k = 0; k < sizeof tensors / sizeof *tensors; k++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%u.%s.weight", i, tensors[k].name);
        add(w, name, tensors[k].rows, tensors[k].cols);
    }
}

static void write_weights(const char *dir, const struct tiny_shape *s)
{
    struct writer w = { .shape = s, .header = "{", .n_header = 1 };

    add(&w, "model.embed_tokens.weight", s->n_vocab, s->d_model);
    for (uint32_t i = 0; i < s->n_layer; i++)
        add_layer(&w, i);
    add(&w, "model.norm.weight", s->d_model, 0);
    if (!s->tied)
        add(&w, "lm_head.weight", s->n_vocab, s->d_model);
    w.header[w.n_header++] = '}';
    char *file = malloc(8 + w.n_header + w.n_data);
    require(file != NULL, "memory");
    for (int i = 0; i < 8; i++)
        file[i] = (char)(w.n_header >> (8 * i));
    memcpy(file + 8, w.header, w.n_header);
    memcpy(file + 8 + w.n_header, w.data, w.n_data);
    tiny_file_write(dir, "model.safetensors", file, 8 + w.n_header + w.n_data);
    free(file);
    free(w.data);
}

void tiny_model_write(char dir[TINY_DIR_MAX], const struct tiny_shape *s)
{
    char config[2048];

    snprintf(dir, TINY_DIR_MAX, "/tmp/weir-model-XXXXXX");
    require(mkdtemp(dir) != NULL, dir);
    int len =
        snprintf(config, sizeof config,
                 "{\"architectures\":[\"LlamaForCausalLM\"],%s\"num_hidden_layers\":%u,"
                 "\"num_attention_heads\":%u,\"num_key_value_heads\":%u,\"head_dim\":%u,\"hidden_size\":%u,"
                 "\"intermediate_size\":%u,\"vocab_size\":%u,\"max_position_embeddings\":%u,"
                 "\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":%s}",
                 s->more ? s->more : "", s->n_layer, s->n_head, s->n_kv_head, s->d_head, s->d_model, s->d_ffn,
                 s->n_vocab, s->n_context, s->tied ? "true" : "false");
    require(len > 0 && (size_t)len < sizeof config, "config");
    tiny_file_write(dir, "config.json", config, (size_t)len);
    write_weights(dir, s);
}

void tiny_model_remove(const char *dir)
{
    static const char *const names[] = { "config.json",       "generation_config.json",
                                         "model.safetensors", "model.safetensors.index.json",
                                         "a.safetensors",     "b.safetensors" };
    char path[2 * TINY_DIR_MAX];

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}
