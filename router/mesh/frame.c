/* frame.c - see frame.h. */
#include "router/mesh/frame.h"

#include <math.h>
#include <string.h>

#define VERSION 1
#define FULL 0x80
#define HAS_CLOCK 0x40
#define IS_ACCOUNT 0x80
#define KEY_BYTES 7
#define REGISTER_MAX 192 /* bytes of one, at most */
#define SECTION_MAX 40
#define HELD_EXACT 4096

static size_t put_u64(uint8_t *to, uint64_t n)
{
    size_t len = 0;

    while (n >= 0x80) {
        to[len++] = (uint8_t)(n | 0x80);
        n >>= 7;
    }
    to[len++] = (uint8_t)n;
    return len;
}

static void add_u64(struct weir_buf *out, uint64_t n)
{
    uint8_t bytes[10];
    weir_buf_add(out, bytes, put_u64(bytes, n));
}

void frame_init(struct frame_writer *w)
{
    weir_buf_init(&w->out, 0);
    weir_buf_init(&w->body, 0);
}

void frame_release(struct frame_writer *w)
{
    weir_buf_release(&w->out);
    weir_buf_release(&w->body);
}

void frame_begin(struct frame_writer *w, uint64_t round, bool full, size_t max)
{
    weir_buf_clear(&w->out);
    weir_buf_clear(&w->body);
    w->max = max;
    w->full = full;
    w->n = w->n_all = 0;
    weir_buf_addc(&w->out, (char)(VERSION | (full ? FULL : 0)));
    add_u64(&w->out, round);
}

static void close_section(struct frame_writer *w)
{
    uint8_t origin[8];

    if (w->n == 0)
        return;
    for (int i = 0; i < 8; i++)
        origin[i] = (uint8_t)(w->origin >> 8 * i);
    weir_buf_add(&w->out, origin, sizeof origin);
    add_u64(&w->out, w->seq);
    add_u64(&w->out, w->origin_ms);
    add_u64(&w->out, w->n);
    weir_buf_add(&w->out, weir_buf_ptr(&w->body), weir_buf_len(&w->body));
    w->out.failed |= w->body.failed; /* clear would forget it, and the section's count be wrong */
    weir_buf_clear(&w->body);
    w->n = 0;
}

static uint64_t whole(double x)
{
    return x > 0 ? (uint64_t)(x + 0.5) : 0;
}

/* Holds are estimates: large ones are told in units of 16, rounded up, and a bit says so. */
static uint64_t squeeze(uint64_t held)
{
    return held < HELD_EXACT ? held << 1 : (held + 15) / 16 << 1 | 1;
}

static uint64_t stretch(uint64_t told)
{
    return told & 1 ? (told >> 1) * 16 : told >> 1;
}

static size_t encode(uint8_t *to, const struct reg_news *news)
{
    int n_meters = news->is_account ? 1 : WEIR_ADAPTIVE, n_levels = news->is_account ? 1 : LEVELS;
    double demand = 8 * log2(1 + news->demand);
    size_t len = KEY_BYTES;
    uint8_t *there;

    for (int i = 0; i < KEY_BYTES; i++)
        to[i] = (uint8_t)(news->key >> 8 * i);
    there = to + len++;
    *there = (uint8_t)((news->is_account ? IS_ACCOUNT : 0) | (news->has_clock ? HAS_CLOCK : 0));
    len += put_u64(to + len, news->generation);
    to[len++] = (uint8_t)(demand > 255 ? 255 : demand);
    for (int i = 0; i < n_meters; i++)
        if (news->used[i]) {
            *there |= (uint8_t)(1 << i);
            len += put_u64(to + len, news->used[i]);
        }
    for (int i = 0; i < n_meters; i++)
        if (news->held[i]) {
            *there |= (uint8_t)(8 << i);
            len += put_u64(to + len, squeeze(news->held[i]));
        }
    for (int i = 0; news->full && i < n_levels; i++)
        len += put_u64(to + len, whole(news->level[i]));
    for (int i = 0; news->has_clock && i < n_meters; i++) {
        len += put_u64(to + len, whole(news->clock_s[i]));
        len += put_u64(to + len, whole(news->limit_s[i] * 60));
    }
    return len;
}

bool frame_add(struct frame_writer *w, uint64_t origin, const struct reg_news *news)
{
    uint8_t bytes[REGISTER_MAX];
    size_t len = encode(bytes, news);

    if (weir_buf_len(&w->out) + weir_buf_len(&w->body) + len + SECTION_MAX > w->max)
        return false;
    if (w->n > 0 && (w->origin != origin || w->seq != news->seq || w->origin_ms != news->origin_ms))
        close_section(w);
    w->origin = origin;
    w->seq = news->seq;
    w->origin_ms = news->origin_ms;
    w->n++;
    w->n_all++;
    weir_buf_add(&w->body, bytes, len);
    return true;
}

struct weir_str frame_end(struct frame_writer *w)
{
    close_section(w);
    return (struct weir_str){ weir_buf_ptr(&w->out), w->out.failed ? 0 : weir_buf_len(&w->out) };
}

/* ---- reading ---- */
static uint64_t get_u64(struct frame_reader *r)
{
    uint64_t n = 0;

    for (int shift = 0; shift < 64; shift += 7) {
        if (r->pos == r->end)
            break;
        uint8_t byte = *r->pos++;
        if (shift == 63 && byte > 1)
            break;
        n |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return n;
    }
    r->bad = true;
    return 0;
}

static uint64_t get_fixed(struct frame_reader *r, int n_bytes)
{
    uint64_t n = 0;

    if (r->end - r->pos < n_bytes) {
        r->bad = true;
        return 0;
    }
    for (int i = 0; i < n_bytes; i++)
        n |= (uint64_t)*r->pos++ << 8 * i;
    return n;
}

bool frame_open(struct frame_reader *r, struct weir_str bytes)
{
    *r = (struct frame_reader){ .pos = (const uint8_t *)bytes.ptr,
                                .end = (const uint8_t *)bytes.ptr + bytes.len };
    uint64_t first = get_fixed(r, 1);
    r->full = first & FULL;
    r->round = get_u64(r);
    return !r->bad && (first & 0x7f) == VERSION;
}

/* Counters stay far from where sums would wrap. */
static uint64_t get_count(struct frame_reader *r)
{
    uint64_t n = get_u64(r);
    if (n >> 56)
        r->bad = true;
    return n;
}

bool frame_next(struct frame_reader *r, struct reg_news *ret)
{
    while (!r->bad && r->left == 0) {
        if (r->pos == r->end)
            return false;
        r->origin = get_fixed(r, 8);
        r->seq = get_u64(r);
        r->origin_ms = get_u64(r);
        r->left = get_u64(r);
    }
    if (r->bad)
        return false;
    *ret = (struct reg_news){
        .key = get_fixed(r, KEY_BYTES), .seq = r->seq, .origin_ms = r->origin_ms, .full = r->full
    };
    unsigned there = (unsigned)get_fixed(r, 1);
    uint64_t generation = get_u64(r);
    if (generation > UINT32_MAX)
        r->bad = true;
    ret->generation = (uint32_t)generation;
    ret->demand = exp2((double)get_fixed(r, 1) / 8) - 1;
    ret->is_account = there & IS_ACCOUNT;
    ret->has_clock = there & HAS_CLOCK;
    int n_meters = ret->is_account ? 1 : WEIR_ADAPTIVE;
    for (int i = 0; i < n_meters; i++)
        ret->used[i] = there & 1u << i ? get_count(r) : 0;
    for (int i = 0; i < n_meters; i++)
        ret->held[i] = there & 8u << i ? stretch(get_count(r)) : 0;
    for (int i = 0; r->full && i < (ret->is_account ? 1 : LEVELS); i++)
        ret->level[i] = (double)get_count(r);
    for (int i = 0; ret->has_clock && i < n_meters; i++) {
        ret->clock_s[i] = (double)get_count(r);
        ret->limit_s[i] = (double)get_count(r) / 60;
    }
    r->left--;
    return !r->bad;
}
