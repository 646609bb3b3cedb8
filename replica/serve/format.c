/* format.c - what a call's answer must look like, and how to read it. On a text worker.
 *
 *   [F1] Nothing is compiled twice while it is in the cache, and nothing is compiled on the step thread.
 *   [F2] A forced tool call is made by two means: the marker before a call goes into the prompt, and the call itself
 * is bound by a grammar that is made of the tools' schemas, in the form that the model was taught. Where the model
 * reasons first, the grammar begins behind the marker instead.
 *
 * The cache: the last used grammars by their whole source, a bounded number of bounded texts, one lock. */
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "replica/serve/serve_int.h"

/* ---- the cache ---- */
enum { CACHE_ENTRIES = 64 };

struct entry {
    struct weir_grammar *grammar; /* NULL: free */
    uint64_t hash, used;          /* of the key; when it was last asked for */
    char *key;
    size_t n_key;
};

struct formats {
    pthread_mutex_t lock;
    struct entry entries[CACHE_ENTRIES];
    uint64_t clock;
};

struct formats *formats_open(void)
{
    struct formats *formats = weir_alloc0(sizeof *formats);

    if (formats)
        pthread_mutex_init(&formats->lock, NULL);
    return formats;
}

void formats_close(struct formats *formats)
{
    if (!formats)
        return;
    for (int i = 0; i < CACHE_ENTRIES; i++) {
        weir_grammar_unref(formats->entries[i].grammar);
        weir_free(formats->entries[i].key);
    }
    pthread_mutex_destroy(&formats->lock);
    weir_free(formats);
}

static struct weir_grammar *cache_find(struct formats *formats, struct weir_str key, uint64_t hash)
{
    struct weir_grammar *found = NULL;

    pthread_mutex_lock(&formats->lock);
    for (int i = 0; i < CACHE_ENTRIES && !found; i++) {
        struct entry *e = &formats->entries[i];
        if (!e->grammar || e->hash != hash || e->n_key != key.len || memcmp(e->key, key.ptr, key.len) != 0)
            continue;
        e->used = ++formats->clock;
        found = weir_grammar_ref(e->grammar);
    }
    pthread_mutex_unlock(&formats->lock);
    return found;
}

/* In the place of the one that was not asked for the longest. Without memory it is just not kept. */
static void cache_keep(struct formats *formats, struct weir_str key, uint64_t hash,
                       struct weir_grammar *grammar)
{
    char *copy = weir_strndup(key.ptr, key.len);
    struct entry *oldest = &formats->entries[0];

    if (!copy)
        return;
    pthread_mutex_lock(&formats->lock);
    for (int i = 1; i < CACHE_ENTRIES; i++)
        if (formats->entries[i].used < oldest->used)
            oldest = &formats->entries[i];
    struct entry gone = *oldest;
    *oldest = (struct entry){ weir_grammar_ref(grammar), hash, ++formats->clock, copy, key.len };
    pthread_mutex_unlock(&formats->lock);
    weir_grammar_unref(gone.grammar);
    weir_free(gone.key);
}

/* ---- compiling ---- */
struct source {
    enum { SOURCE_OBJECT = 'o', SOURCE_SCHEMA = 's', SOURCE_GBNF = 'g', SOURCE_CALLS = 'c' } kind;
    struct weir_str text;
    struct weir_grammar_calls calls; /* CALLS: but for the tools, which are the text */
    struct weir_str after;           /* what must come before: see struct weir_grammar_opts */
};

static weir_err compile(struct weir_serve *serve, const struct source *src, struct weir_grammar **ret,
                        struct weir_why *why)
{
    const struct weir_grammar_opts opts = { .after = src->after };
    struct weir_grammar_calls calls = src->calls;

    switch (src->kind) {
    case SOURCE_OBJECT:
        return weir_grammar_compile_json_object(serve->vocab, &opts, ret, why);
    case SOURCE_SCHEMA:
        return weir_grammar_compile_schema(serve->vocab, src->text, &opts, ret, why);
    case SOURCE_CALLS:
        calls.tools = src->text;
        return weir_grammar_compile_calls(serve->vocab, &calls, &opts, ret, why);
    default:
        return weir_grammar_compile_gbnf(serve->vocab, src->text, &opts, ret, why);
    }
}

static weir_err get_grammar(struct weir_serve *serve, struct call *call, const struct source *src) /* [F1] */
{
    struct weir_buf key;
    weir_err err = WEIR_OK;

    weir_buf_init(&key, 0);
    weir_buf_addc(&key, (char)src->kind);
    weir_buf_addf(&key, "%d %u ", (int)src->calls.form, src->calls.n_max);
    weir_buf_addu(&key, src->after.len);
    weir_buf_addc(&key, ' ');
    weir_buf_add(&key, src->after.ptr, src->after.len);
    weir_buf_add(&key, src->text.ptr, src->text.len);
    struct weir_str whole = { weir_buf_ptr(&key), weir_buf_len(&key) };
    if (key.failed) {
        err = weir_fail(&call->why, WEIR_NOMEM, "no memory for the answer's format");
    } else {
        uint64_t hash = weir_hash64(whole.ptr, whole.len, /* seed= */ 0);
        call->grammar = cache_find(serve->formats, whole, hash);
        if (!call->grammar)
            err = compile(serve, src, &call->grammar, &call->why);
        if (err == WEIR_OK)
            cache_keep(serve->formats, whole, hash, call->grammar);
    }
    weir_buf_release(&key);
    if (err == WEIR_UNIMPLEMENTED || err == WEIR_TOOLARGE)
        err = WEIR_INVALID; /* the client's to change */
    return err;
}

/* ---- forced calls ---- */
static bool is_forced(const Weir__V1__GenerateRequest *msg)
{
    return msg->tool_choice >= WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_REQUIRED;
}

static bool is_chosen(const Weir__V1__GenerateRequest *msg, const Weir__V1__Tool *tool)
{
    return msg->tool_choice != WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NAMED ||
           strcmp(tool->name, msg->tool_name) == 0;
}

static struct weir_str parameters_of(const Weir__V1__Tool *tool)
{
    if (tool->parameters && tool->parameters[0])
        return weir_str(tool->parameters);
    return WEIR_STR("{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}");
}

/* What the grammar is made of: the tools that may be called. */
static void write_tools(struct weir_buf *out, const Weir__V1__GenerateRequest *msg)
{
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_array(&w);
    for (size_t i = 0; i < msg->n_tools; i++) {
        if (!is_chosen(msg, msg->tools[i]))
            continue;
        weir_jw_object(&w);
        weir_jw_key(&w, "name");
        weir_jw_cstr(&w, msg->tools[i]->name);
        weir_jw_key(&w, "parameters");
        weir_jw_raw(&w, parameters_of(msg->tools[i]));
        weir_jw_object_end(&w);
    }
    weir_jw_array_end(&w);
}

static bool may_call_many(const Weir__V1__GenerateRequest *msg)
{
    return !msg->has_parallel_tool_calls_case || msg->parallel_tool_calls;
}

static const Weir__V1__Tool *only_tool(const Weir__V1__GenerateRequest *msg)
{
    const Weir__V1__Tool *only = NULL;

    for (size_t i = 0; i < msg->n_tools; i++) {
        if (!is_chosen(msg, msg->tools[i]))
            continue;
        if (only)
            return NULL;
        only = msg->tools[i];
    }
    return only;
}

/* The marker before a call, and the form of what follows it; NULL marker: this can't be forced. */
static char *forced_call(struct call *call, struct weir_grammar_calls *ret)
{
    const Weir__V1__Tool *only = only_tool(call->msg);
    const char *marker = "";

    *ret = (struct weir_grammar_calls){ .n_max = 1 };
    switch (call->format.tools) {
    case WEIR_TOOLS_LLAMA3:
        ret->form = WEIR_CALL_PARAMETERS;
        break;
    case WEIR_TOOLS_HERMES:
        ret->form = call->format.in_tags ? WEIR_CALL_TAGS : WEIR_CALL_ARGUMENTS;
        marker = "<tool_call>\n";
        break;
    case WEIR_TOOLS_MISTRAL:
        ret->form = WEIR_CALL_LIST;
        ret->n_max = may_call_many(call->msg) ? 8 : 1;
        marker = "[TOOL_CALLS]";
        break;
    case WEIR_TOOLS_DEEPSEEK:
        ret->form = WEIR_CALL_BARE;
        return !only ? NULL
                     : weir_arena_printf(&call->arena,
                                         "<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call"
                                         "\u2581begin\uff5c>function<\uff5ctool\u2581sep\uff5c>%s\n```json\n",
                                         only->name);
    case WEIR_TOOLS_NONE:
        return NULL;
    }
    return weir_arena_strndup(&call->arena, marker, strlen(marker));
}

static weir_err force_call(struct weir_serve *serve, struct call *call) /* [F2] */
{
    struct source src = { .kind = SOURCE_CALLS };
    struct weir_buf tools;
    weir_err err = WEIR_OK;

    weir_buf_init(&tools, 0);
    write_tools(&tools, call->msg);
    char *marker = forced_call(call, &src.calls);
    bool special_marker =
        call->format.tools == WEIR_TOOLS_MISTRAL || call->format.tools == WEIR_TOOLS_DEEPSEEK;
    if (!marker || (call->format.in_reasoning && special_marker)) {
        err =
            weir_fail_param(&call->why, "tool_choice", WEIR_INVALID,
                            "tool_choice: this model's calls can't be forced in this way; use auto, or name "
                            "one tool and switch reasoning off");
    } else if (tools.failed) {
        err = weir_fail(&call->why, WEIR_NOMEM, "no memory for the tools");
    } else {
        src.text = (struct weir_str){ weir_buf_ptr(&tools), weir_buf_len(&tools) };
        if (call->format.in_reasoning)
            src.after = weir_str(marker[0] ? marker : weir_think_marks_of(call->format.think)->end);
        else
            call->prefill = weir_str(marker);
        err = get_grammar(serve, call, &src);
        if (err ==
            WEIR_INVALID) /* a path within a list that the client never saw; the text has it from the tool on */
            memcpy(call->why.param, "tools", sizeof "tools");
    }
    weir_buf_release(&tools);
    return err;
}

/* ---- choosing ---- */
static weir_err bind_format(struct weir_serve *serve, struct call *call)
{
    const Weir__V1__ResponseFormat *format = call->msg->response_format;
    struct source src = { .kind = SOURCE_SCHEMA };

    if (!format || format->kind == WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_TEXT)
        return WEIR_OK;
    src.text = weir_str(format->text);
    if (format->kind == WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_GRAMMAR)
        src.kind = SOURCE_GBNF;
    else if (src.text.len == 0)
        src.kind = SOURCE_OBJECT;
    if (call->format.in_reasoning)
        src.after = weir_str(weir_think_marks_of(call->format.think)->end);
    call->format.tools = WEIR_TOOLS_NONE; /* the answer is the format's, not a call */
    return get_grammar(serve, call, &src);
}

/* What the parser asks when a call's values have no types of their own. */
static weir_err describe_tools(struct call *call)
{
    const Weir__V1__GenerateRequest *msg = call->msg;
    struct weir_output_tool *tools = weir_arena_alloc(&call->arena, (msg->n_tools + 1) * sizeof *tools);

    if (!tools)
        return weir_fail(&call->why, WEIR_NOMEM, "no memory for the tools");
    for (size_t i = 0; i < msg->n_tools; i++)
        tools[i] = (struct weir_output_tool){ weir_str(msg->tools[i]->name), parameters_of(msg->tools[i]) };
    call->format.described = tools;
    call->format.n_described = msg->n_tools;
    return WEIR_OK;
}

static weir_err check_tools(struct weir_serve *serve, struct call *call)
{
    const Weir__V1__GenerateRequest *msg = call->msg;
    bool wanted = msg->n_tools > 0 && msg->tool_choice != WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NONE;

    if (serve->opts.tool_format_given)
        call->format.tools = serve->opts.tool_format;
    if (wanted && call->format.tools == WEIR_TOOLS_NONE)
        return weir_fail_param(&call->why, "tools", WEIR_INVALID,
                               "tools: this model's chat template takes none");
    if (wanted)
        return describe_tools(call);
    call->format.tools = WEIR_TOOLS_NONE;
    return WEIR_OK;
}

weir_err format_choose(struct weir_serve *serve, struct call *call, struct weir_str prompt)
{
    const Weir__V1__GenerateRequest *msg = call->msg;
    const size_t end_max = 64;
    size_t n_end = prompt.len < end_max ? prompt.len : end_max;
    struct weir_str prompt_end = { n_end ? prompt.ptr + prompt.len - n_end : "", n_end };

    weir_output_format_guess(serve->opts.template_text, serve->opts.tokenizer, prompt_end, &call->format);
    weir_err err = check_tools(serve, call);
    if (err == WEIR_OK && msg->has_reasoning_tokens_case && !call->format.thinks)
        return weir_fail_param(&call->why, "reasoning_effort", WEIR_INVALID,
                               "reasoning_effort: this model does not reason, so there is nothing to bound");
    if (err == WEIR_OK && is_forced(msg))
        err = force_call(serve, call);
    else if (err == WEIR_OK)
        err = bind_format(serve, call);
    call->parses = call->format.tools != WEIR_TOOLS_NONE || call->format.thinks;
    return err;
}

weir_err format_choose_plain(struct weir_serve *serve, struct call *call)
{
    call->format = (struct weir_output_format){ .tools = WEIR_TOOLS_NONE };
    return bind_format(serve, call);
}
