/* file.c - the fleet from a file: one JSON object {"entries": {"replicas/<model>/<id>": {...}, ...}}.
 *
 * For a fleet that fits in one's head, and for tests. Names are keys without the prefix; values are any
 * JSON. The file is looked at every second; what changed is found by comparing values, so an entry's
 * revision rises only when it did change.
 *
 *   [F1] A file that is gone, half-written or malformed keeps the last good view; the log says why, once.
 *   [F2] A change within the clock tick of the reading before it is found too: after each change seen, the
 *        file is read once more a second later, when a further write must have another time stamp. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "discovery/discovery_int.h"
#include "discovery/snapshot.h"

#define FILE_BYTES_MAX (64u << 20)
#define LOOK_EVERY (1 * WEIR_S)

struct disc_provider {
    struct weir_discovery *d;
    const char *path; /* the source's */
    char *prefix;
    int wake_fd;
    uint64_t next_ns;
    struct stat seen;
    bool has_seen, look_again;
    int64_t n_readings;
    const struct weir_disc_snapshot *shown;
    char why_logged[320];
};
typedef struct disc_provider file;

/* ---- reading ---- */

static weir_err read_whole(const char *path, struct weir_buf *out, struct weir_why *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return weir_fail(why, WEIR_IO, "%s: %s", path, strerror(errno));
    ssize_t n;
    do {
        char *room = weir_buf_reserve(out, 64u << 10);
        n = room ? read(fd, room, 64u << 10) : 0;
        if (n > 0)
            weir_buf_commit(out, (size_t)n);
    } while (n > 0 || (n < 0 && errno == EINTR));
    int read_errno = n < 0 ? errno : 0;
    close(fd);
    if (read_errno)
        return weir_fail(why, WEIR_IO, "%s: %s", path, strerror(read_errno));
    if (out->failed)
        return weir_fail(why, WEIR_TOOLARGE, "%s: more than %u bytes", path, FILE_BYTES_MAX);
    return WEIR_OK;
}

struct entries {
    struct snapshot_change *items;
    int n, cap;
};

static bool add_entry(struct weir_json *j, struct entries *all, const char *prefix, struct weir_str name,
                      int64_t revision)
{
    struct weir_str value;
    if (!weir_json_raw(j, &value))
        return false;
    if (all->n == all->cap) {
        int cap = all->cap ? all->cap * 2 : 64;
        struct snapshot_change *grown = weir_realloc(all->items, (size_t)cap * sizeof *grown);
        if (!grown)
            return weir_json_fail(j, WEIR_NOMEM, "no memory for %d entries", cap);
        all->items = grown;
        all->cap = cap;
    }
    char *key = weir_arena_printf(j->arena, "%s%.*s", prefix, WEIR_STR_FMT(name));
    if (!key)
        return weir_json_fail(j, WEIR_NOMEM, "no memory for a key");
    all->items[all->n++] =
        (struct snapshot_change){ .key = weir_str(key), .value = value, .revision = revision };
    return true;
}

static weir_err parse_entries(struct weir_str text, const char *prefix, int64_t revision,
                              struct weir_arena *arena, struct entries *all, struct weir_why *why)
{
    struct weir_json j;
    struct weir_str key;
    bool has_entries = false;
    weir_json_init(&j, text.ptr, text.len, arena);
    if (weir_json_object(&j)) {
        while (weir_json_key(&j, &key)) {
            if (!weir_str_eq(key, "entries")) {
                weir_json_skip(&j);
                continue;
            }
            has_entries = true;
            if (weir_json_object(&j))
                while (weir_json_key(&j, &key) && add_entry(&j, all, prefix, key, revision))
                    ;
        }
        if (weir_json_ok(&j) && !has_entries)
            weir_json_fail_key(&j, "entries", WEIR_INVALID, "is missing");
    }
    return weir_json_end(&j, why);
}

weir_err disc_file_read(const char *path, const char *prefix, int64_t revision,
                        const struct weir_disc_snapshot *old, const struct weir_disc_snapshot **ret,
                        struct weir_why *why)
{
    struct weir_buf text;
    struct weir_arena arena;
    struct entries all = { 0 };
    struct weir_why inner = { 0 };
    weir_buf_init(&text, FILE_BYTES_MAX + (64u << 10));
    weir_arena_init(&arena, 2 * FILE_BYTES_MAX);
    weir_err rc = read_whole(path, &text, why);
    if (rc == WEIR_OK) {
        struct weir_str bytes = { weir_buf_ptr(&text), weir_buf_len(&text) };
        rc = parse_entries(bytes, prefix, revision, &arena, &all, &inner);
        if (rc != WEIR_OK)
            (void)weir_fail_param(why, inner.param, rc, "%s: %s", path, inner.text);
    }
    if (rc == WEIR_OK)
        rc = snapshot_build(old, all.items, all.n, /* revision= */ 0, ret, why);
    weir_free(all.items);
    weir_arena_release(&arena);
    weir_buf_release(&text);
    return rc;
}

/* ---- following ---- */

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void complain(file *f, const char *text)
{
    if (strcmp(f->why_logged, text) != 0)
        WEIR_WARN("fleet_file_bad", "kept=last_good why=%s", text); /* [F1] */
    snprintf(f->why_logged, sizeof f->why_logged, "%s", text);
    disc_set_connected(f->d, false);
}

static void read_now(file *f)
{
    const struct weir_disc_snapshot *snap;
    struct weir_why why = { 0 };
    weir_err rc = disc_file_read(f->path, f->prefix, ++f->n_readings, f->shown, &snap, &why);
    if (rc != WEIR_OK) {
        complain(f, why.text);
        return;
    }
    f->why_logged[0] = '\0';
    disc_set_connected(f->d, true);
    if (f->shown && snapshot_same(f->shown, snap)) {
        weir_disc_snapshot_unref(snap);
        return;
    }
    weir_disc_snapshot_unref(f->shown);
    f->shown = snap;
    disc_publish(f->d, snap);
}

static uint64_t file_tick(file *f, uint64_t now_ns)
{
    struct stat st;
    WEIR_ON(DISC);
    if (now_ns < f->next_ns)
        return f->next_ns;
    f->next_ns = now_ns + LOOK_EVERY;
    if (stat(f->path, &st) != 0) {
        char text[300];
        snprintf(text, sizeof text, "%.200s: %s", f->path, strerror(errno));
        f->has_seen = false;
        complain(f, text);
        return f->next_ns;
    }
    bool is_new = !f->has_seen || !is_same_file(&st, &f->seen);
    if (is_new || f->look_again)
        read_now(f);
    f->look_again = is_new; /* [F2] */
    f->seen = st;
    f->has_seen = true;
    return f->next_ns;
}

static void file_wait(file *f, uint64_t timeout_ns)
{
    struct pollfd pfd = { .fd = f->wake_fd, .events = POLLIN };
    uint64_t count, ms = timeout_ns / WEIR_MS + 1;
    if (poll(&pfd, 1, ms > 60000 ? 60000 : (int)ms) > 0)
        (void)!read(f->wake_fd, &count, sizeof count);
}

static void file_wake(file *f)
{
    uint64_t one = 1;
    (void)!write(f->wake_fd, &one, sizeof one);
}

/* Nobody to say goodbye to. */
static void file_leave(file *f)
{
    (void)f;
}

static void file_close(file *f)
{
    if (!f)
        return;
    weir_disc_snapshot_unref(f->shown);
    if (f->wake_fd >= 0)
        close(f->wake_fd);
    weir_free(f->prefix);
    weir_free(f);
}

static weir_err file_open(struct weir_discovery *d, const struct weir_discovery_opts *opts,
                          const struct source *src, file **ret, struct weir_why *why)
{
    file *f = weir_alloc0(sizeof *f);
    if (!f)
        return weir_fail(why, WEIR_NOMEM, "discovery: no memory");
    f->d = d;
    f->path = src->file;
    f->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->prefix = weir_strdup(opts->prefix);
    if (f->wake_fd < 0 || !f->prefix) {
        weir_err rc = f->prefix ? weir_fail(why, WEIR_IO, "discovery: eventfd: %s", strerror(errno))
                                : weir_fail(why, WEIR_NOMEM, "discovery: no memory");
        file_close(f);
        return rc;
    }
    *ret = f;
    return WEIR_OK;
}

const struct disc_provider_ops disc_file_ops = {
    .open = file_open,
    .tick = file_tick,
    .wait = file_wait,
    .wake = file_wake,
    .leave = file_leave,
    .close = file_close,
    .takes_registrations = false,
};
