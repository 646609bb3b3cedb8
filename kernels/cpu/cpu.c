/* cpu.c - the CPU back end: chooses the instruction set; memory, opening and closing. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/mem.h"
#include "kernels/cpu/cpu_int.h"

#define HUGE_PAGE ((size_t)2 << 20)

/* ---- memory ---- */
static void *cpu_alloc(struct weir_backend *be, size_t bytes)
{
    (void)be;
    return weir_alloc_aligned(64, (bytes + 63) & ~(size_t)63);
}

/* In huge pages, where there are any to be had: every weight is read in every step, and a walk through page tables costs most
 * where a hypervisor has tables of its own. */
void *cpu_alloc_weights(struct weir_backend *be, size_t bytes)
{
    if (bytes < HUGE_PAGE)
        return cpu_alloc(be, bytes);
    void *ret = weir_alloc_aligned(HUGE_PAGE, (bytes + 63) & ~(size_t)63);
    if (ret)
        madvise(ret, bytes & ~(size_t)(HUGE_PAGE - 1), MADV_HUGEPAGE); /* a wish: it may fail */
    return ret;
}

static void cpu_free(struct weir_backend *be, void *ptr)
{
    (void)be;
    weir_free(ptr);
}

static float *cpu_upload(struct weir_backend *be, const float *host, size_t n)
{
    float *ret = cpu_alloc(be, n * sizeof *ret);

    if (ret)
        memcpy(ret, host, n * sizeof *ret);
    return ret;
}

void *scratch_grow(struct scratch *s, size_t bytes)
{
    if (bytes > s->bytes) {
        void *grown = cpu_alloc(NULL, bytes);
        if (!grown)
            return NULL;
        weir_free(s->data);
        *s = (struct scratch){ grown, bytes };
    }
    return s->data;
}

/* ---- steps ---- */
static int cpu_begin(struct weir_backend *be, const struct weir_batch *batch)
{
    (void)be;
    (void)batch;
    return 0;
}

static weir_err cpu_end(struct weir_backend *be, struct weir_why *why)
{
    if (cpu_of(be)->failed)
        return weir_fail(why, WEIR_IO, "no memory for a step");
    if (group_broken(cpu_of(be)->group))
        return weir_fail(why, WEIR_IO, "another rank failed");
    return WEIR_OK;
}

static const void *cpu_map(struct weir_backend *be, const void *buf, size_t bytes)
{
    (void)bytes;
    return cpu_of(be)->failed || group_broken(cpu_of(be)->group) ? NULL : buf;
}

/* ---- opening ---- */
#if defined(__x86_64__)
/* What ops_amx.c uses: tiles of bf16 and of integers, and the vector conversions to bf16. */
static bool has_amx(void)
{
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0, eax1 = 0, other = 0;

    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) ||
        !__get_cpuid_count(7, 1, &eax1, &other, &other, &other))
        return false;
#ifdef WEIR_AMX_EMU
    edx |= 1u << 22 | 1u << 24 | 1u << 25;
#endif
    /* AMX-BF16, AMX-TILE, AMX-INT8, AVX512-BF16 */
    return (edx & 1u << 22) && (edx & 1u << 24) && (edx & 1u << 25) && (eax1 & 1u << 5);
}
#endif

static const struct cpu_ops *choose_ops(bool exact)
{
    const char *wanted = getenv("WEIR_CPU");
    bool any = !wanted || !wanted[0];

#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl");
    bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    bool amx = vnni && has_amx();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (amx && (any || strcmp(wanted, "amx") == 0) && cpu_amx_allowed())
        return &cpu_ops_amx;
    if (vnni && !exact && __builtin_cpu_supports("avx512bf16") && (any || strcmp(wanted, "avx512bf16") == 0))
        return &cpu_ops_dots;
    if (vnni && (any || strcmp(wanted, "avx512vnni") == 0))
        return &cpu_ops_vnni;
    if (avx512 && (any || strcmp(wanted, "avx512") == 0))
        return &cpu_ops_avx512;
    if (avx2 && (any || strcmp(wanted, "generic") != 0))
        return &cpu_ops_avx2;
#else
    (void)any;
    (void)exact;
#endif
    return &cpu_ops_generic;
}

static void cpu_close(struct weir_backend *be)
{
    struct cpu *cpu = cpu_of(be);

    pool_close(cpu->pool);
    weir_free(cpu->prepared.data);
    weir_free(cpu->rows.data);
    weir_free(cpu->own.data);
    weir_free(cpu->experts.data);
    weir_free(cpu);
}

void weir_backend_close(struct weir_backend *be)
{
    if (be)
        be->close(be);
}

static const struct weir_backend table = { .act = WEIR_F32,
                                           .n_ranks = 1,
                                           .close = cpu_close,
                                           .alloc = cpu_alloc,
                                           .free = cpu_free,
                                           .upload = cpu_upload,
                                           .kv_page_bytes = cpu_kv_page_bytes,
                                           .pack = cpu_pack,
                                           .unpack = cpu_unpack,
                                           .matrix_bytes = cpu_matrix_bytes,
                                           .begin = cpu_begin,
                                           .end = cpu_end,
                                           .map = cpu_map,
                                           .embed = cpu_embed,
                                           .add_rmsnorm = cpu_add_rmsnorm,
                                           .linear = cpu_linear,
                                           .head = cpu_head,
                                           .qkv_store = cpu_qkv_store,
                                           .attention = cpu_attention,
                                           .silu_mul = cpu_silu_mul,
                                           .route = cpu_route,
                                           .experts = cpu_experts,
                                           .copy_page = cpu_copy_page,
                                           .all_reduce = cpu_all_reduce,
                                           .all_gather = cpu_all_gather,
                                           .add_bias = cpu_add_bias };

static weir_err check_opts(const struct weir_backend_opts *opts, struct weir_why *why)
{
    if (opts->rank >= group_size(opts->group))
        return weir_fail_param(why, "rank", WEIR_INVALID, "rank: %u is not below the group's %u", opts->rank,
                               group_size(opts->group));
    if (opts->kv != WEIR_F32 && opts->kv != WEIR_BF16)
        return weir_fail_param(why, "kv", WEIR_INVALID, "kv: keys and values are f32 or bf16");
    return WEIR_OK;
}

weir_err weir_backend_cpu_open(const struct weir_backend_opts *opts, struct weir_backend **ret,
                               struct weir_why *why)
{
    weir_err err = check_opts(opts, why);
    struct cpu *cpu = err == WEIR_OK ? weir_alloc0(sizeof *cpu) : NULL;

    if (err != WEIR_OK)
        return err;
    if (!cpu)
        return weir_fail(why, WEIR_NOMEM, "no memory for the CPU back end");
    cpu->ops = choose_ops(opts->exact);
    cpu->group = opts->group;
    cpu->kv = opts->kv;
    err = pool_open(opts->n_threads, &cpu->pool, why);
    if (err != WEIR_OK) {
        weir_free(cpu);
        return err;
    }
    cpu->be = table;
    cpu->be.name = cpu->ops->name;
    cpu->be.rank = opts->rank;
    cpu->be.n_ranks = group_size(opts->group);
    cpu->be.ctx = cpu;
    *ret = &cpu->be;
    return WEIR_OK;
}
