/* test_weirctl.c - weirctl as a person or a script sees it: what it prints, where, and its exit code. It
 * runs over a static file and a fake router. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <stdbool.h>

#include "base/err.h"
#include "fake.h"
#include "harness.h"

static const char *weirctl;
static char dir[64], out[65536], err[65536];

static void slurp(const char *name, char *to, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t n = fread(to, 1, size - 1, file);
    to[n] = '\0';
    fclose(file);
}

static void spit(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* Runs it with a clean environment; fills out and err; returns the exit code. */
static int ctl(const char *fmt, ...) WEIR_PRINTF(1, 2);
static int ctl(const char *fmt, ...)
{
    char args[1000], command[2000];
    va_list list;
    va_start(list, fmt);
    vsnprintf(args, sizeof args, fmt, list);
    va_end(list);
    snprintf(command, sizeof command, "unset WEIR_ETCD WEIR_API_KEY; exec %s %s >%s/out 2>%s/err </dev/null",
             weirctl, args, dir, dir);
    int status = system(command);
    slurp("out", out, sizeof out);
    slurp("err", err, sizeof err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- the command line ---- */

static void test_help_and_usage(void **state)
{
    static const char *const commands[] = { "chat",           "fleet",           "model list",
                                            "api-key create", "api-key list",    "api-key delete",
                                            "account create", "account suspend", "model update",
                                            "completion" };
    (void)state;
    assert_int_equal(ctl("--help"), 0);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char usage[64];
        assert_int_equal(ctl("--help"), 0);
        assert_non_null(strstr(out, commands[i]));
        assert_int_equal(ctl("%s --help", commands[i]), 0);
        snprintf(usage, sizeof usage, "usage: weirctl %s", commands[i]);
        assert_non_null(strstr(out, usage));
    }
    assert_int_equal(ctl("--version"), 0);
    assert_int_equal(ctl(" "), 2);
    assert_int_equal(ctl("dance"), 2);
    assert_non_null(strstr(err, "dance"));
    assert_int_equal(ctl("fleet --colour red"), 2);
    assert_non_null(strstr(err, "--colour"));
    assert_int_equal(ctl("fleet -o yaml"), 2);
    assert_non_null(strstr(err, "yaml"));
    assert_int_equal(ctl("fleet extra"), 2);
    assert_int_equal(ctl("account suspend"), 2); /* before anybody is asked */
    assert_non_null(strstr(err, "account suspend needs ACCOUNT"));
    assert_int_equal(ctl("limits table set"), 2);
    assert_non_null(strstr(err, "KEY=VALUE"));
    assert_int_equal(ctl("completion"), 2);
    assert_int_equal(ctl("fleet --etcd"), 2);
    assert_int_equal(ctl("--etcd nonsense fleet"), 1);
    assert_non_null(strstr(err, "nonsense"));
    assert_int_equal(ctl("--etcd 127.0.0.1:1 fleet"), 3);
    assert_string_equal(out, "");
    assert_int_equal(ctl("--fleet /nowhere fleet"), 1);
    assert_non_null(strstr(err, "/nowhere"));
}

/* ---- the admin API ---- */

struct admin {
    struct fake fake;
    pthread_mutex_t lock;
    char requests[8192]; /* "METHOD path\nbody\n" each */
};

static void answer_admin(void *ctx, int fd, const char *what, const char *body)
{
    struct admin *a = ctx;
    pthread_mutex_lock(&a->lock);
    size_t len = strlen(a->requests);
    snprintf(a->requests + len, sizeof a->requests - len, "%.*s\n%s\n", (int)(strstr(what, " HTTP/") - what),
             what, body);
    pthread_mutex_unlock(&a->lock);
    if (strstr(what, "pageToken=two"))
        fake_say(fd, FAKE_HEAD_OK
                 "{\"apiKeys\":[{\"keyId\":\"k2\",\"account\":\"a\",\"displayName\":\"twice\"}]}");
    else if (strstr(what, "GET /v1/accounts/a/apiKeys") || strstr(what, "GET /v1/accounts/-/apiKeys"))
        fake_say(
            fd, FAKE_HEAD_OK
            "{\"apiKeys\":[{\"keyId\":\"k0\",\"account\":\"a\",\"displayName\":\"once\",\"expireTime\":"
            "\"2030-01-01T00:00:00Z\"},"
            "{\"keyId\":\"k1\",\"account\":\"a\",\"displayName\":\"twice\"}],\"nextPageToken\":\"two\"}");
    else if (strstr(what, "POST /v1/accounts/a/apiKeys"))
        fake_say(fd, FAKE_HEAD_OK
                 "{\"keyId\":\"k9\",\"account\":\"a\",\"displayName\":\"n\",\"key\":\"weir_secret\"}\n");
    else if (strstr(what, "DELETE /v1/accounts/"))
        fake_say(fd, FAKE_HEAD_OK "{\"keyId\":\"k0\",\"account\":\"a\",\"displayName\":\"once\"}\n");
    else if (strstr(what, "/v1/accounts/bad"))
        fake_say(fd, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n{\"code\":3,\"message\":\"must be "
                     "from 1 to 5\","
                     "\"details\":[{\"field\":\"spendTier\"}]}");
    else if (strstr(what, "/v1/accounts/locked"))
        fake_say(fd, "HTTP/1.1 401 Unauthorized\r\nConnection: "
                     "close\r\n\r\n{\"code\":16,\"message\":\"no\",\"details\":[]}");
    else
        fake_say(fd,
                 FAKE_HEAD_OK "{\"name\":\"accounts/a\",\"spendTier\":2,\"limits\":{\"dailyTokens\":5}}\n");
}

static bool admin_was_asked(struct admin *a, const char *part)
{
    pthread_mutex_lock(&a->lock);
    bool found = strstr(a->requests, part) != NULL;
    a->requests[0] = found ? '\0' : a->requests[0];
    pthread_mutex_unlock(&a->lock);
    return found;
}

static void test_accounts_and_keys_go_through_the_admin_api(void **state)
{
    static struct admin a;
    char to[200];
    (void)state;
    pthread_mutex_init(&a.lock, NULL);
    fake_open(&a.fake, answer_admin, &a);
    snprintf(to, sizeof to, "--admin 127.0.0.1:%d --admin-token t", a.fake.port);

    assert_int_equal(ctl("%s account create a --tier 2 --has-payment-method true --models x,y --limits "
                         "'{\"dailyTokens\":5}'",
                         to),
                     0);
    assert_true(admin_was_asked(&a,
                                "POST /v1/accounts?accountId=a\n{\"spendTier\":2,\"hasPaymentMethod\":true,"
                                "\"limits\":{\"dailyTokens\":5},\"models\":[\"x\",\"y\"]}"));
    assert_non_null(strstr(out, "limits.dailyTokens"));
    assert_int_equal(ctl("%s account update a --tier nine", to), 2);
    assert_non_null(strstr(err, "--tier"));
    assert_int_equal(ctl("%s account update bad --tier 9", to), 1);
    assert_non_null(strstr(err, "spendTier: must be")); /* the field is named */
    assert_int_equal(ctl("%s account get locked", to), 1);
    assert_non_null(strstr(err, "WEIR_ADMIN_TOKEN"));
    assert_int_equal(ctl("%s account suspend a --reason CREDIT_DEPLETED", to), 0);
    assert_true(admin_was_asked(&a, "POST /v1/accounts/a:suspend\n{\"suspendState\":\"CREDIT_DEPLETED\"}"));
    assert_int_equal(ctl("%s model get a/b:c", to), 0);
    assert_true(admin_was_asked(&a, "GET /v1/fleet/models/a%2Fb%3Ac"));

    assert_int_equal(ctl("%s api-key create --account a --key-name n --expire-time 2030-01-01", to), 0);
    assert_string_equal(out, "weir_secret\n"); /* the key alone, for $(...) */
    assert_true(admin_was_asked(&a, "{\"displayName\":\"n\",\"expireTime\":\"2030-01-01\"}"));
    assert_int_equal(ctl("%s api-key create --account a", to), 2);
    assert_int_equal(ctl("%s api-key list", to), 0); /* both pages */
    assert_non_null(strstr(out, "k0"));
    assert_non_null(strstr(out, "k2"));
    assert_int_equal(ctl("%s api-key delete --name twice", to), 1); /* which one? */
    assert_non_null(strstr(err, "2 keys"));
    assert_int_equal(ctl("%s api-key delete --name nobody", to), 1);
    assert_int_equal(ctl("%s api-key delete", to), 2);
    assert_int_equal(ctl("%s api-key delete --name once --account a", to), 0);
    assert_true(admin_was_asked(&a, "DELETE /v1/accounts/a/apiKeys/k0"));
    fake_close(&a.fake);
    assert_int_equal(ctl("%s account list", to), 3);
}

static void test_completion_knows_the_commands(void **state)
{
    char command[400];
    (void)state;
    assert_int_equal(ctl("completion bash"), 0);
    snprintf(command, sizeof command,
             "bash -c '. %s/out; _weirctl_candidates \"account\" \"\"; _weirctl_candidates \"api-key "
             "create\" \"--\"' >%s/got",
             dir, dir);
    assert_int_equal(system(command), 0);
    slurp("got", out, sizeof out);
    assert_non_null(strstr(out, "suspend"));
    assert_non_null(strstr(out, "--expire-time"));
    assert_non_null(strstr(out, "--admin-token"));
    assert_int_equal(ctl("completion zsh"), 0);
    assert_non_null(strstr(out, "compdef"));
    assert_int_equal(ctl("completion fish"), 2);
}

/* ---- the fleet, its models, a word with one: a static file and a fake router ---- */

struct router {
    struct fake fake;
    pthread_mutex_t lock;
    const char *chat; /* the whole answer to a chat */
    char request[4096];
};

static void answer(void *ctx, int fd, const char *what, const char *body)
{
    struct router *r = ctx;
    if (strstr(what, "/debug/fleet")) {
        fake_say(fd, FAKE_HEAD_OK "{\"self\":{\"id\":\"r\"},\"replicas\":[{\"id\":\"rep-1\",\"model\":\"m1\","
                                  "\"grpc\":\"10.0.0.1:1\",\"state\":\"usable\",\"running\":3,\"waiting\":2,"
                                  "\"slots\":8,\"decode_tokens_s\":123.4,\"predicted_wait_ms\":null}]}");
        return;
    }
    pthread_mutex_lock(&r->lock);
    snprintf(r->request, sizeof r->request, "%s\n%s", what, body);
    fake_say(fd, r->chat);
    pthread_mutex_unlock(&r->lock);
}

static void set_chat(struct router *r, const char *text)
{
    pthread_mutex_lock(&r->lock);
    r->chat = text;
    pthread_mutex_unlock(&r->lock);
}

static bool was_asked(struct router *r, const char *part)
{
    pthread_mutex_lock(&r->lock);
    bool found = strstr(r->request, part) != NULL;
    pthread_mutex_unlock(&r->lock);
    return found;
}

static void router_open(struct router *r)
{
    char text[2000];
    pthread_mutex_init(&r->lock, NULL);
    fake_open(&r->fake, answer, r);
    snprintf(
        text, sizeof text,
        "{\"entries\":{\"routers/r\":{\"id\":\"r\",\"rest\":\"127.0.0.1:%d\",\"admin\":\"127.0.0.1:%d\"},"
        "\"replicas/m1/rep-1\":{\"id\":\"rep-1\",\"model\":\"m1\",\"grpc\":\"10.0.0.1:1\"},"
        "\"replicas/m1/rep-2\":{\"id\":\"rep-2\",\"model\":\"m1\",\"grpc\":\"10.0.0.2:1\"},"
        "\"replicas/m2/rep-3\":{\"id\":\"rep-3\",\"model\":\"m2\",\"grpc\":\"10.0.0.3:1\"},"
        "\"replicas/m2/bad\":{\"id\":\"bad\"}}}",
        r->fake.port, r->fake.port);
    spit("fleet", text);
}

static const char *line_with(const char *word)
{
    static char line[400];
    const char *at = strstr(out, word);
    assert_non_null(at);
    while (at > out && at[-1] != '\n')
        at--;
    snprintf(line, sizeof line, "%.*s", (int)strcspn(at, "\n"), at);
    return line;
}

static void test_fleet_shows_members_and_their_load(void **state)
{
    static struct router r;
    (void)state;
    router_open(&r);
    assert_int_equal(ctl("--source file:%s/fleet fleet", dir), 0);
    assert_non_null(strstr(line_with("rep-1"), "usable"));
    assert_non_null(strstr(line_with("rep-1"), "123"));
    assert_non_null(strstr(line_with("rep-2"), "10.0.0.2:1")); /* this router does not know it */
    assert_null(strstr(line_with("rep-2"), "usable"));
    assert_non_null(strstr(out, "1 records could not be read"));
    assert_int_equal(ctl("--source file:%s/fleet fleet -o json", dir), 0);
    assert_non_null(strstr(out, "\"unreadable_records\":1"));
    assert_non_null(strstr(out, "\"running\":3"));
    assert_int_equal(ctl("--source file:%s/fleet model list", dir), 0);
    assert_non_null(strstr(line_with("m1"), "2"));
    assert_int_equal(ctl("--source file:%s/fleet model list -o json", dir), 0);
    assert_string_equal(out, "[{\"id\":\"m1\",\"replicas\":2},{\"id\":\"m2\",\"replicas\":1}]\n");
    fake_close(&r.fake);
    assert_int_equal(ctl("--source file:%s/fleet fleet", dir), 0); /* no admin page answers */
    assert_non_null(strstr(line_with("rep-1"), "10.0.0.1:1"));
    assert_non_null(strstr(out, "load is not known"));
}

#define CHUNK(delta)                                                                                         \
    "data: {\"model\":\"m1\",\"choices\":[{\"index\":0,\"delta\":{" delta "},\"finish_reason\":null}]}\n\n"
#define STREAM                                                                                               \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"                        \
    ": a comment\n\n" CHUNK("\"role\":\"assistant\",\"content\":\"\"") CHUNK("\"content\":\"Hel\"")          \
        CHUNK("\"content\":\"lo \\u00e9\"")
#define STREAM_END                                                                                           \
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\n"                    \
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3}}\n\ndata: [DONE]\n\n"

static void test_chat_streams_the_answer(void **state)
{
    static struct router r;
    (void)state;
    router_open(&r);
    set_chat(&r, STREAM STREAM_END);
    assert_int_equal(
        ctl("--source file:%s/fleet chat 'say \"hi\"' --key k --max-tokens 5 --temperature 0", dir), 0);
    assert_string_equal(out, "Hello \xc3\xa9\n");
    assert_true(was_asked(&r, "POST /v1/chat/completions"));
    assert_true(was_asked(&r, "\"model\":\"m1\""));
    assert_true(was_asked(&r, "\"content\":\"say \\\"hi\\\"\""));
    assert_true(was_asked(&r, "\"max_tokens\":5"));
    assert_int_equal(ctl("chat hi --key k --model m2 --router 127.0.0.1:%d -o json", r.fake.port), 0);
    assert_string_equal(out,
                        "{\"model\":\"m1\",\"text\":\"Hello \xc3\xa9\",\"finish_reason\":\"stop\",\"usage\":"
                        "{\"prompt_tokens\":3}}\n");
    assert_true(was_asked(&r, "\"model\":\"m2\""));
    fake_close(&r.fake);
}

static void test_chat_tells_failures_apart(void **state)
{
    static struct router r;
    (void)state;
    router_open(&r);
    set_chat(&r, "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n"
                 "{\"error\":{\"message\":\"invalid API key\",\"type\":\"authentication_error\"}}");
    assert_int_equal(ctl("--source file:%s/fleet chat hi --key k", dir), 1);
    assert_non_null(strstr(err, "401"));
    assert_non_null(strstr(err, "invalid API key"));
    assert_string_equal(out, "");
    set_chat(&r, STREAM); /* the connection ends in mid-answer */
    assert_int_equal(ctl("--source file:%s/fleet chat hi --key k", dir), 1);
    assert_non_null(strstr(err, "broke off"));
    set_chat(&r, STREAM "data: {\"error\":{\"message\":\"the replica broke off\"}}\n\n");
    assert_int_equal(ctl("--source file:%s/fleet chat hi --key k", dir), 1);
    assert_non_null(strstr(err, "the replica broke off"));
    assert_int_equal(ctl("--source file:%s/fleet chat hi", dir), 2);      /* no key */
    assert_int_equal(ctl("--source file:%s/fleet chat --key k", dir), 2); /* no text */
    assert_int_equal(ctl("--source file:%s/fleet chat hi --key k --max-tokens -1", dir), 2);
    fake_close(&r.fake);
    assert_int_equal(ctl("--source file:%s/fleet chat hi --key k", dir), 3);
}

static void test_the_fleet_file_gives_defaults(void **state)
{
    static struct router r;
    char text[600];
    (void)state;
    router_open(&r);
    set_chat(&r, STREAM STREAM_END);
    snprintf(
        text, sizeof text,
        "{\"api_key\":\"k\",\"etcd\":\"127.0.0.1:1\",\"routers\":[{\"id\":\"r\",\"rest\":\"127.0.0.1:%d\","
        "\"admin\":\"127.0.0.1:%d\",\"pid\":1}],\"replicas\":[{\"id\":\"x\",\"model\":\"m9\",\"pid\":2}]}",
        r.fake.port, r.fake.port);
    spit("fleet.json", text);
    assert_int_equal(ctl("--fleet %s/fleet.json chat hi", dir), 0); /* needs no etcd */
    assert_string_equal(out, "Hello \xc3\xa9\n");
    assert_true(was_asked(&r, "\"model\":\"m9\""));
    assert_int_equal(ctl("--fleet %s/fleet.json --source file:%s/fleet fleet", dir, dir),
                     0); /* an option wins */
    fake_close(&r.fake);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help_and_usage),
        cmocka_unit_test(test_accounts_and_keys_go_through_the_admin_api),
        cmocka_unit_test(test_completion_knows_the_commands),
        cmocka_unit_test(test_fleet_shows_members_and_their_load),
        cmocka_unit_test(test_chat_streams_the_answer),
        cmocka_unit_test(test_chat_tells_failures_apart),
        cmocka_unit_test(test_the_fleet_file_gives_defaults),
    };
    if (argc != 2) {
        fprintf(stderr, "usage: test_weirctl PATH-OF-WEIRCTL\n");
        return 2;
    }
    weirctl = argv[1];
    strcpy(dir, "/tmp/weir-test-ctl-XXXXXX");
    if (!mkdtemp(dir))
        return 1;
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    run_command("rm -rf %s", dir);
    return n_failed;
}
