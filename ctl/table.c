/* table.c - text in columns, two spaces apart, the last one ragged. Widths count characters, not bytes. */
#include <string.h>

#include "ctl/ctl.h"

static size_t width_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void ctl_table_init(struct ctl_table *t, struct weir_arena *arena, const char *const *headers)
{
    *t = (struct ctl_table){ .arena = arena, .headers = headers };
    while (headers[t->n_columns])
        t->n_columns++;
    WEIR_BUG_ON(t->n_columns > CTL_COLUMNS_MAX);
}

void ctl_table_row(struct ctl_table *t, const char *const *cells)
{
    size_t n = (size_t)t->n_columns;
    if (t->n_rows == t->cap) {
        int cap = t->cap ? 2 * t->cap : 32;
        const char **grown = weir_arena_alloc(t->arena, (size_t)cap * n * sizeof *grown);
        WEIR_BUG_ON(!grown);
        if (t->n_rows)
            memcpy(grown, t->cells, (size_t)t->n_rows * n * sizeof *grown);
        t->cells = grown;
        t->cap = cap;
    }
    for (size_t i = 0; i < n; i++) {
        const char *copy = weir_arena_strndup(t->arena, cells[i], strlen(cells[i]));
        WEIR_BUG_ON(!copy);
        t->cells[(size_t)t->n_rows * n + i] = copy;
    }
    t->n_rows++;
}

static void write_row(const struct ctl_table *t, const size_t *widths, const char *const *cells,
                      struct weir_buf *out)
{
    for (int i = 0; i < t->n_columns; i++) {
        weir_buf_adds(out, cells[i]);
        if (i + 1 == t->n_columns)
            break;
        for (size_t pad = width_of(cells[i]); pad < widths[i] + 2; pad++)
            weir_buf_addc(out, ' ');
    }
    weir_buf_addc(out, '\n');
}

void ctl_table_write(const struct ctl_table *t, struct weir_buf *out)
{
    size_t widths[CTL_COLUMNS_MAX];
    for (int i = 0; i < t->n_columns; i++) {
        widths[i] = width_of(t->headers[i]);
        for (int row = 0; row < t->n_rows; row++) {
            size_t width = width_of(t->cells[row * t->n_columns + i]);
            widths[i] = width > widths[i] ? width : widths[i];
        }
    }
    write_row(t, widths, t->headers, out);
    for (int row = 0; row < t->n_rows; row++)
        write_row(t, widths, t->cells + row * t->n_columns, out);
}
