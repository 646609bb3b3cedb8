/* tool_format.c - which format a chat template's text speaks of, and the markers of each.
 *
 * Reasoning stands between marks of one of two forms. Which one is this model's, the end of the prompt says first, where
 * the template begins the reasoning itself; then the template's text; then special tokens that are such marks. */
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

/* ---- reasoning ---- */

static const struct weir_think_marks think_marks[] = {
    [WEIR_THINK_TAGS] = { "<think>", "</think>", "\n\n" },
    [WEIR_THINK_BRACKETS] = { "[THINK]", "[/THINK]", "" },
};
enum { N_THINK_FORMS = sizeof think_marks / sizeof *think_marks };

const struct weir_think_marks *weir_think_marks_of(enum weir_think_form form)
{
    return &think_marks[form];
}

bool weir_think_is_end(struct weir_str token)
{
    for (int i = 0; i < N_THINK_FORMS; i++)
        if (weir_str_eq(token, think_marks[i].end))
            return true;
    return false;
}

static bool is_special(const struct weir_tokenizer *tok, const char *mark)
{
    int32_t id = tok ? weir_token_id(tok, weir_str(mark)) : -1;

    return id >= 0 && weir_token_is_special(tok, id);
}

static void guess_reasoning(struct weir_str template_text, const struct weir_tokenizer *tok,
                            struct weir_str prompt_end, struct weir_output_format *ret)
{
    int most = 0;

    for (int i = 0; i < N_THINK_FORMS; i++) {
        const struct weir_think_marks *marks = &think_marks[i];
        bool begun = ends_with(prompt_end, marks->begin);
        int signs = 4 * begun + 2 * has(template_text, marks->end) +
                    (is_special(tok, marks->begin) && is_special(tok, marks->end));
        if (signs <= most)
            continue;
        most = signs;
        ret->think = (enum weir_think_form)i;
        ret->in_reasoning = begun;
        ret->thinks = begun || !ends_with(prompt_end, marks->end); /* else the prompt has had it */
    }
}

/* ---- the whole ---- */

void weir_output_format_guess(struct weir_str template_text, const struct weir_tokenizer *tok,
                              struct weir_str prompt_end, struct weir_output_format *ret)
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
    ret->in_tags = ret->tools == WEIR_TOOLS_HERMES && has(template_text, FUNCTION);
    guess_reasoning(template_text, tok, prompt_end, ret);
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

    const struct weir_think_marks *marks = &think_marks[format->think];
    if (weir_str_eq(token, marks->begin) || weir_str_eq(token, marks->end))
        return format->thinks || format->in_reasoning;
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++)
        if (markers[i].tools == format->tools && weir_str_eq(token, markers[i].marker))
            return true;
    return false;
}
