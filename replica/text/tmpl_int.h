/* tmpl_int.h - the template engine's parts. Private to replica/text.
 *
 * source -> tokens (tmpl_lex.c) -> tree (tmpl_parse.c, tmpl_expr.c, tmpl_operand.c) -> run (tmpl_run.c, tmpl_eval.c) with
 * values (tmpl_value.c, tmpl_list.c, tmpl_item.c), their text (tmpl_print.c, tmpl_json.c), filters, tests and methods. The tree lives in the
 * template's arena and is only read; a run's values live in the run's arena. Strings are UTF-8, borrowed from
 * whichever of them they come from. */
#ifndef WEIR_REPLICA_TEXT_TMPL_INT_H
#define WEIR_REPLICA_TEXT_TMPL_INT_H

#include <stdint.h>

#include "replica/text/template.h"

enum {
    TMPL_SOURCE_BYTES_MAX = 1 << 20,
    TMPL_NEST_MAX = 100,      /* of statements and brackets in a source */
    TMPL_DEPTH_MAX = 300,     /* of expressions and macro calls while running */
    TMPL_STEPS_MAX = 1 << 20, /* for short messages; longer ones get one more each TMPL_STEP_BYTES */
    TMPL_STEP_BYTES = 1,
    TMPL_RANGE_MAX = 100000, /* as jinja2's sandbox */
    TMPL_ARGS_MAX = 32,      /* of one call */
    TMPL_PARAMS_MAX = 4,     /* of a filter, test or method */
};
#define TMPL_RUN_BYTES_MAX ((size_t)64 << 20) /* of values; plus 16 times the messages */

/* ---- values ---- */

enum tmpl_kind {
    TMPL_UNDEF, /* str: what is not defined */
    TMPL_NONE,
    TMPL_BOOL,
    TMPL_INT,
    TMPL_FLOAT,
    TMPL_STR,
    TMPL_LIST,
    TMPL_TUPLE,
    TMPL_GENERATOR, /* items that are seen once; true, and without a length, even when there are none */
    TMPL_DICT,
    TMPL_NAMESPACE, /* a dict whose members can be set */
    TMPL_MACRO,
    TMPL_FUNC,   /* a global function */
    TMPL_METHOD, /* bound to its value */
    TMPL_LOOP,
    TMPL_CYCLER,
    TMPL_JOINER,
    TMPL_UNSET, /* an argument that was not given; no template sees it */
};

struct tmpl_value {
    enum tmpl_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        struct weir_str str;
        struct tmpl_list *list; /* LIST, TUPLE; GENERATOR: what is left of it */
        struct tmpl_dict *dict; /* DICT, NAMESPACE */
        const struct tmpl_macro *macro;
        const struct tmpl_func *func;
        const struct tmpl_bound *bound;
        struct tmpl_loop *loop;
        struct tmpl_cycler *cycler;
        struct tmpl_joiner *joiner;
    };
};

struct tmpl_list {
    struct tmpl_value *at;
    size_t n, cap;
};

struct tmpl_cycler {
    struct tmpl_list *items; /* one or more */
    size_t i;
};
struct tmpl_joiner {
    struct tmpl_value separator; /* what a call gives, but the first */
    bool used;
};

/* In order of insertion; an index of hashes once it is large. */
struct tmpl_dict {
    struct tmpl_pair {
        struct tmpl_value key, value;
    } * at;
    size_t n, cap;
    uint32_t *index; /* open addressing; position + 1; NULL while small */
    uint32_t index_mask;
};

/* ---- the tree ---- */

enum tmpl_node_kind {
    /* expressions */
    TMPL_N_CONST,   /* value */
    TMPL_N_NAME,    /* name */
    TMPL_N_LIST,    /* a: elements */
    TMPL_N_TUPLE,   /* a: elements */
    TMPL_N_DICT,    /* a: keys and values in turn */
    TMPL_N_ATTR,    /* a.str */
    TMPL_N_ITEM,    /* a[b] */
    TMPL_N_SLICE,   /* [a:b:c], each may be NULL; the b of an ITEM */
    TMPL_N_CALL,    /* a(b: ARGs) */
    TMPL_N_ARG,     /* op: an enum tmpl_arg; a: value; str: keyword */
    TMPL_N_FILTER,  /* a | filter(b: ARGs); a NULL in a filter block */
    TMPL_N_TEST,    /* a is test(b: ARGs) */
    TMPL_N_BINARY,  /* a op b */
    TMPL_N_COMPARE, /* a, then b: COMPARE_OPs */
    TMPL_N_COMPARE_OP,
    TMPL_N_AND,
    TMPL_N_OR,
    TMPL_N_NOT,
    TMPL_N_NEG,
    TMPL_N_POS,
    TMPL_N_COND,   /* a if b else c; c may be NULL */
    TMPL_N_CONCAT, /* a: parts */
    /* statements */
    TMPL_N_TEXT,         /* str */
    TMPL_N_PRINT,        /* a */
    TMPL_N_IF,           /* if a: b else: c; op 1: c is a body, 0: the IF of an elif, or none */
    TMPL_N_FOR,          /* for target in a if b: c else: d; op 1: it may be called */
    TMPL_N_SET,          /* target = a */
    TMPL_N_SET_BLOCK,    /* target = b, through the filters a */
    TMPL_N_MACRO,        /* name; a: PARAMs; b: body */
    TMPL_N_PARAM,        /* name; a: default or NULL */
    TMPL_N_CALL_BLOCK,   /* a: the CALL; b: the MACRO that is its caller */
    TMPL_N_FILTER_BLOCK, /* a: filters; b: body */
    TMPL_N_WITH,         /* a: SETs; b: body */
    TMPL_N_SCOPE,        /* b: body */
    TMPL_N_BREAK,
    TMPL_N_CONTINUE,
};
enum tmpl_arg { TMPL_ARG_POSITIONAL, TMPL_ARG_KEYWORD, TMPL_ARG_LIST, TMPL_ARG_DICT };
enum tmpl_op {
    TMPL_OP_ADD,
    TMPL_OP_SUB,
    TMPL_OP_MUL,
    TMPL_OP_DIV,
    TMPL_OP_FLOORDIV,
    TMPL_OP_MOD,
    TMPL_OP_POW,
    TMPL_OP_EQ,
    TMPL_OP_NE,
    TMPL_OP_LT,
    TMPL_OP_LE,
    TMPL_OP_GT,
    TMPL_OP_GE,
    TMPL_OP_IN,
    TMPL_OP_NOT_IN,
};

struct tmpl_node {
    enum tmpl_node_kind kind;
    uint8_t op;
    bool takes_varargs, takes_kwargs, takes_caller; /* MACRO */
    uint32_t line;
    uint32_t name;          /* interned */
    struct tmpl_node *next; /* in a list */
    struct tmpl_node *a, *b, *c, *d;
    struct tmpl_node *target; /* NAME, TUPLE of targets, or ATTR of a namespace's NAME */
    struct weir_str str;
    struct tmpl_value value;
    const struct tmpl_filter *filter;
    const struct tmpl_test *test;
};

enum tmpl_token_kind {
    TMPL_T_EOF,
    TMPL_T_TEXT,
    TMPL_T_PRINT_BEGIN,
    TMPL_T_PRINT_END,
    TMPL_T_BLOCK_BEGIN,
    TMPL_T_BLOCK_END,
    TMPL_T_NAME,
    TMPL_T_STRING, /* unescaped */
    TMPL_T_INT,
    TMPL_T_FLOAT,
    TMPL_T_OP,
};
struct tmpl_token {
    enum tmpl_token_kind kind;
    uint32_t line;
    struct weir_str str;
};

struct weir_template {
    struct weir_arena arena;
    struct tmpl_node *body;
    struct weir_str *names; /* by interned number */
    uint32_t n_names, names_cap;
    uint32_t loop, varargs, kwargs, caller; /* names that the language itself sets */
};

struct tmpl_parser {
    struct weir_template *tmpl;
    const struct tmpl_token *tokens; /* ends with EOF */
    uint32_t at;
    int depth;
    int n_loops;             /* enclosing for statements of the same macro */
    struct tmpl_node *macro; /* the enclosing macro, for what its body names */
    weir_err err;
    struct weir_why *why;
};

/* Normalizes newlines and cuts the source into tokens, in the template's arena. */
WEIR_MUST_CHECK weir_err tmpl_lex(struct weir_template *tmpl, struct weir_str source, struct tmpl_token **ret,
                                  struct weir_why *why);
WEIR_MUST_CHECK weir_err tmpl_parse(struct weir_template *tmpl, const struct tmpl_token *tokens,
                                    struct weir_why *why);

/* ---- the parser: what its parts share (tmpl_cursor.c), and each other's ---- */

/* After an error each returns NULL or false. */
const struct tmpl_token *tmpl_peek(const struct tmpl_parser *p);
void tmpl_next(struct tmpl_parser *p);
bool tmpl_at_op(const struct tmpl_parser *p, const char *op);
bool tmpl_at_name(const struct tmpl_parser *p, const char *name);
bool tmpl_skip_op(struct tmpl_parser *p, const char *op); /* true when it was there */
bool tmpl_skip_name(struct tmpl_parser *p, const char *name);
bool tmpl_want_op(struct tmpl_parser *p, const char *op); /* an error when it is not */
void *tmpl_syntax(struct tmpl_parser *p, weir_err err, const char *fmt, ...) WEIR_PRINTF(3, 4); /* NULL */
struct tmpl_node *tmpl_node(struct tmpl_parser *p, enum tmpl_node_kind kind);
/* Of two parts; NULL where either is. */
struct tmpl_node *tmpl_node_two(struct tmpl_parser *p, enum tmpl_node_kind kind, struct tmpl_node *a,
                                struct tmpl_node *b);
uint32_t tmpl_intern(struct tmpl_parser *p, struct weir_str name);
bool tmpl_enter(struct tmpl_parser *p); /* one level deeper; undo by p->depth-- */
struct tmpl_node *tmpl_parse_expr(struct tmpl_parser *p);
struct tmpl_node *tmpl_parse_or(struct tmpl_parser *p); /* an expression without a trailing "if" */
struct tmpl_node *tmpl_parse_tuple(struct tmpl_parser *p,
                                   bool with_cond); /* a, b, c without brackets, or one */
struct tmpl_node *tmpl_parse_primary(struct tmpl_parser *p);
struct tmpl_node *tmpl_parse_postfix(struct tmpl_parser *p, struct tmpl_node *of); /* .x [x] (x) */
/* Filters behind `of`; the first needs no bar when `bare`. */
struct tmpl_node *tmpl_parse_filters(struct tmpl_parser *p, struct tmpl_node *of, bool bare);
bool tmpl_parse_args(struct tmpl_parser *p, struct tmpl_node **ret); /* behind the opening bracket */

/* ---- a run ---- */

struct tmpl_var {
    uint32_t name;
    struct tmpl_value value;
    struct tmpl_var *next;
};
struct tmpl_scope {
    struct tmpl_scope *parent;
    struct tmpl_var *vars;
};
struct tmpl_macro {
    const struct tmpl_node *node;
    struct tmpl_scope *scope; /* where it was defined */
};
struct tmpl_loop {
    const struct tmpl_node *node;
    struct tmpl_scope *scope; /* where the loop stands */
    const struct tmpl_list *items;
    size_t i;
    int64_t depth;             /* of calls of itself, from 0 */
    struct tmpl_value changed; /* what loop.changed saw last; UNSET at first */
};

/* Which texts were given by the caller (tmpl_given.c). */
struct tmpl_given {
    struct tmpl_range *root; /* of memory */
    struct tmpl_mark {       /* of buffers in use; the innermost last */
        const struct weir_buf *buf;
        size_t begin, end;
    } * marks;
    size_t n_marks, marks_cap;
    uint32_t turn;
};

/* A text in the arena with room behind it (tmpl_arith.c). */
struct tmpl_growing {
    char *end;
    size_t n_spare;
};
enum { TMPL_GROWING_MAX = 4 }; /* texts that are put together at the same time */

struct tmpl_run {
    const struct weir_template *tmpl;
    struct weir_arena arena;
    struct tmpl_given *given; /* NULL: nobody asks */
    struct weir_buf *out;     /* where text goes now: the caller's, or a capture */
    struct tmpl_growing growing[TMPL_GROWING_MAX];
    uint32_t i_growing; /* the next to be given up, modulo TMPL_GROWING_MAX */
    int64_t steps_left;
    int depth;
    uint32_t line; /* of the statement being run */
    uint64_t now_unix;
    weir_err err;
    struct weir_why *why;
};

struct tmpl_args {
    struct tmpl_value at[TMPL_ARGS_MAX];
    struct weir_str keys[TMPL_ARGS_MAX]; /* of the keyword arguments, which come last */
    int n, n_positional;
};

/* Everything below that returns bool returns false once the run has failed. */
bool tmpl_fail(struct tmpl_run *run, weir_err err, const char *fmt, ...) WEIR_PRINTF(3, 4);
bool tmpl_fail_mem(struct tmpl_run *run);             /* the arena is full */
bool tmpl_tick(struct tmpl_run *run, size_t n_bytes); /* one step, and more for work on many bytes */
bool tmpl_exec(struct tmpl_run *run, const struct tmpl_node *body, struct tmpl_scope *scope);
bool tmpl_eval(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
               struct tmpl_value *ret);
bool tmpl_eval_args(struct tmpl_run *run, const struct tmpl_node *args, struct tmpl_scope *scope,
                    struct tmpl_args *ret);
bool tmpl_apply_filters(struct tmpl_run *run, const struct tmpl_node *filter, struct tmpl_scope *scope,
                        struct tmpl_value *io); /* those of a filter block */
bool tmpl_call(struct tmpl_run *run, struct tmpl_value fn, const struct tmpl_args *args,
               struct tmpl_value *ret);
/* loop(items), where the loop is recursive: the text of its body for these. */
bool tmpl_call_loop(struct tmpl_run *run, const struct tmpl_loop *loop, const struct tmpl_args *args,
                    struct tmpl_value *ret);
bool tmpl_call_macro(struct tmpl_run *run, const struct tmpl_macro *macro, const struct tmpl_args *args,
                     struct tmpl_value *ret);
bool tmpl_set_var(struct tmpl_run *run, struct tmpl_scope *scope, uint32_t name, struct tmpl_value value);

/* ---- arithmetic (tmpl_arith.c) ---- */

bool tmpl_arith(struct tmpl_run *run, enum tmpl_op op, struct tmpl_value a, struct tmpl_value b,
                struct tmpl_value *ret);
bool tmpl_negate(struct tmpl_run *run, bool negate, struct tmpl_value v,
                 struct tmpl_value *ret); /* -v, or +v */
bool tmpl_add_strings(struct tmpl_run *run, struct weir_str a, struct weir_str b, struct tmpl_value *ret);

/* ---- "%s" % x and "{}".format(x) (tmpl_format.c) ---- */

bool tmpl_percent(struct tmpl_run *run, struct weir_str format, struct tmpl_value args,
                  struct tmpl_value *ret);
bool tmpl_str_format(struct tmpl_run *run, struct weir_str format, const struct tmpl_args *args,
                     struct tmpl_value *ret);

/* ---- values: making, comparing (tmpl_value.c) ---- */

struct tmpl_value tmpl_undef(struct weir_str name);
struct tmpl_value tmpl_none(void);
struct tmpl_value tmpl_bool(bool b);
struct tmpl_value tmpl_int(int64_t i);
struct tmpl_value tmpl_float(double f);
struct tmpl_value tmpl_str(struct weir_str s);
bool tmpl_is(struct tmpl_value v, enum tmpl_kind kind);
const char *tmpl_type_name(struct tmpl_value v);    /* as Python calls it */
bool tmpl_number(struct tmpl_value v, double *ret); /* int, float or bool */
bool tmpl_truth(struct tmpl_value v);
bool tmpl_equal(struct tmpl_run *run, struct tmpl_value a, struct tmpl_value b); /* false once failed */
/* Less, equal, greater as -1, 0, 1; fails when the two can't be ordered. */
bool tmpl_order(struct tmpl_run *run, struct tmpl_value a, struct tmpl_value b, int *ret);
bool tmpl_contains(struct tmpl_run *run, struct tmpl_value item, struct tmpl_value in, bool *ret);
/* a < b and the like; op: from TMPL_OP_EQ on. */
bool tmpl_compare(struct tmpl_run *run, enum tmpl_op op, struct tmpl_value a, struct tmpl_value b, bool *ret);
bool tmpl_length(struct tmpl_run *run, struct tmpl_value v, size_t *ret);

/* ---- lists and dicts (tmpl_list.c) ---- */

bool tmpl_new_list(struct tmpl_run *run, enum tmpl_kind kind, struct tmpl_value *ret);
bool tmpl_push(struct tmpl_run *run, struct tmpl_list *list, struct tmpl_value v);
bool tmpl_new_dict(struct tmpl_run *run, enum tmpl_kind kind, struct tmpl_value *ret);
bool tmpl_dict_set(struct tmpl_run *run, struct tmpl_dict *dict, struct tmpl_value key,
                   struct tmpl_value value);
const struct tmpl_value *tmpl_dict_get(struct tmpl_run *run, const struct tmpl_dict *dict,
                                       struct tmpl_value key); /* or NULL */
/* [(key, value), ...] */
bool tmpl_pairs(struct tmpl_run *run, const struct tmpl_dict *dict, struct tmpl_value *ret);
/* What a loop over `v` sees; fails when it can't be looped over. Not to be changed. A generator is empty from then on. */
bool tmpl_items(struct tmpl_run *run, struct tmpl_value v, const struct tmpl_list **ret);

/* ---- parts of a value (tmpl_item.c) ---- */

bool tmpl_get_attr(struct tmpl_run *run, struct tmpl_value of, struct weir_str name, struct tmpl_value *ret);
bool tmpl_get_item(struct tmpl_run *run, struct tmpl_value of, struct tmpl_value key, struct tmpl_value *ret);
bool tmpl_get_path(struct tmpl_run *run, struct tmpl_value of, struct tmpl_value path,
                   struct tmpl_value *ret); /* "a.b.0", as filters take it */
bool tmpl_slice(struct tmpl_run *run, struct tmpl_value of, const struct tmpl_value bounds[3],
                struct tmpl_value *ret);

/* ---- JSON (tmpl_json.c) ---- */

bool tmpl_from_json(struct tmpl_run *run, struct weir_str json, struct tmpl_value *ret);
/* opts: ensure_ascii, indent, separators, sort_keys. */
bool tmpl_json(struct tmpl_run *run, struct tmpl_value v, const struct tmpl_value opts[4],
               struct tmpl_value *ret);

/* ---- what was given (tmpl_given.c) ---- */

bool tmpl_give(struct tmpl_run *run, struct weir_str s);           /* these bytes are */
bool tmpl_is_given(const struct tmpl_run *run, struct weir_str s); /* any of them */
/* The given parts of `s`, which comes at the buffer's end now. */
bool tmpl_note(struct tmpl_run *run, const struct weir_buf *buf, struct weir_str s);
/* Appends and keeps track. */
bool tmpl_put(struct tmpl_run *run, struct weir_buf *buf, struct weir_str s);
/* All that was appended since `begin` was made of `source`: given if any of that is. */
bool tmpl_mark(struct tmpl_run *run, const struct weir_buf *buf, size_t begin, struct weir_str source);
/* The buffer's content went to `text`; NULL: it is dropped. */
bool tmpl_give_taken(struct tmpl_run *run, const struct weir_buf *buf, const char *text);

/* ---- text of values (tmpl_print.c) ---- */

bool tmpl_print(struct tmpl_run *run, struct tmpl_value v, struct weir_buf *out); /* as str() */
bool tmpl_to_str(struct tmpl_run *run, struct tmpl_value v,
                 struct weir_str *ret); /* as str(), in the arena */
/* A capture's content as a string in the arena; releases the buffer either way. */
bool tmpl_take(struct tmpl_run *run, struct weir_buf *buf, struct tmpl_value *ret);
void tmpl_float_text(double f, char ret[32]); /* as repr() */

/* ---- strings (tmpl_string.c) ---- */

size_t tmpl_chars(struct weir_str s);                            /* how many */
size_t tmpl_char_offset(struct weir_str s, size_t i_char);       /* in bytes; s.len past the end */
size_t tmpl_char_at(struct weir_str s, size_t i, uint32_t *ret); /* a bad byte counts as one character */
bool tmpl_is_space(uint32_t c);                                  /* str.isspace() */
enum tmpl_case { TMPL_UPPER, TMPL_LOWER, TMPL_TITLE, TMPL_CAPITALIZE, TMPL_TITLE_FILTER, TMPL_SWAP };
bool tmpl_case(struct tmpl_run *run, struct weir_str s, enum tmpl_case how, struct tmpl_value *ret);
struct weir_str tmpl_strip(struct weir_str s, const struct weir_str *chars, bool left,
                           bool right); /* NULL: spaces */
bool tmpl_replace(struct tmpl_run *run, struct weir_str s, struct weir_str old, struct weir_str with,
                  int64_t n_max, struct tmpl_value *ret);
/* To `width` characters, with `fill`, which is one, on the sides that are asked for. */
bool tmpl_pad(struct tmpl_run *run, struct weir_str s, int64_t width, struct weir_str fill, bool left,
              bool right, struct tmpl_value *ret);
bool tmpl_splitlines(struct tmpl_run *run, struct weir_str s, bool keep_ends, struct tmpl_value *ret);
bool tmpl_join(struct tmpl_run *run, struct weir_str with, struct tmpl_value of, struct tmpl_value *ret);

/* ---- tables: what a name means ---- */

/* `params`: names of the arguments, comma-separated; "*": the function reads `args` itself. */
struct tmpl_filter {
    const char *name, *params;
    bool (*fn)(struct tmpl_run *run, struct tmpl_value in, const struct tmpl_value *argv,
               const struct tmpl_args *args, struct tmpl_value *ret);
};
struct tmpl_test {
    const char *name;
    int n_params;
    bool (*fn)(struct tmpl_run *run, struct tmpl_value in, const struct tmpl_value *argv, bool *ret);
};
struct tmpl_func {
    const char *name, *params;
    bool (*fn)(struct tmpl_run *run, const struct tmpl_value *argv, const struct tmpl_args *args,
               struct tmpl_value *ret);
};
struct tmpl_method {
    enum tmpl_kind of;
    const char *name, *params; /* params NULL: the sandbox forbids it */
    bool (*fn)(struct tmpl_run *run, struct tmpl_value self, const struct tmpl_value *argv,
               const struct tmpl_args *args, struct tmpl_value *ret);
};
struct tmpl_bound {
    const struct tmpl_method *method;
    struct tmpl_value self;
};
const struct tmpl_filter *tmpl_find_filter(struct weir_str name); /* or NULL */
const struct tmpl_test *tmpl_find_test(struct weir_str name);
const struct tmpl_func *tmpl_find_func(struct weir_str name);
const struct tmpl_method *tmpl_find_method(enum tmpl_kind of, struct weir_str name);
/* Puts the arguments into the places that `params` names; those not given become UNSET. */
bool tmpl_bind(struct tmpl_run *run, const char *what, const char *params, const struct tmpl_args *args,
               struct tmpl_value argv[TMPL_PARAMS_MAX]);
bool tmpl_run_filter(struct tmpl_run *run, const struct tmpl_filter *filter, struct tmpl_value in,
                     const struct tmpl_args *args, struct tmpl_value *ret);
bool tmpl_run_test(struct tmpl_run *run, const struct tmpl_test *test, struct tmpl_value in,
                   const struct tmpl_args *args, bool *ret);
/* Arguments as numbers and strings, with what stands for one that was not given. */
bool tmpl_arg_int(struct tmpl_run *run, struct tmpl_value arg, int64_t init, int64_t *ret);
bool tmpl_arg_bool(struct tmpl_value arg, bool init);
static inline bool tmpl_arg_given(struct tmpl_value arg)
{
    return arg.kind != TMPL_UNSET && arg.kind != TMPL_NONE;
}

#endif
