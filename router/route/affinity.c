/* affinity.c - one 64-bit key out of a request: see affinity.h for what it is made of.
 *   [A1] Two accounts, or two isolation keys, never share a key but by accident of 64 bits.
 *   [A2] A later turn of a conversation has the key of its first.
 *   [A3] No more than WEIR_AFFINITY_HEAD_MAX bytes of the prompt are read. */
#include "router/route/affinity.h"

#include <string.h>

#include "base/hash.h"

#define AFFINITY_SEED 0x616666696e697479ull

/* What the key was taken from: a session and a user of the same name are different keys. */
enum source { FROM_SESSION = 1, FROM_CACHE_KEY, FROM_USER, FROM_CHAT, FROM_PROMPT, FROM_IDS };

/* The length goes in as well, so that "ab" + "c" is not "a" + "bc". */
static uint64_t mix_bytes(uint64_t hash, const void *data, size_t len)
{
    return weir_hash_mix(weir_hash_mix(hash, weir_hash64(data, len, AFFINITY_SEED)), len);
}

static uint64_t mix_head(uint64_t hash, const char *text, size_t *room)
{
    size_t len = text ? strnlen(text, *room) : 0;

    *room -= len;
    return mix_bytes(hash, text, len);
}

/* The tools, the system messages before the first user message, and that message: what every later turn
 * repeats. [A2] */
static uint64_t mix_chat(uint64_t hash, const Weir__V1__GenerateRequest *msg)
{
    const Weir__V1__Chat *chat = msg->chat;
    size_t room_system = WEIR_AFFINITY_SYSTEM_MAX;
    size_t i = 0;

    for (size_t k = 0; k < msg->n_tools && room_system > 0; k++) {
        hash = mix_head(hash, msg->tools[k]->name, &room_system);
        hash = mix_head(hash, msg->tools[k]->parameters, &room_system);
    }
    for (; i < chat->n_messages && strcmp(chat->messages[i]->role, "user") != 0; i++)
        if (room_system > 0)
            hash = mix_head(hash, chat->messages[i]->content, &room_system);
    if (i == chat->n_messages)
        return hash;
    size_t room = WEIR_AFFINITY_HEAD_MAX - (WEIR_AFFINITY_SYSTEM_MAX - room_system); /* [A3] */
    return mix_head(hash, chat->messages[i]->content, &room);
}

uint64_t weir_affinity_key(const struct weir_request *req)
{
    const Weir__V1__GenerateRequest *msg = req->msg;
    uint64_t hash = mix_bytes(AFFINITY_SEED, req->account.ptr, req->account.len); /* [A1] */

    hash = mix_bytes(hash, req->isolation.ptr, req->isolation.len);
    if (req->session.len > 0)
        return mix_bytes(weir_hash_mix(hash, FROM_SESSION), req->session.ptr, req->session.len);
    if (msg->prompt_cache_key && msg->prompt_cache_key[0])
        return mix_bytes(weir_hash_mix(hash, FROM_CACHE_KEY), msg->prompt_cache_key,
                         strlen(msg->prompt_cache_key));
    if (msg->user && msg->user[0])
        return mix_bytes(weir_hash_mix(hash, FROM_USER), msg->user, strlen(msg->user));
    if (msg->input_case == WEIR__V1__GENERATE_REQUEST__INPUT_CHAT && msg->chat)
        return mix_chat(weir_hash_mix(hash, FROM_CHAT), msg);
    if (msg->input_case == WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT) {
        size_t room = WEIR_AFFINITY_PROMPT_MAX;
        return mix_head(weir_hash_mix(hash, FROM_PROMPT), msg->prompt, &room);
    }
    if (msg->input_case == WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT_IDS && msg->prompt_ids) {
        size_t n_max = WEIR_AFFINITY_PROMPT_MAX / sizeof *msg->prompt_ids->ids;
        size_t n = msg->prompt_ids->n_ids < n_max ? msg->prompt_ids->n_ids : n_max;
        return mix_bytes(weir_hash_mix(hash, FROM_IDS), msg->prompt_ids->ids,
                         n * sizeof *msg->prompt_ids->ids);
    }
    return hash;
}
