/* event.c - see event.h. */
#include "bench/event.h"

#include <string.h>

#include "base/json.h"

bool event_next(struct weir_str *rest, struct weir_str *ret_block)
{
    const char *end = rest->len > 0 ? memmem(rest->ptr, rest->len, "\n\n", 2) : NULL;

    if (!end)
        return false;
    *ret_block = (struct weir_str){ rest->ptr, (size_t)(end - rest->ptr) };
    rest->len -= ret_block->len + 2;
    rest->ptr = end + 2;
    return true;
}

static void read_details(struct weir_json *j, struct event *ret)
{
    struct weir_str key;

    if (weir_json_peek(j) != WEIR_JSON_OBJECT) {
        weir_json_skip(j);
        return;
    }
    weir_json_object(j);
    while (weir_json_key(j, &key))
        if (weir_str_eq(key, "cached_tokens"))
            weir_json_u64(j, &ret->cached_tokens);
        else
            weir_json_skip(j);
}

static void read_usage(struct weir_json *j, struct event *ret)
{
    struct weir_str key;

    if (weir_json_peek(j) != WEIR_JSON_OBJECT) {
        weir_json_skip(j); /* null in every chunk but the last */
        return;
    }
    ret->has_usage = true;
    weir_json_object(j);
    while (weir_json_key(j, &key))
        if (weir_str_eq(key, "prompt_tokens"))
            weir_json_u64(j, &ret->prompt_tokens);
        else if (weir_str_eq(key, "completion_tokens"))
            weir_json_u64(j, &ret->completion_tokens);
        else if (weir_str_eq(key, "prompt_tokens_details"))
            read_details(j, ret);
        else
            weir_json_skip(j);
}

static bool any_element(struct weir_json *j)
{
    bool any = false;

    for (weir_json_array(j); weir_json_next(j); any = true)
        weir_json_skip(j);
    return any;
}

static void read_choice(struct weir_json *j, struct event *ret)
{
    struct weir_str key, text = { NULL, 0 };
    bool finished = false, has_ids = false, any_id = false;

    weir_json_object(j);
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "text")) {
            weir_json_string(j, &text);
        } else if (weir_str_eq(key, "token_ids") && weir_json_peek(j) == WEIR_JSON_ARRAY) {
            has_ids = true;
            any_id = any_element(j);
        } else {
            finished |= weir_str_eq(key, "finish_reason") && weir_json_peek(j) == WEIR_JSON_STRING;
            weir_json_skip(j);
        }
    }
    ret->has_tokens = text.len > 0 || any_id || (!has_ids && !finished);
}

static void read_choices(struct weir_json *j, struct event *ret)
{
    for (weir_json_array(j); weir_json_next(j);)
        read_choice(j, ret);
}

bool event_read(struct weir_str block, struct weir_arena *arena, struct event *ret)
{
    struct weir_json j;
    struct weir_str key;
    bool failed = false;

    *ret = (struct event){ 0 };
    if (block.len == 0 || block.ptr[0] == ':' || weir_str_eq(block, "data: [DONE]"))
        return true;
    if (block.len < 6 || memcmp(block.ptr, "data: ", 6) != 0)
        return false;
    weir_json_init(&j, block.ptr + 6, block.len - 6, arena);
    weir_json_object(&j);
    while (weir_json_key(&j, &key)) {
        if (weir_str_eq(key, "choices")) {
            read_choices(&j, ret);
        } else if (weir_str_eq(key, "usage")) {
            read_usage(&j, ret);
        } else {
            failed |= weir_str_eq(key, "error");
            weir_json_skip(&j);
        }
    }
    return weir_json_end(&j, /* why= */ NULL) == WEIR_OK && !failed;
}
