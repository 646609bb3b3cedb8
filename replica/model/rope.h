/* rope.h - the angles of the rotary embedding, with the ways models stretch them to longer contexts. */
#ifndef WEIR_REPLICA_MODEL_ROPE_H
#define WEIR_REPLICA_MODEL_ROPE_H

#include "replica/model/config.h"

/* cos, sin [n_context, d_head / 2]: of position times frequency, times the attention factor. Frequencies and angles are
 * rounded to f32 as in the reference implementation: at far positions that shows. Sources: Su et al. 2021; linear: Chen et
 * al. 2023 (arXiv 2306.15595); yarn: Peng et al. 2023 (arXiv 2309.00071); llama3: by wavelength, Llama 3.1. */
void rope_fill(const struct model_config *config, float *cos, float *sin);
/* The frequency of pair i of d_head / 2. */
float rope_frequency(const struct model_config *config, uint32_t i);
/* yarn's factor for cosines and sines; `mscale` and `all` are NaN where the file says nothing. */
double rope_yarn_attention(double factor, double mscale, double all);

#endif
