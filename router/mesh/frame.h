/* frame.h - registers as bytes. Pure.
 *
 *   frame    = version | full << 7 (1 byte), round, section...
 *   section  = origin (8 bytes), tick of the origin, its clock in ms, count, register...
 *   register = key (7 bytes), what is there (1 byte: a bit for each of used and held that is not 0, one for clocks, one for an
 *              account's), generation, demand (1 byte, 8 log2), used..., held..., with full the levels, with clocks (seconds,
 *              limit a minute) of each meter
 *
 * Holds of 4096 tokens and more are rounded up to a multiple of 16. Numbers are LEB128 unless a size is given. About 28 bytes a register that is busy on all meters. */
#ifndef WEIR_ROUTER_MESH_FRAME_H
#define WEIR_ROUTER_MESH_FRAME_H

#include "base/buf.h"
#include "router/limits/limits_int.h"

struct frame_writer {
    struct weir_buf out;
    size_t max; /* bytes of the frame */
    bool full;
    uint64_t origin, seq, origin_ms;
    struct weir_buf body; /* its registers */
    uint32_t n, n_all;
};

void frame_init(struct frame_writer *w);
void frame_release(struct frame_writer *w);
void frame_begin(struct frame_writer *w, uint64_t round, bool full, size_t max);
/* False: it has no room, and is not in. */
bool frame_add(struct frame_writer *w, uint64_t origin, const struct reg_news *news);
/* Empty: there was no memory for it; a frame without registers is not. */
struct weir_str frame_end(struct frame_writer *w);

struct frame_reader {
    const uint8_t *pos, *end;
    bool bad;
    uint64_t round;
    bool full;
    uint64_t origin, seq, origin_ms, left;
};
/* False: malformed. */
bool frame_open(struct frame_reader *r, struct weir_str bytes);
/* The next register; false at the end, or at something malformed: r->bad. */
bool frame_next(struct frame_reader *r, struct reg_news *ret);

#endif
