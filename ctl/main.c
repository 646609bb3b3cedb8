/* main.c - weirctl: the fleet and its keys from the command line.
 *
 * Commands are a table; options.c reads the line, each command does its work in its own file. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ctl/ctl.h"

const struct ctl_command *const ctl_commands[] = {
    &ctl_chat,
    &ctl_fleet,
    &ctl_account_create,
    &ctl_account_get,
    &ctl_account_list,
    &ctl_account_update,
    &ctl_account_suspend,
    &ctl_account_resume,
    &ctl_key_create,
    &ctl_key_list,
    &ctl_key_delete,
    &ctl_model_create,
    &ctl_model_get,
    &ctl_model_list,
    &ctl_model_update,
    &ctl_model_delete,
    &ctl_limits_show,
    &ctl_limits_table_get,
    &ctl_limits_table_set,
    &ctl_limits_table_reset,
    &ctl_completion,
    NULL,
};

enum ctl_exit ctl_fail(weir_err err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("weirctl: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return err == WEIR_UNAVAILABLE || err == WEIR_DEADLINE ? CTL_UNREACHABLE : CTL_FAILED;
}

enum ctl_exit ctl_usage(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("weirctl: ", stderr);
    vfprintf(stderr, fmt, args);
    fputs(" (weirctl --help tells more)\n", stderr);
    va_end(args);
    return CTL_USAGE;
}

enum ctl_exit ctl_print(struct weir_buf *out)
{
    size_t len = weir_buf_len(out);
    if (out->failed)
        return ctl_fail(WEIR_NOMEM, "no memory");
    if (fwrite(weir_buf_ptr(out), 1, len, stdout) != len || fflush(stdout) != 0)
        return ctl_fail(WEIR_IO, "cannot write to standard output");
    return CTL_OK;
}

const char *ctl_text(struct ctl *ctl, struct weir_str s)
{
    const char *text = weir_arena_strndup(&ctl->arena, s.ptr ? s.ptr : "", s.len);
    WEIR_BUG_ON(!text);
    return text;
}

const char *ctl_format(struct ctl *ctl, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return ctl_text(ctl, weir_str(text));
}

int main(int argc, char **argv)
{
    struct ctl ctl = { 0 };
    char **operands;
    int n_operands;
    enum ctl_exit code = CTL_OK;
    weir_arena_init(&ctl.arena, /* limit_bytes= */ 0);
    weir_log_setup(WEIR_LOG_WARN, WEIR_LOG_AUTO, "ctl", "");
    const struct ctl_command *command =
        ctl_options_read(&ctl, ctl_commands, argc, argv, &n_operands, &operands, &code);
    if (command)
        code = command->run(&ctl, n_operands, operands);
    weir_arena_release(&ctl.arena);
    return (int)code;
}
