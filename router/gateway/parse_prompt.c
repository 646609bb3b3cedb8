/* parse_prompt.c - the prompt of a completion: text, token ids, or several of either.
 *   [P2] One prompt goes into the message; several go beside it, and the message has the first. */
#include "router/gateway/parse_int.h"

static void read_ids(struct parse *p, Weir__V1__TokenIds *ids)
{
    int64_t id;

    while (weir_json_next(&p->j))
        if (weir_json_i64(&p->j, &id))
            parse_ids_add(p, ids, id);
}

static Weir__V1__TokenIds *new_ids(struct parse *p)
{
    Weir__V1__TokenIds *ids = parse_room(p, sizeof *ids);

    if (ids)
        weir__v1__token_ids__init(ids);
    return ids;
}

static void set_prompt(struct parse *p, const struct weir_prompt *prompt) /* [P2] */
{
    if (prompt->ids) {
        p->msg->input_case = WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT_IDS;
        p->msg->prompt_ids = prompt->ids;
    } else {
        p->msg->input_case = WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT;
        p->msg->prompt = prompt->text;
    }
}

/* An element of the outer list: text, or a list of ids. */
static void read_one_prompt(struct parse *p, struct weir_prompt *ret)
{
    if (weir_json_peek(&p->j) != WEIR_JSON_ARRAY) {
        parse_string(p, &ret->text);
        return;
    }
    ret->ids = new_ids(p);
    if (!ret->ids || !weir_json_array(&p->j))
        return;
    read_ids(p, ret->ids);
    if (weir_json_ok(&p->j) && ret->ids->n_ids == 0)
        weir_json_fail(&p->j, WEIR_INVALID, "the list is empty");
}

static void read_prompt_list(struct parse *p)
{
    struct weir_prompt *prompts = parse_room(p, WEIR_PROMPTS_MAX * sizeof *prompts);
    uint32_t n = 0;

    if (!prompts)
        return;
    do {
        if (n == WEIR_PROMPTS_MAX)
            weir_json_fail(&p->j, WEIR_INVALID, "at most %d prompts a request", WEIR_PROMPTS_MAX);
        else
            read_one_prompt(p, &prompts[n++]);
    } while (weir_json_next(&p->j));
    set_prompt(p, &prompts[0]);
    p->opts->prompts = prompts;
    p->opts->n_prompts = n;
}

/* A string, a list of ids, or a list of either. */
void parse_prompt(struct parse *p)
{
    struct weir_prompt one = { NULL, NULL };

    if (weir_json_peek(&p->j) != WEIR_JSON_ARRAY) {
        parse_string(p, &one.text);
        set_prompt(p, &one);
        return;
    }
    weir_json_array(&p->j);
    if (!weir_json_next(&p->j)) {
        weir_json_fail(&p->j, WEIR_INVALID, "the list is empty");
    } else if (weir_json_peek(&p->j) != WEIR_JSON_NUMBER) {
        read_prompt_list(p);
    } else if ((one.ids = new_ids(p))) {
        int64_t id;
        if (weir_json_i64(&p->j, &id) && parse_ids_add(p, one.ids, id))
            read_ids(p, one.ids);
        set_prompt(p, &one);
    }
}
