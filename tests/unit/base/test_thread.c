/* test_thread.c - threads, signals, the crash report. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sanitize_int.h"
#include "base/thread.h"

struct seen {
    enum weir_role role;
    char name[16];
    sigset_t blocked;
};

static void *look_around(void *arg)
{
    struct seen *seen = arg;

    seen->role = weir_role();
    pthread_getname_np(pthread_self(), seen->name, sizeof seen->name);
    pthread_sigmask(SIG_SETMASK, NULL, &seen->blocked);
    weir_thread_beat(12345);
    return NULL;
}

/* [T1] */
static void test_thread_has_role_name_and_no_signals(void **state)
{
    struct weir_thread t;
    struct seen seen;
    sigset_t mine;

    (void)state;
    assert_int_equal(
        weir_thread_start(&t, WEIR_ROLE_STEP, "a-name-that-is-too-long", look_around, &seen, NULL), WEIR_OK);
    weir_thread_join(&t);
    assert_int_equal(seen.role, WEIR_ROLE_STEP);
    assert_string_equal(seen.name, "a-name-that-is-");
    assert_true(sigismember(&seen.blocked, SIGTERM) && sigismember(&seen.blocked, SIGINT));
    assert_true(sigismember(&seen.blocked, SIGALRM) && sigismember(&seen.blocked, SIGUSR2));
    assert_false(sigismember(&seen.blocked, SIGSEGV)); /* a blocked fault would leave no report */
    assert_false(sigismember(&seen.blocked, SIGABRT));
    assert_int_equal(weir_thread_beat_ns(&t), 12345);
    pthread_sigmask(SIG_SETMASK, NULL, &mine);
    assert_false(sigismember(&mine, SIGALRM)); /* the starter's own mask is back */
    weir_thread_join(&t);                      /* twice does no harm */
    assert_int_equal(weir_role(), WEIR_ROLE_ANY);
}

static void *wait_for_pipe(void *arg)
{
    char c;
    ssize_t n = read(*(int *)arg, &c, 1);

    return n == 1 ? arg : NULL;
}

static void test_dump_lists_running_threads(void **state)
{
    struct weir_thread t;
    struct weir_buf out;
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    weir_buf_init(&out, 0);
    assert_int_equal(weir_thread_start(&t, WEIR_ROLE_SEND, "sender", wait_for_pipe, &fds[0], NULL), WEIR_OK);
    weir_threads_dump(&out, 1000);
    assert_string_equal(weir_buf_cstr(&out),
                        "[{\"name\":\"sender\",\"role\":\"send\",\"beat_age_ms\":null}]");
    __atomic_store_n(&t.beat_ns, 1000000, __ATOMIC_RELAXED);
    weir_buf_clear(&out);
    weir_threads_dump(&out, 8000000);
    assert_string_equal(weir_buf_cstr(&out), "[{\"name\":\"sender\",\"role\":\"send\",\"beat_age_ms\":7}]");
    assert_int_equal(write(fds[1], "x", 1), 1);
    weir_thread_join(&t);
    weir_buf_clear(&out);
    weir_threads_dump(&out, 0);
    assert_string_equal(weir_buf_cstr(&out), "[]");
    weir_buf_release(&out);
    close(fds[0]);
    close(fds[1]);
}

static void test_no_memory_starts_nothing(void **state)
{
    struct weir_thread t;
    struct weir_why why;

    (void)state;
    weir_test_alloc_budget(0);
    weir_err rc = weir_thread_start(&t, WEIR_ROLE_IO, "io", look_around, NULL, &why);
    weir_test_alloc_budget(-1);
    assert_int_equal(rc, WEIR_NOMEM);
    assert_non_null(strstr(why.text, "io"));
    weir_thread_join(&t);
    weir_thread_join(NULL);
}

/* The signal tests change the process: each runs in a child, which gives 0 when all went well. */
static int run_child(int (*fn)(void), char *output, size_t size)
{
    int status = 0, fds[2];
    size_t n = 0;

    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        for (int sig = 1; sig < 32; sig++)
            signal(sig, SIG_DFL); /* cmocka catches some */
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        alarm(60);
        _exit(fn());
    }
    close(fds[1]);
    for (ssize_t got; n < size - 1 && (got = read(fds[0], output + n, size - 1 - n)) > 0;)
        n += (size_t)got;
    output[n] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void *raise_term(void *arg)
{
    (void)arg;
    weir_signals_raise_term();
    return NULL;
}

static int signals_child(void)
{
    struct weir_thread t;

    weir_signals_block();
    if (weir_role() != WEIR_ROLE_MAIN || weir_signals_wait(1) != 0)
        return 1;
    kill(getpid(), SIGHUP);
    if (weir_signals_wait(-1) != SIGHUP)
        return 2;
    if (weir_thread_start(&t, WEIR_ROLE_STEP, "step", raise_term, NULL, NULL) != WEIR_OK)
        return 3;
    if (weir_signals_wait(60000) != SIGTERM)
        return 4;
    weir_thread_join(&t);
    raise(SIGPIPE); /* ignored */
    kill(getpid(), SIGUSR1);
    return weir_signals_wait(-1) == SIGUSR1 ? 0 : 5;
}

static void test_main_thread_takes_the_signals(void **state)
{
    char output[256];

    (void)state;
    int status = run_child(signals_child, output, sizeof output);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void *volatile nowhere;

static void *write_nowhere(void *arg)
{
    *(volatile int *)nowhere = 1;
    return arg;
}

static int segv_child(void)
{
    struct weir_thread t;

    weir_crash_report_setup("weir-test");
    if (weir_thread_start(&t, WEIR_ROLE_STEP, "stepper", write_nowhere, NULL, NULL) != WEIR_OK)
        return 1;
    weir_thread_join(&t);
    return 2;
}

static int abort_child(void)
{
    weir_crash_report_setup("weir-test");
    abort();
}

static int deep(int n)
{
    volatile char block[4096];

    block[n & 4095] = (char)n;
    return n == 0 ? block[0] : deep(n - 1) + block[n & 4095];
}

static void *run_over(void *arg)
{
    return deep(1 << 30) ? arg : NULL;
}

static int overflow_child(void)
{
    struct weir_thread t;

    weir_crash_report_setup("weir-test");
    if (weir_thread_start(&t, WEIR_ROLE_STEP, "deep", run_over, NULL, NULL) != WEIR_OK)
        return 1;
    weir_thread_join(&t);
    return 2;
}

/* [T2] The report names program, signal and thread, has frames, and the process dies of its own signal. */
static void test_crash_report(void **state)
{
    static char output[65536];

    (void)state;
    if (WITH_ASAN || WITH_TSAN)
        skip(); /* the sanitizer reports crashes there */
    int status = run_child(segv_child, output, sizeof output);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    assert_non_null(strstr(output, "weir-test: crashed: SIGSEGV at address 0x0, thread stepper, pid "));
    assert_non_null(strstr(output, "[0x")); /* a frame */
    status = run_child(abort_child, output, sizeof output);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(output, "weir-test: crashed: SIGABRT, thread "));
    status = run_child(overflow_child, output, sizeof output);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    assert_non_null(strstr(output, "thread deep")); /* on its own stack there was no room to say so */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thread_has_role_name_and_no_signals),
        cmocka_unit_test(test_dump_lists_running_threads),
        cmocka_unit_test(test_no_memory_starts_nothing),
        cmocka_unit_test(test_main_thread_takes_the_signals),
        cmocka_unit_test(test_crash_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
