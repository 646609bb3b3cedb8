/* replay.c - runs a fuzz target over the files of its corpus: a fuzz target as an ordinary test. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return 1;
    size_t cap = 1 << 20, len = 0;
    uint8_t *data = malloc(cap);
    if (data)
        len = fread(data, 1, cap, file);
    fclose(file);
    if (!data)
        return 1;
    /* An exact copy, so that a read past the end is seen by ASan. */
    uint8_t *exact = malloc(len ? len : 1);
    if (!exact)
        abort();
    for (size_t i = 0; i < len; i++)
        exact[i] = data[i];
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    int n_files = 0, n_failed = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        struct dirent *entry;
        while (dir && (entry = readdir(dir))) {
            char path[4096];
            if (entry->d_name[0] == '.')
                continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
            n_failed += replay_file(path);
            n_files++;
        }
        if (dir)
            closedir(dir);
    }
    printf("%d files replayed, %d unreadable\n", n_files, n_failed);
    return n_files == 0 || n_failed != 0; /* an empty corpus tests nothing */
}
