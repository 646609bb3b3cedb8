/* test_err.c - the error table and the sentences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/utf8.h"

static void test_each_row_is_complete(void **state)
{
    (void)state;
    for (int i = 0; i < WEIR_ERR_COUNT; i++) {
        const struct weir_err_info *info = weir_err_info((weir_err)i);
        assert_true(info->http >= 200 && info->http <= 599);
        assert_true(info->grpc >= 0 && info->grpc <= 16);
        assert_true(strlen(info->name) > 0 && strlen(info->code) > 0 && strlen(info->text) > 0);
        assert_true(i == WEIR_OK || strlen(info->type) > 0);
    }
    assert_string_equal(weir_err_info(WEIR_LIMITED)->code, "rate_limit_exceeded");
    assert_int_equal(weir_err_info(WEIR_LIMITED)->http, 429);
}

static void test_unknown_number_is_internal(void **state)
{
    (void)state;
    assert_string_equal(weir_err_info((weir_err)999)->name, "INTERNAL");
    assert_string_equal(weir_err_info((weir_err)-1)->name, "INTERNAL");
}

static void test_grpc_status_maps_back_to_its_first_row(void **state)
{
    (void)state;
    assert_int_equal(weir_err_from_grpc(0), WEIR_OK);
    assert_int_equal(weir_err_from_grpc(3), WEIR_INVALID);
    assert_int_equal(weir_err_from_grpc(4), WEIR_TIMEOUT);
    assert_int_equal(weir_err_from_grpc(16), WEIR_UNAUTHENTICATED);
    assert_int_equal(weir_err_from_grpc(2), WEIR_INTERNAL); /* UNKNOWN has no row */
    assert_int_equal(weir_err_from_grpc(-7), WEIR_INTERNAL);
}

static void test_fail_writes_sentence_and_param(void **state)
{
    struct weir_why why;

    (void)state;
    assert_int_equal(weir_fail_param(&why, "messages[3].role", WEIR_INVALID, "role %d", 7), WEIR_INVALID);
    assert_string_equal(why.text, "role 7");
    assert_string_equal(why.param, "messages[3].role");
    assert_int_equal(weir_fail(&why, WEIR_IO, "disk"), WEIR_IO);
    assert_string_equal(why.param, ""); /* nothing left of the one before */
}

/* [E2] */
static void test_why_may_be_null(void **state)
{
    (void)state;
    assert_int_equal(weir_fail(NULL, WEIR_FULL, "%s", "x"), WEIR_FULL);
    assert_int_equal(weir_fail_param(NULL, "p", WEIR_FULL, "%s", "x"), WEIR_FULL);
}

/* [E1] Wherever the cut falls in a character of 2, 3 or 4 bytes, what is left is valid UTF-8 and nearly full.
 */
static void test_long_sentence_is_cut_between_characters(void **state)
{
    static const char *const units[] = { "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80" };
    struct weir_why why;
    char text[1000];

    (void)state;
    for (size_t u = 0; u < 3; u++) {
        for (size_t shift = 0; shift < 4; shift++) {
            size_t n = 0;
            while (n < shift)
                text[n++] = 'x';
            while (n + 4 < sizeof text) {
                memcpy(text + n, units[u], strlen(units[u]));
                n += strlen(units[u]);
            }
            text[n] = '\0';
            weir_fail_param(&why, text, WEIR_INVALID, "%s", text);
            assert_true(weir_utf8_valid(why.text, strlen(why.text)));
            assert_true(strlen(why.text) >= sizeof why.text - 4);
            assert_true(weir_utf8_valid(why.param, strlen(why.param)));
            assert_true(strlen(why.param) >= sizeof why.param - 4);
        }
    }
}

static void test_param_may_be_the_why_itself(void **state)
{
    struct weir_why why;

    (void)state;
    weir_fail_param(&why, "stop[1]", WEIR_INVALID, "inner");
    weir_fail_param(&why, why.param, WEIR_INVALID, "outer: too long");
    assert_string_equal(why.param, "stop[1]");
}

static int status_of_child(void (*fn)(void))
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL); /* cmocka catches it */
        close(STDERR_FILENO);
        fn();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void run_bug(void)
{
    WEIR_BUG_ON(1 + 1 == 2);
}

static void run_check(void)
{
    WEIR_CHECK(1 + 1 == 3);
    _exit(weir_check_count() == 1 ? 3 : 4);
}

static void test_bug_is_fatal_and_check_is_counted_in_release(void **state)
{
    (void)state;
    int status = status_of_child(run_bug);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    status = status_of_child(run_check);
#ifdef WEIR_DEBUG
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
#else
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_row_is_complete),
        cmocka_unit_test(test_unknown_number_is_internal),
        cmocka_unit_test(test_grpc_status_maps_back_to_its_first_row),
        cmocka_unit_test(test_fail_writes_sentence_and_param),
        cmocka_unit_test(test_why_may_be_null),
        cmocka_unit_test(test_long_sentence_is_cut_between_characters),
        cmocka_unit_test(test_param_may_be_the_why_itself),
        cmocka_unit_test(test_bug_is_fatal_and_check_is_counted_in_release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
