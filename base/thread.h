/* thread.h - threads with a role, a name that `top -H` shows, and a beat that a watchdog reads.
 *
 * Roles say who may touch what: WEIR_ON(ROLE) asserts it in debug builds. All signals are blocked in these
 * threads; the main thread takes them with weir_signals_wait(). */
#ifndef WEIR_BASE_THREAD_H
#define WEIR_BASE_THREAD_H

#include <pthread.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

enum weir_role {
    WEIR_ROLE_ANY,
    WEIR_ROLE_MAIN,
    WEIR_ROLE_IO,    /* a router's epoll thread: connections and calls */
    WEIR_ROLE_CQ,    /* polls a gRPC completion queue */
    WEIR_ROLE_DISC,  /* discovery */
    WEIR_ROLE_FLEET, /* opens and closes attachments */
    WEIR_ROLE_STEP,  /* the replica's engine */
    WEIR_ROLE_SEND,  /* the replica's sender */
    WEIR_ROLE_TEXT,  /* tokenizes, renders templates */
    WEIR_ROLE_ADMIN,
    WEIR_ROLE_MESH, /* tells the other routers what was counted */
};

struct weir_thread {
    pthread_t id;
    enum weir_role role;
    char name[16];
    void *(*fn)(void *);
    void *arg;
    int running;
    void *signal_stack; /* the crash report's, so that it can tell of a stack that ran over */
    uint64_t beat_ns;   /* relaxed __atomic builtins (C++ knows no _Atomic): a watchdog counts seconds */
    struct weir_thread *next; /* in the list of running threads */
};

WEIR_MUST_CHECK weir_err weir_thread_start(struct weir_thread *t, enum weir_role role, const char *name,
                                           void *(*fn)(void *), void *arg, struct weir_why *why);
void weir_thread_join(struct weir_thread *t); /* takes one that never started */
enum weir_role weir_role(void);
#define WEIR_ON(r) WEIR_DCHECK(weir_role() == WEIR_ROLE_##r || weir_role() == WEIR_ROLE_ANY)

/* "I am alive", from the thread's own loop; does nothing in a thread that was not started here. */
void weir_thread_beat(uint64_t now_ns);
/* When it last beat; 0 when it never did. */
uint64_t weir_thread_beat_ns(const struct weir_thread *t);
/* The running threads as a JSON array [{"name":..,"role":..,"beat_age_ms":..}]; null as the age of one that
 * never beat. */
void weir_threads_dump(struct weir_buf *out, uint64_t now_ns);

/* Main thread, before any other starts: block SIGTERM, SIGINT, SIGHUP, SIGUSR1; ignore SIGPIPE. */
void weir_signals_block(void);
/* Waits for one of them and returns its number; 0 after timeout_ms (negative: no timeout). */
int weir_signals_wait(int timeout_ms);
/* Makes weir_signals_wait return SIGTERM: a fatal condition found by another thread. */
void weir_signals_raise_term(void);
/* Writes a backtrace of the crashing thread to standard error on SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL. */
void weir_crash_report_setup(const char *program);

#ifdef __cplusplus
}
#endif
#endif
