/* holds.c - a shard's reservations: found by call id, and in the order in which they expire. Under the shard's lock. */
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/limits/limits_int.h"

static uint64_t call_hash(const uint8_t call_id[16])
{
    return weir_hash64(call_id, 16, 0);
}

struct hold *hold_find(struct shard *shard, const uint8_t call_id[16])
{
    struct hold *hold =
        shard->n_hold_buckets ? shard->holds[call_hash(call_id) & (shard->n_hold_buckets - 1)] : NULL;

    while (hold && memcmp(hold->call_id, call_id, 16) != 0)
        hold = hold->next;
    return hold;
}

static bool grow_holds(struct shard *shard)
{
    uint32_t n = shard->n_hold_buckets ? shard->n_hold_buckets * 2 : BUCKETS_FIRST;
    struct hold **grown;

    if (shard->n_holds < shard->n_hold_buckets)
        return true;
    grown = weir_calloc(n, sizeof *grown);
    if (!grown)
        return shard->n_hold_buckets > 0;
    for (uint32_t b = 0; b < shard->n_hold_buckets; b++)
        while (shard->holds[b]) {
            struct hold *hold = shard->holds[b];
            uint64_t to = call_hash(hold->call_id) & (n - 1);
            shard->holds[b] = hold->next;
            hold->next = grown[to];
            grown[to] = hold;
        }
    weir_free(shard->holds);
    shard->holds = grown;
    shard->n_hold_buckets = n;
    return true;
}

void hold_free(struct shard *shard, struct hold *hold)
{
    struct hold **at = &shard->holds[call_hash(hold->call_id) & (shard->n_hold_buckets - 1)];

    while (*at != hold)
        at = &(*at)->next;
    *at = hold->next;
    *(hold->sooner ? &hold->sooner->later : &shard->next_expiry) = hold->later;
    *(hold->later ? &hold->later->sooner : &shard->last_expiry) = hold->sooner;
    shard->n_holds--;
    hold->key->n_holds--;
    hold->account->n_holds--;
    weir_free(hold);
}

struct hold *hold_add(struct shard *shard, const uint8_t call_id[16], uint64_t expires_ns)
{
    struct hold *hold = grow_holds(shard) ? weir_alloc0(sizeof *hold) : NULL;

    if (!hold)
        return NULL;
    memcpy(hold->call_id, call_id, 16);
    hold->expires_ns = expires_ns;
    struct hold **bucket = &shard->holds[call_hash(call_id) & (shard->n_hold_buckets - 1)];
    hold->next = *bucket;
    *bucket = hold;
    hold->sooner = shard->last_expiry;
    *(shard->last_expiry ? &shard->last_expiry->later : &shard->next_expiry) = hold;
    shard->last_expiry = hold;
    shard->n_holds++;
    return hold;
}
