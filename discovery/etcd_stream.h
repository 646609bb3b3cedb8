/* etcd_stream.h - what etcd's JSON gateway says, from bytes. No I/O. Private to discovery/.
 *
 * One struct for all replies: their field names do not clash, and etcd leaves out every field that is zero.
 */
#ifndef WEIR_DISCOVERY_ETCD_STREAM_H
#define WEIR_DISCOVERY_ETCD_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

/* Longest line of a watch. With fragment:true etcd cuts events at about 1.9 MB a line (2.7 MB at the worst).
 */
#define ETCD_LINE_MAX (8u << 20)
/* Most key-values of one reply: a page of a range asks for far fewer; a watch line of 8 MiB can't hold more.
 */
#define ETCD_KVS_MAX (1 << 18)

struct etcd_kv {
    struct weir_str key, value;
    int64_t mod_revision;
    bool is_delete; /* an event of a watch; its value is empty */
};

struct etcd_msg {
    bool has_header;
    uint64_t cluster_id;
    int64_t revision;
    const struct etcd_kv *kvs; /* a range's key-values or a watch's events */
    int n_kvs;
    bool more;             /* range: the page is not the last */
    bool succeeded;        /* txn */
    int64_t lease_id;      /* grant, keep-alive */
    int64_t ttl_s;         /* keep-alive: 0 = the lease is gone */
    struct weir_str token; /* authenticate */
    /* watch: test canceled first; a refused watch comes as created AND canceled */
    bool canceled, created, fragment;
    int64_t compact_revision;
    struct weir_str cancel_reason;
    bool is_error;
    int64_t error_code; /* gRPC's */
    struct weir_str error;
};

/* One reply (a body or one line). Strings live in `text` or the arena.
 * WEIR_INVALID: not JSON, wrong type, bad base64 or number; the field is named. WEIR_FULL: over ETCD_KVS_MAX.
 * WEIR_NOMEM: the arena is used up. */
WEIR_MUST_CHECK weir_err etcd_msg_parse(struct weir_str text, struct weir_arena *arena, struct etcd_msg *ret,
                                        struct weir_why *why);

/* Bytes in any splits -> lines. */
struct etcd_lines {
    struct weir_buf buf;
    size_t n_scanned; /* bytes of buf known to hold no newline */
};
void etcd_lines_init(struct etcd_lines *lines, size_t line_max);
void etcd_lines_release(struct etcd_lines *lines);
void etcd_lines_clear(struct etcd_lines *lines);
/* WEIR_TOOLARGE: a line passes line_max. WEIR_NOMEM. Take all lines between two feeds. */
WEIR_MUST_CHECK weir_err etcd_lines_feed(struct etcd_lines *lines, const char *data, size_t len,
                                         struct weir_why *why);
/* The next whole line without its newline, valid until the next call of feed or next; false: none. Empty
 * lines are passed over. */
bool etcd_lines_next(struct etcd_lines *lines, struct weir_str *ret);

#endif
