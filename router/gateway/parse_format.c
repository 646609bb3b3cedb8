/* parse_format.c - what the answer must look like, and how much thinking goes before it.
 *
 * Three spellings of the switch for reasoning (reasoning_effort, thinking, and the template variables that other
 * servers take) become one. */
#include <string.h>

#include "router/gateway/parse_int.h"

/* ---- response_format ---- */
struct format {
    char *schema;  /* of json_object */
    char *wrapped; /* json_schema.schema */
    char *grammar;
    bool has_json_schema;
};

static void read_raw(struct parse *p, char **ret)
{
    struct weir_str raw;

    if (!parse_null(p) && weir_json_raw(&p->j, &raw))
        parse_copy(p, raw, ret);
}

/* {"name", "description", "schema", "strict"}; some clients send the schema itself instead. */
static void read_json_schema(struct parse *p, struct format *f)
{
    struct weir_str key, ignored;
    bool strict;

    f->has_json_schema = true;
    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "schema"))
            read_raw(p, &f->wrapped);
        else if (weir_str_eq(key, "strict")) {
            if (!parse_null(p))
                weir_json_bool(&p->j, &strict); /* every schema is kept strictly */
        } else if (weir_str_eq(key, "name") || weir_str_eq(key, "description")) {
            if (!parse_null(p))
                weir_json_string(&p->j, &ignored);
        } else
            parse_unknown(p, false);
    }
    if (weir_json_ok(&p->j) && !f->wrapped)
        weir_json_fail_key(&p->j, "schema", WEIR_INVALID, "the schema is missing");
}

static void finish_format(struct parse *p, struct weir_str type, const struct format *f)
{
    Weir__V1__ResponseFormat *format = parse_room(p, sizeof *format);
    const char *missing = NULL;
    char *text = NULL;

    if (!format)
        return;
    weir__v1__response_format__init(format);
    if (weir_str_eq(type, "json_object")) {
        format->kind = WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_JSON_OBJECT;
        text = f->schema;
    } else if (weir_str_eq(type, "json_schema")) {
        format->kind = WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_JSON_SCHEMA;
        text = f->wrapped;
        missing = text ? NULL : "json_schema";
    } else if (weir_str_eq(type, "grammar")) {
        format->kind = WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_GRAMMAR;
        text = f->grammar;
        missing = text ? NULL : "grammar";
    } else if (!weir_str_eq(type, "text")) {
        weir_json_fail_key(&p->j, "type", WEIR_INVALID, "must be text, json_object, json_schema or grammar");
    }
    if (missing)
        weir_json_fail_key(&p->j, missing, WEIR_INVALID, "the field is missing");
    if (text)
        format->text = text;
    p->msg->response_format = format;
}

void parse_response_format(struct parse *p)
{
    struct format f = { 0 };
    struct weir_str key, type = { "", 0 };

    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "type"))
            weir_json_string(&p->j, &type);
        else if (weir_str_eq(key, "schema"))
            read_raw(p, &f.schema);
        else if (weir_str_eq(key, "grammar"))
            parse_string(p, &f.grammar);
        else if (weir_str_eq(key, "json_schema")) {
            if (!parse_null(p))
                read_json_schema(p, &f);
        } else
            parse_unknown(p, false);
    }
    if (weir_json_ok(&p->j))
        finish_format(p, type, &f);
}

/* ---- reasoning ---- */
static void set_effort(struct parse *p, bool on)
{
    parse_copy(p, on ? WEIR_STR("medium") : WEIR_STR("none"), &p->msg->reasoning_effort);
}

void parse_reasoning_effort(struct parse *p)
{
    bool on;

    p->has_effort = true;
    switch (weir_json_peek(&p->j)) {
    case WEIR_JSON_BOOL:
        if (weir_json_bool(&p->j, &on))
            set_effort(p, on);
        break;
    case WEIR_JSON_NUMBER:
        parse_copy(p, WEIR_STR(""), &p->msg->reasoning_effort); /* of chat_template_kwargs */
        parse_count(p, &p->msg->reasoning_tokens);
        p->msg->has_reasoning_tokens_case = WEIR__V1__GENERATE_REQUEST__HAS_REASONING_TOKENS_REASONING_TOKENS;
        break;
    default:
        parse_string(p, &p->msg->reasoning_effort);
    }
}

void parse_reasoning_history(struct parse *p)
{
    parse_string(p, &p->msg->reasoning_history);
}

/* {"type": "enabled", "budget_tokens": n} or {"type": "disabled"} */
void parse_thinking(struct parse *p)
{
    enum { BUDGET_MIN = 1024 };
    struct weir_str key, type = { "", 0 };
    bool has_budget = false;

    p->has_thinking = true;
    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "type"))
            weir_json_string(&p->j, &type);
        else if (!weir_str_eq(key, "budget_tokens"))
            parse_unknown(p, false);
        else if (!parse_null(p)) {
            parse_count(p, &p->msg->reasoning_tokens);
            has_budget = true;
        }
    }
    if (!weir_json_ok(&p->j))
        return;
    if (weir_str_eq(type, "disabled") && !has_budget)
        set_effort(p, false);
    else if (!weir_str_eq(type, "enabled"))
        weir_json_fail_key(&p->j, "type", WEIR_INVALID, "must be enabled, or disabled without a budget");
    else if (has_budget && p->msg->reasoning_tokens < BUDGET_MIN)
        weir_json_fail_key(&p->j, "budget_tokens", WEIR_INVALID, "must be at least %d", BUDGET_MIN);
    else if (has_budget)
        p->msg->has_reasoning_tokens_case = WEIR__V1__GENERATE_REQUEST__HAS_REASONING_TOKENS_REASONING_TOKENS;
    else
        set_effort(p, true);
}

/* Of other servers' template variables only the switch for thinking means anything here; the others are
 * dropped, as the service that this one equals does. */
void parse_template_kwargs(struct parse *p)
{
    struct weir_str key;
    bool on;

    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        bool is_switch = weir_str_eq(key, "enable_thinking") || weir_str_eq(key, "thinking");
        if (!is_switch || weir_json_peek(&p->j) != WEIR_JSON_BOOL) {
            weir_json_skip(&p->j);
        } else if (weir_json_bool(&p->j, &on) && !p->has_effort && !p->has_thinking) {
            p->has_kwargs = true;
            set_effort(p, on);
        }
    }
}
