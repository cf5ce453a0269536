/* The mixer, for whoever runs it in C. */
#ifndef LMC_MIXER_H
#define LMC_MIXER_H
#include "rangecoder.h"

#define MIXER "lmcompress.mixer" /* of capsules */

typedef struct Mixer Mixer;

/* Whether T steps of lanes 0..n-1 may follow, and there is room for their tokens; 0 with a Python error set where not. */
int lmc_mixer_ready(Mixer *mixer, Py_ssize_t n, Py_ssize_t T);
/* Whether it was made for a network of this shape. */
int lmc_mixer_fits(const Mixer *mixer, int vocab_size, int n_features);
/* A step of lanes 0..n-1, for which the mixer is ready: tokens [n], by decisions that the coder reads, given the network's
 * weights base [n, ceil(V / 64)] and local [n, V] and its features [n, n_features]. 0 when no encoder writes such data. */
int lmc_mixer_decode(Mixer *mixer, RangeDecoder *coder, int n, const uint64_t *base, const uint32_t *local,
                     const int8_t *features, int32_t *tokens);

/* One of tokens int32 [n, T]. */
static inline int32_t *token_at(const Py_buffer *tokens, Py_ssize_t l, Py_ssize_t t)
{
    return (int32_t *)(void *)((char *)tokens->buf + l * tokens->strides[0] + t * tokens->strides[1]);
}

#endif
