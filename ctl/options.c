/* options.c - weirctl's command line: options anywhere, then what they leave open from the environment, then
 * from the fleet file that ./dev up writes, then defaults. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "ctl/ctl.h"

#define FLEET_FILE_MAX (4u << 20)
#define PREFIX_MAX 128

/* ---- help ---- */

static void print_options(const struct ctl_option *options)
{
    for (; options->name; options++) {
        char left[64];
        snprintf(left, sizeof left, "--%s %s", options->name, options->arg);
        printf("  %-28s %s\n", left, options->help);
    }
}

static void help_all(const struct ctl_command *const *commands, const struct ctl_option *globals)
{
    printf("weirctl - look after a Weir fleet: its replicas, its keys, a word with a model\n\n"
           "usage: weirctl [options] COMMAND [options]\n\ncommands (each has --help):\n");
    for (; *commands; commands++) {
        char left[64];
        snprintf(left, sizeof left, "%s%s%s", (*commands)->name, (*commands)->operands[0] ? " " : "",
                 (*commands)->operands);
        printf("  %-28s %s\n", left, (*commands)->summary);
    }
    printf("\noptions:\n");
    print_options(globals);
    printf("  %-28s %s\n", "--help, --version", "this text; the version");
    printf("\nenvironment: WEIR_ETCD (as --etcd), WEIR_API_KEY (as --key of chat), WEIR_ADMIN_TOKEN (as\n"
           "--admin-token), WEIR_ETCD_PASSWORD\n"
           "Options win over the environment, that over the fleet file.\n"
           "exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 etcd or a router does not answer\n");
}

static void help_one(const struct ctl_command *command, const struct ctl_option *globals)
{
    printf("%s\n\nusage: weirctl %s%s%s [options]\n", command->summary, command->name,
           command->operands[0] ? " " : "", command->operands);
    if (command->options[0].name) {
        printf("\noptions:\n");
        print_options(command->options);
    }
    printf("\nglobal options:\n");
    print_options(globals);
}

/* ---- the line ---- */

static const struct ctl_option *find_option(const struct ctl_option *options, const char *name, size_t len)
{
    for (; options && options->name; options++)
        if (strlen(options->name) == len && memcmp(options->name, name, len) == 0)
            return options;
    return NULL;
}

/* How many of the words in front name this command; 0: not it. */
static int match_command(const struct ctl_command *command, int n_words, char **words)
{
    const char *name = command->name;
    int n = 0;
    while (*name) {
        size_t len = strcspn(name, " ");
        if (n == n_words || strlen(words[n]) != len || memcmp(words[n], name, len) != 0)
            return 0;
        n++;
        name += len + (name[len] == ' ');
    }
    return n;
}

static const struct ctl_command *find_command(const struct ctl_command *const *commands, int n_words,
                                              char **words, int *ret_n)
{
    for (; *commands; commands++)
        if ((*ret_n = match_command(*commands, n_words, words)) > 0)
            return *commands;
    return NULL;
}

/* Words without a dash, gathered first: options may stand before the command that they belong to. An option
 * always takes a value, so words can be told apart without knowing the command. */
static int gather_words(int argc, char **argv, char **words)
{
    int n = 0;
    bool is_open = true;
    for (int i = 1; i < argc; i++) {
        if (is_open && strcmp(argv[i], "--") == 0) {
            is_open = false;
        } else if (!is_open || argv[i][0] != '-' || argv[i][1] == '\0') {
            words[n++] = argv[i];
        } else if (strcmp(argv[i], "-h") != 0 && strcmp(argv[i], "--help") != 0 && !strchr(argv[i], '=')) {
            i++; /* its value */
        }
    }
    return n;
}

static enum ctl_exit read_options(const struct ctl_option *globals, const struct ctl_command *command,
                                  int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *arg = argv[i];
        if (arg[0] != '-' || arg[1] == '\0')
            continue;
        const char *name = strcmp(arg, "-o") == 0 ? "output" : arg + (arg[1] == '-' ? 2 : 1);
        size_t len = strcspn(name, "=");
        const struct ctl_option *option = find_option(globals, name, len);
        if (!option)
            option = find_option(command->options, name, len);
        if (!option || (arg[1] != '-' && strcmp(arg, "-o") != 0))
            return ctl_usage("%s does not know the option %s", command->name, arg);
        if (name[len] == '=')
            *option->value = name + len + 1;
        else if (i + 1 < argc)
            *option->value = argv[++i];
        else
            return ctl_usage("--%s needs a value: %s", option->name, option->arg);
    }
    return CTL_OK;
}

static bool has_word(int argc, char **argv, const char *a, const char *b)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], a) == 0 || strcmp(argv[i], b) == 0)
            return true;
    return false;
}

/* ---- the fleet file: {"api_key", "admin_token", "etcd", "routers":[{"rest","admin"}], "replicas":[{"model"}]} ---- */

static void take_default(struct ctl *ctl, struct weir_json *j, const char **slot)
{
    struct weir_str text;
    if (weir_json_string(j, &text) && !*slot && text.len)
        *slot = ctl_text(ctl, text);
}

static void read_members(struct ctl *ctl, struct weir_json *j, const char *name_a, const char **slot_a,
                         const char *name_b, const char **slot_b)
{
    struct weir_str key;
    if (!weir_json_array(j))
        return;
    while (weir_json_next(j) && weir_json_object(j))
        while (weir_json_key(j, &key)) {
            if (weir_str_eq(key, name_a))
                take_default(ctl, j, slot_a);
            else if (weir_str_eq(key, name_b))
                take_default(ctl, j, slot_b);
            else
                weir_json_skip(j);
        }
}

static enum ctl_exit read_fleet_file(struct ctl *ctl)
{
    struct weir_why why = { 0 };
    struct weir_json j;
    struct weir_str key;
    char *text = weir_arena_alloc(&ctl->arena, FLEET_FILE_MAX);
    int fd = open(ctl->fleet_file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 && text ? read(fd, text, FLEET_FILE_MAX) : -1;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return ctl_fail(WEIR_IO, "--fleet %s: %s", ctl->fleet_file, strerror(errno));
    weir_json_init(&j, text, (size_t)n, &ctl->arena);
    if (weir_json_object(&j))
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, "api_key"))
                take_default(ctl, &j, &ctl->key);
            else if (weir_str_eq(key, "admin_token"))
                take_default(ctl, &j, &ctl->admin_token);
            else if (weir_str_eq(key, "etcd"))
                take_default(ctl, &j, &ctl->etcd);
            else if (weir_str_eq(key, "routers"))
                read_members(ctl, &j, "rest", &ctl->router, "admin", &ctl->admin);
            else if (weir_str_eq(key, "replicas"))
                read_members(ctl, &j, "model", &ctl->model, "", &ctl->model);
            else
                weir_json_skip(&j);
        }
    if (weir_json_end(&j, &why) != WEIR_OK)
        return ctl_fail(WEIR_INVALID, "--fleet %s: %s", ctl->fleet_file, why.text);
    return CTL_OK;
}

static enum ctl_exit fill_defaults(struct ctl *ctl)
{
    const char *env_etcd = getenv("WEIR_ETCD"), *env_key = getenv("WEIR_API_KEY");
    const char *env_token = getenv("WEIR_ADMIN_TOKEN");
    if (ctl->etcd && ctl->source)
        return ctl_usage("--etcd and --source say the same thing: give one");
    if (ctl->output && strcmp(ctl->output, "text") != 0 && strcmp(ctl->output, "json") != 0)
        return ctl_usage("-o %s: must be text or json", ctl->output);
    ctl->json = ctl->output && strcmp(ctl->output, "json") == 0;
    if (!ctl->etcd && !ctl->source && env_etcd && *env_etcd)
        ctl->etcd = env_etcd;
    if (!ctl->key && env_key && *env_key)
        ctl->key = env_key;
    if (!ctl->admin_token && env_token && *env_token)
        ctl->admin_token = env_token;
    if (!ctl->prefix)
        ctl->prefix = "/weir/";
    if (ctl->prefix[0] == '\0' || ctl->prefix[strlen(ctl->prefix) - 1] != '/' ||
        strlen(ctl->prefix) > PREFIX_MAX)
        return ctl_usage("--prefix %.40s: must end with / and have at most %d characters", ctl->prefix,
                         PREFIX_MAX);
    if (ctl->fleet_file) {
        enum ctl_exit code = read_fleet_file(ctl);
        if (code != CTL_OK)
            return code;
    }
    ctl->source_text =
        ctl->source ? ctl->source : ctl_format(ctl, "etcd://%s", ctl->etcd ? ctl->etcd : "127.0.0.1:2379");
    return CTL_OK;
}

const char *const ctl_global_names[] = { "etcd",       "source",    "etcd-ca", "etcd-cert",   "etcd-key",
                                         "etcd-user",  "prefix",    "admin",   "admin-token", "admin-ca",
                                         "admin-cert", "admin-key", "fleet",   "output",      NULL };

const struct ctl_command *ctl_options_read(struct ctl *ctl, const struct ctl_command *const *commands,
                                           int argc, char **argv, int *ret_n_operands, char ***ret_operands,
                                           enum ctl_exit *ret_exit)
{
    const struct ctl_option globals[] = {
        { "etcd", "HOST:PORT,...", "etcd (default 127.0.0.1:2379)", &ctl->etcd },
        { "source", "SOURCE", "instead: etcd://..., etcds://... (TLS), file:PATH", &ctl->source },
        { "etcd-ca", "FILE", "CA certificates for etcds", &ctl->ca_file },
        { "etcd-cert", "FILE", "client certificate for etcds", &ctl->cert_file },
        { "etcd-key", "FILE", "its key", &ctl->key_file },
        { "etcd-user", "NAME", "etcd's user; password in WEIR_ETCD_PASSWORD", &ctl->user },
        { "prefix", "PREFIX", "what the fleet's keys start with (default /weir/)", &ctl->prefix },
        { "admin", "HOST:PORT", "a router's admin address (default: the first router's)", &ctl->admin },
        { "admin-token", "TOKEN", "the routers' --admin-token", &ctl->admin_token },
        { "admin-ca", "FILE", "who signs the admin listener's certificate (TLS)", &ctl->admin_ca },
        { "admin-cert", "FILE", "client certificate for it", &ctl->admin_cert },
        { "admin-key", "FILE", "its key", &ctl->admin_key },
        { "fleet", "FILE", "fleet.json of ./dev up: defaults for all addresses", &ctl->fleet_file },
        { "output", "text|json", "also -o", &ctl->output },
        { NULL, NULL, NULL, NULL },
    };
    char **words = weir_arena_alloc(&ctl->arena, (size_t)(argc + 1) * sizeof *words);
    int n_named = 0, n_words;
    WEIR_BUG_ON(!words);
    *ret_exit = CTL_OK;
    n_words = gather_words(argc, argv, words);
    const struct ctl_command *command = find_command(commands, n_words, words, &n_named);
    bool wants_help = has_word(argc, argv, "--help", "-h");
    if (has_word(argc, argv, "--version", "--version")) {
        puts("weirctl 0.1.0");
    } else if (wants_help && command) {
        help_one(command, globals);
    } else if (wants_help || argc < 2) {
        help_all(commands, globals);
        *ret_exit = wants_help ? CTL_OK : CTL_USAGE;
    } else if (!command) {
        *ret_exit = n_words ? ctl_usage("no such command: %s%s%s", words[0], n_words > 1 ? " " : "",
                                        n_words > 1 ? words[1] : "")
                            : ctl_usage("no command");
    } else if ((*ret_exit = read_options(globals, command, argc, argv)) == CTL_OK &&
               (*ret_exit = fill_defaults(ctl)) == CTL_OK) {
        *ret_operands = words + n_named;
        *ret_n_operands = n_words - n_named;
        bool is_needed = command->operands[0] && command->operands[0] != '[';
        if (*ret_n_operands == 0 && is_needed)
            *ret_exit = ctl_usage("%s needs %s", command->name, command->operands);
        else if (*ret_n_operands > command->n_operands_max)
            *ret_exit =
                ctl_usage("%s: too many words: %s", command->name, words[n_named + command->n_operands_max]);
        else
            return command;
    }
    return NULL;
}

struct weir_discovery_opts ctl_discovery(const struct ctl *ctl)
{
    return (struct weir_discovery_opts){ .source = ctl->source_text,
                                         .prefix = ctl->prefix,
                                         .ca_file = ctl->ca_file,
                                         .cert_file = ctl->cert_file,
                                         .key_file = ctl->key_file,
                                         .user = ctl->user,
                                         .password = getenv("WEIR_ETCD_PASSWORD") };
}

const char *ctl_path(struct ctl *ctl, const char *name)
{
    return ctl_format(ctl, "%s%s", ctl->prefix, name);
}
