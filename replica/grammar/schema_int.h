/* schema_int.h - a JSON schema on its way to being rules. Private to replica/grammar.
 *
 * text -> tree (json_tree.c) -> schemas without references and combinations (schema_merge.c) -> expressions
 * (schema.c, schema_types.c, schema_object.c), made of those for plain JSON (json_text.c), numbers (digits.c) and patterns
 * (pattern.c). Calls of tools (calls.c) hold such schemas; those in tags write some of it in their own way (tags.c). */
#ifndef WEIR_REPLICA_GRAMMAR_SCHEMA_INT_H
#define WEIR_REPLICA_GRAMMAR_SCHEMA_INT_H

#include "base/json.h"
#include "replica/grammar/gram_int.h"

enum {
    SCHEMA_MERGES_MAX = 4096, /* of one schema: allOf, $ref beside others, anyOf beside others */
    SCHEMA_MERGE_NEST_MAX = 32,
    SCHEMA_PREFIX_MAX = 256,   /* prefixItems */
    SCHEMA_NAME_MAX = 256,     /* characters of a property's name where others may come beside it */
    SCHEMA_PATTERN_MAX = 4096, /* bytes */
};

/* ---- the tree ---- */

struct gj_member;
struct gj {
    enum weir_json_type type;
    bool truth;                /* BOOL */
    struct weir_str text;      /* STRING: unescaped; NUMBER: as written */
    struct gj_member *members; /* OBJECT */
    struct gj **items;         /* ARRAY */
    uint32_t n, cap;           /* of either */
    uint32_t rule_1;           /* the rule made of this schema, + 1 */
};
struct gj_member {
    struct weir_str key;
    struct gj *value;
};
struct gj *gj_parse(struct gram_build *b, struct weir_str json); /* NULL: failed */
/* Both NULL when there is none, or once the build has failed; the work is counted. */
struct gj *gj_get(struct gram_build *b, const struct gj *object, const char *key);
struct gj *gj_find(struct gram_build *b, const struct gj *object, struct weir_str key);
struct gj *gj_new(struct gram_build *b, enum weir_json_type type);
bool gj_set(struct gram_build *b, struct gj *object, struct weir_str key, struct gj *value); /* at the end */
bool gj_push(struct gram_build *b, struct gj *array, struct gj *value);
bool gj_equal(struct gram_build *b, const struct gj *x,
              const struct gj *y); /* false once the build has failed */
/* As JSON text on one line without spaces, in the build's arena; len 0 once failed. */
struct weir_str gj_text(struct gram_build *b, const struct gj *value);

/* ---- plain JSON (json_text.c) ---- */

enum json_rule {
    JSON_WS, /* between the tokens */
    JSON_STRING,
    JSON_NUMBER,
    JSON_INTEGER,
    JSON_BOOLEAN,
    JSON_NULL,
    JSON_ARRAY,
    JSON_OBJECT,
    JSON_VALUE,
    JSON_REST, /* of a string without escapes: any characters, then the quote */
    JSON_RULES
};
struct json_rules {
    struct gram_build *b;
    bool compact;
    uint32_t rule_1[JSON_RULES];
};
struct gram_expr *json_call(struct json_rules *j, enum json_rule which);
/* One character of the class as it is written within a JSON string: as it is, or by its shortest escape. */
struct gram_expr *json_char(struct gram_build *b, const struct gram_class *set);
struct gram_expr *json_any_char(struct gram_build *b); /* other spellings than the shortest too */
struct gram_expr *json_set(struct gram_build *b,
                           const char *ranges); /* "azAZ09": pairs of ASCII characters */

/* ---- numbers (digits.c) ---- */

#define DIGITS_MAX 18
#define DIGITS_TOP 999999999999999999 /* 18 nines: what integers are kept within */
struct number_range {
    int64_t lo, hi;        /* both in; within -+DIGITS_TOP */
    bool lo_open, hi_open; /* numbers with a fraction: the bound itself is out */
    bool has_lo, has_hi;
};
struct gram_expr *digits_integer(struct gram_build *b, int64_t lo, int64_t hi); /* lo > hi: nothing */
struct gram_expr *digits_number(struct gram_build *b, const struct number_range *r);

/* ---- patterns (pattern.c) ---- */

/* The JSON strings, without their quotes, whose content has a match; raw: the texts between tags that have one.
 * *ret_what on failure says what is wrong; the build itself has not failed then. */
struct gram_expr *pattern_expr(struct gram_build *b, struct weir_str pattern, bool raw, const char **ret_what,
                               weir_err *reterr);
const char *format_pattern(struct weir_str format); /* NULL: unknown */

/* ---- schemas ---- */

/* Where in the schema we are: for errors and rules' names. */
struct schema_path {
    const struct schema_path *up;
    struct weir_str key;
    int64_t index; /* -1: the key */
};
struct schema {
    struct gram_build *b;
    struct json_rules json;
    struct gj *root;
    uint32_t n_merges, merge_depth;
    uint32_t text_rule_1; /* of any text in tags, + 1 */
    int depth;
};
/* "properties.x.items"; cut to the room there is. */
struct weir_str schema_path_text(const struct schema_path *path, char *room, size_t size);
/* Fails the build about this place: NULL. */
void *schema_fail(struct schema *s, const struct schema_path *path, weir_err err, const char *fmt, ...)
    WEIR_PRINTF(4, 5);
/* What the schema permits. NULL: failed. */
struct gram_expr *schema_expr(struct schema *s, struct gj *node, const struct schema_path *path);
/* The same as a call of a rule of its own, which is made once for a node. */
struct gram_expr *schema_call(struct schema *s, struct gj *node, const struct schema_path *path);

/* The schema that permits what both do. Neither has an unknown keyword. */
struct gj *schema_merge(struct schema *s, struct gj *x, struct gj *y, const struct schema_path *path);
struct gj *schema_resolve(struct schema *s, const struct gj *ref, const struct schema_path *path);
/* A copy without one member. */
struct gj *schema_without(struct schema *s, const struct gj *node, const char *key);
/* Does it say anything beside its annotations? */
bool schema_constrains(const struct gj *node);
/* Every keyword is one we know; fails by its name otherwise. */
bool schema_check_keywords(struct schema *s, const struct gj *node, const struct schema_path *path);

/* Types, as bits. */
enum schema_type {
    TYPE_NULL = 1,
    TYPE_BOOLEAN = 2,
    TYPE_STRING = 4,
    TYPE_INTEGER = 8,
    TYPE_NUMBER = 16, /* integers too */
    TYPE_ARRAY = 32,
    TYPE_OBJECT = 64,
    TYPE_ANY = 127 & ~8,
};
/* The same schema without "$ref" and "allOf" in front; true and false stay. NULL: failed. */
struct gj *schema_flat(struct schema *s, struct gj *node, const struct schema_path *path);
/* Nothing beside "enum" or "const" that would have to hold too; fails by its name otherwise. */
bool schema_lone_enum(struct schema *s, const struct gj *node, const struct schema_path *path);
bool schema_types(struct schema *s, const struct gj *node, const struct schema_path *path, unsigned *ret);
/* raw: without quotes and escapes, between tags. */
struct gram_expr *schema_string(struct schema *s, struct gj *node, bool raw, const struct schema_path *path);
struct gram_expr *schema_number(struct schema *s, struct gj *node, bool integer,
                                const struct schema_path *path);
struct gram_expr *schema_array(struct schema *s, struct gj *node, const struct schema_path *path);
struct gram_expr *schema_object(struct schema *s, struct gj *node, const struct schema_path *path);
/* The members of an object as parameters of a call in tags. */
struct gram_expr *schema_parameters(struct schema *s, struct gj *node, const struct schema_path *path);

/* ---- calls in tags (tags.c) ---- */

struct gram_expr *tags_call(struct schema *s, struct weir_str name, struct gj *parameters,
                            const struct schema_path *path);
/* Values have the tag that ends them behind them. many: the tag in front is a rule of its own. */
struct gram_expr *tags_parameter(struct schema *s, struct weir_str name, struct gram_expr *value, bool many,
                                 const struct schema_path *path);
struct gram_expr *tags_any_parameters(struct schema *s, struct gram_expr *value);
struct gram_expr *tags_value(struct schema *s, struct gj *node, const struct schema_path *path);
struct gram_expr *tags_closed(struct gram_build *b, struct gram_expr *value);  /* that tag put behind it */
struct gram_expr *tags_text(struct gram_build *b, uint32_t min, uint32_t max); /* of so many characters */
/* One character of the class, between tags. */
struct gram_expr *tags_char(struct gram_build *b, const struct gram_class *set);

#endif
