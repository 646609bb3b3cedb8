/* answer.c - see answer.h.
 *   [A1] What is found does not depend on how the bytes were cut into reads. */
#include "bench/answer.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CHUNK_MAX (1ULL << 40)

void answer_begin(struct answer *a)
{
    memset(a, 0, offsetof(struct answer, head));
}

/* The value of a field of the head, or NULL. */
static const char *field(const char *head, const char *name)
{
    size_t len = strlen(name);

    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) == 0 && line[len] == ':')
            return line + len + 1;
    }
    return NULL;
}

static void bad(struct answer *a)
{
    a->state = ANSWER_BAD;
}

static void read_head(struct answer *a)
{
    const char *length = field(a->head, "content-length"), *coding = field(a->head, "transfer-encoding");

    if (strncmp(a->head, "HTTP/1.", 7) != 0) {
        bad(a);
        return;
    }
    a->status = atoi(a->head + 9);
    if (coding) {
        a->part = PART_SIZE;
    } else if (length) {
        a->part = PART_BODY;
        a->left = strtoull(length, NULL, 10);
        a->state = a->left == 0 ? ANSWER_DONE : ANSWER_MORE;
    } else {
        bad(a); /* it would end with the connection */
    }
}

/* All these take from the front of data and return how much. */
static size_t take_head(struct answer *a, const char *data, size_t len)
{
    size_t before = a->n_head, room = ANSWER_HEAD_MAX - 1 - before, n = len < room ? len : room;
    size_t from = before > 3 ? before - 3 : 0; /* the end may lie over two reads */

    memcpy(a->head + before, data, n);
    a->n_head += n;
    char *end = memmem(a->head + from, a->n_head - from, "\r\n\r\n", 4);
    if (!end) {
        if (a->n_head == ANSWER_HEAD_MAX - 1)
            bad(a);
        return n;
    }
    *end = '\0';
    a->n_head = (size_t)(end - a->head);
    read_head(a);
    return a->n_head + 4 - before;
}

static void count_events(struct answer *a, const char *data, size_t len)
{
    for (const char *p = data, *end = data + len; p < end;) {
        if (*p != '\n') {
            a->after_line_end = false;
            p = memchr(p, '\n', (size_t)(end - p));
            if (!p)
                return;
        }
        a->n_events += a->after_line_end;
        a->after_line_end = !a->after_line_end; /* an event's end begins no other */
        p++;
    }
}

static size_t take_body(struct answer *a, const char *data, size_t len)
{
    size_t n = len < a->left ? len : (size_t)a->left;

    count_events(a, data, n);
    if (a->body)
        weir_buf_add(a->body, data, n);
    a->left -= n;
    if (a->left == 0 && a->part == PART_CHUNK)
        a->part = PART_CHUNK_END;
    else if (a->left == 0)
        a->state = ANSWER_DONE;
    return n;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void take_size(struct answer *a, char c)
{
    int digit = hex(c);

    if (c == '\n') {
        a->part = a->left > 0 ? PART_CHUNK : PART_TRAILER;
        a->in_extension = false;
        a->n_line = 0;
    } else if (c == ';' || c == '\r' || c == ' ') {
        a->in_extension = true;
    } else if (!a->in_extension) {
        a->left = a->left * 16 + (unsigned)digit;
        if (digit < 0 || a->left > CHUNK_MAX)
            bad(a);
    }
}

/* The lines behind the last chunk: an empty one is the end. */
static void take_trailer(struct answer *a, char c)
{
    if (c == '\n' && a->n_line == 0)
        a->state = ANSWER_DONE;
    else if (c == '\n')
        a->n_line = 0;
    else if (c != '\r')
        a->n_line++;
}

static size_t take_part(struct answer *a, const char *data, size_t len)
{
    switch (a->part) {
    case PART_HEAD:
        return take_head(a, data, len);
    case PART_BODY:
    case PART_CHUNK:
        return take_body(a, data, len);
    case PART_SIZE:
        take_size(a, *data);
        return 1;
    case PART_CHUNK_END:
        if (*data == '\n')
            a->part = PART_SIZE;
        else if (*data != '\r')
            bad(a);
        return 1;
    case PART_TRAILER:
        take_trailer(a, *data);
        return 1;
    }
    return len;
}

enum answer_state answer_take(struct answer *a, const char *data, size_t len)
{
    while (len > 0 && a->state == ANSWER_MORE) {
        size_t n = take_part(a, data, len);
        data += n;
        len -= n;
    }
    if (len > 0)
        bad(a);
    return a->state;
}
