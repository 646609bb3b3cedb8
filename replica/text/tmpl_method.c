/* tmpl_method.c - methods of lists, dicts, loops and cyclers, and how a method is found; those of strings are in tmpl_method_text.c.
 * What would change a value is forbidden, as in jinja2's immutable sandbox. */
#include "replica/text/tmpl_method.h"

/* ---- lists and tuples ---- */

METHOD(l_index)
{
    UNUSED_ARGS;
    for (size_t i = 0; i < self.list->n; i++) {
        if (tmpl_equal(run, self.list->at[i], argv[0])) {
            *ret = tmpl_int((int64_t)i);
            return true;
        }
    }
    return tmpl_fail(run, WEIR_INVALID, "index: the item is not there");
}

METHOD(l_count)
{
    int64_t n = 0;

    UNUSED_ARGS;
    for (size_t i = 0; i < self.list->n; i++)
        n += tmpl_equal(run, self.list->at[i], argv[0]);
    *ret = tmpl_int(n);
    return run->err == WEIR_OK;
}

/* Values never change, so a copy is the same. */
METHOD(m_copy)
{
    UNUSED_ARGS;
    *ret = self;
    return true;
}

/* ---- dicts ---- */

METHOD(d_get)
{
    const struct tmpl_value *value = tmpl_dict_get(run, self.dict, argv[0]);

    (void)args;
    *ret = value ? *value : argv[1].kind == TMPL_UNSET ? tmpl_none() : argv[1];
    return true;
}

static bool dict_parts(struct tmpl_run *run, const struct tmpl_dict *dict, bool values,
                       struct tmpl_value *ret)
{
    if (!tmpl_new_list(run, TMPL_LIST, ret))
        return false;
    for (size_t i = 0; i < dict->n; i++)
        if (!tmpl_push(run, ret->list, values ? dict->at[i].value : dict->at[i].key))
            return false;
    return true;
}

METHOD_IS(d_keys, dict_parts(run, self.dict, false, ret))
METHOD_IS(d_values, dict_parts(run, self.dict, true, ret))
METHOD_IS(d_items, tmpl_pairs(run, self.dict, ret))

/* ---- loops ---- */

METHOD(o_cycle)
{
    (void)argv;
    if (args->n == 0)
        return tmpl_fail(run, WEIR_INVALID, "loop.cycle: nothing to cycle through");
    *ret = args->at[self.loop->i % (size_t)args->n];
    return true;
}

METHOD(o_changed)
{
    struct tmpl_value now;

    (void)argv;
    if (!tmpl_new_list(run, TMPL_TUPLE, &now))
        return false;
    for (int i = 0; i < args->n; i++)
        if (!tmpl_push(run, now.list, args->at[i]))
            return false;
    *ret = tmpl_bool(self.loop->changed.kind == TMPL_UNSET || !tmpl_equal(run, self.loop->changed, now));
    self.loop->changed = now;
    return run->err == WEIR_OK;
}

/* ---- cyclers ---- */

METHOD(c_next)
{
    UNUSED_ARGS;
    *ret = self.cycler->items->at[self.cycler->i];
    self.cycler->i = (self.cycler->i + 1) % self.cycler->items->n;
    return true;
}

METHOD(c_reset)
{
    UNUSED_ARGS;
    self.cycler->i = 0;
    *ret = tmpl_none();
    return true;
}

static const struct tmpl_method methods[] = {
    { TMPL_LIST, "append", NULL, NULL },       { TMPL_LIST, "clear", NULL, NULL },
    { TMPL_LIST, "copy", "", m_copy },         { TMPL_LIST, "count", "value", l_count },
    { TMPL_LIST, "extend", NULL, NULL },       { TMPL_LIST, "index", "value", l_index },
    { TMPL_LIST, "insert", NULL, NULL },       { TMPL_LIST, "pop", NULL, NULL },
    { TMPL_LIST, "remove", NULL, NULL },       { TMPL_LIST, "reverse", NULL, NULL },
    { TMPL_LIST, "sort", NULL, NULL },         { TMPL_TUPLE, "count", "value", l_count },
    { TMPL_TUPLE, "index", "value", l_index }, { TMPL_DICT, "clear", NULL, NULL },
    { TMPL_DICT, "copy", "", m_copy },         { TMPL_DICT, "get", "key,default", d_get },
    { TMPL_DICT, "items", "", d_items },       { TMPL_DICT, "keys", "", d_keys },
    { TMPL_DICT, "pop", NULL, NULL },          { TMPL_DICT, "popitem", NULL, NULL },
    { TMPL_DICT, "setdefault", NULL, NULL },   { TMPL_DICT, "update", NULL, NULL },
    { TMPL_DICT, "values", "", d_values },     { TMPL_LOOP, "changed", "*", o_changed },
    { TMPL_LOOP, "cycle", "*", o_cycle },      { TMPL_CYCLER, "next", "", c_next },
    { TMPL_CYCLER, "reset", "", c_reset },
};

const struct tmpl_method *tmpl_find_method(enum tmpl_kind of, struct weir_str name)
{
    for (const struct tmpl_method *m = tmpl_text_methods; of == TMPL_STR && m->name; m++)
        if (weir_str_eq(name, m->name))
            return m;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (methods[i].of == of && weir_str_eq(name, methods[i].name))
            return &methods[i];
    return NULL;
}
