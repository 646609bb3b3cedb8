/* calls.c - see calls.h. */
#include "tests/unit/serve/calls.h"

#include "base/mem.h"

#define TOOLS_MAX 8
#define MESSAGES_MAX 256

struct weir_serve serve;
static struct weir_engine_info info;
static struct weir_tokenizer *tokenizer;
static struct weir_template *template;
static struct weir_buf shown;

void serve_begin(const char *template_text)
{
    serve_begin_in("models/demo", template_text);
}

void serve_begin_in(const char *dir, const char *template_text)
{
    static const int32_t ends[2] = { 2044, 2041 };
    struct weir_why why = { 0 };

    memset(&serve, 0, sizeof serve);
    if (weir_tokenizer_open(dir, &tokenizer, &why) != WEIR_OK)
        fail_msg("%s", why.text);
    if (template_text && weir_template_compile(weir_str(template_text), &template, &why) != WEIR_OK)
        fail_msg("%s", why.text);
    info.n_context = 1024;
    info.n_vocab = (uint32_t)weir_tokenizer_vocab(tokenizer);
    serve.info = &info;
    serve.opts.tokenizer = tokenizer;
    serve.opts.chat_template = template;
    serve.opts.template_text = weir_str(template_text);
    serve.opts.request_bytes_max = 1 << 20;
    serve.opts.outbox_bytes_max = 1 << 20;
    weir_buf_init(&serve.scratch, 0);
    weir_buf_init(&serve.piece, 0);
    weir_buf_init(&shown, 0);
    weir_arena_init(&serve.step_arena, 0);
    assert_int_equal(weir_grammar_vocab_open(tokenizer, ends, 2, &serve.vocab, &why), WEIR_OK);
    serve.formats = formats_open();
    assert_non_null(serve.formats);
}

void serve_end(void)
{
    formats_close(serve.formats);
    weir_grammar_vocab_close(serve.vocab);
    weir_arena_release(&serve.step_arena);
    weir_buf_release(&serve.scratch);
    weir_buf_release(&serve.piece);
    weir_buf_release(&shown);
    weir_template_close(template);
    weir_tokenizer_close(tokenizer);
    template = NULL;
}

struct call *call_make(void)
{
    struct call *call = weir_alloc0(sizeof *call);

    assert_non_null(call);
    weir_arena_init(&call->arena, 0);
    Weir__V1__GenerateRequest *msg = weir_arena_alloc(&call->arena, sizeof *msg);
    weir__v1__generate_request__init(msg);
    call->msg = msg;
    call->n_choices = 1;
    return call;
}

void call_free(struct call *call)
{
    choices_close(call);
    weir_grammar_unref(call->grammar);
    weir_arena_release(&call->arena);
    weir_free(call);
}

Weir__V1__GenerateRequest *call_msg(struct call *call)
{
    return (Weir__V1__GenerateRequest *)(uintptr_t)call->msg;
}

char *call_text(struct call *call, const char *text)
{
    return weir_arena_strndup(&call->arena, text, strlen(text));
}

void call_add_message(struct call *call, const char *role, const char *content)
{
    Weir__V1__GenerateRequest *msg = call_msg(call);

    if (!msg->chat) {
        msg->input_case = WEIR__V1__GENERATE_REQUEST__INPUT_CHAT;
        msg->chat = weir_arena_alloc(&call->arena, sizeof *msg->chat);
        weir__v1__chat__init(msg->chat);
        msg->chat->messages = weir_arena_alloc(&call->arena, MESSAGES_MAX * sizeof(void *));
    }
    Weir__V1__Message *message = weir_arena_alloc(&call->arena, sizeof *message);
    weir__v1__message__init(message);
    message->role = call_text(call, role);
    message->content = call_text(call, content);
    assert_true(msg->chat->n_messages < MESSAGES_MAX);
    msg->chat->messages[msg->chat->n_messages++] = message;
}

void call_add_tool(struct call *call, const char *name, const char *parameters)
{
    Weir__V1__GenerateRequest *msg = call_msg(call);
    Weir__V1__Tool *tool = weir_arena_alloc(&call->arena, sizeof *tool);

    if (!msg->tools)
        msg->tools = weir_arena_alloc(&call->arena, TOOLS_MAX * sizeof(void *));
    weir__v1__tool__init(tool);
    tool->name = call_text(call, name);
    tool->parameters = call_text(call, parameters);
    assert_true(msg->n_tools < TOOLS_MAX);
    msg->tools[msg->n_tools++] = tool;
}

void call_set_format(struct call *call, Weir__V1__ResponseFormatKind kind, const char *text)
{
    Weir__V1__ResponseFormat *format = weir_arena_alloc(&call->arena, sizeof *format);

    weir__v1__response_format__init(format);
    format->kind = kind;
    format->text = call_text(call, text);
    call_msg(call)->response_format = format;
}

const char *call_prompt_text(const struct call *call)
{
    weir_buf_clear(&shown);
    for (size_t i = 0; i < call->prompt.n; i++) {
        struct weir_str bytes = weir_token_bytes(tokenizer, call->prompt.ids[i], /* with_special= */ true);
        weir_buf_add(&shown, bytes.ptr, bytes.len);
    }
    return weir_buf_cstr(&shown);
}
