/* What the two sets with 512-bit registers share: where int32 sums become activations, and scores weights. */
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

/* 16 integers in int32 times r, as bytes. */
INLINE WIDE __m128i to_bytes(__m512i c, __m512 r)
{
    return _mm512_cvtepi32_epi8(rescale(c, r, _mm512_set1_ps(-127), _mm512_set1_ps(127)));
}

/* The same with 128 added, to out. */
INLINE WIDE void put_offset(__m512i c, __m512 r, uint8_t *out)
{
    _mm_storeu_si128((__m128i *)out, _mm_xor_si128(to_bytes(c, r), _mm_set1_epi8(-128)));
}

/* The highest of `seen` scores, in all lanes. */
INLINE WIDE __m512i top_score(const int32_t *s, int seen)
{
    int full = (seen - 1) / 16 * 16;
    __mmask16 last = (__mmask16)(0xFFFF >> (full + 16 - seen));
    __m512i top = _mm512_mask_loadu_epi32(_mm512_set1_epi32(INT32_MIN), last, s + full);
    for (int slot = 0; slot < full; slot += 16)
        top = _mm512_max_epi32(top, _mm512_loadu_si512(s + slot));
    return _mm512_set1_epi32(_mm512_reduce_max_epi32(top));
}

/* Exponents of slots slot..slot+63 in 16 bits, in quarters: four slots of each 16 in turn. Beyond `seen` nothing is left. */
INLINE WIDE void exponents(const int32_t *s, int slot, int seen, __m512i top, int32_t score, __m512i b[2])
{
    __m512i four[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        int left = seen - slot - 16 * j;
        __mmask16 there = left >= 16 ? 0xFFFF : left > 0 ? (__mmask16)(0xFFFF >> (16 - left)) : 0;
        four[j] = _mm512_set1_epi32(INT16_MAX);
        if (left > 0) {
            __m512i below = _mm512_sub_epi32(top, _mm512_loadu_si512(s + slot + 16 * j));
            four[j] = _mm512_mask_srai_epi32(four[j], there, _mm512_mullo_epi32(below, _mm512_set1_epi32(score)), 10);
        }
    }
    b[0] = _mm512_packs_epi32(four[0], four[1]);
    b[1] = _mm512_packs_epi32(four[2], four[3]);
}

/* The weights that these exponents gave, in order, as two bytes for the products: 128 * high + low, at most 2^14. Returns
 * sum + their sums. */
INLINE WIDE __m512i put_weights(__m512i e0, __m512i e1, uint8_t *high, uint8_t *low, __m512i sum)
{
    __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i ones = _mm512_set1_epi16(1), seven = _mm512_set1_epi16(127);
    __m512i e_high = _mm512_packus_epi16(_mm512_srli_epi16(e0, 7), _mm512_srli_epi16(e1, 7));
    __m512i e_low = _mm512_packus_epi16(_mm512_and_si512(e0, seven), _mm512_and_si512(e1, seven));
    _mm512_storeu_si512(high, _mm512_permutexvar_epi32(order, e_high));
    _mm512_storeu_si512(low, _mm512_permutexvar_epi32(order, e_low));
    return _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(sum, e0, ones), e1, ones);
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
void lmc_avx512_normalize(const int16_t *x, const float *gain, int d, uint8_t *out);
void lmc_avx512_turn(const int16_t *t, int n, const int16_t *cosine, const int16_t *sine, int8_t *out);
void lmc_avx512_cumulate(const int16_t *logits, int V, const int32_t *exp24, uint64_t *base, uint32_t *local);
#endif

#endif
