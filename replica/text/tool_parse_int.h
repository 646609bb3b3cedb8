/* tool_parse_int.h - the parts of the parser of answers. Private to replica/text.
 *
 * Reasoning and content (tool_parse.c) -> a call's head and what is behind it (tool_call.c), its JSON (tool_json.c) or tags (tool_xml.c). What
 * formats there are: tool_format.c. */
#ifndef WEIR_REPLICA_TEXT_TOOL_PARSE_INT_H
#define WEIR_REPLICA_TEXT_TOOL_PARSE_INT_H

#include "replica/text/tool_parse.h"

#define HERMES "<tool_call>"
#define HERMES_END "</tool_call>"
#define FUNCTION "<function="
#define MISTRAL "[TOOL_CALLS]"
#define MISTRAL_ID "[CALL_ID]"
#define MISTRAL_ARGS "[ARGS]"
#define PYTHON "<|python_tag|>"
#define BAR "\xef\xbd\x9c" /* fullwidth vertical line */
#define LOW "\xe2\x96\x81" /* lower one eighth block */
#define DS(name) "<" BAR "tool" LOW name BAR ">"
#define DS_CALLS DS("calls" LOW "begin")
#define DS_CALLS_END DS("calls" LOW "end")
#define DS_CALL DS("call" LOW "begin")
#define DS_CALL_END DS("call" LOW "end")
#define DS_SEP DS("sep")

enum { HEAD_MAX = 4096 }; /* bytes before a call's arguments */

enum state {
    AT_START,
    IN_REASONING,
    IN_CONTENT,
    AT_HEAD,  /* a call may begin */
    IN_WHOLE, /* a JSON object that must be whole to be understood */
    IN_ARGS,
    IN_TAIL, /* of the object around the arguments */
    AT_NEXT, /* behind a call */
    IN_CODE,
    IN_XML, /* between the parameters of a call in tags */
    IN_XML_TEXT,
    IN_XML_VALUE,
};
enum verdict { MORE, GO };

/* How far a scan of a JSON value has come. */
struct scan {
    size_t at;
    int depth;
    bool in_string, escaped;
};

struct weir_output_parser {
    struct weir_output_format format;
    weir_output_fn *fn;
    void *ctx;
    enum state state;
    struct weir_buf held;
    struct weir_buf undo; /* what led to AT_HEAD, should it be no call */
    struct scan scan;
    size_t n_spaces;       /* white space that held is known to begin with [W2] */
    bool skip_space;       /* white space at the front of held is dropped */
    bool started;          /* content or a call has come: a '{' is not at the answer's start */
    bool in_list, wrapped; /* Mistral's brackets; an object is around the arguments */
    bool at_end, failed;
    uint32_t n_passed; /* of the markers behind a call of DeepSeek's */
    uint32_t n_calls;
    const struct weir_output_tool *tool; /* the one that is called in tags; NULL: nobody described it */
    bool has_parameters, at_value;       /* a parameter came; its value begins */
};

/* ---- pieces (tool_parse.c) ---- */

struct weir_str parse_held(const struct weir_output_parser *p);
/* Its first bytes: what has a bound is judged by them alone, however much has come behind [W1]. */
struct weir_str parse_held_most(const struct weir_output_parser *p, size_t n_most);
void parse_tell(struct weir_output_parser *p, enum weir_output_kind kind, struct weir_str text);
void parse_let_go(struct weir_output_parser *p, size_t n); /* of the first n bytes held */
void parse_tell_held(struct weir_output_parser *p, enum weir_output_kind kind, size_t n);
bool parse_is_space(char c);
size_t parse_spaces(struct weir_str s, size_t i); /* where the white space at byte i ends */
size_t parse_spaces_held(struct weir_output_parser *p);
void parse_drop_spaces(struct weir_output_parser *p);
/* At byte i: 1 the marker, 0 not, -1 its beginning and then the end of what is there. */
int parse_marker_at(const struct weir_output_parser *p, struct weir_str s, size_t i, const char *marker);
/* Where the marker is, or where it may begin, from byte i on; s.len: nowhere. */
size_t parse_find_marker(const struct weir_output_parser *p, struct weir_str s, size_t i, const char *marker,
                         int *ret);
/* Takes a marker, and white space before it, into `undo`. 1: taken; 0: it is not there; -1: perhaps. */
int parse_take(struct weir_output_parser *p, const char *marker);

/* ---- calls (tool_call.c) ---- */

void parse_begin_call(struct weir_output_parser *p, struct weir_str name, bool wrapped);
void parse_end_call(struct weir_output_parser *p);
enum verdict parse_no_call(struct weir_output_parser *p); /* [W3] what led here is content */
bool parse_good_name(struct weir_str name);
enum verdict parse_start_args(struct weir_output_parser *p, struct weir_str name, size_t n_head,
                              bool wrapped);
enum verdict parse_another_call(struct weir_output_parser *p);
enum verdict
parse_next_deepseek(struct weir_output_parser *p); /* behind the marker of all calls, or behind a call */
enum verdict parse_at_head(struct weir_output_parser *p);
enum verdict parse_in_args(struct weir_output_parser *p);
enum verdict parse_in_tail(struct weir_output_parser *p);
enum verdict parse_at_next(struct weir_output_parser *p);
enum verdict parse_in_code(struct weir_output_parser *p);
/* As the inside of a JSON string, a piece of a call's arguments. */
void parse_tell_escaped(struct weir_output_parser *p, struct weir_str text);

/* ---- calls in JSON (tool_json.c) ---- */

/* Scans on until the depth is `until`. 1: there, sc->at is behind it; 0: more is needed; -1: not JSON, at sc->at. */
int parse_scan_on(struct scan *sc, struct weir_str s, int until);
enum verdict parse_json_head(struct weir_output_parser *p);
enum verdict parse_whole(struct weir_output_parser *p);

/* ---- calls in tags (tool_xml.c) ---- */

int parse_at_xml(struct weir_output_parser *p); /* 1: one begins; 0: none; -1: perhaps */
enum verdict parse_xml_head(struct weir_output_parser *p);
enum verdict parse_in_xml(struct weir_output_parser *p);
enum verdict parse_in_xml_text(struct weir_output_parser *p);
enum verdict parse_in_xml_value(struct weir_output_parser *p);

#endif
