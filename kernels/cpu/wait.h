/* wait.h - waiting for a number in memory to change: spins for some 20 us, then sleeps in the kernel.
 *
 * The one who changes the number calls wake_all() afterwards; it costs a system call only when somebody may sleep. Sleepers
 * announce themselves before they look a last time, and the changer looks for sleepers after the change, both sequentially
 * consistent: so either sees the other. */
#ifndef WEIR_KERNELS_CPU_WAIT_H
#define WEIR_KERNELS_CPU_WAIT_H

#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPIN_ROUNDS 1000 /* some 20 us of pauses */

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Until *what is not `than`; its new value, acquired. */
static inline unsigned wait_change(atomic_uint *what, unsigned than, atomic_uint *n_asleep)
{
    unsigned now = atomic_load_explicit(what, memory_order_acquire);

    for (int i = 0; now == than && i < SPIN_ROUNDS; i++) {
        pause_cpu();
        now = atomic_load_explicit(what, memory_order_acquire);
    }
    while (now == than) {
        atomic_fetch_add(n_asleep, 1);
        if (atomic_load(what) == than)
            syscall(SYS_futex, what, FUTEX_WAIT_PRIVATE, than, NULL, NULL, 0);
        atomic_fetch_sub(n_asleep, 1);
        now = atomic_load(what);
    }
    return now;
}

static inline void wake_all(atomic_uint *what, atomic_uint *n_asleep)
{
    if (atomic_fetch_add(n_asleep,
                         0)) /* a change, not a load: it comes before the sleeper's own or sees it */
        syscall(SYS_futex, what, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

#endif
