/* safetensors.c - see safetensors.h. Format: 8 bytes little-endian header length, that much JSON, then the data. */
#include "replica/model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "replica/model/config.h"

#define HEADER_MAX (100u << 20)
#define TENSORS_MAX (1u << 20)
#define SHARDS_MAX 1024
#define INDEX_MAX (64u << 20)

struct mapping {
    void *base;
    size_t len;
};

struct safetensors {
    struct mapping maps[SHARDS_MAX];
    int n_maps;
    struct weir_arena arena;
    struct tensor_list list; /* sorted by name */
    uint64_t bytes;
    uint8_t hash[32];
};

/* ---- a header ---- */
static bool read_dtype(struct weir_json *j, enum weir_dtype *ret)
{
    static const struct {
        const char *name;
        enum weir_dtype dtype;
    } known[] = { { "F32", WEIR_F32 }, { "F16", WEIR_F16 }, { "BF16", WEIR_BF16 } };
    struct weir_str name;

    if (!weir_json_string(j, &name))
        return false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (weir_str_eq(name, known[i].name)) {
            *ret = known[i].dtype;
            return true;
        }
    return weir_json_fail(j, WEIR_UNIMPLEMENTED, "the dtype `%.*s` is not supported", WEIR_STR_FMT(name));
}

static void read_shape(struct weir_json *j, struct tensor *t)
{
    weir_json_array(j);
    while (weir_json_next(j)) {
        uint64_t dim = 0;
        if (!weir_json_u64(j, &dim))
            return;
        if (t->n_dims == TENSOR_DIMS_MAX || dim > UINT32_MAX)
            weir_json_fail(j, WEIR_CORRUPT, "the shape is too large");
        else
            t->dims[t->n_dims++] = dim;
    }
}

static void read_offsets(struct weir_json *j, uint64_t ret[2])
{
    int n = 0;

    weir_json_array(j);
    while (weir_json_next(j)) {
        if (n == 2)
            weir_json_fail(j, WEIR_CORRUPT, "more than two offsets");
        else if (weir_json_u64(j, &ret[n]))
            n++;
    }
    if (weir_json_ok(j) && n != 2)
        weir_json_fail(j, WEIR_CORRUPT, "two offsets are needed");
}

/* Bytes that the shape needs; UINT64_MAX when that is more than any file has. */
static uint64_t shape_bytes(const struct tensor *t)
{
    uint64_t bytes = weir_dtype_size(t->dtype);

    for (uint32_t i = 0; i < t->n_dims; i++)
        if (__builtin_mul_overflow(bytes, t->dims[i], &bytes))
            return UINT64_MAX;
    return bytes;
}

static bool list_add(struct weir_json *j, struct tensor_list *list, const struct tensor *t)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 256;
        struct tensor *grown = list->n >= TENSORS_MAX ? NULL : weir_realloc(list->items, cap * sizeof *grown);
        if (!grown)
            return weir_json_fail(j, WEIR_CORRUPT, "more tensors than memory or sense allow");
        list->items = grown;
        list->cap = cap;
    }
    list->items[list->n++] = *t;
    return true;
}

static void read_tensor(struct weir_json *j, struct weir_str name, const char *data, uint64_t n_data,
                        struct tensor_list *list)
{
    struct tensor t = { .name = name };
    uint64_t offsets[2] = { 0, 0 };
    bool has_dtype = false, has_offsets = false;
    struct weir_str key;

    if (!weir_json_object(j))
        return;
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "dtype"))
            has_dtype = read_dtype(j, &t.dtype);
        else if (weir_str_eq(key, "shape"))
            read_shape(j, &t);
        else if (weir_str_eq(key, "data_offsets")) {
            read_offsets(j, offsets);
            has_offsets = true;
        } else
            weir_json_skip(j);
    }
    if (!weir_json_ok(j))
        return;
    if (!has_dtype || !has_offsets)
        weir_json_fail(j, WEIR_CORRUPT, "`%.*s` has no dtype or no data_offsets", WEIR_STR_FMT(name));
    else if (offsets[0] > offsets[1] || offsets[1] > n_data)
        weir_json_fail(j, WEIR_CORRUPT, "`%.*s`: offsets %llu to %llu lie outside the data, %llu bytes",
                       WEIR_STR_FMT(name), (unsigned long long)offsets[0], (unsigned long long)offsets[1],
                       (unsigned long long)n_data);
    else if (shape_bytes(&t) != offsets[1] - offsets[0])
        weir_json_fail(j, WEIR_CORRUPT, "`%.*s`: the shape needs %llu bytes, the offsets give %llu",
                       WEIR_STR_FMT(name), (unsigned long long)shape_bytes(&t),
                       (unsigned long long)(offsets[1] - offsets[0]));
    else {
        t.data = data + offsets[0];
        list_add(j, list, &t);
    }
}

weir_err safetensors_parse_header(const char *json, size_t len, const char *data, uint64_t n_data,
                                  struct weir_arena *arena, struct tensor_list *list, struct weir_why *why)
{
    struct weir_json j;
    struct weir_str key;

    weir_json_init(&j, json, len, arena);
    if (weir_json_object(&j))
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, "__metadata__"))
                weir_json_skip(&j);
            else
                read_tensor(&j, key, data, n_data, list);
        }
    weir_err err = weir_json_end(&j, why);
    return err == WEIR_INVALID ? WEIR_CORRUPT : err;
}

/* ---- files ---- */
static weir_err map_file(struct safetensors *st, const char *path, struct mapping **ret, struct weir_why *why)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &info) != 0) {
        int saved = errno;
        if (fd >= 0)
            close(fd);
        return weir_fail(why, WEIR_IO, "%s: %s", path, strerror(saved));
    }
    if (!S_ISREG(info.st_mode) || info.st_size < 8 || st->n_maps == SHARDS_MAX) {
        close(fd);
        return weir_fail(why, WEIR_CORRUPT, "%s: not a safetensors file, or one shard too many", path);
    }
    void *base = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (base == MAP_FAILED)
        return weir_fail(why, WEIR_IO, "%s: can't be mapped: %s", path, strerror(errno));
    *ret = &st->maps[st->n_maps++];
    **ret = (struct mapping){ base, (size_t)info.st_size };
    return WEIR_OK;
}

static int compare_places(const void *a, const void *b)
{
    const char *x = ((const struct tensor *)a)->data, *y = ((const struct tensor *)b)->data;

    return (x > y) - (x < y);
}

/* Two tensors of one file never share bytes: a file where they do was made by no tool, or by a hostile one. */
static weir_err check_overlap(struct tensor *items, size_t n, const char *path, struct weir_why *why)
{
    if (n > 1)
        qsort(items, n, sizeof *items, compare_places);
    for (size_t i = 1; i < n; i++)
        if ((const char *)items[i - 1].data + shape_bytes(&items[i - 1]) > (const char *)items[i].data)
            return weir_fail(why, WEIR_CORRUPT, "%s: the tensors `%.*s` and `%.*s` overlap", path,
                             WEIR_STR_FMT(items[i - 1].name), WEIR_STR_FMT(items[i].name));
    return WEIR_OK;
}

static weir_err load_file(struct safetensors *st, const char *dir, const char *name, struct weir_why *why)
{
    char path[1600];
    struct mapping *map = NULL;
    struct weir_why inner = { 0 };
    uint64_t header_len = 0;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    weir_err err = map_file(st, path, &map, why);
    if (err != WEIR_OK)
        return err;
    const unsigned char *bytes = map->base;
    for (int i = 7; i >= 0; i--)
        header_len = header_len << 8 | bytes[i];
    if (header_len > HEADER_MAX || header_len > map->len - 8)
        return weir_fail(why, WEIR_CORRUPT, "%s: a header of %llu bytes in a file of %zu (offset 0)", path,
                         (unsigned long long)header_len, map->len);
    const char *json = (const char *)map->base + 8;
    uint64_t n_data = map->len - 8 - header_len;
    size_t n_before = st->list.n;
    err =
        safetensors_parse_header(json, header_len, json + header_len, n_data, &st->arena, &st->list, &inner);
    if (err != WEIR_OK)
        return weir_fail_param(why, inner.param, err, "%s: %s", path, inner.text);
    if (st->list.n > n_before)
        err = check_overlap(st->list.items + n_before, st->list.n - n_before, path, why);
    if (err != WEIR_OK)
        return err;
    /* A chain over the shards: each link covers the one before. */
    char link[128];
    uint8_t digest[32];
    weir_sha256(json, header_len, digest);
    memcpy(link, st->hash, 32);
    memcpy(link + 32, digest, 32);
    memcpy(link + 64, &n_data, sizeof n_data);
    weir_sha256(link, 64 + sizeof n_data, st->hash);
    return WEIR_OK;
}

/* The shards that the index names, each once. */
static weir_err load_shards(struct safetensors *st, const char *dir, const char *text, size_t len,
                            struct weir_why *why)
{
    struct weir_json j;
    struct weir_str key, name;
    const char **shards = weir_arena_alloc(&st->arena, SHARDS_MAX * sizeof *shards);
    int n = 0;

    if (!shards)
        return weir_fail(why, WEIR_NOMEM, "no memory for the index");
    weir_json_init(&j, text, len, &st->arena);
    weir_json_object(&j);
    while (weir_json_key(&j, &key)) {
        if (!weir_str_eq(key, "weight_map")) {
            weir_json_skip(&j);
            continue;
        }
        weir_json_object(&j);
        while (weir_json_key(&j, &key)) {
            int i = 0;
            if (!weir_json_string(&j, &name))
                break;
            while (i < n && !weir_str_eq(name, shards[i]))
                i++;
            if (i < n)
                continue;
            if (n == SHARDS_MAX || memchr(name.ptr, '/', name.len)) {
                weir_json_fail(&j, WEIR_CORRUPT, "too many shards, or one in another folder");
                break;
            }
            shards[n++] = weir_arena_strndup(&st->arena, name.ptr, name.len);
        }
    }
    struct weir_why inner = { 0 };
    weir_err err = weir_json_end(&j, &inner);
    if (err != WEIR_OK)
        return weir_fail_param(why, inner.param, err == WEIR_INVALID ? WEIR_CORRUPT : err,
                               "%s/model.safetensors.index.json: %s", dir, inner.text);
    for (int i = 0; i < n && err == WEIR_OK; i++)
        err = shards[i] ? load_file(st, dir, shards[i], why) : WEIR_NOMEM;
    return err;
}

static int compare_names(const void *a, const void *b)
{
    struct weir_str x = ((const struct tensor *)a)->name, y = ((const struct tensor *)b)->name;
    int order = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);
    return order ? order : (x.len > y.len) - (x.len < y.len);
}

weir_err safetensors_open(const char *dir, struct safetensors **ret, struct weir_why *why)
{
    struct safetensors *st = weir_alloc0(sizeof *st);
    char *index = NULL;
    size_t len = 0;

    if (!st)
        return weir_fail(why, WEIR_NOMEM, "no memory for the weights' index");
    weir_arena_init(&st->arena, 0);
    weir_err err;
    if (model_read_file(dir, "model.safetensors.index.json", INDEX_MAX, &index, &len, NULL) == WEIR_OK)
        err = load_shards(st, dir, index, len, why);
    else
        err = load_file(st, dir, "model.safetensors", why);
    weir_free(index);
    if (err != WEIR_OK) {
        safetensors_close(st);
        return err;
    }
    if (st->list.n)
        qsort(st->list.items, st->list.n, sizeof *st->list.items, compare_names);
    for (size_t i = 1; i < st->list.n; i++)
        if (compare_names(&st->list.items[i - 1], &st->list.items[i]) == 0) {
            err = weir_fail(why, WEIR_CORRUPT, "%s: the tensor `%.*s` is there twice", dir,
                            WEIR_STR_FMT(st->list.items[i].name));
            safetensors_close(st);
            return err;
        }
    for (size_t i = 0; i < st->list.n; i++)
        st->bytes += shape_bytes(&st->list.items[i]);
    *ret = st;
    return WEIR_OK;
}

void safetensors_close(struct safetensors *st)
{
    if (!st)
        return;
    for (int i = 0; i < st->n_maps; i++)
        munmap(st->maps[i].base, st->maps[i].len);
    weir_free(st->list.items);
    weir_arena_release(&st->arena);
    weir_free(st);
}

const struct tensor *safetensors_find(const struct safetensors *st, const char *name)
{
    struct tensor wanted = { .name = weir_str(name) };

    return st->list.n ? bsearch(&wanted, st->list.items, st->list.n, sizeof wanted, compare_names) : NULL;
}

size_t safetensors_count(const struct safetensors *st)
{
    return st->list.n;
}

const struct tensor *safetensors_at(const struct safetensors *st, size_t i)
{
    return &st->list.items[i];
}

size_t safetensors_index(const struct safetensors *st, const struct tensor *t)
{
    return (size_t)(t - st->list.items);
}

/* madvise() takes whole pages: those that the tensor touches. It is advice: what it answers changes nothing. */
static void advise(const struct safetensors *st, const char *prefix, int advice)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n_prefix = strlen(prefix), from = 0, to = st->list.n;

    while (from < to) { /* the first that does not sort before the prefix */
        size_t i = from + (to - from) / 2;
        struct weir_str name = st->list.items[i].name;
        int order = memcmp(name.ptr, prefix, name.len < n_prefix ? name.len : n_prefix);
        if (order < 0 || (order == 0 && name.len < n_prefix))
            from = i + 1;
        else
            to = i;
    }
    for (; from < st->list.n; from++) {
        const struct tensor *t = &st->list.items[from];
        if (t->name.len < n_prefix || memcmp(t->name.ptr, prefix, n_prefix) != 0)
            return;
        uintptr_t start = (uintptr_t)t->data & ~(page - 1);
        madvise((void *)start, (uintptr_t)t->data + shape_bytes(t) - start, advice);
    }
}

void safetensors_will_read(const struct safetensors *st, const char *prefix)
{
    advise(st, prefix, MADV_WILLNEED);
}

void safetensors_have_read(const struct safetensors *st, const char *prefix)
{
    advise(st, prefix, MADV_DONTNEED);
}

uint64_t safetensors_bytes(const struct safetensors *st)
{
    return st->bytes;
}

const uint8_t *safetensors_hash(const struct safetensors *st)
{
    return st->hash;
}
