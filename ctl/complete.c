/* complete.c - shell completion, written from the same tables that the commands are: source <(weirctl completion bash) */
#include <string.h>

#include "ctl/ctl.h"

static const struct ctl_option no_options[] = { { NULL, NULL, NULL, NULL } };

/* case "$words" in 'api-key create'*) options="--account ...";; */
static void write_cases(struct weir_buf *out)
{
    for (const struct ctl_command *const *c = ctl_commands; *c; c++) {
        weir_buf_addf(out, "    '%s'*) options=\"", (*c)->name);
        for (const struct ctl_option *o = (*c)->options; o->name; o++)
            weir_buf_addf(out, "--%s ", o->name);
        weir_buf_adds(out, "\";;\n");
    }
}

static void write_globals(struct weir_buf *out)
{
    for (int i = 0; ctl_global_names[i]; i++)
        weir_buf_addf(out, "--%s ", ctl_global_names[i]);
    weir_buf_adds(out, "--help");
}

static void write_script(struct weir_buf *out)
{
    weir_buf_adds(out, "_weirctl_candidates() { # the words so far, without options -> one candidate a line\n"
                       "  local words=\"$1\" current=\"$2\" options=\"\" name rest\n"
                       "  case \"$words\" in\n");
    write_cases(out);
    weir_buf_adds(out, "  esac\n  case \"$current\" in\n  -*) printf '%s\\n' $options ");
    write_globals(out);
    weir_buf_adds(out, ";;\n  *) while read -r name; do\n"
                       "       case \"$name\" in\n"
                       "       \"$words\"*) rest=\"${name#\"$words\"}\"; rest=\"${rest# }\"; printf '%s\\n' "
                       "\"${rest%% *}\";;\n"
                       "       esac\n     done <<'EOF'\n");
    for (const struct ctl_command *const *c = ctl_commands; *c; c++)
        weir_buf_addf(out, "%s\n", (*c)->name);
    weir_buf_adds(out, "EOF\n     ;;\n  esac\n}\n");
}

static const char bash_end[] =
    "_weirctl() {\n"
    "  local current=\"${COMP_WORDS[COMP_CWORD]}\" words=\"\" i\n"
    "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
    "    case \"${COMP_WORDS[i]}\" in -*) ((i++));; *) words=\"${words:+$words }${COMP_WORDS[i]}\";; esac\n"
    "  done\n"
    "  COMPREPLY=($(compgen -W \"$(_weirctl_candidates \"$words\" \"$current\")\" -- \"$current\"))\n"
    "}\n"
    "complete -F _weirctl weirctl\n";
static const char zsh_end[] =
    "_weirctl() {\n"
    "  local words_so_far=\"\" i\n"
    "  for ((i = 2; i < CURRENT; i++)); do\n"
    "    case \"${words[i]}\" in -*) ((i++));; *) words_so_far=\"${words_so_far:+$words_so_far "
    "}${words[i]}\";; esac\n"
    "  done\n"
    "  compadd -- ${(f)\"$(_weirctl_candidates \"$words_so_far\" \"${words[CURRENT]}\")\"}\n"
    "}\n"
    "compdef _weirctl weirctl\n";

static enum ctl_exit run(struct ctl *ctl, int n_operands, char **operands)
{
    struct weir_buf out;
    bool zsh = strcmp(operands[0], "zsh") == 0;
    (void)ctl;
    (void)n_operands;
    if (!zsh && strcmp(operands[0], "bash") != 0)
        return ctl_usage("completion needs bash or zsh");
    weir_buf_init(&out, /* limit_bytes= */ 0);
    if (zsh)
        weir_buf_adds(&out, "#compdef weirctl\nsetopt local_options sh_word_split 2>/dev/null\n");
    write_script(&out);
    weir_buf_adds(&out, zsh ? zsh_end : bash_end);
    enum ctl_exit code = ctl_print(&out);
    weir_buf_release(&out);
    return code;
}

const struct ctl_command ctl_completion = {
    "completion", "bash|zsh", "a script for the shell to complete weirctl with", no_options, 1, run
};
