/* tmpl_method.h - what the two files of methods share. Private to replica/text. */
#ifndef WEIR_REPLICA_TEXT_TMPL_METHOD_H
#define WEIR_REPLICA_TEXT_TMPL_METHOD_H

#include "replica/text/tmpl_int.h"

#define METHOD(fn)                                                                                           \
    static bool fn(struct tmpl_run *run, struct tmpl_value self, const struct tmpl_value *argv,              \
                   const struct tmpl_args *args, struct tmpl_value *ret)
#define UNUSED_ARGS ((void)run, (void)argv, (void)args)
/* One that another function does. */
#define METHOD_IS(fn, call)                                                                                  \
    METHOD(fn)                                                                                               \
    {                                                                                                        \
        UNUSED_ARGS;                                                                                         \
        return call;                                                                                         \
    }

extern const struct tmpl_method tmpl_text_methods[]; /* of strings; the last has no name */

#endif
