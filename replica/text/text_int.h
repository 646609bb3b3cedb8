/* text_int.h - what both the tokenizer and the templates use. Private to replica/text. */
#ifndef WEIR_REPLICA_TEXT_INT_H
#define WEIR_REPLICA_TEXT_INT_H

#include "base/buf.h"
#include "base/err.h"
#include "base/utf8.h"

/* For "%.*s": a string in an error's sentence, cut to what a person reads and never within a character. */
#define TEXT_SHORT(s) (int)weir_utf8_cut((s).ptr, (s).len, 80), (s).ptr

/* Reads <dir>/<name> into `out`. WEIR_NOTFOUND: no such file. WEIR_IO: not readable. WEIR_TOOLARGE: past
 * out->limit. */
WEIR_MUST_CHECK weir_err text_file_read(const char *dir, const char *name, struct weir_buf *out,
                                        struct weir_why *why);

#endif
