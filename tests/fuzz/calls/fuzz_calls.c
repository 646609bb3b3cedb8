/* fuzz_calls.c - a call in tags that the grammar of a tool permits is read back as that one call, with nothing beside it,
 * and its arguments are a JSON object.
 *
 * Input: the schema of the tool's arguments. A walk takes what the mask permits, led by the schema's own bytes and, after
 * a while, towards the end. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "replica/grammar/grammar.h"
#include "replica/text/tool_parse.h"

enum { N_TOKENS = 259, STEPS = 600, TEXT_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const int32_t end = 256;
static struct weir_str tokens[N_TOKENS];

static struct weir_grammar_vocab *make_vocab(void)
{
    static char bytes[256];
    struct weir_grammar_vocab *vocab = NULL;

    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = (struct weir_str){ &bytes[i], 1 };
    }
    tokens[257] = WEIR_STR("\n</parameter>\n");
    tokens[258] = WEIR_STR("</function>");
    if (weir_grammar_vocab_open_list(tokens, N_TOKENS, &end, 1, &vocab, NULL) != WEIR_OK)
        abort();
    return vocab;
}

static bool has(const uint32_t *bits, int32_t id)
{
    return bits[id / 32] >> (id % 32) & 1;
}

static int32_t choose(const uint32_t *bits, uint32_t seed, bool home)
{
    static const int32_t closers[] = { 256, 257, 258, '"', ']', '}' };

    for (int i = 0; home && i < 6; i++)
        if (has(bits, closers[i]))
            return closers[i];
    for (uint32_t k = 0; k < N_TOKENS; k++)
        if (has(bits, (int32_t)((seed + k) % N_TOKENS)))
            return (int32_t)((seed + k) % N_TOKENS);
    return -1;
}

/* False: it has not come to its end. */
static bool walk(struct weir_grammar *g, const uint8_t *data, size_t size, struct weir_buf *out)
{
    struct weir_grammar_state *st = NULL;
    uint32_t bits[N_TOKENS / 32 + 1];
    int32_t id = -1;

    if (weir_grammar_state_open(g, &st, NULL) != WEIR_OK)
        return false;
    for (size_t n = 0; n < STEPS; n++) {
        weir_grammar_state_mask(st, bits, N_TOKENS);
        id = choose(bits, data[n * 7 % size] * 2654435761u + (uint32_t)n * 40503u, n > STEPS / 4);
        if (id < 0 || !weir_grammar_state_accept(st, id) || id == end)
            break;
        weir_buf_add(out, tokens[id].ptr, tokens[id].len);
    }
    weir_grammar_state_close(st);
    return id == end;
}

struct seen {
    struct weir_buf arguments;
    int n_calls, n_ended;
};

static void on_event(void *ctx, const struct weir_output_event *e)
{
    struct seen *seen = ctx;

    if (e->kind == WEIR_OUTPUT_CONTENT || e->kind == WEIR_OUTPUT_REASONING)
        abort();
    seen->n_calls += e->kind == WEIR_OUTPUT_CALL;
    seen->n_ended += e->kind == WEIR_OUTPUT_CALL_END;
    if (e->kind == WEIR_OUTPUT_ARGUMENTS)
        weir_buf_add(&seen->arguments, e->text.ptr, e->text.len);
}

static void read_back(struct weir_str schema, struct weir_str text)
{
    const struct weir_output_tool tool = { WEIR_STR("f"), schema };
    const struct weir_output_format format = { .tools = WEIR_TOOLS_HERMES,
                                               .described = &tool,
                                               .n_described = 1 };
    struct weir_output_parser *p = NULL;
    struct seen seen = { .n_calls = 0 };

    weir_buf_init(&seen.arguments, 0);
    if (weir_output_parser_open(&format, on_event, &seen, &p) != WEIR_OK ||
        weir_output_parser_push(p, WEIR_STR("<tool_call>\n")) != WEIR_OK ||
        weir_output_parser_push(p, text) != WEIR_OK || weir_output_parser_finish(p) != WEIR_OK)
        abort();
    weir_output_parser_close(p);
    json_t *value =
        json_loadb(weir_buf_ptr(&seen.arguments), weir_buf_len(&seen.arguments), JSON_ALLOW_NUL, NULL);
    if (seen.n_calls != 1 || seen.n_ended != 1 || !json_is_object(value))
        abort();
    json_decref(value);
    weir_buf_release(&seen.arguments);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct weir_grammar_vocab *vocab;
    struct weir_str schema = { (const char *)data, size };
    struct weir_grammar *g = NULL;
    struct weir_why why = { .text = "" };
    struct weir_buf tools, text;

    if (!vocab)
        vocab = make_vocab();
    json_t *value = size > 0 && size <= TEXT_MAX ? json_loadb(schema.ptr, size, 0, NULL) : NULL;
    if (!value) /* it would not stay one member of the list of tools */
        return 0;
    json_decref(value);
    weir_buf_init(&tools, 0);
    weir_buf_init(&text, 0);
    weir_buf_addf(&tools, "[{\"name\":\"f\",\"parameters\":%.*s}]", WEIR_STR_FMT(schema));
    const struct weir_grammar_calls calls = { .form = WEIR_CALL_TAGS,
                                              .tools = { weir_buf_ptr(&tools), weir_buf_len(&tools) } };
    weir_err err = weir_grammar_compile_calls(vocab, &calls, NULL, &g, &why);
    if (err != WEIR_OK && (g || !why.text[0] || !why.param[0] || err == WEIR_INTERNAL))
        abort();
    if (err == WEIR_OK && walk(g, data, size, &text))
        read_back(schema, (struct weir_str){ weir_buf_ptr(&text), weir_buf_len(&text) });
    weir_grammar_unref(g);
    weir_buf_release(&tools);
    weir_buf_release(&text);
    return 0;
}
