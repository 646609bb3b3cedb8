/* The affinity key: what it is taken from, in which order, and who can't share one. */
#include "tests/unit/router_core/cm.h"

#include "router/route/affinity.h"
#include "tests/unit/router_core/requests.h"

static uint64_t key_and_close(struct weir_request *req)
{
    uint64_t key = weir_affinity_key(req);

    weir_request_close(req);
    return key;
}

struct given {
    const char *account, *isolation, *session, *cache_key, *user, *system, *content;
};

static uint64_t key_of(struct given g)
{
    struct weir_request *req = req_open("m");

    req->account = weir_str(g.account ? g.account : "acme");
    req->isolation = weir_str(g.isolation);
    req->session = weir_str(g.session);
    if (g.cache_key)
        req->msg->prompt_cache_key = req_text(req, g.cache_key);
    if (g.user)
        req->msg->user = req_text(req, g.user);
    if (g.system)
        req_add(req, "system", g.system);
    req_add(req, "user", g.content ? g.content : "hello");
    return key_and_close(req);
}
#define KEY(...) key_of((struct given){ __VA_ARGS__ })

static void test_the_first_that_is_given_decides(void **state)
{
    (void)state;
    assert_true(KEY(.session = "s", .cache_key = "c", .user = "u", .content = "x") ==
                KEY(.session = "s", .cache_key = "d", .user = "v", .content = "y"));
    assert_true(KEY(.cache_key = "c", .user = "u", .content = "x") == KEY(.cache_key = "c", .user = "v"));
    assert_true(KEY(.user = "u", .content = "x") == KEY(.user = "u", .content = "y"));
    assert_true(KEY(.session = "s") != KEY(.session = "t"));
    assert_true(KEY(.cache_key = "c") != KEY(.cache_key = "d"));
    assert_true(KEY(.user = "u") != KEY(.user = "v"));
    assert_true(KEY(.content = "x") != KEY(.content = "y"));
    assert_true(KEY(.system = "a") != KEY(.system = "b"));
}

static void test_the_same_word_from_another_source_is_another_key(void **state)
{
    (void)state;
    assert_true(KEY(.session = "w") != KEY(.cache_key = "w"));
    assert_true(KEY(.session = "w") != KEY(.user = "w"));
    assert_true(KEY(.cache_key = "w") != KEY(.user = "w"));
    assert_true(KEY(.user = "w") != KEY(.content = "w"));
}

static uint64_t key_of_ids(uint32_t first, size_t n)
{
    struct weir_request *req = req_open("m");
    uint32_t ids[3] = { first, 8, 9 };
    Weir__V1__TokenIds prompt = WEIR__V1__TOKEN_IDS__INIT;

    prompt.ids = ids;
    prompt.n_ids = n;
    req->msg->input_case = WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT_IDS;
    req->msg->prompt_ids = &prompt;
    return key_and_close(req);
}

static uint64_t key_of_tool(const char *name)
{
    struct weir_request *req = req_open("m");
    Weir__V1__Tool tool = WEIR__V1__TOOL__INIT, *tools[1] = { &tool };

    tool.name = req_text(req, name);
    req_add(req, "user", "hello");
    req->msg->n_tools = 1;
    req->msg->tools = tools;
    return key_and_close(req);
}

static void test_tokens_and_tools_tell_prompts_apart(void **state)
{
    (void)state;
    assert_true(key_of_ids(7, 3) == key_of_ids(7, 3));
    assert_true(key_of_ids(7, 3) != key_of_ids(6, 3));
    assert_true(key_of_ids(7, 3) != key_of_ids(7, 2));
    assert_true(key_of_tool("a") == key_of_tool("a"));
    assert_true(key_of_tool("a") != key_of_tool("b"));
    assert_true(key_of_tool("a") != KEY(.content = "hello"));
}

/* [A1] */
static void test_account_and_isolation_are_always_mixed_in(void **state)
{
    (void)state;
    assert_true(KEY(.session = "s", .account = "a") != KEY(.session = "s", .account = "b"));
    assert_true(KEY(.session = "s", .isolation = "a") != KEY(.session = "s", .isolation = "b"));
    assert_true(KEY(.session = "s", .isolation = "a") != KEY(.session = "s"));
    assert_true(KEY(.cache_key = "s", .account = "a") != KEY(.cache_key = "s", .account = "b"));
    assert_true(KEY(.user = "s", .account = "a") != KEY(.user = "s", .account = "b"));
    assert_true(KEY(.account = "a") != KEY(.account = "b"));
    /* "ab" + "" is not "a" + "b". */
    assert_true(KEY(.session = "s", .account = "ab") !=
                KEY(.session = "s", .account = "a", .isolation = "b"));
}

/* [A2] */
static void test_later_turns_keep_the_key(void **state)
{
    struct weir_request *later = req_open("m");

    (void)state;
    req_add(later, "system", "be brief");
    req_add(later, "user", "hello");
    req_add(later, "assistant", "hi");
    req_add(later, "user", "and now?");
    assert_true(key_and_close(later) == KEY(.system = "be brief"));
}

static char *repeat(char *to, char c, size_t n)
{
    memset(to, c, n);
    to[n] = '\0';
    return to;
}

/* [A3] What lies past the head changes nothing; what is in it does, also behind a long system message. */
static void test_only_the_head_is_read(void **state)
{
    static char a[10001], b[10001], system[10001];

    (void)state;
    repeat(a, 'x', 10000);
    repeat(b, 'x', 10000);
    b[9000] = 'y';
    assert_true(KEY(.content = a) == KEY(.content = b));
    b[4000] = 'y';
    assert_true(KEY(.content = a) != KEY(.content = b));
    repeat(system, 's', 10000);
    assert_true(KEY(.system = system, .content = "one") != KEY(.system = system, .content = "two"));
}

static void test_a_prompt_that_grows_keeps_its_key(void **state)
{
    static char text[2001];
    struct weir_request *first = req_open("m"), *second = req_open("m"), *other = req_open("m");

    (void)state;
    req_prompt(first, repeat(text, 'p', 300));
    req_prompt(second, repeat(text, 'p', 2000));
    text[10] = 'q';
    req_prompt(other, text);
    uint64_t key = key_and_close(first);
    assert_true(key == key_and_close(second));
    assert_true(key != key_and_close(other));
}

/* Another router, another day: the key must not depend on the process. */
static void test_the_key_is_the_same_everywhere(void **state)
{
    (void)state;
    assert_true(KEY(.session = "s") == 0xde04571b4371329ull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_that_is_given_decides),
        cmocka_unit_test(test_tokens_and_tools_tell_prompts_apart),
        cmocka_unit_test(test_the_same_word_from_another_source_is_another_key),
        cmocka_unit_test(test_account_and_isolation_are_always_mixed_in),
        cmocka_unit_test(test_later_turns_keep_the_key),
        cmocka_unit_test(test_only_the_head_is_read),
        cmocka_unit_test(test_a_prompt_that_grows_keeps_its_key),
        cmocka_unit_test(test_the_key_is_the_same_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
