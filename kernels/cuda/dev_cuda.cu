/* dev_cuda.cu - see dev.h: CUDA's runtime and cuBLASLt.
 *
 * A product's algorithm is asked of cuBLASLt once for each shape and number of tokens and kept in a table of PLANS; where two
 * shapes want one place, the later takes it. FP8: with the scales of rows and columns where cuBLASLt has an algorithm that applies
 * them, else without, and a kernel of ours applies them behind. Errors of the runtime stick in `error`: the first is what dev_check() tells. */
#include "kernels/cuda/dev.h"

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#define PLANS 2048
#define BLAS_WORK_BYTES ((size_t)32 << 20)
#if CUBLAS_VER_MAJOR * 10000 + CUBLAS_VER_MINOR * 100 >= 120900 /* scales of rows and columns; on Hopper alone, it says itself */
#define HAVE_OUTER_SCALES
#endif

struct plan {
    uint32_t n_out, n_in, stride, n_tok;
    int out_f32;
    bool fp8, outer;  /* outer: cuBLASLt applies the scales */
    bool known, none; /* none: cuBLASLt has no algorithm for it */
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t w, x, out;
    cublasLtMatmulAlgo_t algo;
};

struct dev {
    struct dev_info info;
    uint32_t index;
    cudaStream_t stream;
    cudaEvent_t marks[DEV_MARKS];
    bool marked[DEV_MARKS];
    cublasLtHandle_t blas;
    void *blas_work;
    struct plan *plans;
    cudaError_t error;
    const char *gave_up; /* a wait that was ended */
    bool (*watch)(void *arg);
    void *watch_arg;
};

struct dev_graph {
    cudaGraphExec_t exec;
};

static void note(struct dev *d, cudaError_t error)
{
    if (error != cudaSuccess && d->error == cudaSuccess)
        d->error = error;
}

int dev_count(void)
{
    int n = 0;

    if (cudaGetDeviceCount(&n) != cudaSuccess) {
        cudaGetLastError();
        return 0;
    }
    return n;
}

/* ---- opening ---- */
static bool open_parts(struct dev *d)
{
    note(d, cudaSetDevice((int)d->index));
    note(d, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
    for (int i = 0; i < DEV_MARKS; i++)
        note(d, cudaEventCreate(&d->marks[i]));
    note(d, cudaMalloc(&d->blas_work, BLAS_WORK_BYTES));
    d->plans = (struct plan *)calloc(PLANS, sizeof *d->plans);
    return d->plans && d->error == cudaSuccess && cublasLtCreate(&d->blas) == CUBLAS_STATUS_SUCCESS;
}

weir_err dev_open(uint32_t index, struct dev **ret, struct weir_why *why)
{
    struct cudaDeviceProp props;
    struct dev *d;

    if (dev_count() <= (int)index)
        return weir_fail(why, WEIR_UNAVAILABLE, "cuda: there is no device %u", index);
    if (cudaGetDeviceProperties(&props, (int)index) != cudaSuccess)
        return weir_fail(why, WEIR_UNAVAILABLE, "cuda: device %u does not say what it is", index);
    if (props.major < 8)
        return weir_fail(why, WEIR_UNAVAILABLE, "cuda: %s is of compute capability %d.%d, and 8.0 is needed", props.name,
                         props.major, props.minor);
    d = (struct dev *)calloc(1, sizeof *d);
    if (!d)
        return weir_fail(why, WEIR_NOMEM, "no memory for the device");
    snprintf(d->info.name, sizeof d->info.name, "%.63s", props.name);
    d->info.n_multiprocessor = (uint32_t)props.multiProcessorCount;
    d->info.major = (uint32_t)props.major;
    d->info.minor = (uint32_t)props.minor;
    d->info.memory_bytes = props.totalGlobalMem;
    d->index = index;
    if (!open_parts(d)) {
        weir_err err = weir_fail(why, WEIR_UNAVAILABLE, "cuda: %s does not open: %s", props.name, cudaGetErrorString(d->error));
        dev_close(d);
        return err;
    }
    *ret = d;
    return WEIR_OK;
}

static void plan_clear(struct plan *p)
{
    if (p->known) {
        cublasLtMatmulDescDestroy(p->what);
        cublasLtMatrixLayoutDestroy(p->w);
        cublasLtMatrixLayoutDestroy(p->x);
        cublasLtMatrixLayoutDestroy(p->out);
    }
    memset(p, 0, sizeof *p);
}

void dev_close(struct dev *d)
{
    if (!d)
        return;
    cudaSetDevice((int)d->index);
    for (int i = 0; d->plans && i < PLANS; i++)
        plan_clear(&d->plans[i]);
    if (d->blas)
        cublasLtDestroy(d->blas);
    if (!d->gave_up)
        cudaFree(d->blas_work);
    for (int i = 0; i < DEV_MARKS; i++)
        if (d->marks[i])
            cudaEventDestroy(d->marks[i]);
    if (d->stream)
        cudaStreamDestroy(d->stream);
    free(d->plans);
    free(d);
}

const struct dev_info *dev_about(const struct dev *d)
{
    return &d->info;
}

uint32_t dev_index(const struct dev *d)
{
    return d->index;
}

void dev_use(uint32_t index)
{
    cudaSetDevice((int)index);
}

struct dev_stream *dev_stream(struct dev *d)
{
    return (struct dev_stream *)d->stream;
}

/* ---- memory ---- */
static void wait_for(struct dev *d, cudaEvent_t event);

void *dev_alloc(struct dev *d, size_t bytes)
{
    void *ptr = nullptr;

    cudaSetDevice((int)d->index);
    if (cudaMalloc(&ptr, bytes ? bytes : 1) != cudaSuccess) {
        cudaGetLastError(); /* no memory is the caller's to tell, and does not stick */
        return nullptr;
    }
    return ptr;
}

void dev_free(struct dev *d, void *ptr)
{
    if (!ptr)
        return;
    wait_for(d, nullptr);
    if (!d->gave_up) /* else cudaFree() would wait for what hangs */
        note(d, cudaFree(ptr));
}

void *dev_host_alloc(struct dev *, size_t bytes)
{
    void *ptr = nullptr;

    if (cudaMallocHost(&ptr, bytes) != cudaSuccess) {
        cudaGetLastError();
        return nullptr;
    }
    return ptr;
}

void dev_host_free(struct dev *d, void *ptr)
{
    if (ptr && !d->gave_up)
        note(d, cudaFreeHost(ptr));
}

void dev_upload(struct dev *d, void *to, const void *from, size_t bytes)
{
    note(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, d->stream));
}

void dev_download(struct dev *d, void *to, const void *from, size_t bytes)
{
    note(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, d->stream));
}

void dev_copy(struct dev *d, void *to, const void *from, size_t bytes)
{
    note(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, d->stream));
}

void dev_zero(struct dev *d, void *to, size_t bytes)
{
    note(d, cudaMemsetAsync(to, 0, bytes, d->stream));
}

/* ---- waiting ---- */
static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void dev_watch(struct dev *d, bool (*fn)(void *arg), void *arg)
{
    d->watch = fn;
    d->watch_arg = arg;
}

/* Until the event, or all of the stream where there is none, is done; given up when the watch says so or after DEV_PATIENCE_S. */
static void wait_for(struct dev *d, cudaEvent_t event)
{
    double until = now_s() + DEV_PATIENCE_S;
    cudaError_t state;

    if (d->gave_up)
        return;
    while ((state = event ? cudaEventQuery(event) : cudaStreamQuery(d->stream)) == cudaErrorNotReady) {
        if (d->watch && d->watch(d->watch_arg))
            d->gave_up = "another rank failed";
        else if (now_s() > until)
            d->gave_up = "the device did not finish in time";
        if (d->gave_up)
            return;
    }
    note(d, state);
}

void dev_sync(struct dev *d)
{
    wait_for(d, nullptr);
}

void dev_mark(struct dev *d, uint32_t mark)
{
    note(d, cudaEventRecord(d->marks[mark], d->stream));
    d->marked[mark] = true;
}

void dev_await(struct dev *d, uint32_t mark)
{
    if (d->marked[mark])
        wait_for(d, d->marks[mark]);
}

double dev_seconds(struct dev *d, uint32_t from, uint32_t to)
{
    float ms = 0;

    note(d, cudaEventElapsedTime(&ms, d->marks[from], d->marks[to]));
    return (double)ms * 1e-3;
}

weir_err dev_check(struct dev *d, struct weir_why *why)
{
    note(d, cudaGetLastError());
    if (d->error != cudaSuccess)
        return weir_fail(why, WEIR_DEVICE, "%s", cudaGetErrorString(d->error));
    return d->gave_up ? weir_fail(why, WEIR_DEVICE, "%s", d->gave_up) : WEIR_OK;
}

/* ---- recorded steps ---- */
void dev_record(struct dev *d)
{
    note(d, cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal));
}

struct dev_graph *dev_record_end(struct dev *d)
{
    struct dev_graph *ret = (struct dev_graph *)calloc(1, sizeof *ret);
    cudaGraph_t graph = nullptr;
    cudaError_t error = cudaStreamEndCapture(d->stream, &graph);

    note(d, error);
    if (ret && error == cudaSuccess)
        error = cudaGraphInstantiate(&ret->exec, graph, 0);
    note(d, error);
    if (graph)
        cudaGraphDestroy(graph);
    if (!ret || error != cudaSuccess) {
        free(ret);
        return nullptr;
    }
    return ret;
}

void dev_replay(struct dev *d, struct dev_graph *graph)
{
    note(d, cudaGraphLaunch(graph->exec, d->stream));
}

void dev_graph_free(struct dev_graph *graph)
{
    if (!graph)
        return;
    cudaGraphExecDestroy(graph->exec);
    free(graph);
}

/* ---- dense products: column-major, out^T [n_out, n_tok] = w [n_out, n_in] * x^T ---- */
static void plan_describe(struct plan *p)
{
    cublasOperation_t transposed = CUBLAS_OP_T;
    cudaDataType_t in = p->fp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;

    cublasLtMatmulDescCreate(&p->what, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
#ifdef HAVE_OUTER_SCALES
    int32_t outer = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    if (p->outer) {
        cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &outer, sizeof outer);
        cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &outer, sizeof outer);
    }
#endif
    /* FP8: the zeros behind rows are multiplied, too, so that every shape is aligned. */
    cublasLtMatrixLayoutCreate(&p->w, in, p->fp8 ? p->stride : p->n_in, p->n_out, p->stride);
    cublasLtMatrixLayoutCreate(&p->x, in, p->fp8 ? p->stride : p->n_in, p->n_tok, p->fp8 ? p->stride : p->n_in);
    cublasLtMatrixLayoutCreate(&p->out, p->out_f32 ? CUDA_R_32F : CUDA_R_16BF, p->n_out, p->n_tok, p->n_out);
}

static void plan_scales(struct plan *p, const float *w, const float *x)
{
    if (!p->outer)
        return;
    cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &w, sizeof w);
    cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x, sizeof x);
}

static bool plan_make(struct dev *d, struct plan *p)
{
    cublasLtMatmulPreference_t wish = nullptr;
    cublasLtMatmulHeuristicResult_t found;
    size_t work = BLAS_WORK_BYTES;
    int n_found = 0;

    p->known = true;
    plan_describe(p);
    plan_scales(p, (const float *)d->blas_work, (const float *)d->blas_work); /* any will do to ask */
    cublasLtMatmulPreferenceCreate(&wish);
    cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &work, sizeof work);
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(d->blas, p->what, p->w, p->x, p->out, p->out, wish, 1, &found, &n_found);
    cublasLtMatmulPreferenceDestroy(wish);
    p->none = status != CUBLAS_STATUS_SUCCESS || n_found == 0;
    if (!p->none)
        p->algo = found.algo;
    return !p->none;
}

static void plan_begin(struct plan *p, const struct cuda_weights *w, int out_f32, uint32_t n_tok, bool outer)
{
    plan_clear(p);
    p->n_out = w->n_out;
    p->n_in = w->n_in;
    p->stride = w->stride;
    p->n_tok = n_tok;
    p->out_f32 = out_f32;
    p->fp8 = w->kind == CUDA_FP8;
    p->outer = outer;
}

static struct plan *plan_of(struct dev *d, const struct cuda_weights *w, int out_f32, uint32_t n_tok)
{
    bool fp8 = w->kind == CUDA_FP8, made;
    uint64_t hash = ((uint64_t)w->n_out * 0x9e3779b97f4a7c15ull) ^ ((uint64_t)w->n_in * 0xbf58476d1ce4e5b9ull) ^
                    ((uint64_t)n_tok * 0x94d049bb133111ebull) ^ (uint64_t)out_f32 ^ (uint64_t)fp8 << 1;
    struct plan *p = &d->plans[(hash ^ hash >> 29) % PLANS];

    if (p->known && p->n_out == w->n_out && p->n_in == w->n_in && p->n_tok == n_tok && p->out_f32 == out_f32 && p->fp8 == fp8)
        return p->none ? nullptr : p;
    made = false;
#ifdef HAVE_OUTER_SCALES
    if (fp8) {
        plan_begin(p, w, out_f32, n_tok, /* outer= */ true);
        made = plan_make(d, p);
    }
#endif
    if (!made) {
        plan_begin(p, w, out_f32, n_tok, /* outer= */ false);
        made = plan_make(d, p);
    }
    return made ? p : nullptr;
}

static bool multiply(struct dev *d, struct plan *p, void *out, const void *x, const void *w)
{
    const float one = 1, none = 0;

    return cublasLtMatmul(d->blas, p->what, &one, w, p->w, x, p->x, &none, out, p->out, out, p->out, &p->algo, d->blas_work,
                          BLAS_WORK_BYTES, d->stream) == CUBLAS_STATUS_SUCCESS;
}

bool dev_dense(struct dev *d, void *out, int out_f32, const uint16_t *x, const struct cuda_weights *w, uint32_t n_tok)
{
    if (w->kind != CUDA_BF16 || w->n_in % 8 || w->n_out % 8) /* rows of x and out must be aligned to 16 bytes */
        return false;
    struct plan *p = plan_of(d, w, out_f32, n_tok);
    return p && multiply(d, p, out, x, w->data);
}

bool dev_fp8_fits(struct dev *d, const struct cuda_weights *w, int out_f32, uint32_t n_tok)
{
    bool has = d->info.major > 8 || (d->info.major == 8 && d->info.minor >= 9);

    return has && w->kind == CUDA_FP8 && w->n_out % 16 == 0 && plan_of(d, w, out_f32, n_tok);
}

bool dev_dense_fp8(struct dev *d, void *out, int out_f32, const uint8_t *x, const float *x_scale, const struct cuda_weights *w,
                   uint32_t n_tok)
{
    struct plan *p = plan_of(d, w, out_f32, n_tok);

    if (!p)
        return false;
    plan_scales(p, w->scale, x_scale);
    if (!multiply(d, p, out, x, w->data))
        return false;
    if (!p->outer)
        cuda_scale_both(dev_stream(d), out, out_f32, x_scale, w->scale, n_tok, w->n_out);
    return true;
}

/* ---- peers ---- */
bool dev_peer(struct dev *d, const struct dev *of)
{
    int can = 0;

    if (d->index == of->index)
        return true;
    if (cudaDeviceCanAccessPeer(&can, (int)d->index, (int)of->index) != cudaSuccess || !can)
        return false;
    cudaSetDevice((int)d->index);
    cudaError_t error = cudaDeviceEnablePeerAccess((int)of->index, 0);
    if (error == cudaErrorPeerAccessAlreadyEnabled)
        cudaGetLastError(); /* it is not an error to be told of */
    return error == cudaSuccess || error == cudaErrorPeerAccessAlreadyEnabled;
}

void dev_set_order(int, uint64_t)
{
}

void dev_set_lazy(bool)
{
}

bool dev_is_emulated(void)
{
    return false;
}
