/* How the range coder reads one decision: coder.py's decoder, for whoever decodes in C. */
#ifndef LMC_RANGECODER_H
#define LMC_RANGECODER_H
#include "native.h"
#include <stdint.h>

#define RANGE_DECODER "lmcompress.range_decoder" /* of capsules */
#define ONE (1u << 24)  /* k of certainty, which no decision has */
#define HALF (1u << 23)

typedef struct {
    uint64_t offset; /* code - low, < range for data that an encoder wrote */
    uint64_t range;  /* >= 2^32 between decisions */
    PyObject *data;  /* bytes */
    size_t at;       /* next byte to read, may pass the end: zeros follow the data */
    int timed;       /* whether those who decode in C count what that takes */
    int64_t spent;   /* nanoseconds */
} RangeDecoder;

/* Of the 2^24 parts of an interval, how many bit 0 gets; 1 <= zeros_of(k) < 2^24 for 0 < k < 2^24. */
static inline uint32_t zeros_of(uint32_t k) { return ONE - k - (k < HALF); }

/* The next word of the data, zeros after its end. Needs no interpreter lock: bytes do not change. */
static inline uint32_t range_word(RangeDecoder *coder)
{
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(coder->data);
    size_t size = (size_t)PyBytes_GET_SIZE(coder->data), at = coder->at;
    if (at >= size)
        return 0;
    uint32_t word = 0;
    for (size_t j = 0; j < 4; j++)
        word = word << 8 | (at + j < size ? data[at + j] : 0);
    coder->at = at + 4;
    return word;
}

/* The next decision, 0 or 1, for P(bit = 1) = k / 2^24, 0 < k < 2^24; -1 when no encoder writes such data. */
static inline int range_bit(RangeDecoder *coder, uint32_t k)
{
    uint64_t scale = coder->range >> 24, split = scale * zeros_of(k);
    if (coder->offset >= scale << 24) /* in the part of the interval that rounding leaves unused */
        return -1;
    int bit = coder->offset >= split;
    if (bit) {
        coder->offset -= split;
        coder->range = (scale << 24) - split;
    } else
        coder->range = split;
    if (coder->range >> 32 == 0) { /* then offset < 2^32 too */
        coder->offset = coder->offset << 32 | range_word(coder);
        coder->range <<= 32;
    }
    return bit;
}

#endif
