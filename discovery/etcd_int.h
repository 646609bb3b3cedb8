/* etcd_int.h - the etcd provider's one struct, and who does what with it: etcd.c the endpoints, the token,
 * the lease and the registrations; etcd_view.c the range and the watch; etcd_show.c what readers get to see.
 * All on the discovery thread. The laws [D1] to [D6] are in etcd.c. */
#ifndef WEIR_DISCOVERY_ETCD_INT_H
#define WEIR_DISCOVERY_ETCD_INT_H

#include "discovery/discovery_int.h"
#include "discovery/etcd_http.h"
#include "discovery/etcd_stream.h"
#include "discovery/snapshot.h"

#define CALL_TIMEOUT_MS 5000          /* of all but the beat and the watch */
#define SMALL_BYTES_MAX (64u << 10)   /* of a reply that is not a range's */
#define PENDING_BYTES_MAX (64u << 20) /* events waiting for the rest of their revision */
#define RANGE_BYTES_MAX (1024u << 20) /* a whole range while it is read */

enum etcd_view { VIEW_WAIT, VIEW_RANGE, VIEW_OPENING, VIEW_WATCHING };

struct etcd_changes { /* growable; the strings live in the arena beside it */
    struct snapshot_change *items;
    int n, cap;
    struct weir_arena arena;
};

struct disc_provider {
    struct weir_discovery *d;
    struct regs *regs;
    struct etcd_http *http;
    const struct source *src;
    int i_url;
    char *prefix, *user, *password;
    uint32_t ttl_s;
    uint64_t now_ns;
    struct weir_buf body; /* the request being built */
    bool fresh;           /* open connections may be dead: make new ones */
    uint32_t n_failures;
    char why_logged[160];

    struct etcd_call *auth_call;
    uint64_t auth_due_ns;
    char *token; /* needed before anything but a lease, if there is a user */

    enum etcd_view view;
    struct etcd_call *view_call;
    uint64_t view_due_ns; /* WAIT: try again; OPENING: give up */
    uint64_t cluster_id;
    int64_t revision;                       /* etcd's; every event up to it is in `truth` */
    int64_t offset;                         /* [D5] */
    const char *resync_reason;              /* NULL: the watch can be resumed */
    const struct weir_disc_snapshot *truth; /* what etcd has */
    const struct weir_disc_snapshot *shown; /* what readers see: truth, and what is held back */
    bool is_holding;                        /* [D4] */
    uint64_t hold_until_ns;

    struct etcd_changes range;
    int64_t range_revision;
    uint64_t range_cluster_id;
    bool range_is_other_history;
    int page_keys;                               /* of the next page */
    const struct weir_disc_snapshot *range_view; /* the range so far; NULL: nothing yet */
    struct weir_buf range_next;                  /* first key of the next page */

    struct etcd_lines lines;
    struct etcd_changes pending;
    int64_t pending_revision;
    bool pending_is_partial; /* a fragment: the rest of its revision is to come */

    struct etcd_call *beat_call;
    enum { BEAT_PING, BEAT_GRANT, BEAT_KEEP } beat;
    uint64_t beat_due_ns;
    int64_t lease_id; /* 0: none */

    struct etcd_call *put_call;
    struct regs_work put_work;
    int64_t put_lease; /* the lease it was sent under */
    struct weir_buf put_key, put_value;
    uint64_t put_due_ns;
};
typedef struct disc_provider etcd;

/* ---- etcd.c ---- */
/* The view can't go on, but etcd answers. resync_reason NULL: what we have stands, the watch is resumed. */
void etcd_fail_view(etcd *e, const char *why, const char *resync_reason);
/* Nobody answers at this endpoint: nothing in flight is worth waiting for; the next one is tried. */
void etcd_lose_endpoint(etcd *e, const char *why);
void etcd_drop_token(etcd *e);
bool etcd_is_auth_error(const struct etcd_msg *msg);
/* Sends e->body to the endpoint of now. NULL: no memory. */
struct etcd_call *etcd_send(etcd *e, const char *path, uint32_t timeout_ms, size_t body_max,
                            bool (*on_data)(void *, const char *, size_t),
                            void (*on_done)(void *, const struct etcd_result *));
/* The reply of a call as a message. False: there is none. Then, and for an error of etcd, `text` of 200 bytes
 * says why. */
bool etcd_read_reply(const struct etcd_result *result, struct weir_arena *arena, struct etcd_msg *msg,
                     char *text);

/* ---- etcd_view.c ---- */
void etcd_view_init(etcd *e);
void etcd_view_release(etcd *e);
void etcd_view_start(etcd *e); /* resumes the watch, or reads all anew */
void etcd_view_stop(etcd *e);  /* drops the call, and what is not whole */
void etcd_view_apply(etcd *e); /* all events that are here and whole become one snapshot */

/* ---- etcd_show.c ---- */
/* e->range is whole: truth is replaced and shown, or held back. */
WEIR_MUST_CHECK weir_err etcd_show_range(etcd *e, struct weir_why *why);
/* Truth and what is shown move on by the same events. */
WEIR_MUST_CHECK weir_err etcd_show_events(etcd *e, const struct snapshot_change *changes, int n,
                                          int64_t revision, struct weir_why *why);
void etcd_show_drop_held(etcd *e); /* what was held back goes, when its time is over */

#endif
