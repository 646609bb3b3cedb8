/* fuzz_etcd_stream.c - bytes from etcd: no crash, and [E1] the same messages however they are split.
 *
 * The first byte chooses the size of the pieces. What is understood is applied to a snapshot, which must stay
 * sorted. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "discovery/etcd_stream.h"
#include "discovery/snapshot.h"

#define LINE_MAX_BYTES 4096
#define CHANGES_MAX 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    uint64_t hash; /* of everything that was understood */
    const struct weir_disc_snapshot *snap;
};

static uint64_t hash_str(uint64_t hash, struct weir_str s)
{
    return weir_hash_mix(hash, weir_hash64(s.ptr ? s.ptr : "", s.len, s.len));
}

static void take(struct run *run, weir_err rc, const struct etcd_msg *msg)
{
    struct snapshot_change changes[CHANGES_MAX];
    const struct weir_disc_snapshot *next;
    int n = 0;
    run->hash = weir_hash_mix(run->hash, (uint64_t)rc);
    if (rc != WEIR_OK)
        return;
    uint64_t flags = (uint64_t)msg->created << 3 | (uint64_t)msg->canceled << 2 |
                     (uint64_t)msg->fragment << 1 | (uint64_t)msg->is_error;
    run->hash = weir_hash_mix(run->hash, flags);
    run->hash = weir_hash_mix(run->hash, msg->cluster_id + (uint64_t)msg->revision);
    run->hash = hash_str(hash_str(hash_str(run->hash, msg->error), msg->cancel_reason), msg->token);
    for (int i = 0; i < msg->n_kvs; i++) {
        const struct etcd_kv *kv = &msg->kvs[i];
        if (kv->key.len == 0)
            abort();
        run->hash = hash_str(hash_str(run->hash, kv->key), kv->value);
        if (n < CHANGES_MAX)
            changes[n++] = (struct snapshot_change){ kv->key, kv->value, kv->mod_revision, kv->is_delete };
    }
    if (snapshot_apply(run->snap, changes, n, msg->revision, &next, NULL) != WEIR_OK)
        abort();
    weir_disc_snapshot_unref(run->snap);
    run->snap = next;
    for (int i = 1; i < next->n_entries; i++)
        if (weir_str_cmp(next->entries[i - 1].key, next->entries[i].key) >= 0)
            abort();
}

static uint64_t run_in_pieces(const char *data, size_t size, size_t piece)
{
    struct run run = { 0 };
    struct etcd_lines lines;
    struct weir_str line;
    etcd_lines_init(&lines, LINE_MAX_BYTES);
    for (size_t at = 0; at < size; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        if (etcd_lines_feed(&lines, data + at, n, NULL) != WEIR_OK)
            abort(); /* the input is shorter than the bound */
        while (etcd_lines_next(&lines, &line)) {
            struct weir_arena arena;
            struct etcd_msg msg;
            weir_arena_init(&arena, 1 << 20);
            take(&run, etcd_msg_parse(line, &arena, &msg, NULL), &msg);
            weir_arena_release(&arena);
        }
    }
    etcd_lines_release(&lines);
    weir_disc_snapshot_unref(run.snap);
    return run.hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > LINE_MAX_BYTES)
        return 0;
    size_t piece = 1 + data[0] % 64;
    const char *text = (const char *)data + 1;
    if (run_in_pieces(text, size - 1, piece) != run_in_pieces(text, size - 1, size - 1))
        abort();
    return 0;
}
