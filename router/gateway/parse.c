/* parse.c - one row for each field: its name, where it is allowed, how it is read.
 *
 * The pull parser's first error sticks and carries the path, so a reader just reads; bounds that REST and
 * gRPC share are weir_request_check's. [P1] A field is taken at most once. [P2] No string with a NUL goes on:
 * protobuf-c strings end there, and a check must see what the model sees. Sources: OpenAI's API reference. */
#include "router/gateway/parse.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

struct parse {
    struct weir_json j;
    struct weir_request *req;
    Weir__V1__GenerateRequest *msg;
    struct weir_answer_opts *opts;
    bool has_max_completion_tokens, has_max_tokens;
};

/* ---- values ---- */
static bool nomem(struct parse *p)
{
    return weir_json_fail(&p->j, WEIR_NOMEM, "no memory for the request");
}

static void *room(struct parse *p, size_t size)
{
    void *ptr = weir_arena_alloc0(&p->req->arena, size);
    if (!ptr)
        nomem(p);
    return ptr;
}

static void read_string(struct parse *p, char **ret)
{
    struct weir_str s;

    if (!weir_json_string(&p->j, &s))
        return;
    if (memchr(s.ptr, 0, s.len)) { /* [P2] */
        weir_json_fail(&p->j, WEIR_INVALID, "the string holds a NUL");
        return;
    }
    char *copy = weir_arena_strndup(&p->req->arena, s.ptr, s.len);
    if (copy)
        *ret = copy;
    else
        nomem(p);
}

static void read_count(struct parse *p, uint32_t *ret)
{
    int64_t n;

    if (!weir_json_i64(&p->j, &n))
        return;
    if (n < 0 || n > INT32_MAX)
        weir_json_fail(&p->j, WEIR_INVALID, "%lld is not a count", (long long)n);
    else
        *ret = (uint32_t)n;
}

/* A growing list of pointers in the arena: doubling wastes at most as much as it holds. */
static bool list_add(struct parse *p, void ***list, size_t *n, void *item)
{
    bool full = *n == 0 || (*n >= 8 && (*n & (*n - 1)) == 0);

    if (full) {
        void **grown = room(p, (*n ? 2 * *n : 8) * sizeof *grown);
        if (!grown)
            return false;
        if (*n)
            memcpy(grown, *list, *n * sizeof *grown);
        *list = grown;
    }
    (*list)[(*n)++] = item;
    return true;
}

/* ---- messages ---- */
/* {"type": "text", "text": "..."}: the only kind of part a text model takes. */
static void read_part(struct parse *p, struct weir_buf *text)
{
    struct weir_str key, type = { NULL, 0 }, value = { NULL, 0 };

    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "type"))
            weir_json_string(&p->j, &type);
        else if (weir_str_eq(key, "text"))
            weir_json_string(&p->j, &value);
        else if (weir_str_eq(key, "image_url") || weir_str_eq(key, "video_url"))
            weir_json_fail(&p->j, WEIR_INVALID, "this model takes text only");
        else
            weir_json_fail(&p->j, WEIR_INVALID, "unknown field");
    }
    if (!weir_json_ok(&p->j))
        return;
    if (!weir_str_eq(type, "text"))
        weir_json_fail_key(&p->j, "type", WEIR_INVALID, "a part's type must be \"text\"");
    else if (!value.ptr)
        weir_json_fail_key(&p->j, "text", WEIR_INVALID, "the part has no text");
    else
        weir_buf_add(text, value.ptr, value.len);
}

static void read_content(struct parse *p, char **ret)
{
    struct weir_buf text;

    if (weir_json_peek(&p->j) != WEIR_JSON_ARRAY) {
        read_string(p, ret);
        return;
    }
    weir_buf_init(&text, 0);
    weir_json_array(&p->j);
    while (weir_json_next(&p->j))
        read_part(p, &text);
    size_t len = weir_buf_len(&text);
    if (weir_json_ok(&p->j)) {
        char *copy = weir_arena_strndup(&p->req->arena, len ? weir_buf_ptr(&text) : "", len);
        if (text.failed || !copy)
            nomem(p);
        else if (strlen(copy) != len)
            weir_json_fail(&p->j, WEIR_INVALID, "the string holds a NUL"); /* [P2] */
        else
            *ret = copy;
    }
    weir_buf_release(&text);
}

static void read_message(struct parse *p, Weir__V1__Chat *chat)
{
    Weir__V1__Message *message = room(p, sizeof *message);
    struct weir_str key;
    char *role = NULL, *content = NULL;

    if (!message || !weir_json_object(&p->j))
        return;
    weir__v1__message__init(message);
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "role") && !role)
            read_string(p, &role);
        else if (weir_str_eq(key, "content") && !content)
            read_content(p, &content);
        else
            weir_json_fail(&p->j, WEIR_INVALID,
                           weir_str_eq(key, "role") || weir_str_eq(key, "content")
                               ? "the field is given twice"
                               : "unknown field");
    }
    if (!weir_json_ok(&p->j))
        return;
    if (!role)
        weir_json_fail_key(&p->j, "role", WEIR_INVALID, "the message has no role");
    else if (!content)
        weir_json_fail_key(&p->j, "content", WEIR_INVALID, "the message has no content");
    message->role = role;
    message->content = content;
    if (weir_json_ok(&p->j))
        list_add(p, (void ***)&chat->messages, &chat->n_messages, message);
}

static void read_messages(struct parse *p)
{
    Weir__V1__Chat *chat = room(p, sizeof *chat);

    if (!chat || !weir_json_array(&p->j))
        return;
    weir__v1__chat__init(chat);
    while (weir_json_next(&p->j))
        read_message(p, chat);
    p->msg->input_case = WEIR__V1__GENERATE_REQUEST__INPUT_CHAT;
    p->msg->chat = chat;
}

/* A string, or a list of exactly one. */
static void read_prompt(struct parse *p)
{
    char *prompt = NULL;
    size_t n = 0;

    if (weir_json_peek(&p->j) != WEIR_JSON_ARRAY) {
        read_string(p, &prompt);
    } else {
        weir_json_array(&p->j);
        while (weir_json_next(&p->j)) {
            if (n++ > 0)
                weir_json_fail(&p->j, WEIR_INVALID, "one prompt a request");
            else if (weir_json_peek(&p->j) == WEIR_JSON_STRING)
                read_string(p, &prompt);
            else
                weir_json_fail(&p->j, WEIR_INVALID, "a prompt must be text");
        }
        if (weir_json_ok(&p->j) && n == 0)
            weir_json_fail(&p->j, WEIR_INVALID, "the list is empty");
    }
    p->msg->input_case = WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT;
    p->msg->prompt = prompt;
}

/* ---- the other fields ---- */
static void read_model(struct parse *p)
{
    read_string(p, &p->msg->model);
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
    read_count(p, &p->msg->n);
    if (weir_json_ok(&p->j) && p->msg->n == 0) /* 0 in the message means absent */
        weir_json_fail(&p->j, WEIR_INVALID, "n must be 1 to %d", WEIR_CHOICES_MAX);
}

static void add_stop(struct parse *p)
{
    char *stop = NULL;

    read_string(p, &stop);
    if (stop)
        list_add(p, (void ***)&p->msg->stop, &p->msg->n_stop, stop);
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

static void read_temperature(struct parse *p)
{
    if (weir_json_f64(&p->j, &p->msg->temperature))
        p->msg->has_temperature_case = WEIR__V1__GENERATE_REQUEST__HAS_TEMPERATURE_TEMPERATURE;
}

static void read_top_p(struct parse *p)
{
    if (weir_json_f64(&p->j, &p->msg->top_p))
        p->msg->has_top_p_case = WEIR__V1__GENERATE_REQUEST__HAS_TOP_P_TOP_P;
}

static void read_top_k(struct parse *p)
{
    read_count(p, &p->msg->top_k);
    p->msg->has_top_k_case = WEIR__V1__GENERATE_REQUEST__HAS_TOP_K_TOP_K;
}

static void read_min_p(struct parse *p)
{
    if (weir_json_f64(&p->j, &p->msg->min_p))
        p->msg->has_min_p_case = WEIR__V1__GENERATE_REQUEST__HAS_MIN_P_MIN_P;
}

static void read_max(struct parse *p, bool *seen, const bool *other)
{
    if (*other)
        weir_json_fail(&p->j, WEIR_INVALID, "give max_tokens or max_completion_tokens, not both");
    read_count(p, &p->msg->max_tokens);
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
    bool on = false;

    if (p->opts->chat || weir_json_peek(&p->j) == WEIR_JSON_BOOL) {
        weir_json_bool(&p->j, &on);
    } else { /* completions: how many alternatives, in the older shape */
        read_count(p, &p->msg->top_logprobs);
        p->opts->legacy_logprobs = on = true;
        if (weir_json_ok(&p->j) && p->msg->top_logprobs > 5)
            weir_json_fail(&p->j, WEIR_INVALID, "logprobs must be 0 to 5");
    }
    p->msg->logprobs = on;
}

static void read_top_logprobs(struct parse *p)
{
    if (p->opts->legacy_logprobs)
        weir_json_fail(&p->j, WEIR_INVALID, "logprobs is a number already");
    read_count(p, &p->msg->top_logprobs);
}

static void read_user(struct parse *p)
{
    read_string(p, &p->msg->user);
}

static void read_prompt_cache_key(struct parse *p)
{
    read_string(p, &p->msg->prompt_cache_key);
}

static void read_isolation_key(struct parse *p)
{
    char *key = NULL;

    read_string(p, &key);
    if (key && p->req->isolation.len == 0) /* the header wins */
        p->req->isolation = weir_str(key);
}

static void read_perf_metrics(struct parse *p)
{
    bool on = false;

    weir_json_bool(&p->j, &on);
    p->msg->perf_metrics = on;
}

static void read_metadata(struct parse *p)
{
    struct weir_str key;

    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        Weir__V1__GenerateRequest__MetadataEntry *entry = room(p, sizeof *entry);
        char *name = weir_arena_strndup(&p->req->arena, key.ptr, key.len);
        if (!entry || !name || strlen(name) != key.len) {
            weir_json_fail(&p->j, WEIR_INVALID, "the name holds a NUL");
            return;
        }
        weir__v1__generate_request__metadata_entry__init(entry);
        entry->key = name;
        read_string(p, &entry->value);
        if (!list_add(p, (void ***)&p->msg->metadata, &p->msg->n_metadata, entry))
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
    { "messages", CHAT, read_messages },
    { "prompt", COMPLETION, read_prompt },
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
};
enum { N_FIELDS = sizeof fields / sizeof *fields };
_Static_assert(N_FIELDS <= 32, "the set of fields seen is a word");

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
    uint32_t seen = 0;

    while (weir_json_key(&p->j, &key)) {
        const struct field *field = find_field(key, p->opts->chat);
        if (!field) {
            weir_json_fail(&p->j, WEIR_INVALID, "unknown or unsupported field");
            return;
        }
        uint32_t bit = 1u << (field - fields);
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
