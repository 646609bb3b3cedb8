/* Texts equal to those of jinja2, over templates of many families and every corner of the language
 * (tests/golden/make_templates.py wrote both); then bounds and errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/mem.h"
#include "replica/text/template.h"

/* ---- equal to jinja2 ---- */

enum { SOURCES_MAX = 256, CASES_MIN = 500 };

struct golden {
    struct weir_str sources[SOURCES_MAX], variables[SOURCES_MAX];
    int n_sources, n_variables, n_cases;
    int64_t now;
};

struct golden_case {
    struct weir_str name, result, text;
    int64_t i_source, i_variables;
};

/* Asking where the text came from does not change it. */
static void check_same_with_spans(const struct weir_template *t, const struct weir_template_args *args,
                                  const struct weir_buf *want)
{
    struct weir_buf out;
    struct weir_arena arena;
    struct weir_span *spans = NULL;
    size_t n = 0;

    weir_buf_init(&out, 1 << 20);
    weir_arena_init(&arena, 0);
    assert_int_equal(weir_template_render_spans(t, args, &out, &arena, &spans, &n, NULL), WEIR_OK);
    assert_int_equal(weir_buf_len(&out), weir_buf_len(want));
    if (weir_buf_len(&out) > 0)
        assert_memory_equal(weir_buf_ptr(&out), weir_buf_ptr(want), weir_buf_len(&out));
    for (size_t i = 0; i < n; i++)
        assert_true(spans[i].begin < spans[i].end && spans[i].end <= weir_buf_len(&out) &&
                    (i == 0 || spans[i - 1].end < spans[i].begin));
    weir_buf_release(&out);
    weir_arena_release(&arena);
}

static void check_case(const struct golden *g, const struct golden_case *c)
{
    struct weir_template *t = NULL;
    struct weir_why why = { 0 };
    struct weir_buf out;
    struct weir_template_args args = { .variables = g->variables[c->i_variables],
                                       .now_unix = (uint64_t)g->now };
    weir_err err = weir_template_compile(g->sources[c->i_source], &t, &why);
    bool ok = weir_str_eq(c->result, "ok");

    weir_buf_init(&out, 1 << 20);
    if (err == WEIR_OK)
        err = weir_template_render(t, &args, &out, &why);
    if (ok != (err == WEIR_OK))
        fail_msg("%.*s: %s", WEIR_STR_FMT(c->name), ok ? why.text : "rendered, but jinja2 fails");
    if (ok && (weir_buf_len(&out) != c->text.len ||
               (c->text.len > 0 && memcmp(weir_buf_ptr(&out), c->text.ptr, c->text.len) != 0)))
        fail_msg("%.*s:\n--- want\n%.*s\n--- got\n%.*s", WEIR_STR_FMT(c->name), WEIR_STR_FMT(c->text),
                 (int)weir_buf_len(&out), weir_buf_ptr(&out));
    if (weir_str_eq(c->result, "raised")) {
        assert_int_equal(err, WEIR_INVALID);
        assert_true(weir_str_eq(c->text, why.text)); /* the template's own words */
    }
    if (ok)
        check_same_with_spans(t, &args, &out);
    weir_buf_release(&out);
    weir_template_close(t);
}

static void read_case(struct golden *g, struct weir_json *j)
{
    struct golden_case c = { 0 };
    struct weir_str key;

    assert_true(weir_json_object(j));
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "name"))
            assert_true(weir_json_string(j, &c.name));
        else if (weir_str_eq(key, "result"))
            assert_true(weir_json_string(j, &c.result));
        else if (weir_str_eq(key, "template"))
            assert_true(weir_json_i64(j, &c.i_source));
        else if (weir_str_eq(key, "variables"))
            assert_true(weir_json_i64(j, &c.i_variables));
        else
            assert_true(weir_json_peek(j) == WEIR_JSON_NULL ? weir_json_null(j)
                                                            : weir_json_string(j, &c.text));
    }
    check_case(g, &c);
    g->n_cases++;
}

static void read_golden(struct golden *g, struct weir_json *j)
{
    struct weir_str key;

    assert_true(weir_json_object(j));
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "now")) {
            assert_true(weir_json_i64(j, &g->now));
        } else if (weir_str_eq(key, "jinja2")) {
            assert_true(weir_json_skip(j));
        } else {
            assert_true(weir_json_array(j));
            while (weir_json_next(j)) {
                assert_true(g->n_sources < SOURCES_MAX && g->n_variables < SOURCES_MAX);
                if (weir_str_eq(key, "templates"))
                    assert_true(weir_json_string(j, &g->sources[g->n_sources++]));
                else if (weir_str_eq(key, "variables"))
                    assert_true(weir_json_raw(j, &g->variables[g->n_variables++]));
                else
                    read_case(g, j);
            }
        }
    }
    assert_int_equal(weir_json_end(j, NULL), WEIR_OK);
}

static void test_equal_to_jinja2(void **state)
{
    static struct golden g;
    struct weir_arena arena;
    struct weir_json j;
    FILE *file = fopen("tests/golden/templates.json", "rb");
    char *data = malloc(4 << 20);
    size_t len;

    (void)state;
    assert_non_null(file);
    assert_non_null(data);
    len = fread(data, 1, 4 << 20, file);
    fclose(file);
    weir_arena_init(&arena, 0);
    weir_json_init(&j, data, len, &arena);
    read_golden(&g, &j);
    assert_true(g.n_cases >= CASES_MIN);
    weir_arena_release(&arena);
    free(data);
}

/* ---- bounds and errors ---- */

static const struct weir_chat_message hello[] = { { { "user", 4 }, { "Hello", 5 } } };

/* Compiles and renders; the text goes to `text` (NULL: not wanted). */
static weir_err render(const char *source, char text[256], struct weir_why *why)
{
    struct weir_template *t = NULL;
    struct weir_buf out;
    struct weir_template_args args = {
        .messages = hello, .n_messages = 1, .bos = WEIR_STR("<s>"), .add_generation_prompt = true
    };
    weir_err err = weir_template_compile(weir_str(source), &t, why);

    weir_buf_init(&out, 1 << 20);
    if (err == WEIR_OK)
        err = weir_template_render(t, &args, &out, why);
    if (err == WEIR_OK && text)
        snprintf(text, 256, "%s", weir_buf_cstr(&out));
    weir_buf_release(&out);
    weir_template_close(t);
    return err;
}

static void test_variables(void **state)
{
    char text[256];
    struct weir_why why = { 0 };

    (void)state;
    assert_int_equal(
        render("{{ bos_token }}{{ messages[0].role }}:{{ messages[0]['content'] }}|{{ eos_token }}|"
               "{{ eos_token is defined }}|{{ tools is none }}|{{ add_generation_prompt }}|{{ "
               "strftime_now('%Y') }}",
               text, &why),
        WEIR_OK);
    assert_string_equal(text, "<s>user:Hello||False|True|True|1970");
}

/* [C1] Each of these would run for very long, take very much, or nest very deep. */
static void test_bounds(void **state)
{
    static const char *const sources[] = {
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor "
        "%}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% for x in [1, 2] recursive %}{% if loop.depth < 30 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
        "{% set s = 'ab-c ' * 40000 %}{% for i in range(90000) %}{% set x = s|wordwrap(3) %}{% endfor %}",
        "{{ ('a' * 100000)|wordwrap(1, wrapstring='x' * 100000) }}",
        "{{ 'x' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=['x']) %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=['x']) %}{% for i in range(64) %}{% set ns.s = [ns.s, ns.s] %}{% endfor "
        "%}{{ ns.s }}",
        "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(64) %}{% set ns.a = [ns.a, ns.a] %}"
        "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
        "{% set ns = namespace(a=[1]) %}{% for i in range(90000) %}{% set ns.a = [ns.a] %}{% endfor %}{{ "
        "ns.a|tojson }}",
        "{% set ns = namespace() %}{% set ns.self = ns %}{{ ns }}",
        "{% for i in range(99999) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}",
        "{% set s = 'ab' * 100000 %}{% for i in range(90000) %}{% set x = s.find('c') %}{% endfor %}",
        "{{ 'x'.center(1000000000) }}",
        "{% for i in range(90000) %}{{ '%999d' % i }}{% endfor %}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        struct weir_why why = { 0 };
        weir_err err = render(sources[i], NULL, &why);
        if (err != WEIR_TOOLARGE)
            fail_msg("%s: %s, %s", sources[i], weir_err_info(err)->name, why.text);
        assert_true(why.text[0] != '\0');
    }
}

/* [Y1] A talk put together piece by piece takes steps for its bytes, not for its bytes times its pieces. */
static void test_put_together(void **state)
{
    enum { PIECES = 4000, PIECE_BYTES = 1000 };
    static const char *const sources[] = {
        "{% set ns = namespace(s='') %}{% for i in range(4000) %}{% set ns.s = ns.s + messages[0].content %}"
        "{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(s='') %}{% for i in range(4000) %}{% set ns.s = ns.s ~ messages[0].content %}"
        "{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(a='', b='') %}{% for i in range(2000) %}{% set ns.a = ns.a + "
        "messages[0].content %}"
        "{% set ns.b = ns.b + messages[0].content %}{% endfor %}{{ ns.a ~ ns.b }}",
    };
    char *content = malloc(PIECE_BYTES);

    (void)state;
    assert_non_null(content);
    memset(content, 'x', PIECE_BYTES);
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        const struct weir_chat_message message = { WEIR_STR("user"), { content, PIECE_BYTES } };
        const struct weir_template_args args = { .messages = &message, .n_messages = 1 };
        struct weir_template *t = NULL;
        struct weir_buf out;
        struct weir_arena arena;
        struct weir_span *spans = NULL;
        size_t n = 0;
        weir_buf_init(&out, 8 << 20);
        weir_arena_init(&arena, 0);
        assert_int_equal(weir_template_compile(weir_str(sources[i]), &t, NULL), WEIR_OK);
        assert_int_equal(weir_template_render_spans(t, &args, &out, &arena, &spans, &n, NULL), WEIR_OK);
        assert_int_equal(weir_buf_len(&out), PIECES * PIECE_BYTES);
        assert_int_equal(n, 1); /* all of it was given */
        assert_int_equal(spans[0].end - spans[0].begin, PIECES * PIECE_BYTES);
        weir_template_close(t);
        weir_buf_release(&out);
        weir_arena_release(&arena);
    }
    free(content);
}

static void test_deep_sources(void **state)
{
    static const char *const parts[][2] = { { "(", ")" },          { "[", "]" }, { "{'a':", "}" },
                                            { "not ", "" },        { "-", "" },  { "x|list(", ")" },
                                            { "1 if 1 else ", "" } };
    char *source = malloc(1 << 20);

    (void)state;
    assert_non_null(source);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct weir_why why = { 0 };
        char *end = stpcpy(source, "{{ ");
        for (int k = 0; k < 5000; k++)
            end = stpcpy(end, parts[i][0]);
        end = stpcpy(end, "1");
        for (int k = 0; k < 5000; k++)
            end = stpcpy(end, parts[i][1]);
        strcpy(end, " }}");
        assert_int_equal(render(source, NULL, &why), WEIR_TOOLARGE);
    }
    char *end = source;
    for (int k = 0; k < 5000; k++)
        end = stpcpy(end, "{% if 1 %}");
    struct weir_why why = { 0 };
    assert_int_equal(render(source, NULL, &why), WEIR_TOOLARGE);
    end = stpcpy(source, "{{ 1");
    for (int k = 0; k < 5000; k++)
        end = stpcpy(end, " + 1");
    strcpy(end, " }}");
    assert_int_equal(render(source, NULL, &why), WEIR_TOOLARGE); /* a tree that leans to the left */
    free(source);
}

static void test_errors_name_the_place(void **state)
{
    static const struct {
        const char *source;
        weir_err err;
        const char *words[3];
    } cases[] = {
        { "a\n\n{% frobnicate %}", WEIR_UNIMPLEMENTED, { "line 3", "frobnicate" } },
        { "\n{{ x|frobnicate }}", WEIR_UNIMPLEMENTED, { "line 2", "frobnicate" } },
        { "\n{{ x is frobnicated }}", WEIR_UNIMPLEMENTED, { "line 2", "frobnicated" } },
        { "{% include 'x' %}", WEIR_UNIMPLEMENTED, { "include" } },
        { "{{ x|pprint }}", WEIR_UNIMPLEMENTED, { "pprint" } },
        { "{{ x|random }}", WEIR_UNIMPLEMENTED, { "random" } },
        { "{{ x|striptags }}", WEIR_UNIMPLEMENTED, { "striptags" } },
        { "{{ x|urlize }}", WEIR_UNIMPLEMENTED, { "urlize" } },
        { "{{ lipsum() }}", WEIR_UNIMPLEMENTED, { "lipsum" } },
        { "a\n{% for x in messages %}\n{{ loop(x) }}{% endfor %}", WEIR_INVALID, { "line 3", "recursive" } },
        { "a\n{% if 1 %}", WEIR_CORRUPT, { "line 2", "endif" } },
        { "a\n{{ 1 2 }}", WEIR_CORRUPT, { "line 2", "\"2\"" } },
        { "a\n{{ 'x }}", WEIR_CORRUPT, { "line 2", "string" } },
        { "a\n\n{{ messages + 1 }}", WEIR_INVALID, { "line 3", "list", "int" } },
        { "a\n{{ nobody.home }}", WEIR_INVALID, { "line 2", "nobody", "home" } },
        { "{{ raise_exception('no system role') }}", WEIR_INVALID, { "no system role" } },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct weir_why why = { 0 };
        weir_err err = render(cases[i].source, NULL, &why);
        if (err != cases[i].err)
            fail_msg("%s: %s, %s", cases[i].source, weir_err_info(err)->name, why.text);
        for (int k = 0; k < 3 && cases[i].words[k]; k++)
            if (!strstr(why.text, cases[i].words[k]))
                fail_msg("%s: \"%s\" lacks \"%s\"", cases[i].source, why.text, cases[i].words[k]);
    }
}

static void test_bad_bytes(void **state)
{
    const struct weir_chat_message bad[] = { { WEIR_STR("user"), WEIR_STR("a\xff") } };
    struct weir_template_args args = { .messages = bad, .n_messages = 1 };
    struct weir_template *t = NULL;
    struct weir_buf out;
    struct weir_why why = { 0 };

    (void)state;
    assert_int_equal(weir_template_compile(WEIR_STR("\xff"), &t, &why), WEIR_CORRUPT);
    assert_int_equal(weir_template_compile(WEIR_STR("{{ messages }}"), &t, &why), WEIR_OK);
    weir_buf_init(&out, 0);
    assert_int_equal(weir_template_render(t, &args, &out, &why), WEIR_INVALID);
    args = (struct weir_template_args){ .variables = WEIR_STR("[1]") };
    assert_int_equal(weir_template_render(t, &args, &out, &why), WEIR_INVALID);
    args.variables = WEIR_STR("{\"tools\": ");
    assert_int_equal(weir_template_render(t, &args, &out, &why), WEIR_INVALID);
    weir_buf_release(&out);
    weir_template_close(t);
}

/* Only n allocations succeed: an error each time, and nothing leaks (ASan sees). */
static void test_no_memory(void **state)
{
    static const char source[] =
        "{% macro m(a) %}{{ a|upper }}{% endmacro %}{% for m2 in messages %}{{ m(m2.content ~ 1) }}"
        "{{ m2|tojson(indent=2) }}{% set x %}{{ m2.role.split('s') }}{% endset %}{{ x }}{% endfor %}";
    weir_err err = WEIR_NOMEM;

    (void)state;
    for (int n = 0; err != WEIR_OK && n < 1000; n++) {
        struct weir_why why = { 0 };
        weir_test_alloc_budget(n);
        err = render(source, NULL, &why);
        weir_test_alloc_budget(-1);
        /* A value without memory says that the values are too much. */
        assert_true(err == WEIR_OK || err == WEIR_NOMEM || err == WEIR_TOOLARGE);
    }
    assert_int_equal(err, WEIR_OK);
}

/* ---- finding it ---- */

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* The two templates of a model: white space at their ends is theirs, the last line's end is not. */
static void test_load_with_tools(void **state)
{
    static const char with[] = "\n  with {{ tools|length }}\n  \n",
                      without[] = "\n{%- set x = 1 %}\n none {{ x }}  \n";
    static const char *const texts[] = { "\n  with 2\n  ", " none 1  " };
    char dir[] = "/tmp/weir-template-XXXXXX", command[64], path[128];
    struct weir_buf json;
    struct weir_jw w;

    (void)state;
    assert_non_null(mkdtemp(dir));
    weir_buf_init(&json, 0);
    weir_jw_init(&w, &json);
    weir_jw_raw(&w, WEIR_STR("{\"chat_template\":[{\"name\":\"tool_use\",\"template\":"));
    weir_jw_init(&w, &json);
    weir_jw_cstr(&w, with);
    weir_buf_adds(&json, "},{\"name\":\"default\",\"template\":");
    weir_jw_init(&w, &json);
    weir_jw_cstr(&w, without);
    weir_buf_adds(&json, "}]}");
    write_file(dir, "tokenizer_config.json", weir_buf_cstr(&json));
    for (int i = 0; i < 4; i++) {
        struct weir_template *t = NULL;
        struct weir_template_args args = { .variables = i % 2 ? WEIR_STR("{\"tools\":null}")
                                                              : WEIR_STR("{\"tools\":[{},{}]}") };
        struct weir_buf source, out;
        weir_buf_init(&source, 0);
        weir_buf_init(&out, 0);
        if (i == 2) { /* the same in files */
            snprintf(path, sizeof path, "%s/additional_chat_templates", dir);
            assert_int_equal(mkdir(path, 0700), 0);
            write_file(dir, "chat_template.jinja", without);
            write_file(dir, "additional_chat_templates/tool_use.jinja", with);
        }
        assert_int_equal(weir_template_load(dir, &source, NULL), WEIR_OK);
        assert_int_equal(weir_template_compile(
                             (struct weir_str){ weir_buf_ptr(&source), weir_buf_len(&source) }, &t, NULL),
                         WEIR_OK);
        assert_int_equal(weir_template_render(t, &args, &out, NULL), WEIR_OK);
        assert_string_equal(weir_buf_cstr(&out), texts[i % 2]);
        weir_template_close(t);
        weir_buf_release(&source);
        weir_buf_release(&out);
    }
    weir_buf_release(&json);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void test_load(void **state)
{
    char dir[] = "/tmp/weir-template-XXXXXX", command[64];
    struct weir_buf out;
    struct weir_why why = { 0 };

    (void)state;
    assert_non_null(mkdtemp(dir));
    weir_buf_init(&out, 1 << 20);
    assert_int_equal(weir_template_load(dir, &out, &why), WEIR_NOTFOUND);
    write_file(dir, "tokenizer_config.json", "{\"bos_token\":\"x\"}");
    assert_int_equal(weir_template_load(dir, &out, &why), WEIR_NOTFOUND);
    write_file(dir, "tokenizer_config.json", "{\"chat_template\":\"a\\n{{ b }}\"}");
    assert_int_equal(weir_template_load(dir, &out, &why), WEIR_OK);
    assert_string_equal(weir_buf_cstr(&out), "a\n{{ b }}");
    weir_buf_clear(&out);
    write_file(dir, "tokenizer_config.json",
               "{\"chat_template\":[{\"name\":\"rag\",\"template\":\"no\"},{\"template\":\"yes\",\"name\":"
               "\"default\"}]}");
    assert_int_equal(weir_template_load(dir, &out, &why), WEIR_OK);
    assert_string_equal(weir_buf_cstr(&out), "yes");
    weir_buf_clear(&out);
    write_file(dir, "tokenizer_config.json", "{\"chat_template\":5}");
    assert_int_equal(weir_template_load(dir, &out, &why), WEIR_CORRUPT);
    write_file(dir, "chat_template.jinja", "newer");
    assert_int_equal(weir_template_load(dir, &out, &why), WEIR_OK);
    assert_string_equal(weir_buf_cstr(&out), "newer");
    weir_buf_release(&out);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

/* [O1] In these all that was given is Z, or a space beside one, and the template's own text has none: so each Z is in
 * a span, and nothing is that the template wrote. */
static void test_spans(void **state)
{
    static const char *const sources[] = {
        "{% for m in messages %}{{ '<' + m.role + '>\\n' + m.content + '<end>' }}{% endfor %}",
        "{% for m in messages %}<{{ m['role'] }}> {{ m.content | trim }}<end>{% endfor %}",
        "{% macro show(m) %}[{{ m.role }}] {{ m.content }}{% endmacro %}{% for m in messages %}{{ show(m) }};"
        "{% endfor %}",
        "{% set all %}{% for m in messages %}({{ m.content }}){% endfor %}{% endset %}a{{ all }}b{{ "
        "messages[1].content | upper }}c",
        "{{ messages | map(attribute='content') | join('--') }}",
        "{{ messages[0].content.split(' ')[-1] ~ 'x' ~ messages[1].content[1:] }}",
        "{{ messages[0].content | replace('ZZ', 'aa') }}{{ 'abc' | replace('b', messages[0].content) }}",
        "{{ 'a%sb%s' % (messages[0].content, 3) }}{{ '{}:{}'.format(messages[1].content, 'x') }}",
        "{{ tools | tojson }}{{ tools | tojson(indent=2) }}{{ tools }}",
        "{% for m in messages %}{{ (m.content * 2) | indent(2) | center(20) }}{% endfor %}",
        "{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t + 'k' + m.content %}{% "
        "endfor %}"
        "{{ messages[0].content | title }}{{ ns.t[::-1] }}{{ ns.t.ljust(30, '.') }}{{ messages[0].content | "
        "e }}{{ ns.t | list | join(',') "
        "}}",
        "{% for k, v in tools[0].items() %}{{ k }}={{ v }},{% endfor %}{{ tools[0].Z.Z.capitalize() }}",
        "{% for m in messages recursive %}{% if m.content %}({{ loop([m.content]) }}){% else %}<{{ m }}>{% "
        "endif "
        "%}{% endfor %}",
        "{{ messages[0].content | wordwrap(2, wrapstring='-') }}{{ {'a': messages[0].content} | xmlattr }}",
        "{% set c = cycler('a', messages[0].content) %}{{ c.next() }}{{ c.next() }}{% set j = "
        "joiner(messages[0].content) %}{{ j() }}a{{ j() }}",
    };
    const struct weir_chat_message messages[] = { { WEIR_STR("Z"), WEIR_STR("ZZ ZZZ") },
                                                  { WEIR_STR("ZZ"), WEIR_STR(" Z ") } };
    const struct weir_template_args args = {
        .messages = messages,
        .n_messages = 2,
        .variables = WEIR_STR("{\"tools\":[{\"Z\":{\"Z\":\"Z\\u005a\"}},{\"ZZ\":[\"Z\",1]}]}")
    };

    (void)state;
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        struct weir_template *t = NULL;
        struct weir_why why = { .text = "" };
        struct weir_buf out, plain;
        struct weir_arena arena;
        struct weir_span *spans = NULL;
        size_t n = 0, at = 0;
        weir_buf_init(&out, 0);
        weir_buf_init(&plain, 0);
        weir_arena_init(&arena, 0);
        weir_buf_adds(&out, "before");
        if (weir_template_compile(weir_str(sources[i]), &t, &why) != WEIR_OK ||
            weir_template_render(t, &args, &plain, &why) != WEIR_OK ||
            weir_template_render_spans(t, &args, &out, &arena, &spans, &n, &why) != WEIR_OK)
            fail_msg("%s: %s", sources[i], why.text);
        const char *text = weir_buf_ptr(&out) + 6;
        size_t len = weir_buf_len(&out) - 6;
        assert_int_equal(len, weir_buf_len(&plain));
        assert_memory_equal(text, weir_buf_ptr(&plain), len);
        assert_true(n > 0);
        for (size_t k = 0; k < len; k++) {
            while (at < n && spans[at].end <= k)
                at++;
            bool inside = at < n && k >= spans[at].begin;
            bool is_z = text[k] == 'Z' || text[k] == 'z';
            if (is_z ? !inside : inside && text[k] != ' ' && !strchr("\\u05aAk", text[k]))
                fail_msg("%s: byte %zu of \"%.*s\"", sources[i], k, (int)len, text);
        }
        assert_true(spans[n - 1].end <= len);
        weir_buf_release(&out);
        weir_buf_release(&plain);
        weir_arena_release(&arena);
        weir_template_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_to_jinja2), cmocka_unit_test(test_variables),
        cmocka_unit_test(test_bounds),          cmocka_unit_test(test_put_together),
        cmocka_unit_test(test_deep_sources),    cmocka_unit_test(test_errors_name_the_place),
        cmocka_unit_test(test_bad_bytes),       cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_spans),           cmocka_unit_test(test_load),
        cmocka_unit_test(test_load_with_tools),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
