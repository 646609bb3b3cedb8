/* log.c - log lines.
 *
 * A line is put together on the stack: logging takes no heap, so that it works when there is none left.
 *   [G1] One line is one write(2): lines of several threads never mix.
 *   [G2] At most BURST_MAX lines a second of one event; the rest is counted, and told of as "log_held" by the
 *        next line of any event after that second.
 *   [G3] A JSON line is valid JSON whatever the values hold; an over-long line is cut in its values.
 * Threads: settings are written once, before threads start (the level is an atomic). The table of bursts is
 * under a mutex held for a few instructions. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/utf8.h"

enum {
    LINE_MAX_BYTES = 8192,
    FIELDS_MAX_BYTES = 4096,
    BURST_MAX = 20, /* lines of one event a second */
    N_EVENTS = 256, /* slots; two events that meet in one are not held while they alternate */
};

static atomic_int level_min = WEIR_LOG_INFO;
static bool is_json = true;
static const char *log_role = "", *log_id = "";

void weir_log_setup(enum weir_log_level level, enum weir_log_format format, const char *role, const char *id)
{
    atomic_store_explicit(&level_min, (int)level, memory_order_relaxed);
    is_json = format == WEIR_LOG_JSON || (format == WEIR_LOG_AUTO && !isatty(STDERR_FILENO));
    log_role = role ? role : "";
    log_id = id ? id : "";
}

/* The place of `name` in `names`, or -1. */
static int name_index(const char *name, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

weir_err weir_log_setup_by_name(const char *level, const char *format, const char *role, const char *id,
                                struct weir_why *why)
{
    static const char *const levels[] = { "debug", "info", "warn", "error" };
    static const char *const formats[] = { "auto", "json", "human" };
    int i_level = name_index(level, levels, 4), i_format = name_index(format, formats, 3);

    if (i_level < 0)
        return weir_fail_param(why, "log_level", WEIR_INVALID,
                               "log_level: `%s` is not debug, info, warn or error", level);
    if (i_format < 0)
        return weir_fail_param(why, "log_format", WEIR_INVALID, "log_format: `%s` is not auto, json or human",
                               format);
    weir_log_setup((enum weir_log_level)i_level, (enum weir_log_format)i_format, role, id);
    return WEIR_OK;
}

bool weir_log_on(enum weir_log_level level)
{
    return (int)level >= atomic_load_explicit(&level_min, memory_order_relaxed);
}

/* ---- Bursts ---- */

struct burst {
    uint64_t hash; /* of the event name; 0 = free */
    uint64_t start_ns;
    uint32_t n, n_held;
    char event[48]; /* for the line that tells of those held */
};

static pthread_mutex_t burst_lock = PTHREAD_MUTEX_INITIALIZER;
static struct burst bursts[N_EVENTS]; /* under burst_lock, as is the next */
static uint32_t n_slots_held;         /* slots whose n_held is not 0 */

/* [G2] May this line be written? */
static bool burst_take(const char *event, uint64_t now_ns)
{
    size_t len = strlen(event);
    uint64_t hash = weir_hash64(event, len, 0) | 1;
    bool ok = true;

    pthread_mutex_lock(&burst_lock);
    struct burst *b = &bursts[hash >> 32 & (N_EVENTS - 1)];
    if (b->n_held > 0 && b->hash != hash)
        ok = true; /* the slot has something to tell first */
    else if (b->hash != hash || now_ns - b->start_ns >= WEIR_S) {
        if (b->n_held == 0) {
            len = len < sizeof b->event - 1 ? len : sizeof b->event - 1;
            memcpy(b->event, event, len);
            b->event[len] = '\0';
            b->hash = hash;
            b->start_ns = now_ns;
            b->n = 1;
        }
    } else if (b->n < BURST_MAX) {
        b->n++;
    } else {
        n_slots_held += b->n_held == 0;
        b->n_held++;
        ok = false;
    }
    pthread_mutex_unlock(&burst_lock);
    return ok;
}

/* One burst that is over and held lines back; false when there is none. */
static bool burst_over(uint64_t now_ns, struct burst *ret)
{
    bool found = false;

    pthread_mutex_lock(&burst_lock);
    for (size_t i = 0; n_slots_held > 0 && i < N_EVENTS && !found; i++) {
        struct burst *b = &bursts[i];
        if (b->n_held == 0 || now_ns - b->start_ns < WEIR_S)
            continue;
        *ret = *b;
        *b = (struct burst){ 0 };
        n_slots_held--;
        found = true;
    }
    pthread_mutex_unlock(&burst_lock);
    return found;
}

/* ---- Lines ---- */

struct line {
    size_t n;
    char text[LINE_MAX_BYTES];
};

enum { TAIL_BYTES = 8 }; /* kept free for the end of a cut line: a quote, a brace, the newline */

static void line_add(struct line *line, const char *text, size_t len)
{
    size_t room = sizeof line->text - TAIL_BYTES - line->n;

    len = weir_utf8_cut(text, len, room);
    memcpy(line->text + line->n, text, len);
    line->n += len;
}

static void line_adds(struct line *line, const char *text)
{
    line_add(line, text, strlen(text));
}

/* The inside of a JSON string; whole escapes or nothing. [G3] */
static void line_escape(struct line *line, const char *text, size_t len)
{
    const char *end = text + len;

    while (text < end) {
        unsigned char c = (unsigned char)*text;
        size_t n = weir_utf8_step(text, (size_t)(end - text));
        char part[8];
        size_t part_len;
        if (c < 0x20 || c == '"' || c == '\\') {
            part_len = (size_t)(c < 0x20 ? snprintf(part, sizeof part, "\\u%04x", c)
                                         : snprintf(part, sizeof part, "\\%c", c));
        } else if (n == 0) {
            memcpy(part, "\xef\xbf\xbd", part_len = 3);
        } else {
            memcpy(part, text, part_len = n);
        }
        if (part_len > sizeof line->text - TAIL_BYTES - line->n)
            return;
        line_add(line, part, part_len);
        text += n ? n : 1;
    }
}

/* Controls become spaces, so that a value can't forge a line. */
static void line_plain(struct line *line, const char *text, size_t len)
{
    size_t start = line->n;

    line_add(line, text, len);
    for (size_t i = start; i < line->n; i++)
        if ((unsigned char)line->text[i] < 0x20 || line->text[i] == 0x7f)
            line->text[i] = ' ';
}

static bool is_key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
}

/* Length of the "key" of a "key=" at p; 0 when there is none. */
static size_t key_len(const char *p)
{
    size_t n = 0;

    while (is_key_char(p[n]))
        n++;
    return p[n] == '=' ? n : 0;
}

/* Is the whole value a JSON number? */
static bool is_number(const char *p, size_t len)
{
    const char *end = p + len;
    bool digits = false;

    if (p < end && *p == '-')
        p++;
    if (end - p > 1 && p[0] == '0' && p[1] != '.')
        return false;
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        digits = true;
    if (digits && end - p > 1 && *p == '.')
        for (p++; p < end && *p >= '0' && *p <= '9'; p++)
            ;
    return digits && p == end && len <= 20;
}

static void line_json_field(struct line *line, const char *key, size_t n_key, const char *value, size_t len)
{
    /* A field that does not fit with its key is left out. */
    if (n_key + 40 > sizeof line->text - TAIL_BYTES - line->n)
        return;
    line_adds(line, ",\"");
    line_add(line, key, n_key);
    line_adds(line, "\":");
    if (is_number(value, len)) {
        line_add(line, value, len);
        return;
    }
    line_adds(line, "\"");
    line_escape(line, value, len);
    line->text[line->n++] = '"'; /* from TAIL_BYTES when the line is full */
}

static void line_json_fields(struct line *line, const char *fields)
{
    const char *p = fields;

    while (*p == ' ')
        p++;
    while (*p) {
        size_t n_key = key_len(p);
        const char *key = n_key ? p : "text", *value = n_key ? p + n_key + 1 : p, *end = value;
        if (n_key == 0)
            n_key = strlen(key);
        /* The value runs to the next " key=" or the end. */
        while (*end && !(*end == ' ' && key_len(end + 1) > 0))
            end++;
        line_json_field(line, key, n_key, value, (size_t)(end - value));
        for (p = end; *p == ' '; p++)
            ;
    }
}

static void write_line(enum weir_log_level level, const char *event, const char *fields, uint64_t wall_ns)
{
    static const char *const words[] = { "debug", "info", "warn", "error" };
    static const char *const padded[] = { "DEBUG", "INFO ", "WARN ", "ERROR" };
    time_t seconds = (time_t)(wall_ns / WEIR_S);
    unsigned ms = (unsigned)(wall_ns / WEIR_MS % 1000);
    struct line line;
    struct tm tm;
    char head[64];

    line.n = 0;
    gmtime_r(&seconds, &tm);
    if (is_json) {
        snprintf(head, sizeof head, "{\"ts\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03uZ\",\"level\":\"",
                 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ms);
        line_adds(&line, head);
        line_adds(&line, words[level]);
        line_adds(&line, "\",\"role\":\"");
        line_escape(&line, log_role, strlen(log_role));
        line_adds(&line, "\",\"id\":\"");
        line_escape(&line, log_id, strlen(log_id));
        line_adds(&line, "\",\"event\":\"");
        line_escape(&line, event, strlen(event));
        line_adds(&line, "\"");
        line_json_fields(&line, fields);
        line.text[line.n++] = '}';
    } else {
        snprintf(head, sizeof head, "%02d:%02d:%02d.%03u ", tm.tm_hour, tm.tm_min, tm.tm_sec, ms);
        line_adds(&line, head);
        line_adds(&line, padded[level]);
        line_adds(&line, " ");
        line_adds(&line, log_role);
        line_adds(&line, "/");
        line_adds(&line, log_id);
        line_adds(&line, " ");
        line_adds(&line, event);
        line_adds(&line, *fields ? " " : "");
        line_plain(&line, fields, strlen(fields));
    }
    line.text[line.n++] = '\n';
    if (write(STDERR_FILENO, line.text, line.n) < 0) /* [G1] */
        return;                                      /* there is nowhere else to say so */
}

void weir_log(enum weir_log_level level, const char *event, const char *fields, ...)
{
    char text[FIELDS_MAX_BYTES];
    struct burst over;
    va_list args;

    if (!weir_log_on(level))
        return;
    uint64_t now_ns = weir_now_ns(), wall_ns = weir_wall_ns();
    for (int i = 0; i < N_EVENTS && burst_over(now_ns, &over); i++) {
        snprintf(text, sizeof text, "of=%s count=%u", over.event, over.n_held);
        write_line(WEIR_LOG_WARN, "log_held", text, wall_ns);
    }
    if (!burst_take(event, now_ns))
        return;
    va_start(args, fields);
    int n = vsnprintf(text, sizeof text, fields, args);
    va_end(args);
    if (n < 0)
        text[0] = '\0';
    write_line(level, event, text, wall_ns);
}
