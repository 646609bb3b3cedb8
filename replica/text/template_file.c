/* template_file.c - the chat template of a model's folder.
 *
 * A model may have two: one for talks with tools. The package that renders them chooses by whether tools were given; here
 * the two become one template that does. */
#include "replica/text/template.h"

#include <string.h>

#include "base/json.h"
#include "replica/text/text_int.h"
#include "replica/text/tmpl_int.h" /* TMPL_SOURCE_BYTES_MAX */

struct sources {
    struct weir_str plain, with_tools; /* ptr NULL: there is none */
};

/* A template's last line end is no part of it. */
static void add_source(struct weir_buf *out, struct weir_str source)
{
    bool ends = source.len > 0 && source.ptr[source.len - 1] == '\n';

    weir_buf_add(out, source.ptr, source.len - ends);
}

/* The pluses keep the white space beside the tags, which belongs to the templates. */
static weir_err put_sources(const struct sources *sources, struct weir_buf *out, struct weir_why *why)
{
    if (!sources->plain.ptr)
        return weir_fail(why, WEIR_NOTFOUND, "tokenizer_config.json has no chat_template");
    if (sources->with_tools.ptr) {
        weir_buf_adds(out, "{%+ if tools is defined and tools is not none +%}");
        add_source(out, sources->with_tools);
        weir_buf_adds(out, "{%+ else +%}");
        add_source(out, sources->plain);
        weir_buf_adds(out, "{%+ endif +%}");
    } else {
        weir_buf_add(out, sources->plain.ptr, sources->plain.len);
    }
    return out->failed ? weir_fail(why, WEIR_NOMEM, "no memory for the template") : WEIR_OK;
}

/* "chat_template": "..." or [{"name": "default", "template": "..."}, ...] */
static bool read_named(struct weir_json *j, struct sources *ret)
{
    struct weir_str key;

    if (weir_json_peek(j) == WEIR_JSON_STRING)
        return weir_json_string(j, &ret->plain);
    if (!weir_json_array(j))
        return false;
    while (weir_json_next(j)) {
        struct weir_str name = { 0 }, text = { 0 };
        if (!weir_json_object(j))
            return false;
        while (weir_json_key(j, &key)) {
            if (weir_str_eq(key, "name"))
                weir_json_string(j, &name);
            else if (weir_str_eq(key, "template"))
                weir_json_string(j, &text);
            else
                weir_json_skip(j);
        }
        if (weir_json_ok(j) && name.ptr && weir_str_eq(name, "default"))
            ret->plain = text;
        else if (weir_json_ok(j) && name.ptr && weir_str_eq(name, "tool_use"))
            ret->with_tools = text;
    }
    return weir_json_ok(j);
}

static weir_err read_config(const struct weir_buf *config, struct weir_buf *out, struct weir_why *why)
{
    struct weir_arena arena;
    struct weir_json j;
    struct weir_str key;
    struct sources sources = { { 0 }, { 0 } };

    weir_arena_init(&arena, /* limit_bytes= */ 0); /* the file's size bounds it */
    weir_json_init(&j, weir_buf_ptr(config), weir_buf_len(config), &arena);
    if (weir_json_object(&j)) {
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, "chat_template") && weir_json_peek(&j) != WEIR_JSON_NULL)
                read_named(&j, &sources);
            else
                weir_json_skip(&j);
        }
    }
    weir_err err = weir_json_end(&j, NULL);
    if (err != WEIR_OK)
        err =
            weir_fail(why, err == WEIR_INVALID ? WEIR_CORRUPT : err, "tokenizer_config.json: %s", j.why.text);
    else
        err = put_sources(&sources, out, why);
    weir_arena_release(&arena);
    return err;
}

/* The newer place: files of their own. */
static weir_err read_files(const char *dir, const struct weir_buf *plain, struct weir_buf *out,
                           struct weir_why *why)
{
    struct sources sources = { .plain = { weir_buf_ptr(plain), weir_buf_len(plain) } };
    struct weir_buf with_tools;

    weir_buf_init(&with_tools, TMPL_SOURCE_BYTES_MAX);
    weir_err err = text_file_read(dir, "additional_chat_templates/tool_use.jinja", &with_tools, why);
    if (err == WEIR_OK)
        sources.with_tools = (struct weir_str){ weir_buf_ptr(&with_tools), weir_buf_len(&with_tools) };
    if (err == WEIR_OK || err == WEIR_NOTFOUND)
        err = put_sources(&sources, out, why);
    weir_buf_release(&with_tools);
    return err;
}

weir_err weir_template_load(const char *dir, struct weir_buf *out, struct weir_why *why)
{
    struct weir_buf file;

    weir_buf_init(&file, TMPL_SOURCE_BYTES_MAX);
    weir_err err = text_file_read(dir, "chat_template.jinja", &file, why);
    if (err == WEIR_OK) {
        err = read_files(dir, &file, out, why);
    } else if (err == WEIR_NOTFOUND) {
        file.limit = 16 * TMPL_SOURCE_BYTES_MAX;
        err = text_file_read(dir, "tokenizer_config.json", &file, why);
        if (err == WEIR_OK)
            err = read_config(&file, out, why);
    }
    weir_buf_release(&file);
    return err;
}
