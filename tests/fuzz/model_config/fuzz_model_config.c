/* fuzz_model_config.c - a config.json that anybody wrote: what is accepted is a model that the graph can be made of.
 *
 * Sizes are within bounds, heads fit, layers are of known kinds, angles are numbers, and every split over ranks that is
 * accepted has all heads once. Refusals come with a reason. A NUL ends config.json; generation_config.json follows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/model/config.h"
#include "replica/model/rope.h"
#include "replica/parallel/shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "violated: %s\n", what);
        abort();
    }
}

static void check_angles(struct model_config c)
{
    c.n_context = c.n_context < 64 ? c.n_context : 64; /* the table's first rows */
    size_t n = (size_t)c.n_context * (c.d_head / 2);
    float *cosines = malloc(n * sizeof *cosines), *sines = malloc(n * sizeof *sines);

    rope_fill(&c, cosines, sines);
    for (size_t i = 0; i < n; i++)
        require(isfinite(cosines[i]) && isfinite(sines[i]), "angles are numbers");
    free(cosines);
    free(sines);
}

static void check_ranks(const struct model_config *c)
{
    struct shard s;
    struct weir_why why;
    uint32_t n_heads = 0;

    for (uint32_t n = 1; n <= 8; n++, n_heads = 0)
        for (uint32_t i = 0; i < n; i++) {
            if (shard_of(c, i, n, &s, &why) != WEIR_OK) {
                require(i == 0, "all ranks are accepted, or none");
                break;
            }
            require(s.heads.from == n_heads, "heads follow each other");
            n_heads += s.heads.n;
            require(i + 1 < n || n_heads == c->n_head, "all heads");
        }
}

static void check(const struct model_config *c)
{
    require(c->family != NULL && c->n_layer >= 1 && c->n_layer <= MODEL_LAYERS_MAX, "layers");
    require(c->n_kv_head > 0 && c->n_head % c->n_kv_head == 0 && c->d_head > 0 && c->d_head % 2 == 0,
            "heads");
    require(c->d_model > 0 && c->d_ffn > 0 && c->n_vocab > 0 && c->n_context > 0 && c->rms_eps > 0, "sizes");
    for (uint32_t i = 0; i < c->n_layer; i++) {
        require(!(c->layers[i] & MODEL_LAYER_SLIDES) || c->window > 0, "a window for layers that slide");
        require(!(c->layers[i] & MODEL_LAYER_SPARSE) ||
                    (c->n_used > 0 && c->n_used <= c->n_expert && c->d_expert > 0),
                "experts for layers that have them");
    }
    require(c->n_expert <= MODEL_EXPERTS_MAX, "few experts");
    for (int i = 0; i < c->n_eos_ids; i++)
        require(c->eos_ids[i] >= 0 && (uint32_t)c->eos_ids[i] < c->n_vocab, "end tokens");
    check_angles(*c);
    check_ranks(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model_config c;
    struct weir_why why = { 0 };
    char *text = malloc(size + 1); /* an exact copy but for the NUL: reading past it shows */

    memcpy(text, data, size);
    text[size] = '\0';
    size_t n = strlen(text);
    struct weir_str generation = { n < size ? text + n + 1 : NULL, n < size ? size - n - 1 : 0 };
    c = (struct model_config){ 0 };
    weir_err err = model_config_parse((struct weir_str){ text, n }, generation, &c, &why);
    require(err == WEIR_OK || err == WEIR_CORRUPT || err == WEIR_UNIMPLEMENTED || err == WEIR_NOMEM,
            "a fitting error");
    require(err == WEIR_OK || why.text[0] != '\0', "a reason");
    if (err == WEIR_OK)
        check(&c);
    free(text);
    return 0;
}
