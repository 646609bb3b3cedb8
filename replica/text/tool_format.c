/* tool_format.c - which format a chat template's text speaks of, and the markers of each. */
#include "replica/text/tool_parse_int.h"

#include <string.h>

static bool has(struct weir_str text, const char *what)
{
    return text.len > 0 && memmem(text.ptr, text.len, what, strlen(what)) != NULL;
}

static bool ends_with(struct weir_str text, const char *what)
{
    size_t n = strlen(what);

    while (text.len > 0 && parse_is_space(text.ptr[text.len - 1]))
        text.len--;
    return text.len >= n && memcmp(text.ptr + text.len - n, what, n) == 0;
}

void weir_output_format_guess(struct weir_str template_text, struct weir_str prompt_end,
                              struct weir_output_format *ret)
{
    *ret = (struct weir_output_format){ .tools = WEIR_TOOLS_NONE };
    if (has(template_text, DS_CALLS))
        ret->tools = WEIR_TOOLS_DEEPSEEK;
    else if (has(template_text, HERMES))
        ret->tools = WEIR_TOOLS_HERMES;
    else if (has(template_text, MISTRAL))
        ret->tools = WEIR_TOOLS_MISTRAL;
    else if (has(template_text, PYTHON) ||
             (has(template_text, "<|start_header_id|>") && has(template_text, "ipython")))
        ret->tools = WEIR_TOOLS_LLAMA3;
    ret->in_reasoning = ends_with(prompt_end, THINK);
    /* A prompt that ends behind the reasoning has had it. */
    ret->thinks = ret->in_reasoning || (has(template_text, THINK_END) && !ends_with(prompt_end, THINK_END));
}

bool weir_tool_format_parse(struct weir_str name, enum weir_tool_format *ret)
{
    static const char *const names[] = { "none", "llama3", "hermes", "mistral", "deepseek" };

    for (int i = 0; i < 5; i++)
        if (weir_str_eq(name, names[i])) {
            *ret = (enum weir_tool_format)i;
            return true;
        }
    return false;
}

bool weir_output_wants_special(const struct weir_output_format *format, struct weir_str token)
{
    static const struct {
        enum weir_tool_format tools;
        const char *marker;
    } markers[] = {
        { WEIR_TOOLS_LLAMA3, PYTHON },      { WEIR_TOOLS_HERMES, HERMES },
        { WEIR_TOOLS_HERMES, HERMES_END },  { WEIR_TOOLS_MISTRAL, MISTRAL },
        { WEIR_TOOLS_MISTRAL, MISTRAL_ID }, { WEIR_TOOLS_MISTRAL, MISTRAL_ARGS },
        { WEIR_TOOLS_DEEPSEEK, DS_CALLS },  { WEIR_TOOLS_DEEPSEEK, DS_CALLS_END },
        { WEIR_TOOLS_DEEPSEEK, DS_CALL },   { WEIR_TOOLS_DEEPSEEK, DS_CALL_END },
        { WEIR_TOOLS_DEEPSEEK, DS_SEP },
    };

    if (weir_str_eq(token, THINK) || weir_str_eq(token, THINK_END))
        return format->thinks || format->in_reasoning;
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++)
        if (markers[i].tools == format->tools && weir_str_eq(token, markers[i].marker))
            return true;
    return false;
}
