/* answer.h - one HTTP/1.1 answer as it arrives in pieces: where it ends, its status, how many events it held.
 *
 *     answer_begin(&a);  then for each read: answer_take(&a, data, len), until it is not ANSWER_MORE
 *
 * As little work as a correct reading allows, so that the load generator stays cheap beside what it measures. Events are those
 * of a stream whose lines end in a bare line feed, as every side of our benchmarks sends them. */
#ifndef WEIR_BENCH_ANSWER_H
#define WEIR_BENCH_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define ANSWER_HEAD_MAX 8192

enum answer_state {
    ANSWER_MORE,
    ANSWER_DONE,
    ANSWER_BAD, /* no HTTP/1.1, a head too long, an end that nothing tells, or bytes behind the end */
};

struct answer {
    enum answer_part { PART_HEAD, PART_BODY, PART_SIZE, PART_CHUNK, PART_CHUNK_END, PART_TRAILER } part;
    enum answer_state state;
    int status;
    uint64_t left; /* of the body, or of the chunk; in PART_SIZE what was read of its size */
    bool in_extension;
    bool after_line_end; /* the body's last byte was one */
    uint32_t n_line;     /* bytes of this trailer line */
    uint64_t n_events;
    size_t n_head;
    char head[ANSWER_HEAD_MAX]; /* terminated once the body begins */
    struct weir_buf *body;      /* the caller's: where the body goes, without chunks; NULL: nowhere */
};

void answer_begin(struct answer *a);
enum answer_state answer_take(struct answer *a, const char *data, size_t len);

#endif
