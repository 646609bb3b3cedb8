/* test_log.c - log lines as they reach standard error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"
#include "tests/unit/base/capture.h"

static struct capture got;

/* The line's member as text; "" when there is none. */
static const char *member(const char *line, const char *name)
{
    static char value[16384];
    struct weir_arena arena;
    struct weir_json j;
    struct weir_str key, s;

    value[0] = '\0';
    weir_arena_init(&arena, 0);
    weir_json_init(&j, line, strcspn(line, "\n"), &arena);
    weir_json_object(&j);
    while (weir_json_key(&j, &key)) {
        bool is_string = weir_json_peek(&j) == WEIR_JSON_STRING;
        if (is_string ? weir_json_string(&j, &s) : weir_json_raw(&j, &s)) {
            if (weir_str_eq(key, name))
                snprintf(value, sizeof value, "%.*s%s", WEIR_STR_FMT(s), is_string ? "" : "#");
        }
    }
    struct weir_why why;
    if (weir_json_end(&j, &why) != WEIR_OK)
        fail_msg("%s: %s", line, why.text);
    weir_arena_release(&arena);
    return value;
}

static int count_lines(const char *text)
{
    int n = 0;

    while ((text = strchr(text, '\n'))) {
        n++;
        text++;
    }
    return n;
}

static void test_json_line(void **state)
{
    (void)state;
    weir_log_setup(WEIR_LOG_INFO, WEIR_LOG_JSON, "router", "r1");
    capture_start(&got, STDERR_FILENO);
    WEIR_INFO("listening", "addr=%s port=%d why=no such \"file\"\n or so ratio=0.25 empty= hex=0x1f zero=007",
              "::1", 80);
    capture_end(&got);
    assert_int_equal(count_lines(got.text), 1);
    assert_string_equal(member(got.text, "level"), "info");
    assert_string_equal(member(got.text, "role"), "router");
    assert_string_equal(member(got.text, "id"), "r1");
    assert_string_equal(member(got.text, "event"), "listening");
    assert_string_equal(member(got.text, "addr"), "::1");
    assert_string_equal(member(got.text, "port"), "80#"); /* a number */
    assert_string_equal(member(got.text, "why"), "no such \"file\"\n or so");
    assert_string_equal(member(got.text, "ratio"), "0.25#");
    assert_string_equal(member(got.text, "empty"), "");
    assert_string_equal(member(got.text, "hex"), "0x1f");
    assert_string_equal(member(got.text, "zero"), "007"); /* no JSON number */
    /* RFC 3339, UTC, and now. */
    const char *ts = member(got.text, "ts");
    struct tm tm = { 0 };
    const char *rest = strptime(ts, "%Y-%m-%dT%H:%M:%S", &tm);
    assert_non_null(rest);
    assert_true(rest[0] == '.' && isdigit((unsigned char)rest[3]) && strcmp(rest + 4, "Z") == 0);
    time_t off_s = timegm(&tm) - time(NULL);
    assert_true(off_s > -60 && off_s < 60);
}

static void test_human_line(void **state)
{
    (void)state;
    weir_log_setup(WEIR_LOG_INFO, WEIR_LOG_HUMAN, "replica", "a");
    capture_start(&got, STDERR_FILENO);
    WEIR_WARN("slow_step", "ms=%d\nforged=1", 12);
    WEIR_ERROR("no_fields", "%s", "");
    capture_end(&got);
    assert_int_equal(count_lines(got.text), 2);
    assert_non_null(strstr(got.text, " WARN  replica/a slow_step ms=12 forged=1\n"));
    assert_non_null(strstr(got.text, " ERROR replica/a no_fields\n"));
    assert_true(got.text[2] == ':' && got.text[5] == ':' && got.text[8] == '.');
}

static void test_level_filters(void **state)
{
    (void)state;
    weir_log_setup(WEIR_LOG_WARN, WEIR_LOG_JSON, "r", "1");
    assert_false(weir_log_on(WEIR_LOG_INFO));
    capture_start(&got, STDERR_FILENO);
    WEIR_INFO("quiet", "x=1");
    WEIR_DEBUG_LOG("quiet", "x=1");
    WEIR_WARN("loud", "x=1");
    capture_end(&got);
    assert_int_equal(count_lines(got.text), 1);
    assert_string_equal(member(got.text, "event"), "loud");
}

static void test_setup_by_name(void **state)
{
    struct weir_why why;

    (void)state;
    assert_int_equal(weir_log_setup_by_name("error", "json", "r", "1", NULL), WEIR_OK);
    assert_false(weir_log_on(WEIR_LOG_WARN));
    assert_true(weir_log_on(WEIR_LOG_ERROR));
    assert_int_equal(weir_log_setup_by_name("loud", "json", "r", "1", &why), WEIR_INVALID);
    assert_string_equal(why.param, "log_level");
    assert_int_equal(weir_log_setup_by_name("info", "xml", "r", "1", &why), WEIR_INVALID);
    assert_string_equal(why.param, "log_format");
    assert_false(weir_log_on(WEIR_LOG_WARN)); /* a refused setting changes nothing */
}

/* [G2] */
static void test_burst_is_held_and_counted(void **state)
{
    (void)state;
    weir_log_setup(WEIR_LOG_INFO, WEIR_LOG_JSON, "r", "1");
    capture_start(&got, STDERR_FILENO);
    for (int i = 0; i < 500; i++)
        WEIR_INFO("bursting", "i=%d", i);
    WEIR_INFO("bystander", "x=1"); /* another event is not held */
    struct timespec pause = { 1, 50000000 };
    nanosleep(&pause, NULL);
    WEIR_INFO("bystander", "x=2");
    WEIR_INFO("bursting", "i=500");
    capture_end(&got);
    int n_bursting = 0, n_bystander = 0, n_held = 0;
    const char *held = NULL;
    for (const char *line = got.text; *line; line = strchr(line, '\n') + 1) {
        const char *event = member(line, "event");
        n_bursting += strcmp(event, "bursting") == 0;
        n_bystander += strcmp(event, "bystander") == 0;
        if (strcmp(event, "log_held") == 0) {
            n_held++;
            held = line;
        }
    }
    assert_int_equal(n_bystander, 2);
    assert_int_equal(n_bursting, 21);
    assert_int_equal(n_held, 1);
    assert_string_equal(member(held, "of"), "bursting");
    assert_string_equal(member(held, "count"), "480#");
}

/* [G3] Whatever the values hold and however long they are. */
static void test_long_and_odd_values_stay_json(void **state)
{
    char text[6000];

    (void)state;
    weir_log_setup(WEIR_LOG_INFO, WEIR_LOG_JSON, "r", "1");
    capture_start(&got, STDERR_FILENO);
    for (int round = 0; round < 16; round++) {
        char event[16];
        for (size_t i = 0; i < sizeof text - 1; i++)
            text[i] =
                round < 8 ? (char)(round * 37 + (int)i) : "\x01\"\\\xe2\xff z="[(i + (size_t)round) % 9];
        for (size_t i = 0; i < sizeof text - 1; i++)
            text[i] = text[i] ? text[i] : '\t';
        text[sizeof text - 1] = '\0';
        snprintf(event, sizeof event, "odd_%d", round);
        weir_log(WEIR_LOG_INFO, event, "a=1 v=%s w=2", text + round * 100);
    }
    WEIR_INFO("no_keys", "just words, no keys");
    capture_end(&got);
    assert_int_equal(count_lines(got.text), 17);
    for (const char *line = got.text; *line; line = strchr(line, '\n') + 1)
        assert_true(*member(line, "event")); /* fails when the line is not JSON */
    assert_non_null(strstr(got.text, "\"text\":\"just words, no keys\""));
}

static void *log_many(void *arg)
{
    for (int i = 0; i < 15; i++)
        weir_log(WEIR_LOG_INFO, arg, "i=%d filler=%0300d", i, 7);
    return NULL;
}

/* [G1] */
static void test_lines_of_threads_do_not_mix(void **state)
{
    static char names[8][16];
    pthread_t threads[8];

    (void)state;
    weir_log_setup(WEIR_LOG_INFO, WEIR_LOG_JSON, "r", "1");
    capture_start(&got, STDERR_FILENO);
    for (int i = 0; i < 8; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, names[i]), 0);
    }
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    capture_end(&got);
    int n = 0;
    for (const char *line = got.text; *line; line = strchr(line, '\n') + 1)
        n += strcmp(member(line, "filler") + 299, "7") == 0;
    assert_int_equal(n, 8 * 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_line),
        cmocka_unit_test(test_human_line),
        cmocka_unit_test(test_level_filters),
        cmocka_unit_test(test_setup_by_name),
        cmocka_unit_test(test_burst_is_held_and_counted),
        cmocka_unit_test(test_long_and_odd_values_stay_json),
        cmocka_unit_test(test_lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
