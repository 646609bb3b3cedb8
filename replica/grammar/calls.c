/* calls.c - calls of tools as models write them, each bound by the schema of that tool's arguments.
 *
 * In JSON the name comes first, so that whoever reads along knows the tool before its arguments. Each schema is a whole of
 * its own: "#/..." in it points into it. */
#include "replica/grammar/schema_int.h"

/* {"name": ..., "arguments": ...} */
static struct gram_expr *object_call(struct schema *s, const struct gj *name, const char *key,
                                     struct gj *parameters, const struct schema_path *path)
{
    struct gram_build *b = s->b;
    struct gram_expr *ws = json_call(&s->json, JSON_WS);
    struct gram_expr *parts[] = {
        gram_text(b, "{"), ws, gram_text(b, "\"name\":"), ws, gram_bytes(b, gj_text(b, name)),  ws,
        gram_text(b, ","), ws, gram_text(b, key),         ws, schema_call(s, parameters, path), ws,
        gram_text(b, "}")
    };

    return gram_cat(b, parts, sizeof parts / sizeof *parts);
}

static struct gram_expr *one_call(struct schema *s, enum weir_grammar_call_form form, const struct gj *tool)
{
    const struct gj *name = gj_get(s->b, tool, "name");
    struct gj *parameters = gj_get(s->b, tool, "parameters");

    if (!name || name->type != WEIR_JSON_STRING || !parameters)
        return schema_fail(s, NULL, WEIR_INVALID, "a tool without a name or a schema");
    const struct schema_path path = { NULL, name->text, -1 };
    s->root = parameters;
    switch (form) {
    case WEIR_CALL_BARE:
        return schema_call(s, parameters, &path);
    case WEIR_CALL_TAGS:
        return tags_call(s, name->text, parameters, &path);
    default:
        return object_call(
            s, name, form == WEIR_CALL_PARAMETERS ? "\"parameters\":" : "\"arguments\":", parameters, &path);
    }
}

/* [call, call, ...] */
static struct gram_expr *list_of(struct schema *s, struct gram_expr *call, uint32_t n_max)
{
    struct gram_build *b = s->b;
    struct gram_expr *ws = json_call(&s->json, JSON_WS), *item = gram_cat2(b, call, ws);
    struct gram_expr *more = gram_repeat(b, gram_cat3(b, gram_text(b, ","), ws, item), 0, n_max - 1);

    return gram_cat(b, (struct gram_expr *[]){ gram_text(b, "["), ws, item, more, gram_text(b, "]") }, 5);
}

bool gram_calls(struct gram_build *b, const struct weir_grammar_calls *calls, bool compact,
                uint32_t *ret_root)
{
    struct schema s = { .b = b, .json = { .b = b, .compact = compact } };
    struct gram_list parts = { 0 };
    const struct gj *tools = gj_parse(b, calls->tools);

    b->in_tags = calls->form == WEIR_CALL_TAGS;
    if (tools && (tools->type != WEIR_JSON_ARRAY || tools->n == 0))
        return gram_fail(b, WEIR_INVALID, "there are no tools to call");
    for (uint32_t i = 0; tools && i < tools->n; i++)
        if (!gram_list_add(b, &parts, one_call(&s, calls->form, tools->items[i])))
            return false;
    struct gram_expr *call = gram_alt(b, parts.at, parts.n);
    if (calls->form == WEIR_CALL_LIST)
        call = list_of(&s, gram_call(b, gram_rule_add(b, WEIR_STR("a call"), call, false)), calls->n_max);
    *ret_root = gram_rule_add(b, WEIR_STR("the calls"), call, /* stays= */ false);
    return b->err == WEIR_OK;
}
