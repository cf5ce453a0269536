/* What the two sets with 512-bit registers share: the end of a product, where int32 sums become activations. */
#ifndef LMC_WIDE512_H
#define LMC_WIDE512_H
#include "plain.h"
#ifdef LMC_X86
#include <immintrin.h>

#define WIDE __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

/* cvtps2dq rounds half to even; min and max keep it in range. */
INLINE WIDE __m512i rescale(__m512i c, __m512 scale, __m512 low, __m512 high)
{
    __m512 y = _mm512_mul_ps(_mm512_cvtepi32_ps(c), scale);
    return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(y, low), high));
}

/* 32 columns of one row, from column n. */
INLINE WIDE void finish(__m512i c0, __m512i c1, __m512 scale0, __m512 scale1, Result result, __m512 low, __m512 high,
                        void *row, int n)
{
    __m512i y = _mm512_packs_epi32(rescale(c0, scale0, low, high), rescale(c1, scale1, low, high));
    y = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), y); /* packs works in quarters */
    if (result == TO_SQUARE) { /* u * u + 128 < 2^16 */
        y = _mm512_srli_epi16(_mm512_add_epi16(_mm512_mullo_epi16(y, y), _mm512_set1_epi16(128)), 8);
        _mm256_storeu_si256((__m256i *)((uint8_t *)row + n), _mm512_cvtepi16_epi8(y));
        return;
    }
    int16_t *out = (int16_t *)row + n;
    if (result == TO_RESIDUAL) /* saturation leaves only -32768 out of bounds */
        y = _mm512_max_epi16(_mm512_adds_epi16(y, _mm512_loadu_si512(out)), _mm512_set1_epi16(-32767));
    _mm512_storeu_si512(out, y);
}

/* As in avx512vnni and shared by amx. */
int lmc_avx512_supported(void);
void lmc_avx512_product(const Matrix *w, int begin, int end, const uint8_t *x, int n, Result result, float limit,
                        void *const *out);
void lmc_avx512_normalize(const int16_t *x, const float *gain, int d, uint8_t *out);
void lmc_avx512_turn(const int16_t *t, int n, const int16_t *cosine, const int16_t *sine, int8_t *out);
void lmc_avx512_attend(const int8_t *q, int n_head, const uint8_t *keys, const int8_t *values, int seen,
                       const int32_t *score, float scale, const int32_t *exp14, uint8_t *out);
void lmc_avx512_cumulate(const int16_t *logits, int V, const int32_t *exp24, uint64_t *base, uint32_t *local);
#endif

#endif
