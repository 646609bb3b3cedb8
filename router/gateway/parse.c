/* parse.c - one row for each field: its name, where it is allowed, how it is read.
 *
 * The pull parser's first error sticks and carries the path, so a reader just reads; bounds that REST and
 * gRPC share are weir_request_check's. [P1] A field is taken at most once. Sources: OpenAI's API reference. */
#include "router/gateway/parse.h"

#include <stdlib.h>
#include <string.h>

#include "router/gateway/parse_int.h"

static void read_model(struct parse *p)
{
    parse_string(p, &p->msg->model);
}

static void read_stream(struct parse *p)
{
    weir_json_bool(&p->j, &p->opts->stream);
}

static void read_stream_options(struct parse *p)
{
    struct weir_str key;

    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        if (!weir_str_eq(key, "include_usage"))
            weir_json_fail(&p->j, WEIR_INVALID, "unknown field");
        else if (weir_json_peek(&p->j) == WEIR_JSON_NULL)
            weir_json_null(&p->j);
        else
            weir_json_bool(&p->j, &p->opts->include_usage);
    }
}

static void read_n(struct parse *p)
{
    parse_count(p, &p->msg->n);
    if (weir_json_ok(&p->j) && p->msg->n == 0) /* 0 in the message means absent */
        weir_json_fail(&p->j, WEIR_INVALID, "n must be 1 to %d", WEIR_CHOICES_MAX);
}

static void add_stop(struct parse *p)
{
    char *stop = NULL;

    parse_string(p, &stop);
    if (stop)
        parse_list_add(p, (void ***)&p->msg->stop, &p->msg->n_stop, stop);
}

static void read_stop(struct parse *p)
{
    if (weir_json_peek(&p->j) != WEIR_JSON_ARRAY) {
        add_stop(p);
        return;
    }
    weir_json_array(&p->j);
    while (weir_json_next(&p->j))
        add_stop(p);
}

static void read_seed(struct parse *p)
{
    int64_t seed;

    if (!weir_json_i64(&p->j, &seed))
        return;
    p->msg->has_seed_case = WEIR__V1__GENERATE_REQUEST__HAS_SEED_SEED;
    p->msg->seed = (uint64_t)seed;
}

static void read_max(struct parse *p, bool *seen, const bool *other)
{
    if (*other)
        weir_json_fail(&p->j, WEIR_INVALID, "give max_tokens or max_completion_tokens, not both");
    parse_count(p, &p->msg->max_tokens);
    p->msg->has_max_tokens_case = WEIR__V1__GENERATE_REQUEST__HAS_MAX_TOKENS_MAX_TOKENS;
    *seen = true;
}

static void read_max_tokens(struct parse *p)
{
    read_max(p, &p->has_max_tokens, &p->has_max_completion_tokens);
}

static void read_max_completion_tokens(struct parse *p)
{
    read_max(p, &p->has_max_completion_tokens, &p->has_max_tokens);
}

static void read_logprobs(struct parse *p)
{
    if (weir_json_peek(&p->j) == WEIR_JSON_BOOL) {
        parse_flag(p, &p->msg->logprobs);
        return;
    }
    parse_count(p, &p->msg->top_logprobs); /* how many alternatives, in the older shape */
    p->opts->legacy_logprobs = true;
    p->msg->logprobs = true;
    if (weir_json_ok(&p->j) && p->msg->top_logprobs > 5)
        weir_json_fail(&p->j, WEIR_INVALID, "logprobs must be true, false, or 0 to 5");
}

static void read_top_logprobs(struct parse *p)
{
    if (p->opts->legacy_logprobs)
        weir_json_fail(&p->j, WEIR_INVALID, "logprobs is a number already");
    parse_count(p, &p->msg->top_logprobs);
}

static void read_user(struct parse *p)
{
    parse_string(p, &p->msg->user);
}

static void read_prompt_cache_key(struct parse *p)
{
    parse_string(p, &p->msg->prompt_cache_key);
}

static void read_isolation_key(struct parse *p)
{
    char *key = NULL;

    parse_string(p, &key);
    if (key && p->req->isolation.len == 0) /* the header wins */
        p->req->isolation = weir_str(key);
}

#define READ_FLAG(field)                                                                                     \
    static void read_##field(struct parse *p)                                                                \
    {                                                                                                        \
        parse_flag(p, &p->msg->field);                                                                       \
    }
READ_FLAG(perf_metrics)
READ_FLAG(ignore_eos)
READ_FLAG(echo)
READ_FLAG(safe_tokenization)
READ_FLAG(raw_output)
READ_FLAG(return_token_ids)

#define READ_F64(field, CASE)                                                                                \
    static void read_##field(struct parse *p)                                                                \
    {                                                                                                        \
        if (weir_json_f64(&p->j, &p->msg->field))                                                            \
            p->msg->has_##field##_case = WEIR__V1__GENERATE_REQUEST__HAS_##CASE##_##CASE;                    \
    }
READ_F64(temperature, TEMPERATURE)
READ_F64(top_p, TOP_P)
READ_F64(min_p, MIN_P)
READ_F64(typical_p, TYPICAL_P)
READ_F64(repetition_penalty, REPETITION_PENALTY)
READ_F64(frequency_penalty, FREQUENCY_PENALTY)
READ_F64(presence_penalty, PRESENCE_PENALTY)
READ_F64(mirostat_target, MIROSTAT_TARGET)
READ_F64(mirostat_lr, MIROSTAT_LR)

#define READ_COUNT(field, CASE)                                                                              \
    static void read_##field(struct parse *p)                                                                \
    {                                                                                                        \
        parse_count(p, &p->msg->field);                                                                      \
        p->msg->has_##field##_case = WEIR__V1__GENERATE_REQUEST__HAS_##CASE##_##CASE;                        \
    }
READ_COUNT(top_k, TOP_K)
READ_COUNT(echo_last, ECHO_LAST)
READ_COUNT(prompt_truncate_len, PROMPT_TRUNCATE_LEN)
READ_COUNT(prompt_cache_max_len, PROMPT_CACHE_MAX_LEN)

static void read_min_tokens(struct parse *p)
{
    parse_count(p, &p->msg->min_tokens);
}

static void read_parallel_tool_calls(struct parse *p)
{
    parse_flag(p, &p->msg->parallel_tool_calls);
    p->msg->has_parallel_tool_calls_case =
        WEIR__V1__GENERATE_REQUEST__HAS_PARALLEL_TOOL_CALLS_PARALLEL_TOOL_CALLS;
}

/* {"token id": bias} */
static void read_logit_bias(struct parse *p)
{
    struct weir_str key;

    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        Weir__V1__LogitBias *bias = parse_room(p, sizeof *bias);
        uint64_t id = 0;
        bool is_id = key.len > 0 && key.len <= 10;
        for (size_t i = 0; i < key.len && is_id; i++) {
            is_id = key.ptr[i] >= '0' && key.ptr[i] <= '9';
            id = 10 * id + (uint64_t)(key.ptr[i] - '0');
        }
        if (!is_id || id > INT32_MAX)
            weir_json_fail(&p->j, WEIR_INVALID, "the name must be a token's id");
        if (!bias || !weir_json_ok(&p->j))
            return;
        weir__v1__logit_bias__init(bias);
        bias->id = (uint32_t)id;
        if (!weir_json_f64(&p->j, &bias->bias) ||
            !parse_list_add(p, (void ***)&p->msg->logit_bias, &p->msg->n_logit_bias, bias))
            return;
    }
}

/* One of a field's words, by its place in the list. */
static int read_word(struct parse *p, const char *const *words, int n)
{
    struct weir_str word;

    if (!weir_json_string(&p->j, &word))
        return 0;
    for (int i = 0; i < n; i++)
        if (weir_str_eq(word, words[i]))
            return i;
    weir_json_fail(&p->j, WEIR_INVALID, "unknown value");
    return 0;
}

static void read_context_behavior(struct parse *p)
{
    static const char *const words[] = { "truncate", "error" };
    p->msg->context_exceeded = (Weir__V1__ContextExceeded)read_word(p, words, 2);
}

static void read_service_tier(struct parse *p)
{
    static const char *const words[] = { "default", "auto", "flex", "priority" };
    p->msg->service_tier = (Weir__V1__ServiceTier)read_word(p, words, 4);
}

/* A guess at the answer is a hint that changes nothing but speed: it is read, and not used. */
static void read_speculation(struct parse *p)
{
    struct weir_str ignored;
    int64_t id;

    if (weir_json_peek(&p->j) != WEIR_JSON_ARRAY) {
        weir_json_string(&p->j, &ignored);
        return;
    }
    weir_json_array(&p->j);
    while (weir_json_next(&p->j))
        weir_json_i64(&p->j, &id);
}

static void read_prediction(struct parse *p)
{
    struct weir_str key, type;
    char *ignored;

    if (weir_json_peek(&p->j) != WEIR_JSON_OBJECT) {
        weir_json_string(&p->j, &type);
        return;
    }
    weir_json_object(&p->j);
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "content"))
            parse_content(p, &ignored);
        else if (!weir_str_eq(key, "type"))
            parse_unknown(p, false);
        else if (weir_json_string(&p->j, &type) && !weir_str_eq(type, "content"))
            weir_json_fail(&p->j, WEIR_INVALID, "must be \"content\"");
    }
}

static void read_images(struct parse *p)
{
    weir_json_array(&p->j);
    if (weir_json_next(&p->j))
        weir_json_fail(&p->j, WEIR_INVALID, "this model takes text only");
}

static void read_metadata(struct parse *p)
{
    struct weir_str key;

    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        Weir__V1__GenerateRequest__MetadataEntry *entry = parse_room(p, sizeof *entry);
        if (!entry)
            return;
        weir__v1__generate_request__metadata_entry__init(entry);
        parse_copy(p, key, &entry->key);
        parse_string(p, &entry->value);
        if (!parse_list_add(p, (void ***)&p->msg->metadata, &p->msg->n_metadata, entry))
            return;
    }
}

enum { CHAT = 1, COMPLETION = 2, BOTH = 3 };
static const struct field {
    const char *name;
    int where;
    void (*read)(struct parse *p);
} fields[] = {
    { "model", BOTH, read_model },
    { "messages", CHAT, parse_messages },
    { "prompt", COMPLETION, parse_prompt },
    { "stream", BOTH, read_stream },
    { "stream_options", BOTH, read_stream_options },
    { "n", BOTH, read_n },
    { "stop", BOTH, read_stop },
    { "seed", BOTH, read_seed },
    { "temperature", BOTH, read_temperature },
    { "top_p", BOTH, read_top_p },
    { "top_k", BOTH, read_top_k },
    { "min_p", BOTH, read_min_p },
    { "max_tokens", BOTH, read_max_tokens },
    { "max_completion_tokens", CHAT, read_max_completion_tokens },
    { "logprobs", BOTH, read_logprobs },
    { "top_logprobs", BOTH, read_top_logprobs },
    { "user", BOTH, read_user },
    { "prompt_cache_key", BOTH, read_prompt_cache_key },
    { "prompt_cache_isolation_key", BOTH, read_isolation_key },
    { "perf_metrics_in_response", BOTH, read_perf_metrics },
    { "metadata", BOTH, read_metadata },
    { "typical_p", BOTH, read_typical_p },
    { "repetition_penalty", BOTH, read_repetition_penalty },
    { "frequency_penalty", BOTH, read_frequency_penalty },
    { "presence_penalty", BOTH, read_presence_penalty },
    { "mirostat_target", BOTH, read_mirostat_target },
    { "mirostat_lr", BOTH, read_mirostat_lr },
    { "logit_bias", BOTH, read_logit_bias },
    { "min_tokens", BOTH, read_min_tokens },
    { "ignore_eos", BOTH, read_ignore_eos },
    { "echo", BOTH, read_echo },
    { "echo_last", BOTH, read_echo_last },
    { "context_length_exceeded_behavior", BOTH, read_context_behavior },
    { "prompt_truncate_len", BOTH, read_prompt_truncate_len },
    { "prompt_cache_max_len", BOTH, read_prompt_cache_max_len },
    { "safe_tokenization", CHAT, read_safe_tokenization },
    { "raw_output", BOTH, read_raw_output },
    { "return_token_ids", BOTH, read_return_token_ids },
    { "response_format", BOTH, parse_response_format },
    { "tools", CHAT, parse_tools },
    { "tool_choice", CHAT, parse_tool_choice },
    { "parallel_tool_calls", CHAT, read_parallel_tool_calls },
    { "functions", CHAT, parse_functions },
    { "function_call", CHAT, parse_function_call },
    { "reasoning_effort", BOTH, parse_reasoning_effort },
    { "reasoning_history", CHAT, parse_reasoning_history },
    { "thinking", CHAT, parse_thinking },
    { "chat_template_kwargs", CHAT, parse_template_kwargs },
    { "service_tier", BOTH, read_service_tier },
    { "speculation", BOTH, read_speculation },
    { "prediction", BOTH, read_prediction },
    { "images", COMPLETION, read_images },
};
enum { N_FIELDS = sizeof fields / sizeof *fields };
_Static_assert(N_FIELDS <= 64, "the set of fields seen is a word");

static const struct field *find_field(struct weir_str name, bool chat)
{
    for (size_t i = 0; i < N_FIELDS; i++)
        if (fields[i].where & (chat ? CHAT : COMPLETION) && weir_str_eq(name, fields[i].name))
            return &fields[i];
    return NULL;
}

static void read_fields(struct parse *p)
{
    struct weir_str key;
    uint64_t seen = 0;

    while (weir_json_key(&p->j, &key)) {
        const struct field *field = find_field(key, p->opts->chat);
        if (!field) {
            weir_json_fail(&p->j, WEIR_INVALID, "unknown or unsupported field");
            return;
        }
        uint64_t bit = (uint64_t)1 << (field - fields);
        if (seen & bit) { /* [P1] */
            weir_json_fail(&p->j, WEIR_INVALID, "the field is given twice");
            return;
        }
        seen |= bit;
        if (weir_json_peek(&p->j) == WEIR_JSON_NULL)
            weir_json_null(&p->j);
        else
            field->read(p);
    }
}

static void check_shape(struct parse *p)
{
    if (p->msg->input_case == WEIR__V1__GENERATE_REQUEST__INPUT__NOT_SET)
        weir_json_fail_key(&p->j, p->opts->chat ? "messages" : "prompt", WEIR_INVALID,
                           "the field is missing");
    else if (p->opts->include_usage && !p->opts->stream)
        weir_json_fail_key(&p->j, "stream_options", WEIR_INVALID, "stream_options needs stream: true");
    else if (p->has_tools && p->has_functions)
        weir_json_fail_key(&p->j, "functions", WEIR_INVALID, "give tools or functions, not both");
    else if (p->has_tool_choice && p->has_function_call)
        weir_json_fail_key(&p->j, "function_call", WEIR_INVALID,
                           "give tool_choice or function_call, not both");
    else if (p->has_effort && p->has_thinking)
        weir_json_fail_key(&p->j, "thinking", WEIR_INVALID, "give reasoning_effort or thinking, not both");
    else if (p->opts->n_prompts * (p->msg->n ? p->msg->n : 1) > WEIR_CHOICES_MAX)
        weir_json_fail_key(&p->j, "n", WEIR_INVALID, "prompts times n must be at most %d", WEIR_CHOICES_MAX);
}

weir_err weir_parse_openai(struct weir_request *req, bool chat, struct weir_str body,
                           struct weir_answer_opts *ret, struct weir_why *why)
{
    struct parse p = { .req = req, .msg = req->msg, .opts = ret };

    *ret = (struct weir_answer_opts){ .chat = chat };
    weir_json_init(&p.j, body.ptr, body.len, &req->arena);
    if (weir_json_object(&p.j)) {
        read_fields(&p);
        if (weir_json_ok(&p.j))
            check_shape(&p);
    }
    weir_err err = weir_json_end(&p.j, why);
    return err == WEIR_OK ? weir_request_check(req, why) : err;
}
