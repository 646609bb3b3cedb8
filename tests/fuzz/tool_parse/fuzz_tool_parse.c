/* fuzz_tool_parse.c - an answer gives the same events in one piece and in many.
 *
 * Input: a byte for the format, one for how to cut, then the answer (UTF-8). Calls begin and end in turn, no event is
 * empty, and nothing but markers and white space is lost: content that holds no marker comes out whole. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "replica/text/tool_parse.h"

enum { TEXT_MAX = 8192 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct weir_buf text; /* kinds and what they say, pieces joined */
    int last;
    bool in_call;
};

static void on_event(void *ctx, const struct weir_output_event *e)
{
    struct seen *seen = ctx;
    bool of_call = e->kind == WEIR_OUTPUT_ARGUMENTS || e->kind == WEIR_OUTPUT_CALL_END;

    if (of_call != seen->in_call || (e->kind != WEIR_OUTPUT_CALL_END && e->text.len == 0))
        abort();
    seen->in_call = e->kind == WEIR_OUTPUT_CALL || e->kind == WEIR_OUTPUT_ARGUMENTS;
    if ((int)e->kind != seen->last) /* else the same text goes on */
        weir_buf_addc(&seen->text, (char)('0' + e->kind));
    weir_buf_add(&seen->text, e->text.ptr, e->text.len);
    seen->last = (int)e->kind;
}

static void feed(const struct weir_output_format *format, struct weir_str text, uint32_t cut,
                 struct seen *seen)
{
    struct weir_output_parser *p = NULL;

    *seen = (struct seen){ .last = -1 };
    weir_buf_init(&seen->text, 0);
    if (weir_output_parser_open(format, on_event, seen, &p) != WEIR_OK)
        abort();
    for (size_t i = 0; i < text.len;) {
        size_t n = cut ? 0 : text.len;
        for (uint32_t k = cut ? 1 + (cut = cut * 1664525u + 1013904223u) / 65536 % 9 : 0;
             k > 0 && i + n < text.len; k--)
            n += weir_utf8_step(text.ptr + i + n, text.len - i - n);
        if (weir_output_parser_push(p, (struct weir_str){ text.ptr + i, n }) != WEIR_OK)
            abort();
        i += n;
    }
    if (weir_output_parser_finish(p) != WEIR_OK || seen->in_call)
        abort();
    weir_output_parser_close(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen whole, pieces;

    if (size < 2 || size > TEXT_MAX || !weir_utf8_valid((const char *)data + 2, size - 2))
        return 0;
    static const struct weir_output_tool tool = {
        WEIR_STR("f"),
        WEIR_STR(
            "{\"properties\": {\"s\": {\"type\": \"string\"}, \"n\": {\"type\": \"integer\"}, \"r\": "
            "{\"$ref\": "
            "\"#/properties/a/anyOf/1\"}, \"a\": {\"anyOf\": [{\"const\": 1}, {\"enum\": [\"x\"]}]}}}")
    };
    const struct weir_output_format format = { .tools = data[0] % 5,
                                               .think = data[0] / 15 % 2,
                                               .thinks = data[0] / 5 % 3 > 0,
                                               .in_reasoning = data[0] / 5 % 3 == 2,
                                               .described = &tool,
                                               .n_described = 1 };
    struct weir_str text = { (const char *)data + 2, size - 2 };
    feed(&format, text, 0, &whole);
    feed(&format, text, data[1] + 1u, &pieces);
    if (weir_buf_len(&whole.text) != weir_buf_len(&pieces.text) ||
        (weir_buf_len(&whole.text) &&
         memcmp(weir_buf_ptr(&whole.text), weir_buf_ptr(&pieces.text), weir_buf_len(&whole.text)) != 0))
        abort();
    if (format.tools == WEIR_TOOLS_NONE && !format.thinks && text.len > 0 &&
        (weir_buf_len(&whole.text) != text.len + 1 ||
         memcmp(weir_buf_ptr(&whole.text) + 1, text.ptr, text.len) != 0))
        abort();
    weir_buf_release(&whole.text);
    weir_buf_release(&pieces.text);
    return 0;
}
