/* The arithmetic of docs/MODEL.md in plain C, to be inlined: as it is in the portable set, and compiled again for wider
 * registers where an instruction set has nothing better. */
#ifndef LMC_PLAIN_H
#define LMC_PLAIN_H
#include "kernels.h"
#include <float.h>
#include <math.h>

#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 /* 16: only for half precision */
#error "binary32 arithmetic must round to binary32 (on 32-bit x86: -msse2 -mfpmath=sse)"
#endif
#if defined(__GNUC__) || defined(__clang__)
#define INLINE static inline __attribute__((always_inline, unused))
#else
#define INLINE static inline
#endif

/* Nearest integer, half to even, within integers low..high. The bounds come first, which is the same for integer bounds
 * and makes |y| < 2^22; then adding and taking away 3 * 2^22 leaves the nearest integer, by IEEE 754's default rounding. */
INLINE int32_t round_within(float y, float low, float high)
{
    y = y > low ? y : low;
    y = y < high ? y : high;
    float shifted = y + 12582912.0f;
    return (int32_t)(shifted - 12582912.0f);
}

/* NORM * sqrt(n) / sqrt(energy), 0 for no energy. */
INLINE float inverse_rms(int64_t energy, int n)
{
    return energy == 0 ? 0.0f : (float)(NORM * sqrt((double)n) / sqrt((double)energy));
}

INLINE int64_t plain_energy(const int16_t *x, int n)
{
    int64_t energy = 0;
    for (int i = 0; i < n; i++)
        energy += (int32_t)x[i] * x[i];
    return energy;
}

INLINE void plain_normalize(const int16_t *x, const float *gain, int d, uint8_t *out)
{
    float r = inverse_rms(plain_energy(x, d), d);
    for (int i = 0; i < d; i++)
        out[i] = (uint8_t)(round_within((float)x[i] * r * gain[i], -127, 127) + 128);
}

INLINE void plain_turn(const int16_t *t, int n, const int16_t *cosine, const int16_t *sine, int8_t *out)
{
    for (; n > 0; n--, t += HEAD, out += HEAD) {
        float r = inverse_rms(plain_energy(t, HEAD), HEAD), r_turned = r * 0x1p-14f;
        for (int i = 0; i < ROTARY / 2; i++) {
            int32_t a = t[i], b = t[i + ROTARY / 2]; /* |a cos - b sin| <= 2 * 32767 * 16384 < 2^31 */
            out[i] = (int8_t)round_within((float)(a * cosine[i] - b * sine[i]) * r_turned, -127, 127);
            out[i + ROTARY / 2] = (int8_t)round_within((float)(b * cosine[i] + a * sine[i]) * r_turned, -127, 127);
        }
        for (int i = ROTARY; i < HEAD; i++)
            out[i] = (int8_t)round_within((float)t[i] * r, -127, 127);
    }
}

/* What becomes of TILE accumulators: columns n..n+TILE-1 of one row. */
INLINE void plain_finish(const int32_t *c, const float *scale, Result result, float limit, void *row, int n)
{
    if (result == TO_INT16) {
        int16_t *out = (int16_t *)row + n;
        for (int j = 0; j < TILE; j++)
            out[j] = (int16_t)round_within((float)c[j] * scale[j], -limit, limit);
    } else if (result == TO_RESIDUAL) {
        int16_t *out = (int16_t *)row + n;
        for (int j = 0; j < TILE; j++) {
            int32_t sum = out[j] + round_within((float)c[j] * scale[j], -32767, 32767);
            sum = sum > -32767 ? sum : -32767;
            out[j] = (int16_t)(sum < 32767 ? sum : 32767);
        }
    } else {
        uint8_t *out = (uint8_t *)row + n;
        for (int j = 0; j < TILE; j++) {
            int32_t u = round_within((float)c[j] * scale[j], 0, 255);
            out[j] = (uint8_t)((u * u + 128) >> 8);
        }
    }
}

/* How many of n rows come next, where at most `most` go together and none should be left alone. */
INLINE int even_share(int n, int most)
{
    int shares = (n + most - 1) / most;
    return (n + shares - 1) / shares;
}

/* Weights as they come, row by row: sums along a row are what compilers turn into vector instructions best. */
INLINE void plain_product(const Matrix *w, int begin, int end, const uint8_t *x, int n, Result result, float limit,
                          void *const *out)
{
    int16_t wide[MAX_IN];
    int K = w->n_in;
    for (int m = 0; m < n; m++, x += K) {
        for (int k = 0; k < K; k++)
            wide[k] = x[k];
        for (int column = begin; column < end; column += TILE) {
            int32_t c[TILE];
            for (int j = 0; j < TILE; j += 4) {
                const int8_t *w0 = w->packed + (size_t)(column + j) * K, *w1 = w0 + K, *w2 = w1 + K, *w3 = w2 + K;
                int32_t c0 = 0, c1 = 0, c2 = 0, c3 = 0;
                for (int k = 0; k < K; k++) {
                    c0 += wide[k] * w0[k];
                    c1 += wide[k] * w1[k];
                    c2 += wide[k] * w2[k];
                    c3 += wide[k] * w3[k];
                }
                const int32_t *start = w->start + column + j;
                c[j] = start[0] + c0;
                c[j + 1] = start[1] + c1;
                c[j + 2] = start[2] + c2;
                c[j + 3] = start[3] + c3;
            }
            plain_finish(c, w->scale + column, result, limit, out[m], column);
        }
    }
}

/* HEADS <= 4 heads at once, which share the unpacking of keys and values. */
INLINE void plain_attend_heads(const int HEADS, const int8_t *q, const uint8_t *keys, const int8_t *values, int seen,
                               const int32_t *score, float scale, const int32_t *exp14, uint8_t *out)
{
    int32_t s[4][MAX_WINDOW], top[4], total[4][HEAD] = {{0}};
    int16_t e[4][MAX_WINDOW], wide[4][HEAD];
    float r[4];
    for (int h = 0; h < HEADS; h++) {
        top[h] = INT32_MIN;
        for (int i = 0; i < HEAD; i++)
            wide[h][i] = q[h * HEAD + i];
    }
    for (int slot = 0; slot < seen; slot++) {
        const uint8_t *key = keys + slot / 16 * (16 * HEAD) + slot % 16 * 4;
        int16_t k[HEAD]; /* the keys' 128 adds the same to every slot's score, and so changes no difference */
        for (int i = 0; i < HEAD; i++)
            k[i] = key[i / 4 * 64 + i % 4];
        for (int h = 0; h < HEADS; h++) {
            int32_t c = 0;
            for (int i = 0; i < HEAD; i++)
                c += wide[h][i] * k[i];
            s[h][slot] = c;
            top[h] = c > top[h] ? c : top[h];
        }
    }
    for (int h = 0; h < HEADS; h++) {
        int32_t sum = 0; /* at most 1024 * 2^14 */
        for (int slot = 0; slot < seen; slot++) {
            int32_t below = (top[h] - s[h][slot]) * score[h] >> 10; /* before the shift at most 2^21 * 511 < 2^31 */
            e[h][slot] = (int16_t)(exp14[below & 255] >> (below >> 8 < 15 ? below >> 8 : 15));
            sum += e[h][slot];
        }
        r[h] = (float)((double)scale / (double)sum);
    }
    for (int slot = 0; slot < seen; slot++) {
        const int8_t *value = values + slot / 4 * (4 * HEAD) + slot % 4;
        int16_t v[HEAD];
        for (int i = 0; i < HEAD; i++)
            v[i] = value[4 * i];
        for (int h = 0; h < HEADS; h++)
            for (int i = 0; i < HEAD; i++)
                total[h][i] += e[h][slot] * v[i]; /* |total| <= 127 * sum < 2^31 */
    }
    for (int h = 0; h < HEADS; h++)
        for (int i = 0; i < HEAD; i++)
            out[h * HEAD + i] = (uint8_t)(round_within((float)total[h][i] * r[h], -127, 127) + 128);
}

INLINE void plain_attend(const int8_t *q, int n_head, const uint8_t *keys, const int8_t *values, int seen,
                         const int32_t *score, float scale, const int32_t *exp14, uint8_t *out)
{
    for (; n_head >= 4; n_head -= 4, q += 4 * HEAD, out += 4 * HEAD, score += 4)
        plain_attend_heads(4, q, keys, values, seen, score, scale, exp14, out);
    for (; n_head > 0; n_head--, q += HEAD, out += HEAD, score++)
        plain_attend_heads(1, q, keys, values, seen, score, scale, exp14, out);
}

INLINE void plain_cumulate(const int16_t *logits, int V, const int32_t *exp24, uint64_t *base, uint32_t *local)
{
    int top = logits[0];
    for (int i = 1; i < V; i++)
        top = logits[i] > top ? logits[i] : top;
    uint64_t before = 0;
    for (int i = 0; i < V; i += GROUP) {
        uint32_t sum = 0; /* at most 64 * (2^24 + 1) */
        int end = i + GROUP < V ? i + GROUP : V;
        *base++ = before;
        for (int j = i; j < end; j++) {
            int below = top - logits[j];
            sum += (uint32_t)(exp24[below & 255] >> (below >> 8 < 31 ? below >> 8 : 31)) + 1;
            local[j] = sum;
        }
        before += sum;
    }
}

#endif
