/* thinking_model.c - see thinking_model.h. */
#include "tests/support/thinking_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"

static const char *const spellings[][2] = { { "<|reserved_special_token_0|>", "[THINK]" },
                                            { "<|reserved_special_token_1|>", "[/THINK]" } };

static bool read_all(const char *path, struct weir_buf *out)
{
    FILE *file = fopen(path, "rb");
    char piece[4096];
    size_t n;

    while (file && (n = fread(piece, 1, sizeof piece, file)) > 0)
        weir_buf_add(out, piece, n);
    return file && fclose(file) == 0;
}

/* The same text with the other spellings. */
static bool write_all(const char *path, struct weir_str text)
{
    FILE *file = fopen(path, "wb");

    for (size_t i = 0; file && i < text.len;) {
        size_t n = 1;
        const char *put = text.ptr + i;
        for (size_t k = 0; k < 2; k++) {
            size_t n_old = strlen(spellings[k][0]);
            if (text.len - i >= n_old && memcmp(text.ptr + i, spellings[k][0], n_old) == 0) {
                put = spellings[k][1];
                n = n_old;
            }
        }
        fwrite(put, 1, put == text.ptr + i ? 1 : strlen(put), file);
        i += n;
    }
    return file && fclose(file) == 0;
}

static const char *const names[] = { "tokenizer.json", "tokenizer_config.json" };

bool thinking_model_make(char ret_dir[64])
{
    char path[128];
    bool ok;

    snprintf(ret_dir, 64, "/tmp/weir-thinking-XXXXXX");
    ok = mkdtemp(ret_dir) != NULL;
    for (int i = 0; ok && i < 2; i++) {
        struct weir_buf text;
        weir_buf_init(&text, 0);
        snprintf(path, sizeof path, "models/demo/%s", names[i]);
        ok = read_all(path, &text);
        snprintf(path, sizeof path, "%s/%s", ret_dir, names[i]);
        ok = ok && write_all(path, (struct weir_str){ weir_buf_ptr(&text), weir_buf_len(&text) });
        weir_buf_release(&text);
    }
    return ok;
}

void thinking_model_remove(const char *dir)
{
    char path[128];

    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}
