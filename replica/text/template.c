/* template.c - compiling and rendering a chat template.
 *
 * A compiled template is only read; a rendering owns its values and its scopes and frees them whole.
 *   [C1] A rendering ends: TMPL_STEPS_MAX steps (more for long messages), TMPL_DEPTH_MAX levels,
 * TMPL_RUN_BYTES_MAX bytes of values, and the caller's bound on the text. */
#include "replica/text/tmpl_int.h"

#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

weir_err weir_template_compile(struct weir_str source, struct weir_template **ret, struct weir_why *why)
{
    struct weir_template *t = weir_alloc0(sizeof *t);
    struct tmpl_token *tokens;

    if (!t)
        return weir_fail(why, WEIR_NOMEM, "no memory for the template");
    weir_arena_init(&t->arena, /* limit_bytes= */ 0); /* TMPL_SOURCE_BYTES_MAX bounds it */
    weir_err err = tmpl_lex(t, source, &tokens, why);
    if (err == WEIR_OK)
        err = tmpl_parse(t, tokens, why);
    if (err != WEIR_OK) {
        weir_template_close(t);
        return err;
    }
    *ret = t;
    return WEIR_OK;
}

void weir_template_close(struct weir_template *t)
{
    if (!t)
        return;
    weir_arena_release(&t->arena);
    weir_free(t);
}

/* ---- rendering ---- */

/* Sets a variable, if the template names it at all. */
static bool set_named(struct tmpl_run *run, struct tmpl_scope *scope, struct weir_str name,
                      struct tmpl_value value)
{
    for (uint32_t i = 0; i < run->tmpl->n_names; i++) {
        const struct weir_str *have = &run->tmpl->names[i];
        if (have->len == name.len && memcmp(have->ptr, name.ptr, name.len) == 0)
            return tmpl_set_var(run, scope, i, value);
    }
    return true;
}

static bool make_messages(struct tmpl_run *run, const struct weir_template_args *args, struct tmpl_value *ret)
{
    if (!tmpl_new_list(run, TMPL_LIST, ret))
        return false;
    for (int i = 0; i < args->n_messages; i++) {
        const struct weir_chat_message *m = &args->messages[i];
        struct tmpl_value message;
        if (!weir_utf8_valid(m->role.ptr, m->role.len) || !weir_utf8_valid(m->content.ptr, m->content.len))
            return tmpl_fail(run, WEIR_INVALID, "message %d is not UTF-8", i);
        if (!tmpl_give(run, m->role) || !tmpl_give(run, m->content) ||
            !tmpl_new_dict(run, TMPL_DICT, &message) ||
            !tmpl_dict_set(run, message.dict, tmpl_str(WEIR_STR("role")), tmpl_str(m->role)) ||
            !tmpl_dict_set(run, message.dict, tmpl_str(WEIR_STR("content")), tmpl_str(m->content)) ||
            !tmpl_push(run, ret->list, message))
            return false;
    }
    return true;
}

/* The caller's own variables; they come last and win. */
static bool set_extra(struct tmpl_run *run, struct tmpl_scope *scope, struct weir_str json)
{
    struct tmpl_value extra;

    if (json.len == 0)
        return true;
    if (!tmpl_from_json(run, json, &extra))
        return false;
    if (extra.kind != TMPL_DICT)
        return tmpl_fail(run, WEIR_INVALID, "the template's variables are not an object");
    for (size_t i = 0; i < extra.dict->n; i++)
        if (!set_named(run, scope, extra.dict->at[i].key.str, extra.dict->at[i].value))
            return false;
    return true;
}

static bool set_variables(struct tmpl_run *run, struct tmpl_scope *scope,
                          const struct weir_template_args *args)
{
    struct tmpl_value messages;

    /* What transformers passes when there are none. */
    return make_messages(run, args, &messages) && set_named(run, scope, WEIR_STR("messages"), messages) &&
           set_named(run, scope, WEIR_STR("tools"), tmpl_none()) &&
           set_named(run, scope, WEIR_STR("documents"), tmpl_none()) &&
           set_named(run, scope, WEIR_STR("add_generation_prompt"), tmpl_bool(args->add_generation_prompt)) &&
           (args->bos.len == 0 || set_named(run, scope, WEIR_STR("bos_token"), tmpl_str(args->bos))) &&
           (args->eos.len == 0 || set_named(run, scope, WEIR_STR("eos_token"), tmpl_str(args->eos))) &&
           set_extra(run, scope, args->variables);
}

static size_t input_bytes(const struct weir_template_args *args)
{
    size_t n = args->variables.len;

    for (int i = 0; i < args->n_messages; i++)
        n += args->messages[i].role.len + args->messages[i].content.len;
    return n;
}

/* The marks of the text itself are all that is left: every capture was taken. */
static weir_err copy_spans(struct tmpl_run *run, size_t n_before, struct weir_arena *arena,
                           struct weir_span **ret, size_t *ret_n)
{
    const struct tmpl_given *given = run->given;
    struct weir_span *spans = weir_arena_alloc(arena, (given->n_marks + 1) * sizeof *spans);

    if (!spans) {
        tmpl_fail(run, WEIR_NOMEM, "no memory for the spans");
        return run->err;
    }
    for (size_t i = 0; i < given->n_marks; i++)
        spans[i] = (struct weir_span){ given->marks[i].begin - n_before, given->marks[i].end - n_before };
    *ret = spans;
    *ret_n = given->n_marks;
    return WEIR_OK;
}

/* spans may be NULL: nobody asks. */
static weir_err render(const struct weir_template *t, const struct weir_template_args *args,
                       struct weir_buf *out, struct weir_arena *arena, struct weir_span **ret_spans,
                       size_t *ret_n_spans, struct weir_why *why)
{
    size_t n_input = input_bytes(args), n_before = weir_buf_len(out);
    struct tmpl_run run = { .tmpl = t, .out = out, .now_unix = args->now_unix, .line = 1, .why = why };
    struct tmpl_scope scope = { NULL, NULL };
    struct tmpl_given given = { .root = NULL };

    if (ret_spans)
        run.given = &given;
    run.steps_left = TMPL_STEPS_MAX + (int64_t)(n_input / TMPL_STEP_BYTES); /* [C1] */
    weir_arena_init(&run.arena, TMPL_RUN_BYTES_MAX + 16 * n_input);
    if (set_variables(&run, &scope, args) && tmpl_exec(&run, t->body, &scope) && ret_spans)
        copy_spans(&run, n_before, arena, ret_spans, ret_n_spans);
    weir_arena_release(&run.arena);
    return run.err;
}

weir_err weir_template_render(const struct weir_template *t, const struct weir_template_args *args,
                              struct weir_buf *out, struct weir_why *why)
{
    return render(t, args, out, NULL, NULL, NULL, why);
}

weir_err weir_template_render_spans(const struct weir_template *t, const struct weir_template_args *args,
                                    struct weir_buf *out, struct weir_arena *arena,
                                    struct weir_span **ret_spans, size_t *ret_n_spans, struct weir_why *why)
{
    return render(t, args, out, arena, ret_spans, ret_n_spans, why);
}
