/* tok_decode.c - what each token decodes to, worked out once at load.
 *
 * The file's decoder is a chain over a whole list of tokens; here it is applied to each token alone, because
 * a stream decodes token by token. What looks at the whole text is left out: Fuse, and the Strip behind it
 * that takes the space in front of a text (a continuation has no such space). Added tokens decode to their
 * own spelling. */
#include "replica/text/tok_int.h"

#include <string.h>

#include "base/utf8.h"

static weir_err add_step(struct tok_load *ld, struct tok_decode_step step)
{
    struct weir_tokenizer *tok = ld->tok;

    if (tok->n_decode == TOK_STEPS_MAX)
        return weir_fail(ld->why, WEIR_TOOLARGE, "decoder: more than %d steps", TOK_STEPS_MAX);
    tok->decode[tok->n_decode++] = step;
    return WEIR_OK;
}

static weir_err load_replace(struct tok_load *ld, struct weir_str obj)
{
    struct tok_decode_step step = { .kind = TOK_DECODE_REPLACE };
    struct tok_regex *re = NULL;
    weir_err err = tok_get_pattern(ld, obj, &re, &step.pattern);

    if (err == WEIR_OK && re)
        err = weir_fail(ld->why, WEIR_UNIMPLEMENTED, "decoder: Replace by a Regex is not supported");
    tok_regex_close(re);
    if (err == WEIR_OK)
        err = tok_get_str(ld, obj, "content", &step.content);
    if (err == WEIR_OK)
        err = tok_keep(ld, step.content, &step.content);
    return err == WEIR_OK ? add_step(ld, step) : err;
}

static weir_err load_metaspace(struct tok_load *ld, struct weir_str obj)
{
    struct tok_decode_step step = { .kind = TOK_DECODE_REPLACE,
                                    .pattern = WEIR_STR("\xe2\x96\x81"),
                                    .content = WEIR_STR(" ") };
    weir_err err = tok_get_str(ld, obj, "replacement", &step.pattern);

    if (err == WEIR_OK)
        err = tok_keep(ld, step.pattern, &step.pattern);
    return err == WEIR_OK ? add_step(ld, step) : err;
}

static weir_err load_strip(struct tok_load *ld, struct weir_str obj)
{
    struct tok_decode_step step = { .kind = TOK_DECODE_STRIP };
    weir_err err = tok_get_str(ld, obj, "content", &step.pattern);

    if (err == WEIR_OK)
        err = tok_get_size(ld, obj, "start", &step.n_start);
    if (err == WEIR_OK)
        err = tok_get_size(ld, obj, "stop", &step.n_stop);
    if (err == WEIR_OK)
        err = tok_keep(ld, step.pattern, &step.pattern);
    return err == WEIR_OK ? add_step(ld, step) : err;
}

weir_err tok_load_decoder(struct tok_load *ld, struct weir_str obj, int depth)
{
    struct weir_str kind = { 0 };
    weir_err err = tok_get_str(ld, obj, "type", &kind);

    if (err != WEIR_OK)
        return err;
    if (weir_str_eq(kind, "Sequence"))
        return tok_each_of(ld, obj, "decoders", depth, tok_load_decoder);
    if (weir_str_eq(kind, "Fuse")) {
        ld->fused = true;
        return WEIR_OK;
    }
    if (weir_str_eq(kind, "Strip"))
        return ld->fused ? WEIR_OK : load_strip(ld, obj);
    if (weir_str_eq(kind, "ByteLevel"))
        return add_step(ld, (struct tok_decode_step){ .kind = TOK_DECODE_BYTE_LEVEL });
    if (weir_str_eq(kind, "ByteFallback"))
        return add_step(ld, (struct tok_decode_step){ .kind = TOK_DECODE_BYTE_FALLBACK });
    if (weir_str_eq(kind, "Replace"))
        return load_replace(ld, obj);
    if (weir_str_eq(kind, "Metaspace"))
        return load_metaspace(ld, obj);
    return tok_unknown(ld, "decoder", kind);
}

/* ---- applying ---- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that "<0xE2>" names, or -1. */
static int byte_token(struct weir_str text)
{
    if (text.len != 6 || memcmp(text.ptr, "<0x", 3) != 0 || text.ptr[5] != '>')
        return -1;
    int high = hex_value(text.ptr[3]), low = hex_value(text.ptr[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

static struct weir_str strip(struct weir_str text, const struct tok_decode_step *step)
{
    size_t len = step->pattern.len;

    for (size_t i = 0; len > 0 && i < step->n_start && text.len >= len; i++) {
        if (memcmp(text.ptr, step->pattern.ptr, len) != 0)
            break;
        text.ptr += len;
        text.len -= len;
    }
    for (size_t i = 0; len > 0 && i < step->n_stop && text.len >= len; i++) {
        if (memcmp(text.ptr + text.len - len, step->pattern.ptr, len) != 0)
            break;
        text.len -= len;
    }
    return text;
}

static void replace(struct weir_str text, const struct tok_decode_step *step, struct weir_buf *out)
{
    size_t len = step->pattern.len, i = 0;

    while (i < text.len) {
        const char *hit = len ? memmem(text.ptr + i, text.len - i, step->pattern.ptr, len) : NULL;
        size_t n = hit ? (size_t)(hit - text.ptr) - i : text.len - i;
        weir_buf_add(out, text.ptr + i, n);
        if (hit)
            weir_buf_add(out, step->content.ptr, step->content.len);
        i += n + (hit ? len : 0);
    }
}

/* Runs the chain; the result is `text`, a part of it, or in one of the buffers. */
static struct weir_str decode(const struct weir_tokenizer *tok, struct weir_str text, bool is_added,
                              struct weir_buf bufs[2])
{
    uint32_t i_out = 0; /* the buffer that does not hold `text` */

    for (uint32_t i = 0; i < tok->n_decode; i++) {
        const struct tok_decode_step *step = &tok->decode[i];
        struct weir_buf *out = &bufs[i_out];
        int byte = byte_token(text);
        size_t len = 0;
        if (step->kind == TOK_DECODE_STRIP) {
            text = strip(text, step);
            continue;
        }
        if ((step->kind == TOK_DECODE_BYTE_FALLBACK && byte < 0) ||
            (step->kind == TOK_DECODE_BYTE_LEVEL && is_added))
            continue;
        weir_buf_clear(out);
        char *room = weir_buf_reserve(out, text.len + 1);
        if (!room)
            break; /* the caller looks at `failed` */
        if (step->kind == TOK_DECODE_BYTE_FALLBACK)
            weir_buf_addc(out, (char)byte);
        else if (step->kind == TOK_DECODE_REPLACE)
            replace(text, step, out);
        else if (weir_utf8_valid(text.ptr, text.len) && tok_unmap_bytes(text, room, &len))
            weir_buf_commit(out, len);
        else
            continue; /* not in the alphabet: as it is */
        text = (struct weir_str){ weir_buf_ptr(out), weir_buf_len(out) };
        i_out ^= 1;
        if (out->failed || step->kind == TOK_DECODE_BYTE_FALLBACK)
            break; /* a byte is no longer text */
    }
    return text;
}

weir_err tok_load_bytes(struct tok_load *ld)
{
    struct weir_tokenizer *tok = ld->tok;
    struct weir_buf bufs[2];
    weir_err err = WEIR_OK;

    tok->bytes = weir_arena_alloc0(&tok->arena, tok->n_vocab * sizeof *tok->bytes);
    if (!tok->bytes)
        return weir_fail(ld->why, WEIR_NOMEM, "no memory for the vocabulary");
    for (int i = 0; i < 2; i++)
        weir_buf_init(&bufs[i], (size_t)1 << 20);
    for (uint32_t id = 0; err == WEIR_OK && id < tok->n_vocab; id++) {
        bool is_added = tok->added_1[id] != 0;
        struct weir_str raw = is_added ? tok->added[tok->added_1[id] - 1].content : ld->raw[id];
        if (raw.len == 0)
            continue; /* a hole */
        struct weir_str bytes = decode(tok, raw, is_added, bufs);
        err = bufs[0].failed || bufs[1].failed
                  ? weir_fail(ld->why, WEIR_TOOLARGE, "decoder: token %u decodes to more than a megabyte", id)
                  : tok_keep(ld, bytes, &tok->bytes[id]);
    }
    for (int i = 0; i < 2; i++)
        weir_buf_release(&bufs[i]);
    return err;
}
