/* golden_model.c - see golden_model.h. */
#include "tests/support/golden_model.h"

#include <glob.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"

#define GOLDEN_RATIO 0x9E3779B97F4A7C15ull
#define NOISE_STD 74 /* of a signed byte, about */
#define HEADER_MAX ((size_t)256 << 10)
#define CASE_MAX ((size_t)1 << 20) /* a file's bytes */

/* What a case's file says; texts are parts of it. */
struct doc {
    struct weir_str config, tensors, prompt, scored, greedy;
    char dtype[8];
    uint64_t seed;
    double gap;
};

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

/* A row of `tensors`: its name and its shape, as text and as numbers. */
struct tensor_row {
    char name[160];
    struct weir_str shape;
    uint64_t n, n_in;
};

static void read_tensor(struct weir_json *j, struct tensor_row *ret)
{
    struct weir_str name = { 0 };
    struct weir_json dims;
    uint64_t dim;

    *ret = (struct tensor_row){ .n = 1 };
    require(weir_json_array(j) && weir_json_next(j) && weir_json_string(j, &name) && weir_json_next(j) &&
                weir_json_raw(j, &ret->shape) && !weir_json_next(j) && name.len < sizeof ret->name,
            "a tensor is [name, shape]");
    memcpy(ret->name, name.ptr, name.len);
    weir_json_init(&dims, ret->shape.ptr, ret->shape.len, NULL);
    weir_json_array(&dims);
    while (weir_json_next(&dims) && weir_json_u64(&dims, &dim)) {
        ret->n_in = dim;
        ret->n *= dim;
    }
    require(weir_json_ok(&dims), "a tensor's shape");
}

static void write_weights(const char *dir, const struct doc *doc)
{
    size_t size = strcmp(doc->dtype, "f32") == 0 ? 4 : 2, at = 0, cap = 4 << 20;
    const char *code = size == 4 ? "F32" : strcmp(doc->dtype, "f16") == 0 ? "F16" : "BF16";
    char *data = malloc(cap), *file = malloc(cap + HEADER_MAX), *text = file + 8;
    struct weir_json j;
    struct tensor_row row;
    size_t len = 1;

    require(data && file, "memory");
    text[0] = '{';
    weir_json_init(&j, doc->tensors.ptr, doc->tensors.len, NULL);
    weir_json_array(&j);
    while (weir_json_next(&j)) {
        read_tensor(&j, &row);
        require(at + row.n * size <= cap, "more weights than a small model has");
        uint64_t key = key_of(row.name, doc->seed);
        for (uint64_t k = 0; k < row.n; k++)
            store(doc->dtype, weight(row.name, noise(key, k), row.n_in), data + at + k * size);
        len += (size_t)snprintf(text + len, HEADER_MAX - 8 - len,
                                "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%.*s,\"data_offsets\":[%zu,%zu]}",
                                at ? "," : "", row.name, code, (int)row.shape.len, row.shape.ptr, at,
                                at + row.n * size);
        require(len < HEADER_MAX - 16, "more tensors than a small model has");
        at += row.n * size;
    }
    require(weir_json_ok(&j) && at > 0, "no tensors");
    text[len++] = '}';
    for (int b = 0; b < 8; b++)
        file[b] = (char)((uint64_t)len >> (8 * b));
    memcpy(text + len, data, at);
    tiny_file_write(dir, "model.safetensors", file, 8 + len + at);
    free(file);
    free(data);
}

/* ---- the case ---- */
static char *read_file(const char *path, size_t *ret_len)
{
    FILE *f = fopen(path, "rb");
    char *text = malloc(CASE_MAX);

    require(f && text, path);
    *ret_len = fread(text, 1, CASE_MAX, f);
    require(*ret_len < CASE_MAX, path);
    fclose(f);
    return text;
}

static void read_doc(struct doc *doc, const char *text, size_t len)
{
    struct {
        const char *name;
        struct weir_str *to;
    } const texts[] = { { "config", &doc->config },
                        { "tensors", &doc->tensors },
                        { "prompt", &doc->prompt },
                        { "scored", &doc->scored },
                        { "greedy", &doc->greedy } };
    struct weir_json j;
    struct weir_str key, dtype = { 0 };
    struct weir_why why = { 0 };

    weir_json_init(&j, text, len, NULL);
    weir_json_object(&j);
    while (weir_json_key(&j, &key)) {
        struct weir_str *to = NULL;
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
            to = weir_str_eq(key, texts[i].name) ? texts[i].to : to;
        if (to)
            weir_json_raw(&j, to);
        else if (weir_str_eq(key, "dtype"))
            weir_json_string(&j, &dtype);
        else if (weir_str_eq(key, "seed"))
            weir_json_u64(&j, &doc->seed);
        else if (weir_str_eq(key, "gap"))
            weir_json_f64(&j, &doc->gap);
        else
            weir_json_skip(&j);
    }
    require(weir_json_end(&j, &why) == WEIR_OK, why.text);
    require(dtype.len < sizeof doc->dtype, "dtype");
    memcpy(doc->dtype, dtype.ptr, dtype.len);
}

static uint32_t vocab_size(struct weir_str config)
{
    struct weir_json j;
    struct weir_str key;
    uint64_t n = 0;

    weir_json_init(&j, config.ptr, config.len, NULL);
    weir_json_object(&j);
    while (weir_json_key(&j, &key))
        (void)!(weir_str_eq(key, "vocab_size") ? weir_json_u64(&j, &n) : weir_json_skip(&j));
    return (uint32_t)n;
}

static int32_t read_id(struct weir_json *j)
{
    int64_t id = -1;

    weir_json_i64(j, &id);
    return (int32_t)id;
}

/* Into ret [max]; how many there were. */
static uint32_t read_tokens(struct weir_json *j, struct golden_token *ret, uint32_t max)
{
    uint32_t n = 0;

    weir_json_array(j);
    while (weir_json_next(j)) {
        struct golden_token t = { 0 };
        weir_json_array(j);
        weir_json_next(j);
        t.id = read_id(j);
        weir_json_next(j);
        weir_json_f64(j, &t.logprob);
        require(!weir_json_next(j) && weir_json_ok(j) && n < max, "a token is [id, logprob]");
        ret[n++] = t;
    }
    return n;
}

static void read_numbers(struct golden_model *g, const struct doc *doc)
{
    struct weir_json j;
    uint32_t n_scored = 0;

    weir_json_init(&j, doc->prompt.ptr, doc->prompt.len, NULL);
    weir_json_array(&j);
    while (weir_json_next(&j) && g->n_prompt < GOLDEN_PROMPT_MAX)
        g->prompt[g->n_prompt++] = read_id(&j);
    require(weir_json_ok(&j) && g->n_prompt > 0, g->name);
    weir_json_init(&j, doc->scored.ptr, doc->scored.len, NULL);
    weir_json_array(&j);
    while (weir_json_next(&j) && n_scored < g->n_prompt)
        require(read_tokens(&j, g->scored[n_scored++], GOLDEN_TOP) == GOLDEN_TOP, g->name);
    require(weir_json_ok(&j) && n_scored == g->n_prompt, g->name);
    weir_json_init(&j, doc->greedy.ptr, doc->greedy.len, NULL);
    g->n_greedy = read_tokens(&j, g->greedy, GOLDEN_GREEDY_MAX);
    require(weir_json_ok(&j) && g->n_greedy > 0, g->name);
    g->gap = doc->gap;
}

void golden_model_open(struct golden_model *g, const char *path)
{
    const char *base = strrchr(path, '/');
    struct doc doc = { 0 };
    size_t len;
    char *text = read_file(path, &len);

    *g = (struct golden_model){ 0 };
    snprintf(g->name, sizeof g->name, "%s", base ? base + 1 : path);
    read_doc(&doc, text, len);
    g->n_vocab = vocab_size(doc.config);
    read_numbers(g, &doc);
    snprintf(g->dir, sizeof g->dir, "/tmp/weir-golden-XXXXXX");
    require(mkdtemp(g->dir) != NULL, g->dir);
    tiny_file_write(g->dir, "config.json", doc.config.ptr, doc.config.len);
    write_weights(g->dir, &doc);
    free(text);
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
