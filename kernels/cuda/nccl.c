/* nccl.c - see nccl.h. The few functions needed are declared here as NCCL 2 has them, so that building needs no header of it.
 *
 *   [N1] A call that may block is made by a thread of its own (struct errand). Who gives up waiting leaves the errand to its
 *        thread, which cleans up should the call ever return.
 *   [N2] Communicators that do not block start an operation on a thread of NCCL's: it is in the stream when their state is no
 *        longer IN_PROGRESS, and only then the next one is asked for.
 * Threads: a communicator is its rank's; the library is loaded once for all. */
#include "kernels/cuda/nccl.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "base/mem.h"
#include "kernels/cuda/dev.h"

#define TYPE_F32 7 /* ncclDataType_t of NCCL 2 */
#define TYPE_BF16 9
#define OP_SUM 0
#define IN_PROGRESS 7 /* ncclInProgress */
#define SPINS 200     /* looks at a state before sleeping between them */

/* ncclConfig_t as 2.14 had it: later ones take what it lacks as not said. */
struct config {
    size_t size;
    unsigned magic, version;
    int blocking, not_said;
};
#define CONFIG_MAGIC 0xcafebeefu
#define CONFIG_VERSION 21400

struct nccl {
    void *comm;
    struct nccl_stop stop;
    uint32_t device;
    bool polls; /* the communicator does not block */
};

static struct {
    void *library;
    int (*get_id)(struct nccl_id *id);
    int (*init)(void **comm, int n_ranks, struct nccl_id id, int rank);
    int (*init_config)(void **comm, int n_ranks, struct nccl_id id, int rank,
                       struct config *config);  /* or NULL */
    int (*async_error)(void *comm, int *error); /* or NULL */
    int (*destroy)(void *comm);
    int (*abort)(void *comm);
    int (*all_reduce)(const void *from, void *to, size_t n, int type, int op, void *comm, void *stream);
    int (*all_gather)(const void *from, void *to, size_t n, int type, void *comm, void *stream);
    const char *(*words)(int error);
} api; /* written under load_lock, before ranks open */
static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
static bool tried, emulated; /* under load_lock */
static _Atomic uint32_t patience_ms = NCCL_PATIENCE_MS;

/* ---- loading ---- */
static bool find(const char *name, void *fn)
{
    return (*(void **)fn = dlsym(api.library, name)) != NULL;
}

static void load(const char *path)
{
    tried = true;
    api.library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!api.library)
        return;
    find("ncclCommInitRankConfig", &api.init_config);
    find("ncclCommGetAsyncError", &api.async_error);
    if (!find("ncclGetUniqueId", &api.get_id) || !find("ncclCommInitRank", &api.init) ||
        !find("ncclCommDestroy", &api.destroy) || !find("ncclCommAbort", &api.abort) ||
        !find("ncclAllReduce", &api.all_reduce) || !find("ncclAllGather", &api.all_gather) ||
        !find("ncclGetErrorString", &api.words)) {
        dlclose(api.library);
        api.library = NULL;
    }
}

bool nccl_load(void)
{
    pthread_mutex_lock(&load_lock);
    if (!tried)
        load("libnccl.so.2");
    bool ret = api.library != NULL;
    pthread_mutex_unlock(&load_lock);
    return ret;
}

bool nccl_emulate(const char *path, uint32_t patience)
{
    pthread_mutex_lock(&load_lock);
    tried = emulated = path != NULL;
    atomic_store(&patience_ms, path ? patience : NCCL_PATIENCE_MS);
    if (path)
        load(path);
    bool ret = !path || api.library;
    pthread_mutex_unlock(&load_lock);
    return ret;
}

bool nccl_is_emulated(void)
{
    pthread_mutex_lock(&load_lock);
    bool ret = emulated;
    pthread_mutex_unlock(&load_lock);
    return ret;
}

bool nccl_make_id(struct nccl_id *ret)
{
    return api.get_id(ret) == 0;
}

/* ---- waiting ---- */
static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void sleep_us(long us)
{
    const struct timespec t = { .tv_nsec = us * 1000 };

    nanosleep(&t, NULL);
}

static bool stopped(const struct nccl_stop *stop)
{
    return stop->fn && stop->fn(stop->arg);
}

/* [N1] */
struct errand {
    enum { INIT, ABORT, DESTROY } what;
    struct nccl_id id;
    int rank, n_ranks, error;
    uint32_t device;
    void *comm;
    bool done, left; /* under lock */
    pthread_mutex_t lock;
};

static void errand_free(struct errand *e)
{
    pthread_mutex_destroy(&e->lock);
    weir_free(e);
}

static void *errand_run(void *arg)
{
    struct errand *e = arg;

    dev_use(e->device);
    e->error = e->what == INIT    ? api.init(&e->comm, e->n_ranks, e->id, e->rank)
               : e->what == ABORT ? api.abort(e->comm)
                                  : api.destroy(e->comm);
    pthread_mutex_lock(&e->lock);
    e->done = true;
    bool left = e->left;
    pthread_mutex_unlock(&e->lock);
    if (left && e->what == INIT && e->error == 0)
        api.abort(e->comm);
    if (left)
        errand_free(e);
    return NULL;
}

/* Done within `ms`, and *ret_comm, unless NULL, is what came of it. False with error 0: it was not. */
static bool errand_send(const struct errand *what, const struct nccl_stop *stop, uint32_t ms, void **ret_comm,
                        int *ret_error)
{
    struct errand *e = weir_alloc0(sizeof *e);
    uint64_t until = now_ms() + ms;
    pthread_t thread;
    bool done = false;

    *ret_error = 0;
    if (!e)
        return false;
    *e = *what;
    pthread_mutex_init(&e->lock, NULL);
    if (pthread_create(&thread, NULL, errand_run, e) != 0) {
        errand_free(e);
        return false;
    }
    pthread_detach(thread);
    while (!done) {
        bool late = now_ms() > until || stopped(stop);
        pthread_mutex_lock(&e->lock);
        done = e->done;
        e->left = late && !done;
        pthread_mutex_unlock(&e->lock);
        if (late && !done)
            return false;
        if (!done)
            sleep_us(200);
    }
    *ret_error = e->error;
    if (ret_comm)
        *ret_comm = e->comm;
    errand_free(e);
    return *ret_error == 0;
}

/* Gives a communicator back, and whoever waits in it goes on. */
static void dispose(void *comm, uint32_t device, bool abort)
{
    const struct errand e = { .what = abort ? ABORT : DESTROY, .comm = comm, .device = device };
    const struct nccl_stop never = { 0 };
    int error;

    if (comm && !errand_send(&e, &never, NCCL_ABORT_MS, NULL, &error) && !abort)
        dispose(comm, device, /* abort= */ true);
}

static weir_err say(struct weir_why *why, int error, const char *what, const struct nccl_stop *stop)
{
    if (error != 0)
        return weir_fail(why, WEIR_IO, "NCCL: %s: %s", what, api.words(error));
    if (stopped(stop))
        return weir_fail(why, WEIR_IO, "NCCL: %s: another rank failed", what);
    return weir_fail(why, WEIR_IO, "NCCL: %s: not done within %u ms", what, atomic_load(&patience_ms));
}

/* Until what was begun is in the stream [N2]; `state` is what the call said. */
static weir_err await(struct nccl *n, int state, const char *what, struct weir_why *why)
{
    uint64_t until = now_ms() + atomic_load(&patience_ms);

    for (uint32_t i = 0; n->polls && state == IN_PROGRESS; i++) {
        int error = api.async_error(n->comm, &state);
        state = error ? error : state;
        if (state != IN_PROGRESS)
            break;
        if (now_ms() > until || stopped(&n->stop))
            return say(why, 0, what, &n->stop);
        if (i < SPINS)
            sched_yield();
        else
            sleep_us(100);
    }
    return state == 0 ? WEIR_OK : say(why, state, what, &n->stop);
}

/* ---- communicators ---- */
static weir_err open_polled(struct nccl *n, const struct nccl_id *id, uint32_t rank, uint32_t n_ranks,
                            struct weir_why *why)
{
    struct config config = { sizeof config, CONFIG_MAGIC, CONFIG_VERSION, /* blocking= */ 0, INT_MIN };
    int state;

    dev_use(n->device);
    n->polls = true;
    state = api.init_config(&n->comm, (int)n_ranks, *id, (int)rank, &config);
    weir_err err = await(n, state, "opening", why);
    if (err != WEIR_OK)
        dispose(n->comm, n->device, /* abort= */ true);
    return err;
}

static weir_err open_blocking(struct nccl *n, const struct nccl_id *id, uint32_t rank, uint32_t n_ranks,
                              struct weir_why *why)
{
    const struct errand e = {
        .what = INIT, .id = *id, .rank = (int)rank, .n_ranks = (int)n_ranks, .device = n->device
    };
    int error;

    if (errand_send(&e, &n->stop, atomic_load(&patience_ms), &n->comm, &error))
        return WEIR_OK;
    return say(why, error, "opening", &n->stop);
}

weir_err nccl_open(const struct nccl_id *id, uint32_t rank, uint32_t n_ranks, uint32_t device,
                   const struct nccl_stop *stop, struct nccl **ret, struct weir_why *why)
{
    struct nccl *n = weir_alloc0(sizeof *n);

    if (!n)
        return weir_fail(why, WEIR_NOMEM, "no memory for NCCL");
    n->stop = *stop;
    n->device = device;
    weir_err err = api.init_config && api.async_error ? open_polled(n, id, rank, n_ranks, why)
                                                      : open_blocking(n, id, rank, n_ranks, why);
    if (err != WEIR_OK) {
        weir_free(n);
        return err;
    }
    *ret = n;
    return WEIR_OK;
}

void nccl_close(struct nccl *n, bool abort)
{
    if (!n)
        return;
    dispose(n->comm, n->device, abort);
    weir_free(n);
}

weir_err nccl_all_reduce(struct nccl *n, void *x_bf16, size_t count, struct dev_stream *s,
                         struct weir_why *why)
{
    return await(n, api.all_reduce(x_bf16, x_bf16, count, TYPE_BF16, OP_SUM, n->comm, s), "all-reduce", why);
}

weir_err nccl_all_gather(struct nccl *n, float *out, const float *x, size_t count, struct dev_stream *s,
                         struct weir_why *why)
{
    return await(n, api.all_gather(x, out, count, TYPE_F32, n->comm, s), "all-gather", why);
}

const char *nccl_failed(struct nccl *n)
{
    int state = 0;

    if (!api.async_error || api.async_error(n->comm, &state) != 0 || state == 0 || state == IN_PROGRESS)
        return NULL;
    return api.words(state);
}
