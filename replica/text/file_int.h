/* file_int.h - reading a model folder's small files. Private to replica/text. */
#ifndef WEIR_REPLICA_TEXT_FILE_INT_H
#define WEIR_REPLICA_TEXT_FILE_INT_H

#include "base/buf.h"
#include "base/err.h"

/* Reads <dir>/<name> into `out`. WEIR_NOTFOUND: no such file. WEIR_IO: not readable. WEIR_TOOLARGE: past
 * out->limit. */
WEIR_MUST_CHECK weir_err text_file_read(const char *dir, const char *name, struct weir_buf *out,
                                        struct weir_why *why);

#endif
