/* log.h - one line an event: JSON for machines, short text on a terminal.
 *
 *     WEIR_INFO("replica_attached", "replica=%s slots=%d", id, n_slot);
 *
 * An event name (snake_case, stable, for grep), then a printf text of key=value pairs. A value runs to the
 * next " key=" or the end, so that spaces in it do no harm; in JSON a value that is a number becomes one.
 * Lines are written with one write(2) to standard error; a burst of one event is held to 20 a second, with a
 * count of what was held back.
 *
 * Any thread. Never log a prompt, an output or a key. */
#ifndef WEIR_BASE_LOG_H
#define WEIR_BASE_LOG_H

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

enum weir_log_level { WEIR_LOG_DEBUG, WEIR_LOG_INFO, WEIR_LOG_WARN, WEIR_LOG_ERROR };
enum weir_log_format { WEIR_LOG_AUTO, WEIR_LOG_JSON, WEIR_LOG_HUMAN };

/* `role` ("router", "replica", ...) and `id` go into every line; both are borrowed for ever. */
void weir_log_setup(enum weir_log_level level, enum weir_log_format format, const char *role, const char *id);
/* The same from configuration: "debug", "info", "warn", "error"; "auto", "json", "human". WEIR_INVALID:
 * another word. */
WEIR_MUST_CHECK weir_err weir_log_setup_by_name(const char *level, const char *format, const char *role,
                                                const char *id, struct weir_why *why);
bool weir_log_on(enum weir_log_level level);

void weir_log(enum weir_log_level level, const char *event, const char *fields, ...) WEIR_PRINTF(3, 4);

#define WEIR_DEBUG_LOG(event, ...)                                                                           \
    do {                                                                                                     \
        if (weir_log_on(WEIR_LOG_DEBUG))                                                                     \
            weir_log(WEIR_LOG_DEBUG, event, __VA_ARGS__);                                                    \
    } while (0)
#define WEIR_INFO(event, ...) weir_log(WEIR_LOG_INFO, event, __VA_ARGS__)
#define WEIR_WARN(event, ...) weir_log(WEIR_LOG_WARN, event, __VA_ARGS__)
#define WEIR_ERROR(event, ...) weir_log(WEIR_LOG_ERROR, event, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
