/* tmpl_given.c - which bytes of a rendering came from the messages and the variables.
 *
 * Texts of a run lie where they were made: the caller's memory, the template's, or the run's arena, and nothing is
 * freed before the run's end. So an address says where a byte came from: a tree of address ranges holds those that
 * were given. A text that is being put together in a buffer notes its given parts by offset; when it is taken into
 * the arena they become addresses. Cuts (slices, splits, strips) need nothing.
 *   [O1] A byte copied from a given one is given. What changes bytes one by one (case, escapes) marks all it makes. */
#include "replica/text/tmpl_int.h"

#include <string.h>

/* Treap: in order by address, a heap by priority. Ranges do not overlap. */
struct tmpl_range {
    const char *begin, *end;
    struct tmpl_range *left, *right;
    uint32_t priority;
};

static struct tmpl_range *insert(struct tmpl_range *root, struct tmpl_range *node)
{
    if (!root)
        return node;
    if (node->begin < root->begin) {
        root->left = insert(root->left, node);
        if (root->left->priority <= root->priority)
            return root;
        struct tmpl_range *up = root->left;
        root->left = up->right;
        up->right = root;
        return up;
    }
    root->right = insert(root->right, node);
    if (root->right->priority <= root->priority)
        return root;
    struct tmpl_range *up = root->right;
    root->right = up->left;
    up->left = root;
    return up;
}

static const struct tmpl_range *find_overlap(const struct tmpl_range *r, const char *begin, const char *end)
{
    while (r && (end <= r->begin || begin >= r->end))
        r = end <= r->begin ? r->left : r->right;
    return r;
}

bool tmpl_give(struct tmpl_run *run, struct weir_str s)
{
    struct tmpl_given *given = run->given;

    if (!given || s.len == 0)
        return true;
    /* One message may stand in two places, or lie within another: what is there already is left out. */
    const struct tmpl_range *r = find_overlap(given->root, s.ptr, s.ptr + s.len);
    if (r) {
        size_t n_before = s.ptr < r->begin ? (size_t)(r->begin - s.ptr) : 0;
        size_t n_behind = s.ptr + s.len > r->end ? (size_t)(s.ptr + s.len - r->end) : 0;
        return tmpl_give(run, (struct weir_str){ s.ptr, n_before }) &&
               tmpl_give(run, (struct weir_str){ s.ptr + s.len - n_behind, n_behind });
    }
    struct tmpl_range *node = weir_arena_alloc0(&run->arena, sizeof *node);
    if (!node)
        return tmpl_fail_mem(run);
    given->turn = given->turn * 1664525u + 1013904223u;
    *node = (struct tmpl_range){ .begin = s.ptr, .end = s.ptr + s.len, .priority = given->turn };
    given->root = insert(given->root, node);
    return true;
}

bool tmpl_is_given(const struct tmpl_run *run, struct weir_str s)
{
    return run->given && s.len > 0 && find_overlap(run->given->root, s.ptr, s.ptr + s.len);
}

/* ---- buffers ---- */

static bool note(struct tmpl_run *run, const struct weir_buf *buf, size_t begin, size_t end)
{
    struct tmpl_given *given = run->given;
    struct tmpl_mark *last = given->n_marks ? &given->marks[given->n_marks - 1] : NULL;

    if (last && last->buf == buf && last->end >= begin) {
        last->end = last->end > end ? last->end : end;
        return true;
    }
    if (given->n_marks == given->marks_cap) {
        size_t cap = given->marks_cap ? 2 * given->marks_cap : 64;
        struct tmpl_mark *marks = weir_arena_alloc(&run->arena, cap * sizeof *marks);
        if (!marks)
            return tmpl_fail_mem(run);
        if (given->n_marks)
            memcpy(marks, given->marks, given->n_marks * sizeof *marks);
        given->marks = marks;
        given->marks_cap = cap;
    }
    given->marks[given->n_marks++] = (struct tmpl_mark){ buf, begin, end };
    return true;
}

/* The given parts of [begin, end), which is copied to offset `at` of the buffer. */
static bool note_parts(struct tmpl_run *run, const struct tmpl_range *r, const char *begin, const char *end,
                       const struct weir_buf *buf, size_t at)
{
    r = find_overlap(r, begin, end);
    if (!r)
        return true;
    const char *from = begin > r->begin ? begin : r->begin, *to = end < r->end ? end : r->end;
    return note_parts(run, r->left, begin, from, buf, at) &&
           note(run, buf, at + (size_t)(from - begin), at + (size_t)(to - begin)) &&
           note_parts(run, r->right, to, end, buf, at + (size_t)(to - begin));
}

bool tmpl_note(struct tmpl_run *run, const struct weir_buf *buf, struct weir_str s)
{
    return !run->given || s.len == 0 ||
           note_parts(run, run->given->root, s.ptr, s.ptr + s.len, buf, weir_buf_len(buf));
}

bool tmpl_put(struct tmpl_run *run, struct weir_buf *buf, struct weir_str s)
{
    bool ok = tmpl_note(run, buf, s);

    weir_buf_add(buf, s.ptr, s.len);
    return ok;
}

bool tmpl_mark(struct tmpl_run *run, const struct weir_buf *buf, size_t begin, struct weir_str source)
{
    return !tmpl_is_given(run, source) || weir_buf_len(buf) <= begin ||
           note(run, buf, begin, weir_buf_len(buf));
}

bool tmpl_give_taken(struct tmpl_run *run, const struct weir_buf *buf, const char *text)
{
    struct tmpl_given *given = run->given;
    bool ok = true;
    size_t n;

    if (!given)
        return true;
    /* Captures are taken in the reverse order of their beginning: this buffer's marks are the last. */
    for (n = given->n_marks; n > 0 && given->marks[n - 1].buf == buf; n--)
        ;
    for (size_t i = n; ok && text && i < given->n_marks; i++)
        ok = tmpl_give(run, (struct weir_str){ text + given->marks[i].begin,
                                               given->marks[i].end - given->marks[i].begin });
    given->n_marks = n;
    return ok;
}
