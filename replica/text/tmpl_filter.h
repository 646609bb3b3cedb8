/* tmpl_filter.h - what the files of filters share. Private to replica/text. */
#ifndef WEIR_REPLICA_TEXT_TMPL_FILTER_H
#define WEIR_REPLICA_TEXT_TMPL_FILTER_H

#include "replica/text/tmpl_int.h"

#define FILTER(fn)                                                                                           \
    static bool fn(struct tmpl_run *run, struct tmpl_value in, const struct tmpl_value *argv,                \
                   const struct tmpl_args *args, struct tmpl_value *ret)
#define UNUSED_ARGS ((void)run, (void)argv, (void)args)
/* One that another function does. */
#define FILTER_IS(fn, call)                                                                                  \
    FILTER(fn)                                                                                               \
    {                                                                                                        \
        UNUSED_ARGS;                                                                                         \
        return call;                                                                                         \
    }

static inline struct tmpl_value generator(struct tmpl_value list)
{
    list.kind = TMPL_GENERATOR;
    return list;
}

/* The item's attribute, when one is asked for. */
bool tmpl_attribute_of(struct tmpl_run *run, struct tmpl_value item, struct tmpl_value path,
                       struct tmpl_value *ret);

bool tmpl_wordwrap(struct tmpl_run *run, struct tmpl_value in, const struct tmpl_value *argv,
                   const struct tmpl_args *args, struct tmpl_value *ret);
/* The last has no name. */
extern const struct tmpl_filter tmpl_list_filters[], tmpl_text_filters[];

#endif
