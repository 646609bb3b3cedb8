/* emu.cc - see emu.cuh. Fibers switch by a few instructions on x86-64 and by ucontext elsewhere; a block's stacks are kept for
 * the next one. */
#include "kernels/cuda/emu/emu.cuh"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define STACK_BYTES (128u << 10)
#define SHARED_BYTES (256u << 10) /* no GPU has more a block */
#define SHARED_KEYS 32

__thread emu_where emu_here;
__thread emu_record *emu_recording, *emu_waiting;

struct copy {
    void *to;
    const void *from;
    size_t bytes;
};

enum fiber_state { FIBER_READY, FIBER_AT_BARRIER, FIBER_AT_WARP, FIBER_DONE };

struct fiber {
    fiber_state state;
    dim3 idx;
    char *stack;
#if defined(__x86_64__)
    void *sp;
#else
    ucontext_t context;
#endif
    void *fake_stack; /* the address sanitizer's */
    std::vector<std::vector<copy>> copies; /* not done yet: groups, oldest first; the last one is open */
};

struct warp {
    uint32_t came;
    uint32_t mask;
    emu_warp_fn *fn;
    const void *in[32];
    void *out[32];
};

struct emu {
    std::vector<fiber> fibers;
    std::vector<warp> warps;
    std::vector<unsigned> turns;
    fiber main;
    unsigned current, n_threads, n_done, n_at_barrier;
    void (*body)(void *arg);
    void *arg;
    char *shared;
    size_t shared_used, shared_dynamic;
    struct {
        const void *key;
        void *at;
    } keys[SHARED_KEYS];
    unsigned n_keys;
    emu_order order;
    uint64_t random;
    const void *main_stack;
    size_t main_stack_bytes;
};
static thread_local emu *e;

/* Frees the thread's emulator when the thread ends. */
struct emu_owner {
    emu *mine = nullptr;
    ~emu_owner()
    {
        if (!mine)
            return;
        for (fiber &f : mine->fibers)
            if (f.stack)
                munmap(f.stack, STACK_BYTES);
        free(mine->shared);
        delete mine;
        e = nullptr;
    }
};
static thread_local emu_owner owner;

static void need_emu()
{
    if (!e)
        e = owner.mine = new emu();
}

static void die(const char *what)
{
    fprintf(stderr, "emulated kernel: %s (block %u %u %u, thread %u)\n", what, emu_here.block_idx.x, emu_here.block_idx.y,
            emu_here.block_idx.z, e->current);
    abort();
}

#if defined(__x86_64__)
extern "C" void emu_switch_stack(void **save, void *to);
asm(".text\n.globl emu_switch_stack\n.type emu_switch_stack,@function\nemu_switch_stack:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size emu_switch_stack,.-emu_switch_stack\n");
#endif

static void switch_to(fiber *from, fiber *to, bool for_good)
{
#if defined(__SANITIZE_ADDRESS__)
    bool home = to == &e->main;
    __sanitizer_start_switch_fiber(for_good ? nullptr : &from->fake_stack, home ? e->main_stack : to->stack,
                                   home ? e->main_stack_bytes : STACK_BYTES);
#endif
    (void)for_good;
#if defined(__x86_64__)
    emu_switch_stack(&from->sp, to->sp);
#else
    swapcontext(&from->context, &to->context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

static void fiber_main()
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &e->main_stack, &e->main_stack_bytes);
#endif
    e->body(e->arg);
    fiber *self = &e->fibers[e->current];
    self->state = FIBER_DONE;
    e->n_done++;
    switch_to(self, &e->main, true);
    die("a fiber that ended ran on");
}

static void fiber_start(fiber *f)
{
    if (!f->stack) {
        f->stack = (char *)mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (f->stack == MAP_FAILED)
            die("no memory for a stack");
    }
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(f->stack, STACK_BYTES);
#endif
    f->state = FIBER_READY;
    f->fake_stack = nullptr;
    f->copies.assign(1, {});
#if defined(__x86_64__)
    void **sp = (void **)(f->stack + STACK_BYTES) - 8;
    sp[6] = (void *)fiber_main; /* what emu_switch_stack returns to; above it the stack is as after a call */
    sp[7] = nullptr;
    for (int i = 0; i < 6; i++)
        sp[i] = nullptr;
    f->sp = sp;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = nullptr;
    makecontext(&f->context, fiber_main, 0);
#endif
}

static void yield()
{
    switch_to(&e->fibers[e->current], &e->main, false);
}

unsigned emu_lane()
{
    return e->current % 32;
}

void emu_barrier()
{
    e->fibers[e->current].state = FIBER_AT_BARRIER;
    e->n_at_barrier++;
    yield();
}

void emu_warp(uint32_t mask, emu_warp_fn *fn, const void *in, void *out)
{
    warp *w = &e->warps[e->current / 32];
    unsigned lane = emu_lane(), first = e->current - lane;

    if (!(mask >> lane & 1))
        die("a lane calls an operation of a warp whose mask leaves it out");
    if (w->came && (w->mask != mask || w->fn != fn))
        die("the lanes of a warp meet in different operations"); /* [U2] */
    w->mask = mask;
    w->fn = fn;
    w->came |= 1u << lane;
    w->in[lane] = in;
    w->out[lane] = out;
    if (w->came != mask) {
        e->fibers[e->current].state = FIBER_AT_WARP;
        yield();
        return;
    }
    fn(w->in, w->out);
    for (unsigned i = 0; i < 32; i++) {
        if (mask >> i & 1)
            e->fibers[first + i].state = FIBER_READY;
        w->in[i] = nullptr;
        w->out[i] = nullptr;
    }
    w->came = 0;
}

void *emu_shared(const void *key, size_t bytes)
{
    for (unsigned i = 0; i < e->n_keys; i++)
        if (e->keys[i].key == key)
            return e->keys[i].at;
    if (e->n_keys == SHARED_KEYS || e->shared_used + bytes > SHARED_BYTES)
        die("too much shared memory");
    void *at = e->shared + e->shared_used;
    e->shared_used += (bytes + 15) & ~(size_t)15;
    e->keys[e->n_keys].key = key;
    e->keys[e->n_keys++].at = at;
    return at;
}

void *emu_shared_dynamic()
{
    return e->shared;
}

void emu_set_order(emu_order order, uint64_t seed)
{
    need_emu();
    e->order = order;
    e->random = seed * 0x9e3779b97f4a7c15ull + 1;
}

static uint64_t next_random()
{
    e->random ^= e->random << 13;
    e->random ^= e->random >> 7;
    e->random ^= e->random << 17;
    return e->random;
}

void emu_copy_async(void *to, const void *from, size_t bytes)
{
    if ((uintptr_t)to % bytes || (uintptr_t)from % bytes)
        die("an asynchronous copy that is not aligned");
    if (e->order == EMU_BACKWARD || (e->order == EMU_SHUFFLED && next_random() % 2))
        memcpy(to, from, bytes);
    else
        e->fibers[e->current].copies.back().push_back({ to, from, bytes });
}

void emu_copy_commit()
{
    e->fibers[e->current].copies.push_back({});
}

void emu_copy_wait(unsigned n_newest)
{
    std::vector<std::vector<copy>> &groups = e->fibers[e->current].copies;

    while (groups.size() > n_newest + 1) {
        for (const copy &c : groups.front())
            memcpy(c.to, c.from, c.bytes);
        groups.erase(groups.begin());
    }
}

static void choose_turns()
{
    unsigned n = e->n_threads;

    for (unsigned i = 0; i < n; i++)
        e->turns[i] = e->order == EMU_BACKWARD ? n - 1 - i : i;
    if (e->order == EMU_SHUFFLED)
        for (unsigned i = n; i > 1; i--)
            std::swap(e->turns[i - 1], e->turns[next_random() % i]);
}

/* Every fiber that can run, runs once; false when none could. */
static bool sweep()
{
    bool any = false;

    choose_turns();
    for (unsigned i = 0; i < e->n_threads; i++) {
        fiber *f = &e->fibers[e->turns[i]];
        if (f->state != FIBER_READY)
            continue;
        any = true;
        e->current = e->turns[i];
        emu_here.thread_idx = f->idx;
        switch_to(&e->main, f, false);
    }
    return any;
}

static void run_block()
{
    memset(e->shared, 0xff, SHARED_BYTES); /* [U1] */
    e->shared_used = e->shared_dynamic;
    e->n_keys = e->n_done = e->n_at_barrier = 0;
    for (unsigned i = 0; i < e->n_threads; i++)
        fiber_start(&e->fibers[i]);
    for (warp &w : e->warps)
        w = warp();
    while (e->n_done < e->n_threads) {
        bool ran = sweep();
        if (e->n_at_barrier == e->n_threads) {
            for (unsigned i = 0; i < e->n_threads; i++)
                e->fibers[i].state = FIBER_READY;
            e->n_at_barrier = 0;
        } else if (!ran) {
            die("threads wait for others that never come: a barrier or a warp's mask not all reach"); /* [U3] */
        }
    }
}

void emu_run(dim3 grid, dim3 block, size_t shared, void (*body)(void *arg), void *arg)
{
    need_emu();
    e->n_threads = block.x * block.y * block.z;
    if (e->n_threads == 0 || e->n_threads > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535)
        die("a launch no GPU would take");
    if (e->fibers.size() < e->n_threads)
        e->fibers.resize(e->n_threads);
    e->turns.resize(e->n_threads);
    e->warps.resize((e->n_threads + 31) / 32);
    if (!e->shared)
        e->shared = (char *)aligned_alloc(128, SHARED_BYTES);
    e->shared_dynamic = (shared + 15) & ~(size_t)15;
    e->body = body;
    e->arg = arg;
    emu_here.grid = grid;
    emu_here.block = block;
    for (unsigned i = 0; i < e->n_threads; i++)
        e->fibers[i].idx = dim3(i % block.x, i / block.x % block.y, i / block.x / block.y);
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                emu_here.block_idx = dim3(x, y, z);
                run_block();
            }
}
