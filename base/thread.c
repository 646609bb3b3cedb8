/* thread.c - starting threads, signals, and the report of a crash.
 *
 *   [T1] No signal but a crash's own is ever taken by a thread that is started here.
 *   [T2] The crash report calls async-signal-safe functions only (backtrace() was called once before, so that
 *        its library is loaded) and re-raises, so that the exit status and the core are those of the crash.
 * The list of running threads is under one mutex, which only starting, joining and dumping take. */
#include "base/thread.h"

#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/sanitize_int.h"

enum { SIGNAL_STACK_BYTES = 65536, FRAMES_MAX = 64 };

static const int crash_signals[] = { SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL };

static _Thread_local enum weir_role own_role = WEIR_ROLE_ANY;
static _Thread_local struct weir_thread *own_thread;

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct weir_thread *list; /* under list_lock */

enum weir_role weir_role(void)
{
    return own_role;
}

static const char *role_name(enum weir_role role)
{
    static const char *const names[] = {
        [WEIR_ROLE_ANY] = "any",     [WEIR_ROLE_MAIN] = "main", [WEIR_ROLE_IO] = "io",
        [WEIR_ROLE_CQ] = "cq",       [WEIR_ROLE_DISC] = "disc", [WEIR_ROLE_FLEET] = "fleet",
        [WEIR_ROLE_STEP] = "step",   [WEIR_ROLE_SEND] = "send", [WEIR_ROLE_TEXT] = "text",
        [WEIR_ROLE_ADMIN] = "admin", [WEIR_ROLE_MESH] = "mesh",
    };
    return (size_t)role < sizeof names / sizeof names[0] ? names[role] : "?";
}

static void list_add(struct weir_thread *t)
{
    pthread_mutex_lock(&list_lock);
    t->next = list;
    list = t;
    pthread_mutex_unlock(&list_lock);
}

static void list_remove(struct weir_thread *t)
{
    pthread_mutex_lock(&list_lock);
    for (struct weir_thread **at = &list; *at; at = &(*at)->next) {
        if (*at == t) {
            *at = t->next;
            break;
        }
    }
    pthread_mutex_unlock(&list_lock);
}

static void *thread_main(void *arg)
{
    struct weir_thread *t = arg;
    stack_t stack = { .ss_sp = t->signal_stack, .ss_size = SIGNAL_STACK_BYTES };

    own_role = t->role;
    own_thread = t;
    pthread_setname_np(pthread_self(), t->name);
    if (!WITH_ASAN && !WITH_TSAN) /* a sanitizer unmaps the stack it finds there when the thread ends */
        sigaltstack(&stack, NULL);
    return t->fn(t->arg);
}

/* [T1] Every signal but those that a fault of the thread itself raises. */
static void fill_mask(sigset_t *mask)
{
    sigfillset(mask);
    for (size_t i = 0; i < sizeof crash_signals / sizeof crash_signals[0]; i++)
        sigdelset(mask, crash_signals[i]);
    sigdelset(mask, SIGTRAP);
    sigdelset(mask, SIGSYS);
}

weir_err weir_thread_start(struct weir_thread *t, enum weir_role role, const char *name, void *(*fn)(void *),
                           void *arg, struct weir_why *why)
{
    sigset_t mask, old;

    memset(t, 0, sizeof *t);
    t->role = role;
    t->fn = fn;
    t->arg = arg;
    memcpy(t->name, name, strnlen(name, sizeof t->name - 1));
    t->signal_stack = weir_alloc(SIGNAL_STACK_BYTES);
    if (!t->signal_stack)
        return weir_fail(why, WEIR_NOMEM, "thread %s: no room for its signal stack", name);
    list_add(t);
    fill_mask(&mask);
    pthread_sigmask(SIG_SETMASK, &mask, &old);
    int rc = pthread_create(&t->id, NULL, thread_main, t);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        list_remove(t);
        weir_free(t->signal_stack);
        memset(t, 0, sizeof *t);
        return weir_fail(why, WEIR_UNAVAILABLE, "thread %s: %s", name, strerror(rc));
    }
    t->running = 1;
    return WEIR_OK;
}

void weir_thread_join(struct weir_thread *t)
{
    if (!t || !t->running)
        return;
    WEIR_BUG_ON(pthread_join(t->id, NULL) != 0);
    list_remove(t);
    weir_free(t->signal_stack);
    t->signal_stack = NULL;
    t->running = 0;
}

void weir_thread_beat(uint64_t now_ns)
{
    if (own_thread)
        __atomic_store_n(&own_thread->beat_ns, now_ns, __ATOMIC_RELAXED);
}

uint64_t weir_thread_beat_ns(const struct weir_thread *t)
{
    return __atomic_load_n(&t->beat_ns, __ATOMIC_RELAXED);
}

void weir_threads_dump(struct weir_buf *out, uint64_t now_ns)
{
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_array(&w);
    pthread_mutex_lock(&list_lock);
    for (const struct weir_thread *t = list; t; t = t->next) {
        uint64_t beat_ns = weir_thread_beat_ns(t);
        weir_jw_object(&w);
        weir_jw_key(&w, "name");
        weir_jw_cstr(&w, t->name);
        weir_jw_key(&w, "role");
        weir_jw_cstr(&w, role_name(t->role));
        weir_jw_key(&w, "beat_age_ms");
        if (beat_ns == 0)
            weir_jw_null(&w);
        else
            weir_jw_u64(&w, now_ns > beat_ns ? (now_ns - beat_ns) / WEIR_MS : 0);
        weir_jw_object_end(&w);
    }
    pthread_mutex_unlock(&list_lock);
    weir_jw_array_end(&w);
}

/* ---- Signals ---- */

static void waited_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR1);
}

void weir_signals_block(void)
{
    sigset_t set;

    own_role = WEIR_ROLE_MAIN;
    waited_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int weir_signals_wait(int timeout_ms)
{
    struct timespec timeout = { .tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1000000L };
    sigset_t set;

    waited_signals(&set);
    for (;;) {
        int sig = timeout_ms < 0 ? sigwaitinfo(&set, NULL) : sigtimedwait(&set, NULL, &timeout);
        if (sig > 0)
            return sig;
        if (errno == EAGAIN)
            return 0;
        /* EINTR: a debugger, or a handler of somebody else; a timeout may then last longer, once. */
        WEIR_BUG_ON(errno != EINTR);
    }
}

void weir_signals_raise_term(void)
{
    kill(getpid(), SIGTERM);
}

/* ---- Crash report ---- */

static char crash_program[64];

static void put(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return; /* nobody left to tell */
}

static void put_number(unsigned long n, unsigned base)
{
    char text[24], *at = text + sizeof text - 1;

    *at = '\0';
    do {
        *--at = "0123456789abcdef"[n % base];
        n /= base;
    } while (n);
    put(at);
}

static const char *signal_name(int sig)
{
    switch (sig) {
    case SIGSEGV:
        return "SIGSEGV";
    case SIGABRT:
        return "SIGABRT";
    case SIGBUS:
        return "SIGBUS";
    case SIGFPE:
        return "SIGFPE";
    default:
        return "SIGILL";
    }
}

/* [T2] */
static void on_crash(int sig, siginfo_t *info, void *context)
{
    void *frames[FRAMES_MAX];
    char name[16] = "";

    (void)context;
    put("\n");
    put(crash_program);
    put(": crashed: ");
    put(signal_name(sig));
    if (sig != SIGABRT) {
        put(" at address 0x");
        put_number((unsigned long)info->si_addr, 16);
    }
    put(", thread ");
    put(prctl(PR_GET_NAME, name) == 0 ? name : "?");
    put(", pid ");
    put_number((unsigned long)getpid(), 10);
    put("\n");
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MAX), STDERR_FILENO);
    raise(sig); /* SA_RESETHAND: the default action, once this handler returns */
}

void weir_crash_report_setup(const char *program)
{
    static char main_stack[SIGNAL_STACK_BYTES];
    stack_t stack = { .ss_sp = main_stack, .ss_size = sizeof main_stack };
    struct sigaction action = { .sa_sigaction = on_crash };
    void *frame;

    snprintf(crash_program, sizeof crash_program, "%s", program);
    if (WITH_ASAN || WITH_TSAN)
        return; /* a sanitizer's own report says more */
    action.sa_flags = (int)(SA_SIGINFO | SA_ONSTACK | SA_RESETHAND);
    sigemptyset(&action.sa_mask);
    sigaltstack(&stack, NULL);
    backtrace(&frame, 1); /* loads the unwinder now [T2] */
    for (size_t i = 0; i < sizeof crash_signals / sizeof crash_signals[0]; i++)
        sigaction(crash_signals[i], &action, NULL);
}
