/* test_conf.c - configuration from defaults, file, environment and flags. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/conf.h"
#include "base/mem.h"
#include "tests/unit/base/capture.h"

#define TEST_CONF(X)                                                                                         \
    X(STR, listen, "127.0.0.1:8080", 1, 20, "host:port", "address to listen on")                             \
    X(U32, drain_timeout_ms, "30000", 0, 600000, "ms", "wait on shutdown")                                   \
    X(U32, any32, "7", 0, 0, "", "no bounds")                                                                \
    X(U64, kv_bytes, "1073741824", 4096, 1e15, "bytes", "size of the cache")                                 \
    X(U64, any64, "0", 0, 0, "", "no bounds")                                                                \
    X(F64, load_factor, "1.25", 1, 2, "", "bound of the load")                                               \
    X(BOOL, trace, "false", 0, 0, "", "trace requests")                                                      \
    X(STR, admin_token, "", 0, 100, "", "token of the admin listener")

struct test_conf {
    WEIR_CONF_FIELDS(TEST_CONF)
};
#define WEIR_CONF_STRUCT struct test_conf
static const struct weir_conf_row rows[] = { WEIR_CONF_ROWS(TEST_CONF) };

static const struct weir_conf_spec spec = {
    .program = "weir-test",
    .summary = "a program for tests",
    .env_prefix = "WEIR_TEST",
    .rows = rows,
    .n_rows = sizeof rows / sizeof rows[0],
};

static struct test_conf values;
static struct weir_conf *conf;
static struct weir_why why;
static enum weir_conf_action action;
static char path[] = "/tmp/weir-test-conf-XXXXXX";

#define OPEN(...) open_conf((const char *const[]){ "weir-test", __VA_ARGS__, NULL })

static weir_err open_conf(const char *const *args)
{
    char *argv[16] = { NULL };
    int argc = 0;

    for (; args[argc] && argc < 15; argc++)
        argv[argc] = strdup(args[argc]);
    conf = NULL;
    weir_err rc = weir_conf_open(&spec, argc, argv, &values, &conf, &action, &why);
    for (int i = 0; i < argc; i++)
        free(argv[i]); /* nothing of it may be kept */
    return rc;
}

static void write_file(const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int clear_env(void **state)
{
    (void)state;
    for (size_t i = 0; i < spec.n_rows; i++) {
        char name[64] = "WEIR_TEST_";
        size_t n = strlen(name);
        for (const char *p = rows[i].name; *p; p++)
            name[n++] = (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
        name[n] = '\0';
        unsetenv(name);
    }
    unsetenv("WEIR_TEST_CONFIG");
    return 0;
}

static int close_conf(void **state)
{
    (void)state;
    weir_conf_close(conf);
    conf = NULL;
    return 0;
}

static void test_defaults(void **state)
{
    (void)state;
    memset(&values, 0xff, sizeof values);
    assert_int_equal(open_conf((const char *const[]){ "weir-test", NULL }), WEIR_OK);
    assert_int_equal(action, WEIR_CONF_RUN);
    assert_string_equal(values.listen, "127.0.0.1:8080");
    assert_int_equal(values.drain_timeout_ms, 30000);
    assert_true(values.kv_bytes == 1073741824);
    assert_true(values.load_factor == 1.25);
    assert_false(values.trace);
    assert_string_equal(values.admin_token, "");
}

static void test_later_sources_win(void **state)
{
    char flag[64];

    (void)state;
    write_file("{\"listen\":\"file:1\",\"drain_timeout_ms\":1,\"any32\":1e1,\"kv_bytes\":5000,\"trace\":true,"
               "\"load_factor\":1.5}");
    setenv("WEIR_TEST_DRAIN_TIMEOUT_MS", "2", 1);
    setenv("WEIR_TEST_LISTEN", "env:2", 1);
    snprintf(flag, sizeof flag, "--config=%s", path);
    assert_int_equal(OPEN("--listen=flag:3", flag), WEIR_OK);
    assert_string_equal(values.listen, "flag:3");
    assert_int_equal(values.drain_timeout_ms, 2);
    assert_int_equal(values.any32, 10);
    assert_true(values.kv_bytes == 5000);
    assert_true(values.trace);
    assert_true(values.load_factor == 1.5);
    struct weir_buf out;
    weir_buf_init(&out, 0);
    weir_conf_dump(conf, &out);
    assert_string_equal(weir_buf_cstr(&out), "{\"listen\":{\"value\":\"flag:3\",\"from\":\"flag\"},"
                                             "\"drain_timeout_ms\":{\"value\":2,\"from\":\"env\"},"
                                             "\"any32\":{\"value\":10,\"from\":\"file\"},"
                                             "\"kv_bytes\":{\"value\":5000,\"from\":\"file\"},"
                                             "\"any64\":{\"value\":0,\"from\":\"default\"},"
                                             "\"load_factor\":{\"value\":1.5,\"from\":\"file\"},"
                                             "\"trace\":{\"value\":true,\"from\":\"file\"},"
                                             "\"admin_token\":{\"value\":\"***\",\"from\":\"default\"}}");
    weir_buf_release(&out);
}

static void test_config_file_from_the_environment(void **state)
{
    (void)state;
    write_file("{\"any32\":77}");
    setenv("WEIR_TEST_CONFIG", path, 1);
    assert_int_equal(open_conf((const char *const[]){ "weir-test", NULL }), WEIR_OK);
    assert_int_equal(values.any32, 77);
}

static void test_forms_of_flags(void **state)
{
    (void)state;
    assert_int_equal(OPEN("--drain-timeout-ms", "5", "--any_64=1", "--trace"), WEIR_INVALID);
    assert_int_equal(OPEN("--drain-timeout-ms", "5", "--kv_bytes=8000", "--trace"), WEIR_OK);
    assert_int_equal(values.drain_timeout_ms, 5);
    assert_true(values.trace);
    weir_conf_close(conf);
    assert_int_equal(OPEN("--trace", "--no-trace", "--listen", "--odd"), WEIR_OK);
    assert_false(values.trace);
    assert_string_equal(values.listen, "--odd");
    weir_conf_close(conf);
    assert_int_equal(OPEN("--trace=on", "--any64=18446744073709551615", "--any32=4294967295"), WEIR_OK);
    assert_true(values.trace);
    assert_true(values.any64 == UINT64_MAX);
    assert_true(values.any32 == UINT32_MAX);
}

/* Each is refused with the key, who set it, and what is wrong. */
static void test_bad_values_are_named(void **state)
{
    static const struct {
        const char *flag, *param, *part;
    } bad[] = {
        { "--drain_timeout_ms=600001", "drain_timeout_ms", "between 0 and 600000 ms" },
        { "--drain_timeout_ms=-1", "drain_timeout_ms", "not a whole number" },
        { "--drain_timeout_ms=5s", "drain_timeout_ms", "'5s'" },
        { "--drain_timeout_ms=", "drain_timeout_ms", "not a whole number" },
        { "--any32=4294967296", "any32", "larger than 4294967295" },
        { "--any64=18446744073709551616", "any64", "not a whole number" },
        { "--kv_bytes=4095", "kv_bytes", "between 4096" },
        { "--load_factor=2.01", "load_factor", "between 1 and 2" },
        { "--load_factor=nan", "load_factor", "not a number" },
        { "--load_factor=1.5x", "load_factor", "not a number" },
        { "--trace=maybe", "trace", "not true or false" },
        { "--listen=", "listen", "length between 1 and 20" },
        { "--listen=123456789012345678901", "listen", "length between 1 and 20" },
        { "--drain_timeout", "drain_timeout_ms", "the nearest known is 'drain_timeout_ms'" },
        { "--lisen=x", "listen", "the nearest known is 'listen'" },
        { "--no-listen", "listen", "unknown option" },
        { "--listen", "listen", "needs a value" },
        { "--config", "config", "needs a value" },
        { "positional", "positional", "unexpected argument 'positional'" },
        { "-x", "-x", "unexpected argument" },
        { "--", "--", "unexpected argument" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        memset(&why, 0, sizeof why);
        assert_int_equal(OPEN(bad[i].flag), WEIR_INVALID);
        assert_null(conf);
        assert_string_equal(why.param, bad[i].param);
        if (!strstr(why.text, bad[i].part))
            fail_msg("%s: %s", bad[i].flag, why.text);
        assert_null(values.listen); /* [C2] */
    }
    setenv("WEIR_TEST_ANY32", "x", 1);
    assert_int_equal(open_conf((const char *const[]){ "weir-test", NULL }), WEIR_INVALID);
    assert_string_equal(why.text, "any32 (environment variable WEIR_TEST_ANY32): 'x' is not a whole number");
}

static void test_bad_files_are_named(void **state)
{
    static const struct {
        const char *text, *param, *part;
    } bad[] = {
        { "", "", "the text ends" },
        { "[]", "", "expected an object" },
        { "{\"listen\":\"x\"", "", "the text ends" },
        { "{\"listen\":5}", "listen", "expected a string, found a number" },
        { "{\"any32\":\"5\"}", "any32", "expected a number" },
        { "{\"any32\":1.5}", "any32", "'1.5' is not a whole number" },
        { "{\"trace\":1}", "trace", "expected a boolean" },
        { "{\"lissten\":\"x\"}", "listen", "'lissten'; the nearest known is 'listen'" },
        { "{\"drain-timeout-ms\":5}", "drain_timeout_ms", "unknown key" },
        { "{\"any32\":1,\"any32\":2}", "any32", "twice" },
        { "{\"listen\":\"a\\u0000b\"}", "listen", "NUL" },
        { "{} {}", "", "data after the value" },
    };
    char flag[64];

    (void)state;
    snprintf(flag, sizeof flag, "--config=%s", path);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_file(bad[i].text);
        assert_int_equal(OPEN(flag), WEIR_INVALID);
        assert_string_equal(why.param, bad[i].param);
        if (!strstr(why.text, bad[i].part))
            fail_msg("%s: %s", bad[i].text, why.text);
    }
    assert_int_equal(OPEN("--config=/nowhere/at/all"), WEIR_IO);
    assert_string_equal(why.param, "config");
    assert_non_null(strstr(why.text, "/nowhere/at/all"));
    assert_int_equal(OPEN("--config=/"), WEIR_IO); /* opens, but can't be read */
}

/* [C3] */
static void test_secrets_are_never_shown(void **state)
{
    char long_token[128];
    struct weir_buf out;

    (void)state;
    memset(long_token, 's', sizeof long_token);
    memcpy(long_token, "--admin_token=", 14);
    long_token[sizeof long_token - 1] = '\0';
    assert_int_equal(OPEN(long_token), WEIR_INVALID);
    assert_null(strstr(why.text, "sss"));
    assert_int_equal(OPEN("--admin-token=sesame"), WEIR_OK);
    assert_string_equal(values.admin_token, "sesame");
    weir_buf_init(&out, 0);
    weir_conf_dump(conf, &out);
    assert_null(strstr(weir_buf_cstr(&out), "sesame"));
    weir_buf_release(&out);
}

static void test_help_version_and_check_config(void **state)
{
    static struct capture out;

    (void)state;
    capture_start(&out, STDOUT_FILENO);
    weir_err rc = OPEN("--help", "--whatever");
    capture_end(&out);
    assert_int_equal(rc, WEIR_OK);
    assert_int_equal(action, WEIR_CONF_EXIT);
    weir_conf_close(conf);
    for (size_t i = 0; i < spec.n_rows; i++) /* every row with its help */
        assert_true(strstr(out.text, rows[i].name) && strstr(out.text, rows[i].help));
    assert_non_null(strstr(out.text, "unit ms, 0 to 600000, default 30000 [WEIR_TEST_DRAIN_TIMEOUT_MS]"));
    assert_non_null(strstr(out.text, "WEIR_TEST_CONFIG"));

    capture_start(&out, STDOUT_FILENO);
    rc = OPEN("--version");
    capture_end(&out);
    assert_int_equal(rc, WEIR_OK);
    assert_int_equal(action, WEIR_CONF_EXIT);
    weir_conf_close(conf);
    assert_memory_equal(out.text, "weir-test ", 10);
    assert_true(out.text[10] >= '0' && out.text[10] <= '9');

    capture_start(&out, STDOUT_FILENO);
    rc = OPEN("--check-config", "--any32=9");
    capture_end(&out);
    assert_int_equal(rc, WEIR_OK);
    assert_int_equal(action, WEIR_CONF_EXIT);
    assert_non_null(strstr(out.text, "\"any32\":{\"value\":9,\"from\":\"flag\"}"));
    weir_conf_close(conf);
    capture_start(&out, STDOUT_FILENO);
    rc = OPEN("--check-config", "--any32=x"); /* a wrong configuration is an error here too */
    capture_end(&out);
    assert_int_equal(rc, WEIR_INVALID);
}

static void test_no_memory_at_any_point(void **state)
{
    char flag[64];
    weir_err rc = WEIR_NOMEM;
    char *argv[] = { "weir-test", flag, NULL };

    (void)state;
    write_file("{\"listen\":\"f\\n\",\"any32\":5}");
    snprintf(flag, sizeof flag, "--config=%s", path);
    for (int n = 0; rc != WEIR_OK; n++) {
        conf = NULL;
        weir_test_alloc_budget(n);
        rc = weir_conf_open(&spec, 2, argv, &values, &conf, &action, &why);
        weir_test_alloc_budget(-1);
        assert_true(rc == WEIR_OK ? conf != NULL : rc == WEIR_NOMEM && conf == NULL);
        assert_true(n < 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_defaults, clear_env, close_conf),
        cmocka_unit_test_setup_teardown(test_later_sources_win, clear_env, close_conf),
        cmocka_unit_test_setup_teardown(test_config_file_from_the_environment, clear_env, close_conf),
        cmocka_unit_test_setup_teardown(test_forms_of_flags, clear_env, close_conf),
        cmocka_unit_test_setup_teardown(test_bad_values_are_named, clear_env, close_conf),
        cmocka_unit_test_setup_teardown(test_bad_files_are_named, clear_env, close_conf),
        cmocka_unit_test_setup_teardown(test_secrets_are_never_shown, clear_env, close_conf),
        cmocka_unit_test_setup_teardown(test_help_version_and_check_config, clear_env, close_conf),
        cmocka_unit_test_setup_teardown(test_no_memory_at_any_point, clear_env, close_conf),
    };
    int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}
