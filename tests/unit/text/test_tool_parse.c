/* Answers of several families taken apart: the same events however the text is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "replica/text/tool_parse.h"
#include "tests/support/thinking_model.h"

#define DS(name) "<\xef\xbd\x9ctool\xe2\x96\x81" name "\xef\xbd\x9c>"
#define CALLS                                                                                                \
    DS("calls\xe2\x96\x81"                                                                                   \
       "begin")
#define CALLS_END                                                                                            \
    DS("calls\xe2\x96\x81"                                                                                   \
       "end")
#define CALL                                                                                                 \
    DS("call\xe2\x96\x81"                                                                                    \
       "begin")
#define CALL_END                                                                                             \
    DS("call\xe2\x96\x81"                                                                                    \
       "end")
#define SEP DS("sep")

/* Events as text: C(content) R(reasoning) name#0 [args] ; with pieces of the same kind joined. */
struct seen {
    struct weir_buf text;
    int last; /* kind, or -1 */
    uint32_t n_calls;
};

static void on_event(void *ctx, const struct weir_output_event *e)
{
    static const char *const begins[] = { "C(", "R(", "", "[", "" };
    struct seen *seen = ctx;

    if ((int)e->kind != seen->last) {
        if (seen->last == WEIR_OUTPUT_CONTENT || seen->last == WEIR_OUTPUT_REASONING)
            weir_buf_adds(&seen->text, ")");
        if (seen->last == WEIR_OUTPUT_ARGUMENTS)
            weir_buf_adds(&seen->text, "]");
        weir_buf_adds(&seen->text, begins[e->kind]);
    }
    if (e->kind == WEIR_OUTPUT_CALL)
        assert_int_equal(e->call, seen->n_calls++);
    if (e->kind == WEIR_OUTPUT_ARGUMENTS || e->kind == WEIR_OUTPUT_CALL_END)
        assert_int_equal(e->call + 1, seen->n_calls);
    assert_true(e->kind == WEIR_OUTPUT_CALL_END ? e->text.len == 0 : e->text.len > 0);
    weir_buf_add(&seen->text, e->text.ptr, e->text.len);
    if (e->kind == WEIR_OUTPUT_CALL_END)
        weir_buf_adds(&seen->text, ";");
    seen->last = (int)e->kind;
}

/* cut: 0 = in one piece, 1 = character by character, else a seed. */
static void feed(const struct weir_output_format *format, struct weir_str text, uint32_t cut,
                 struct weir_buf *out)
{
    struct seen seen = { .last = -1 };
    struct weir_output_parser *p = NULL;

    weir_buf_init(&seen.text, 0);
    assert_int_equal(weir_output_parser_open(format, on_event, &seen, &p), WEIR_OK);
    for (size_t i = 0; i < text.len;) {
        size_t n = text.len - i;
        if (cut > 0) {
            size_t n_chars = cut == 1 ? 1 : 1 + (cut = cut * 1664525u + 1013904223u) / 65536 % 9;
            for (n = 0; n_chars > 0 && i + n < text.len; n_chars--)
                n += weir_utf8_step(text.ptr + i + n, text.len - i - n);
        }
        assert_int_equal(weir_output_parser_push(p, (struct weir_str){ text.ptr + i, n }), WEIR_OK);
        i += n;
    }
    assert_int_equal(weir_output_parser_finish(p), WEIR_OK);
    assert_int_equal(weir_output_parser_calls(p), seen.n_calls);
    weir_output_parser_close(p);
    if (seen.last == WEIR_OUTPUT_CONTENT || seen.last == WEIR_OUTPUT_REASONING)
        weir_buf_adds(&seen.text, ")");
    weir_buf_add(out, weir_buf_ptr(&seen.text), weir_buf_len(&seen.text));
    weir_buf_release(&seen.text);
}

static const struct weir_output_tool described[] = {
    { WEIR_STR("write"), WEIR_STR("{\"type\": \"object\", \"properties\": {\"path\": {\"type\": \"string\"}, "
                                  "\"text\": {\"type\": \"string\"}, \"mode\": "
                                  "{\"type\": \"integer\"}, \"force\": {\"type\": \"boolean\"}, \"tags\": "
                                  "{}, \"maybe\": {\"type\": [\"string\", \"null\"]}, "
                                  "\"kind\": {\"enum\": [ \"1\", \"2\"]}}}") },
    { WEIR_STR("paint"),
      WEIR_STR(
          "{\"$defs\": {\"c\": {\"enum\": [\"1\"]}, \"n\": {\"type\": \"integer\"}, \"loop\": {\"$ref\": "
          "\"#/$defs/loop\"}}, \"properties\": {\"ref\": {\"$ref\": \"#/$defs/c\"}, \"may\": {\"anyOf\": "
          "[{\"type\": \"null\"}, {\"type\": \"string\"}]}, \"all\": {\"allOf\": [{\"$ref\": "
          "\"#/$defs/c\"}]}, "
          "\"one\": {\"const\": \"1\"}, \"at\": {\"$ref\": \"#/properties/may/anyOf/1\"}, \"num\": "
          "{\"$ref\": "
          "\"#/$defs/n\"}, \"off\": {\"$ref\": \"#/properties/may/anyOf/7\"}, \"loop\": {\"$ref\": "
          "\"#/$defs/loop\"}}}") },
};

static const struct {
    enum weir_tool_format tools;
    int thinks; /* 0: no, 1: it may, 2: the prompt ends with <think>; 3 and 4: the same for [THINK] */
    const char *text, *events;
} answers[] = {
    { WEIR_TOOLS_NONE, 0, "Hello, <tool_call> is text.\n", "C(Hello, <tool_call> is text.\n)" },
    { WEIR_TOOLS_NONE, 0, "", "" },
    /* reasoning */
    { WEIR_TOOLS_NONE, 1, "<think>\nLet me see.\n\n</think>\n\nIt is 4.", "R(Let me see.)C(It is 4.)" },
    { WEIR_TOOLS_NONE, 1, "\n<think>a < b </thin </think>b", "R(a < b </thin)C(b)" },
    { WEIR_TOOLS_NONE, 1, "<think>\n\n</think>\n\nhi", "C(hi)" },
    { WEIR_TOOLS_NONE, 1, "  no thought <think>", "C(  no thought <think>)" },
    { WEIR_TOOLS_NONE, 1, "<thi", "C(<thi)" },
    { WEIR_TOOLS_NONE, 1, "<think>cut off </th", "R(cut off </th)" },
    { WEIR_TOOLS_NONE, 2, "Let me\n\nsee.\n</think>\n4", "R(Let me\n\nsee.)C(4)" },
    { WEIR_TOOLS_NONE, 2, "<think>again</think>4", "R(again)C(4)" },
    { WEIR_TOOLS_NONE, 3, "[THINK]Let me see [1].\n[/THINK]It is 4.", "R(Let me see [1].)C(It is 4.)" },
    { WEIR_TOOLS_NONE, 3, " [THINK] a[/THIN [/THINK]\n\nb [THINK]c", "R(a[/THIN)C(b [THINK]c)" },
    { WEIR_TOOLS_NONE, 3, "[THI", "C([THI)" },
    { WEIR_TOOLS_NONE, 3, "<think>no</think>", "C(<think>no</think>)" },
    { WEIR_TOOLS_NONE, 1, "[THINK]no[/THINK]", "C([THINK]no[/THINK])" },
    { WEIR_TOOLS_NONE, 4, "Let me </think> see.[/THINK]4", "R(Let me </think> see.)C(4)" },
    { WEIR_TOOLS_MISTRAL, 3, "[THINK]I call [TOOL_CALLS].[/THINK][TOOL_CALLS]a[ARGS]{\"x\": 1}",
      "R(I call [TOOL_CALLS].)a[{\"x\": 1}];" },
    /* Hermes, Qwen */
    { WEIR_TOOLS_HERMES, 0,
      "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"city\": \"Z\xc3\xbcrich }\", \"n\": [1, "
      "{}]}}\n</tool_call>",
      "get[{\"city\": \"Z\xc3\xbcrich }\", \"n\": [1, {}]}];" },
    { WEIR_TOOLS_HERMES, 0,
      "I look. "
      "\n<tool_call>{\"name\":\"a\",\"arguments\":{}}</"
      "tool_call>\n<tool_call>{\"name\":\"b\",\"arguments\":{\"x\":1}}</tool_call> \n Done.",
      "C(I look.)a[{}];b[{\"x\":1}];C(Done.)" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>{\"arguments\": {\"x\": \"\\\"}\"}, \"name\": \"late\"}</tool_call>",
      "late[{\"x\": \"\\\"}\"}];" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>{\"name\": \"s\", \"arguments\": \"{\\\"x\\\": 1}\"}</tool_call>",
      "s[{\"x\": 1}];" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>{\"name\": \"none\"}</tool_call>", "none[{}];" },
    { WEIR_TOOLS_HERMES, 0,
      "<tool_call>{\"name\": \"a\", \"arguments\": {}}\n{\"name\": \"b\", \"arguments\": {}}</tool_call>",
      "a[{}];b[{}];" },
    { WEIR_TOOLS_HERMES, 0,
      "<tool_call>{\"name\": \"a\", \"arguments\": {\"x\": 1}, \"id\": {\"y\": 2}}</tool_call>!",
      "a[{\"x\": 1}];C(!)" },
    { WEIR_TOOLS_HERMES, 0, "x <tool_call>not json</tool_call>", "C(x <tool_call>not json</tool_call>)" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>",
      "C(<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>)" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>{\"nom\": \"a\"}", "C(<tool_call>{\"nom\": \"a\"})" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>{\"name\": \"\", \"arguments\": {}}",
      "C(<tool_call>{\"name\": \"\", \"arguments\": {}})" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>{\"name\": \"a", "C(<tool_call>{\"name\": \"a)" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>{\"name\": \"a\", \"arguments\": {\"x\": \"cut",
      "a[{\"x\": \"cut];" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>{\"name\": \"a\", \"arguments\": {\"x\": </tool_call>then",
      "a[{\"x\": ];C(then)" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>{\"name\": \"a\", \"arguments\": {}}\nno end", "a[{}];C(no end)" },
    { WEIR_TOOLS_HERMES, 0, "a <tool_ca", "C(a <tool_ca)" },
    { WEIR_TOOLS_HERMES, 0, "a <<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", "C(a <)f[{}];" },
    { WEIR_TOOLS_HERMES, 1,
      "<think>I call <tool_call></think>\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
      "R(I call <tool_call>)f[{}];" },
    { WEIR_TOOLS_HERMES, 0, "{\"name\": \"f\", \"arguments\": {}}",
      "C({\"name\": \"f\", \"arguments\": {}})" },
    /* Qwen's coders */
    { WEIR_TOOLS_HERMES, 0,
      "I write.\n<tool_call>\n<function=write>\n<parameter=path>\n12\n</parameter>\n<parameter=text>\na "
      "\"b\"\n\n  <c> "
      "</para\n\n</parameter>\n<parameter=mode>\n420\n</parameter>\n</function>\n</tool_call>\nDone.",
      "C(I write.)write[{\"path\": \"12\", \"text\": \"a \\\"b\\\"\\n\\n  <c> </para\\n\", \"mode\": "
      "420}];C(Done.)" },
    { WEIR_TOOLS_HERMES, 0,
      "<tool_call><function=write><parameter=mode>yes\n\"</parameter><parameter=force>True</"
      "parameter><parameter=tags> "
      "[\"x\", 1] "
      "</parameter><parameter=maybe>null</parameter><parameter=kind>1</parameter></function></tool_call>",
      "write[{\"mode\": \"yes\\n\\\"\", \"force\": true, \"tags\": [\"x\", 1], \"maybe\": \"null\", "
      "\"kind\": \"1\"}];" },
    { WEIR_TOOLS_HERMES, 0,
      "<tool_call>\n<function=other>\n<parameter=n>\n-1.5e3\n</parameter>\n<parameter=q\"r>\n01\n</"
      "parameter>\n<parameter=e>"
      "\n\n</parameter>\n</function>\n<function=none>\n</function>\n</tool_call>",
      "other[{\"n\": -1.5e3, \"q\\\"r\": \"01\", \"e\": \"\"}];none[{}];" },
    /* What the schema calls text in a roundabout way is text; what it does not is JSON. */
    { WEIR_TOOLS_HERMES, 0,
      "<tool_call><function=paint><parameter=ref>1</parameter><parameter=may>1</parameter><parameter=all>1</"
      "parameter>"
      "<parameter=one>1</parameter><parameter=at>1</parameter><parameter=num>1</parameter><parameter=off>1</"
      "parameter>"
      "<parameter=loop>1</parameter></function></tool_call>",
      "paint[{\"ref\": \"1\", \"may\": \"1\", \"all\": \"1\", \"one\": \"1\", \"at\": \"1\", \"num\": 1, "
      "\"off\": 1, "
      "\"loop\": 1}];" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>\n<function=write>\n<parameter=path>\ncut \xc3\xbc off\n</para",
      "write[{\"path\": \"cut \xc3\xbc off\\n</para\"}];" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>\n<function=write>\n<parameter=mode>\n42", "write[{\"mode\": 42}];" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>\n<function=write>\nstray</tool_call>",
      "write[{}];C(stray</tool_call>)" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>\n<function=", "C(<tool_call>\n<function=)" },
    { WEIR_TOOLS_HERMES, 0, "<tool_call>\n<function=>x", "C(<tool_call>\n<function=>x)" },
    { WEIR_TOOLS_HERMES, 0, "See <function=f></function>", "C(See <function=f></function>)" },
    /* Llama 3 */
    { WEIR_TOOLS_LLAMA3, 0, "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Bern\"}}",
      "get_weather[{\"city\": \"Bern\"}];" },
    { WEIR_TOOLS_LLAMA3, 0, " \n{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"a\": {}}}",
      "f[{\"a\": {}}];" },
    { WEIR_TOOLS_LLAMA3, 0, "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"a\":1}}}",
      "f[{\"a\":1}];" },
    { WEIR_TOOLS_LLAMA3, 0, "{\"name\": \"a\", \"parameters\": {}}; {\"name\": \"b\", \"parameters\": {}}",
      "a[{}];b[{}];" },
    { WEIR_TOOLS_LLAMA3, 0, "<|python_tag|>{\"name\": \"a\", \"parameters\": {\"q\": 1}}", "a[{\"q\": 1}];" },
    { WEIR_TOOLS_LLAMA3, 0, "<|python_tag|>print(\"h\xc3\xa9\")\nx = 1",
      "code_interpreter[{\"code\":\"print(\\\"h\xc3\xa9\\\")\\nx = 1\"}];" },
    { WEIR_TOOLS_LLAMA3, 0, "{\"answer\": 42}", "C({\"answer\": 42})" },
    { WEIR_TOOLS_LLAMA3, 0, "{\"name\": \"Ann\", \"age\": 3}", "C({\"name\": \"Ann\", \"age\": 3})" },
    { WEIR_TOOLS_LLAMA3, 0, "See: {\"name\": \"a\", \"parameters\": {}}",
      "C(See: {\"name\": \"a\", \"parameters\": {}})" },
    { WEIR_TOOLS_LLAMA3, 0, "Just text <|py", "C(Just text <|py)" },
    { WEIR_TOOLS_LLAMA3, 0, "<|python_tag|>", "C(<|python_tag|>)" },
    /* Mistral */
    { WEIR_TOOLS_MISTRAL, 0,
      "[TOOL_CALLS] [{\"name\": \"a\", \"arguments\": {\"x\": 1}}, {\"name\": \"b\", \"arguments\": {}}]",
      "a[{\"x\": 1}];b[{}];" },
    { WEIR_TOOLS_MISTRAL, 0, "[TOOL_CALLS]get_it{\"x\": [1]}", "get_it[{\"x\": [1]}];" },
    { WEIR_TOOLS_MISTRAL, 0, "[TOOL_CALLS]a[ARGS]{\"x\": 1}[TOOL_CALLS]b[CALL_ID]q1w2[ARGS]{}",
      "a[{\"x\": 1}];b[{}];" },
    { WEIR_TOOLS_MISTRAL, 0, "Well [TOOL] [1]", "C(Well [TOOL] [1])" },
    { WEIR_TOOLS_MISTRAL, 0, "[TOOL_CALLS] oh no", "C([TOOL_CALLS] oh no)" },
    { WEIR_TOOLS_MISTRAL, 0, "[TOOL_CALLS][3]", "C([TOOL_CALLS][3])" },
    /* DeepSeek */
    { WEIR_TOOLS_DEEPSEEK, 2,
      "Hm.\n</think>\n\n" CALLS CALL "function" SEP "get\n```json\n{\"x\": \"`\"}\n```" CALL_END "\n" CALL
      "function" SEP "put\n```json\n{}\n```" CALL_END CALLS_END "ok",
      "R(Hm.)get[{\"x\": \"`\"}];put[{}];C(ok)" },
    { WEIR_TOOLS_DEEPSEEK, 0,
      "One.\n" CALLS CALL "get" SEP "{\"x\": 1}" CALL_END CALL "put" SEP "{}" CALL_END CALLS_END,
      "C(One.)get[{\"x\": 1}];put[{}];" },
    { WEIR_TOOLS_DEEPSEEK, 0, CALLS "hm", "C(" CALLS "hm)" },
    { WEIR_TOOLS_DEEPSEEK, 0, CALLS CALL "get" SEP "[1]", "C(" CALLS CALL "get" SEP "[1])" },
};
enum { N_ANSWERS = sizeof answers / sizeof *answers };

/* [W1] [W3] */
static void test_answers(void **state)
{
    struct weir_buf got;

    (void)state;
    weir_buf_init(&got, 0);
    for (int i = 0; i < N_ANSWERS; i++)
        for (uint32_t cut = 0; cut < 40; cut++) {
            const struct weir_output_format format = { .tools = answers[i].tools,
                                                       .think = answers[i].thinks > 2,
                                                       .thinks = answers[i].thinks > 0,
                                                       .in_reasoning =
                                                           answers[i].thinks == 2 || answers[i].thinks == 4,
                                                       .described = described,
                                                       .n_described = 2 };
            weir_buf_clear(&got);
            feed(&format, weir_str(answers[i].text), cut, &got);
            const char *text = weir_buf_cstr(&got);
            if (strcmp(text ? text : "", answers[i].events) != 0)
                fail_msg("cut %u of %s:\n  want %s\n  got  %s", cut, answers[i].text, answers[i].events,
                         text);
        }
    weir_buf_release(&got);
}

static void test_arguments_stream(void **state)
{
    const struct weir_output_format format = { .tools = WEIR_TOOLS_HERMES };
    struct seen seen = { .last = -1 };
    struct weir_output_parser *p = NULL;

    (void)state;
    weir_buf_init(&seen.text, 0);
    assert_int_equal(weir_output_parser_open(&format, on_event, &seen, &p), WEIR_OK);
    assert_int_equal(
        weir_output_parser_push(p, WEIR_STR("Hi <tool_call>{\"name\": \"f\", \"arguments\": {\"a")), WEIR_OK);
    assert_string_equal(weir_buf_cstr(&seen.text), "C(Hi)f[{\"a"); /* at once, not at the call's end */
    assert_int_equal(weir_output_parser_push(p, WEIR_STR("bc")), WEIR_OK);
    assert_string_equal(weir_buf_cstr(&seen.text), "C(Hi)f[{\"abc");
    weir_output_parser_close(p);
    weir_output_parser_close(NULL);
    weir_buf_release(&seen.text);
}

/* [W2] Long values, long names, many calls: bounded, and never lost. */
static void test_bounds(void **state)
{
    const struct weir_output_format format = { .tools = WEIR_TOOLS_HERMES };
    struct weir_buf text, got;

    (void)state;
    weir_buf_init(&text, 0);
    weir_buf_init(&got, 0);
    weir_buf_adds(&text, "<tool_call>{\"arguments\": \"");
    for (int i = 0; i < 300000; i++)
        weir_buf_addc(&text, 'x');
    weir_buf_adds(&text, "\", \"name\": \"f\"}</tool_call>");
    feed(&format, (struct weir_str){ weir_buf_ptr(&text), weir_buf_len(&text) }, 1, &got);
    assert_int_equal(weir_buf_len(&got), weir_buf_len(&text) + 3); /* C() */
    weir_buf_clear(&text);
    weir_buf_clear(&got);
    for (int i = 0; i < 200; i++)
        weir_buf_adds(&text, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\n");
    feed(&format, (struct weir_str){ weir_buf_ptr(&text), weir_buf_len(&text) }, 5, &got);
    size_t n_calls = 0;
    for (size_t i = 0; i < weir_buf_len(&got); i++)
        n_calls += weir_buf_ptr(&got)[i] == ';';
    assert_int_equal(n_calls, WEIR_OUTPUT_CALLS_MAX);
    assert_non_null(strstr(weir_buf_cstr(&got), "C(<tool_call>"));
    weir_buf_clear(&text);
    weir_buf_clear(&got);
    weir_buf_adds(&text, "<tool_call>{\"name\": \"");
    for (int i = 0; i < 300; i++)
        weir_buf_addc(&text, 'n');
    weir_buf_adds(&text, "\", \"arguments\": {}}</tool_call>");
    feed(&format, (struct weir_str){ weir_buf_ptr(&text), weir_buf_len(&text) }, 3, &got);
    assert_int_equal(weir_buf_ptr(&got)[0], 'C');
    weir_buf_release(&text);
    weir_buf_release(&got);
}

/* [W1] The bound on what comes before the arguments is in bytes, not in pieces. */
static void test_long_heads(void **state)
{
    static const struct {
        enum weir_tool_format tools;
        const char *begin, *end;
    } heads[] = { { WEIR_TOOLS_HERMES, "<tool_call>", "{\"name\": \"f\", \"arguments\": {}}" },
                  { WEIR_TOOLS_HERMES, "<tool_call>{", "\"arguments\": {}, \"name\": \"f\"}" },
                  { WEIR_TOOLS_MISTRAL, "[TOOL_CALLS]f", "{}" },
                  { WEIR_TOOLS_DEEPSEEK, CALLS CALL "function" SEP "f\n", "```json\n{}" } };
    struct weir_buf text, whole, pieces;

    (void)state;
    weir_buf_init(&text, 0);
    weir_buf_init(&whole, 0);
    weir_buf_init(&pieces, 0);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        const struct weir_output_format format = { .tools = heads[i].tools };
        for (int n = 3990; n < 4110; n++) {
            weir_buf_clear(&text);
            weir_buf_clear(&whole);
            weir_buf_clear(&pieces);
            weir_buf_addf(&text, "%s%*s%s", heads[i].begin, n, "", heads[i].end);
            struct weir_str all = { weir_buf_ptr(&text), weir_buf_len(&text) };
            feed(&format, all, /* cut= */ 0, &whole);
            feed(&format, all, /* cut= */ 7, &pieces);
            assert_string_equal(weir_buf_cstr(&whole), weir_buf_cstr(&pieces));
        }
        assert_int_equal(weir_buf_ptr(&whole)[0], 'C'); /* the longest are no calls */
    }
    weir_buf_release(&text);
    weir_buf_release(&whole);
    weir_buf_release(&pieces);
}

/* [W2] A model that writes white space for ever: with a quadratic step somewhere this would time out. */
static void test_much_white_space(void **state)
{
    static const char *const begins[] = {
        "", "x", "<think>", "[THINK]", "<|python_tag|>", "<tool_call>", "[TOOL_CALLS]", CALLS
    };
    enum { SPACES = 1 << 18, N_BEGINS = sizeof begins / sizeof *begins };

    (void)state;
    for (int i = 0; i < 5 * N_BEGINS; i++) {
        const struct weir_output_format format = { .tools = (enum weir_tool_format)(i / N_BEGINS),
                                                   .think = i % 2,
                                                   .thinks = true };
        struct weir_output_parser *p = NULL;
        struct seen seen = { .last = -1 };
        weir_buf_init(&seen.text, 0);
        assert_int_equal(weir_output_parser_open(&format, on_event, &seen, &p), WEIR_OK);
        assert_int_equal(weir_output_parser_push(p, weir_str(begins[i % N_BEGINS])), WEIR_OK);
        for (int k = 0; k < SPACES; k++)
            assert_int_equal(weir_output_parser_push(p, WEIR_STR("\n")), WEIR_OK);
        assert_int_equal(weir_output_parser_push(p, WEIR_STR("y")), WEIR_OK);
        assert_int_equal(weir_output_parser_finish(p), WEIR_OK);
        assert_non_null(strchr(weir_buf_cstr(&seen.text), 'y'));
        weir_output_parser_close(p);
        weir_buf_release(&seen.text);
    }
}

static void test_guessing(void **state)
{
    static const struct {
        const char *template_text, *prompt_end;
        bool has_tokens; /* [THINK] and [/THINK] are special tokens */
        struct weir_output_format want;
    } guesses[] = {
        { "{{ x }}", "assistant\n", false, { .tools = WEIR_TOOLS_NONE } },
        { "... <tool_call></tool_call> ...",
          "<|im_start|>assistant\n",
          false,
          { .tools = WEIR_TOOLS_HERMES } },
        { "<tool_call>\n<function=name>", "", false, { .tools = WEIR_TOOLS_HERMES, .in_tags = true } },
        { "<|python_tag|> <function=name>", "", false, { .tools = WEIR_TOOLS_LLAMA3 } },
        { "<tool_call> '</think>'", "assistant\n", false, { .tools = WEIR_TOOLS_HERMES, .thinks = true } },
        { "<tool_call> '</think>'",
          "<think>\n",
          false,
          { .tools = WEIR_TOOLS_HERMES, .thinks = true, .in_reasoning = true } },
        { "<tool_call> '</think>'", "<think>\n\n</think>\n\n", false, { .tools = WEIR_TOOLS_HERMES } },
        { "[INST] [TOOL_CALLS]", "[/INST]", false, { .tools = WEIR_TOOLS_MISTRAL } },
        { "<|start_header_id|> Environment: ipython", "", false, { .tools = WEIR_TOOLS_LLAMA3 } },
        { "<|python_tag|>", "", false, { .tools = WEIR_TOOLS_LLAMA3 } },
        { CALLS " </think>",
          "<think>",
          false,
          { .tools = WEIR_TOOLS_DEEPSEEK, .thinks = true, .in_reasoning = true } },
        { "[TOOL_CALLS] [THINK] [/THINK]",
          "[/INST]",
          false,
          { .tools = WEIR_TOOLS_MISTRAL, .think = WEIR_THINK_BRACKETS, .thinks = true } },
        { "[THINK] [/THINK]",
          "[/INST][THINK]",
          false,
          { .think = WEIR_THINK_BRACKETS, .thinks = true, .in_reasoning = true } },
        { "[THINK] [/THINK]", "[THINK][/THINK]\n", false, { .think = WEIR_THINK_BRACKETS } },
        /* the vocabulary is asked where the template says nothing, or both */
        { "no word of it", "[/INST]", true, { .think = WEIR_THINK_BRACKETS, .thinks = true } },
        { "</think>", "[/INST]", true, { .thinks = true } },
        { "</think> [/THINK]", "", false, { .thinks = true } },
        { "</think> [/THINK]", "", true, { .think = WEIR_THINK_BRACKETS, .thinks = true } },
        { "</think> [/THINK]", "<think>", true, { .thinks = true, .in_reasoning = true } },
    };
    struct weir_tokenizer *tok = NULL;
    char dir[64];

    (void)state;
    assert_true(thinking_model_make(dir));
    assert_int_equal(weir_tokenizer_open(dir, &tok, NULL), WEIR_OK);
    thinking_model_remove(dir);
    for (size_t i = 0; i < sizeof guesses / sizeof *guesses; i++) {
        const struct weir_output_format *want = &guesses[i].want;
        struct weir_output_format f;
        weir_output_format_guess(weir_str(guesses[i].template_text), guesses[i].has_tokens ? tok : NULL,
                                 weir_str(guesses[i].prompt_end), &f);
        if (f.tools != want->tools || f.in_tags != want->in_tags || f.think != want->think ||
            f.thinks != want->thinks || f.in_reasoning != want->in_reasoning)
            fail_msg("%s and %s: %d %d %d %d %d", guesses[i].template_text, guesses[i].prompt_end, f.tools,
                     f.in_tags, f.think, f.thinks, f.in_reasoning);
    }
    weir_tokenizer_close(tok);
    enum weir_tool_format tools = WEIR_TOOLS_NONE;
    assert_true(weir_tool_format_parse(WEIR_STR("mistral"), &tools));
    assert_int_equal(tools, WEIR_TOOLS_MISTRAL);
    assert_false(weir_tool_format_parse(WEIR_STR("other"), &tools));
}

static void test_special_markers(void **state)
{
    const struct weir_output_format llama = { .tools = WEIR_TOOLS_LLAMA3 },
                                    r1 = { .tools = WEIR_TOOLS_DEEPSEEK,
                                           .thinks = true,
                                           .in_reasoning = true },
                                    magistral = { .tools = WEIR_TOOLS_MISTRAL,
                                                  .think = WEIR_THINK_BRACKETS,
                                                  .thinks = true };

    (void)state;
    assert_true(weir_output_wants_special(&llama, WEIR_STR("<|python_tag|>")));
    assert_false(weir_output_wants_special(&llama, WEIR_STR("<|eot_id|>")));
    assert_false(weir_output_wants_special(&llama, WEIR_STR("</think>")));
    assert_true(weir_output_wants_special(&r1, WEIR_STR("</think>")));
    assert_true(weir_output_wants_special(&r1, WEIR_STR(SEP)));
    assert_false(weir_output_wants_special(&r1, WEIR_STR("[/THINK]")));
    assert_true(weir_output_wants_special(&magistral, WEIR_STR("[THINK]")));
    assert_true(weir_output_wants_special(&magistral, WEIR_STR("[/THINK]")));
}

static void ignore(void *ctx, const struct weir_output_event *e)
{
    (void)ctx;
    (void)e;
}

static weir_err parse_all(const struct weir_output_format *format, struct weir_str text)
{
    struct weir_output_parser *p = NULL;
    weir_err err = weir_output_parser_open(format, ignore, NULL, &p);

    if (err == WEIR_OK)
        err = weir_output_parser_push(p, text);
    if (err == WEIR_OK)
        err = weir_output_parser_finish(p);
    weir_output_parser_close(p);
    return err;
}

static void test_no_memory(void **state)
{
    (void)state;
    for (int i = 0; i < N_ANSWERS; i++) {
        const struct weir_output_format format = { .tools = answers[i].tools,
                                                   .think = answers[i].thinks > 2,
                                                   .thinks = true,
                                                   .described = described,
                                                   .n_described = 2 };
        weir_err err = WEIR_NOMEM;
        for (long n = 0; err != WEIR_OK; n++) {
            weir_test_alloc_budget(n);
            err = parse_all(&format, weir_str(answers[i].text));
            weir_test_alloc_budget(-1);
            assert_true(err == WEIR_OK || err == WEIR_NOMEM);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),         cmocka_unit_test(test_arguments_stream),
        cmocka_unit_test(test_bounds),          cmocka_unit_test(test_much_white_space),
        cmocka_unit_test(test_long_heads),      cmocka_unit_test(test_guessing),
        cmocka_unit_test(test_special_markers), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
