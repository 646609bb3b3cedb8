/* fuzz_template.c - any source compiles or is refused with a reason, and what compiles renders within its
 * bounds.
 *
 * Input: the source. Rendering the same twice gives the same, asked for spans or not; the text is UTF-8 and no longer
 * than allowed; the spans are in order and within it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "replica/text/template.h"

enum { TEXT_BYTES_MAX = 64 << 10 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct weir_chat_message messages[] = {
    { { "system", 6 }, { " Be brief.\n", 11 } },
    { { "user", 4 }, { "\xe6\xb0\xb4 <|x|> 'q' \"d\" 12", 21 } },
    { { "assistant", 9 }, { "<think>\nhm\n</think>\n\nyes", 25 } },
    { { "user", 4 }, { "", 0 } },
};

static weir_err render(const struct weir_template *t, bool with_spans, struct weir_buf *out,
                       struct weir_why *why)
{
    const struct weir_template_args args = {
        .messages = messages,
        .n_messages = 4,
        .add_generation_prompt = true,
        .bos = WEIR_STR("<s>"),
        .eos = WEIR_STR("</s>"),
        .now_unix = 1732152000,
        .variables = WEIR_STR("{\"tools\":[{\"function\":{\"name\":\"f\",\"n\":[1,2.5,null,true]}}],\"n\":7,"
                              "\"l\":[3,1,2],\"s\":\"Hello\",\"d\":{\"b\":1,\"a\":[]}}"),
    };

    struct weir_arena arena;
    struct weir_span *spans = NULL;
    size_t n = 0;

    weir_buf_init(out, TEXT_BYTES_MAX);
    if (!with_spans)
        return weir_template_render(t, &args, out, why);
    weir_arena_init(&arena, 0);
    weir_err err = weir_template_render_spans(t, &args, out, &arena, &spans, &n, why);
    for (size_t i = 0; err == WEIR_OK && i < n; i++)
        if (spans[i].begin >= spans[i].end || (i > 0 && spans[i].begin <= spans[i - 1].end) ||
            spans[i].end > weir_buf_len(out))
            abort();
    weir_arena_release(&arena);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weir_template *t = NULL;
    struct weir_why why = { 0 };
    struct weir_buf first, second;
    weir_err err = weir_template_compile((struct weir_str){ (const char *)data, size }, &t, &why);

    if (err != WEIR_OK) {
        if (t || !why.text[0])
            abort(); /* refused without a reason */
        return 0;
    }
    err = render(t, false, &first, &why);
    if (err == WEIR_INTERNAL || (err != WEIR_OK && !weir_utf8_valid(why.text, strlen(why.text))))
        abort();
    if (render(t, true, &second, &why) != err || weir_buf_len(&first) != weir_buf_len(&second))
        abort(); /* the first rendering left something behind, or spans change the text */
    if (weir_buf_len(&first) > TEXT_BYTES_MAX)
        abort();
    if (err == WEIR_OK && !weir_utf8_valid(weir_buf_ptr(&first), weir_buf_len(&first)))
        abort();
    weir_buf_release(&first);
    weir_buf_release(&second);
    weir_template_close(t);
    return 0;
}
