/* golden_model.c - see golden_model.h. */
#include "tests/support/golden_model.h"

#include <glob.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GOLDEN_RATIO 0x9E3779B97F4A7C15ull
#define NOISE_STD 74 /* of a signed byte, about */

static void require(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "golden model: %s\n", what);
        abort();
    }
}

/* ---- weights ---- */
static uint64_t key_of(const char *name, uint64_t seed)
{
    uint64_t key = 0xCBF29CE484222325ull;

    for (; *name; name++)
        key = (key ^ (unsigned char)*name) * 0x100000001B3ull;
    return key ^ seed * GOLDEN_RATIO;
}

static int noise(uint64_t key, uint64_t i)
{
    uint64_t z = key + (i + 1) * GOLDEN_RATIO;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return (int8_t)((z ^ z >> 31) >> 56);
}

static bool is_loud(const char *name)
{
    static const char *const loud[] = { "q_proj",       "k_proj", "mlp.gate.", "block_sparse_moe.gate.",
                                        "embed_tokens", "lm_head" };

    for (size_t i = 0; i < sizeof loud / sizeof *loud; i++)
        if (strstr(name, loud[i]))
            return true;
    return false;
}

static float weight(const char *name, int k, uint64_t n_in)
{
    size_t len = strlen(name);

    if (strstr(name, "norm"))
        return 1 + (float)(k >> 2) / 64;
    if (len > 5 && strcmp(name + len - 5, ".bias") == 0)
        return (float)k / 256;
    int e = (int)floor(log2(NOISE_STD * sqrt((double)n_in)) + 0.5) - is_loud(name);
    return ldexpf((float)k, -e);
}

/* Exact for the numbers above. */
static void store(const char *dtype, float x, char *to)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    if (strcmp(dtype, "f32") == 0) {
        memcpy(to, &bits, 4);
        return;
    }
    uint16_t half = (uint16_t)(bits >> 16);
    if (strcmp(dtype, "f16") == 0)
        half =
            x == 0
                ? 0
                : (uint16_t)((bits >> 16 & 0x8000) | ((bits >> 23 & 255) - 112) << 10 | (bits >> 13 & 1023));
    memcpy(to, &half, 2);
}

static void write_weights(const char *dir, json_t *doc)
{
    const char *dtype = json_string_value(json_object_get(doc, "dtype"));
    uint64_t seed = (uint64_t)json_integer_value(json_object_get(doc, "seed"));
    size_t size = strcmp(dtype, "f32") == 0 ? 4 : 2, at = 0, i, cap = 4 << 20;
    const char *code = size == 4 ? "F32" : strcmp(dtype, "f16") == 0 ? "F16" : "BF16";
    json_t *header = json_object(), *row, *tensors = json_object_get(doc, "tensors");
    char *data = malloc(cap);

    require(data && json_array_size(tensors) > 0, "no tensors");
    json_array_foreach(tensors, i, row)
    {
        const char *name = json_string_value(json_array_get(row, 0));
        json_t *dims = json_array_get(row, 1);
        uint64_t n = 1, n_in = 1;
        for (size_t d = 0; d < json_array_size(dims); d++) {
            n_in = (uint64_t)json_integer_value(json_array_get(dims, d));
            n *= n_in;
        }
        require(at + n * size <= cap, "more weights than a small model has");
        uint64_t key = key_of(name, seed);
        for (uint64_t k = 0; k < n; k++)
            store(dtype, weight(name, noise(key, k), n_in), data + at + k * size);
        json_object_set_new(header, name,
                            json_pack("{s:s, s:O, s:[I, I]}", "dtype", code, "shape", dims, "data_offsets",
                                      (json_int_t)at, (json_int_t)(at + n * size)));
        at += n * size;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    size_t len = strlen(text);
    char *file = malloc(8 + len + at);
    require(file != NULL, "memory");
    for (int b = 0; b < 8; b++)
        file[b] = (char)((uint64_t)len >> (8 * b));
    memcpy(file + 8, text, len);
    memcpy(file + 8 + len, data, at);
    tiny_file_write(dir, "model.safetensors", file, 8 + len + at);
    json_decref(header);
    free(text);
    free(file);
    free(data);
}

/* ---- the case ---- */
static struct golden_token token(json_t *pair)
{
    return (struct golden_token){ (int32_t)json_integer_value(json_array_get(pair, 0)),
                                  json_number_value(json_array_get(pair, 1)) };
}

static void read_numbers(struct golden_model *g, json_t *doc)
{
    json_t *prompt = json_object_get(doc, "prompt"), *scored = json_object_get(doc, "scored"),
           *greedy = json_object_get(doc, "greedy");

    g->n_prompt = (uint32_t)json_array_size(prompt);
    g->n_greedy = (uint32_t)json_array_size(greedy);
    require(g->n_prompt > 0 && g->n_prompt <= GOLDEN_PROMPT_MAX && json_array_size(scored) == g->n_prompt &&
                g->n_greedy > 0 && g->n_greedy <= GOLDEN_GREEDY_MAX,
            g->name);
    for (uint32_t i = 0; i < g->n_prompt; i++) {
        g->prompt[i] = (int32_t)json_integer_value(json_array_get(prompt, i));
        for (uint32_t k = 0; k < GOLDEN_TOP; k++)
            g->scored[i][k] = token(json_array_get(json_array_get(scored, i), k));
    }
    for (uint32_t i = 0; i < g->n_greedy; i++)
        g->greedy[i] = token(json_array_get(greedy, i));
    g->gap = json_number_value(json_object_get(doc, "gap"));
}

void golden_model_open(struct golden_model *g, const char *path)
{
    const char *base = strrchr(path, '/');
    json_error_t error;
    json_t *doc = json_load_file(path, 0, &error);

    require(doc != NULL, path);
    *g = (struct golden_model){ 0 };
    snprintf(g->name, sizeof g->name, "%s", base ? base + 1 : path);
    json_t *config = json_object_get(doc, "config");
    g->n_vocab = (uint32_t)json_integer_value(json_object_get(config, "vocab_size"));
    read_numbers(g, doc);
    snprintf(g->dir, sizeof g->dir, "/tmp/weir-golden-XXXXXX");
    require(mkdtemp(g->dir) != NULL, g->dir);
    char *text = json_dumps(config, 0);
    tiny_file_write(g->dir, "config.json", text, strlen(text));
    free(text);
    write_weights(g->dir, doc);
    json_decref(doc);
}

void golden_model_close(struct golden_model *g)
{
    tiny_model_remove(g->dir);
}

int golden_model_each(const char *folder, void (*fn)(const struct golden_model *g, void *arg), void *arg)
{
    static struct golden_model g;
    char pattern[512];
    glob_t found;
    int n = 0;

    snprintf(pattern, sizeof pattern, "%s/*.json", folder);
    if (glob(pattern, 0, NULL, &found) != 0)
        return 0;
    for (size_t i = 0; i < found.gl_pathc; i++, n++) {
        golden_model_open(&g, found.gl_pathv[i]);
        fn(&g, arg);
        golden_model_close(&g);
    }
    globfree(&found);
    return n;
}
