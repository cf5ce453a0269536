/* AVX-512 with VNNI: vpdpbusd adds four products of uint8 and int8 to an int32, without saturation. */
#include "wide512.h"
#ifdef LMC_X86
#include <string.h>

int lmc_avx512_supported(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

INLINE WIDE __m512i broadcast4(const void *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
}

/* sums += products of uint8 a and int8 b. Not the intrinsic, whose sums compilers copy and spill at every use. */
INLINE WIDE void add_products(__m512i *sums, __m512i a, __m512i b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*sums) : "v"(a), "v"(b));
}

/* The same, b four bytes in memory, again and again. */
INLINE WIDE void add_products4(__m512i *sums, __m512i a, const int8_t *b)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(*sums) : "v"(a), "m"(*(const int8_t(*)[4])b));
}

/* ROWS <= 8 rows from m by the strip from column n. Up to three rows have several sums of each output, CHAINS of them, to add
 * to in turn: an addition has to wait for the one before. The first of several rows fetch the next strip's weights, which often
 * wait in the third-level cache, into the second. */
INLINE WIDE void block(const int ROWS, const Matrix *w, int n, const uint8_t *x, int m, Result result,
                       float limit, void *const *out)
{
    const int CHAINS = ROWS == 1 ? 4 : ROWS < 4 ? 2 : 1;
    size_t K = w->n_in;
    const int8_t *weight = w->packed + n * K;
    const uint8_t *input = x + m * K;
    __m512i c[8][2];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS * CHAINS; i++) {
        c[i][0] = i < ROWS ? _mm512_loadu_si512(w->start + n) : _mm512_setzero_si512();
        c[i][1] = i < ROWS ? _mm512_loadu_si512(w->start + n + TILE) : _mm512_setzero_si512();
    }
    for (size_t k = 0; k < K; k += 4 * CHAINS)
#pragma GCC unroll 8
        for (int j = 0; j < CHAINS; j++) {
            __m512i b0 = _mm512_loadu_si512(weight + (k + 4 * j) * TILE);
            __m512i b1 = _mm512_loadu_si512(weight + (K + k + 4 * j) * TILE);
            if (m == 0 && ROWS > 1) {
                _mm_prefetch((const char *)weight + (2 * K + k + 4 * j) * TILE, _MM_HINT_T1);
                _mm_prefetch((const char *)weight + (3 * K + k + 4 * j) * TILE, _MM_HINT_T1);
            }
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; i++) {
                __m512i a = broadcast4(input + i * K + k + 4 * j);
                add_products(&c[j * ROWS + i][0], a, b0);
                add_products(&c[j * ROWS + i][1], a, b1);
            }
        }
#pragma GCC unroll 8
    for (int i = ROWS; i < ROWS * CHAINS; i++) {
        c[i % ROWS][0] = _mm512_add_epi32(c[i % ROWS][0], c[i][0]);
        c[i % ROWS][1] = _mm512_add_epi32(c[i % ROWS][1], c[i][1]);
    }
    __m512 low = _mm512_set1_ps(result == TO_SQUARE ? 0.0f : -limit), high = _mm512_set1_ps(limit);
    __m512 scale0 = _mm512_loadu_ps(w->scale + n), scale1 = _mm512_loadu_ps(w->scale + n + TILE);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
        finish(c[i][0], c[i][1], scale0, scale1, result, low, high, out[m + i], n);
}

WIDE static void product(const Matrix *w, int begin, int end, const uint8_t *x, int n, Result result, float limit,
                         void *const *out)
{
    if (result != TO_INT16)
        limit = result == TO_SQUARE ? 255.0f : 32767.0f;
    for (int column = begin; column < end; column += STRIP) {
        for (int m = 0; m < n;) {
            int rows = even_share(n - m, 8);
            switch (rows) {
            case 1: block(1, w, column, x, m, result, limit, out); break;
            case 2: block(2, w, column, x, m, result, limit, out); break;
            case 3: block(3, w, column, x, m, result, limit, out); break;
            case 4: block(4, w, column, x, m, result, limit, out); break;
            case 5: block(5, w, column, x, m, result, limit, out); break;
            case 6: block(6, w, column, x, m, result, limit, out); break;
            case 7: block(7, w, column, x, m, result, limit, out); break;
            default: block(8, w, column, x, m, result, limit, out);
            }
            m += rows;
        }
    }
}

#define AHEAD 8 /* inputs whose weights are on their way */

/* Where four inputs in a row are not all 0 in both rows: their numbers into list, and AHEAD more that may be read. K is a
 * multiple of 64. Returns how many. */
INLINE WIDE int list_inputs(const uint8_t *x0, const uint8_t *x1, int K, uint16_t *list)
{
    __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int count = 0;
    for (int k = 0; k < K; k += 64) {
        __m512i both = _mm512_or_si512(_mm512_loadu_si512(x0 + k), _mm512_loadu_si512(x1 + k));
        __mmask16 used = _mm512_test_epi32_mask(both, both);
        __m512i listed = _mm512_maskz_compress_epi32(used, _mm512_add_epi32(numbers, _mm512_set1_epi32(k / 4)));
        _mm256_storeu_si256((__m256i *)(list + count), _mm512_cvtepi32_epi16(listed));
        count += __builtin_popcount(used);
    }
    memset(list + count, 0, AHEAD * sizeof *list);
    return count;
}

/* STRIPS <= 5 strips of two rows from column n, of the listed inputs. */
INLINE WIDE void sparse_block(const int STRIPS, const Matrix *w, int n, const uint8_t *x0, const uint8_t *x1,
                              const uint16_t *list, int count, Result result, float limit, void *row0, void *row1)
{
    const int8_t *weight = w->packed + 4 * n;
    __m512i c[2][10];
#pragma GCC unroll 10
    for (int i = 0; i < 2 * STRIPS; i++)
        c[0][i] = c[1][i] = _mm512_loadu_si512(w->start + n + TILE * i);
    for (int j = 0; j < count; j++) {
        size_t k = 4 * (size_t)list[j];
        const int8_t *from = weight + k * w->n_out, *later = weight + 4 * (size_t)list[j + AHEAD] * w->n_out;
        __m512i a0 = broadcast4(x0 + k), a1 = broadcast4(x1 + k);
        __asm__("" : "+r"(from)); /* one pointer */
#pragma GCC unroll 10
        for (int i = 0; i < 2 * STRIPS; i++) {
            __m512i b = _mm512_loadu_si512(from + 4 * TILE * i);
            _mm_prefetch((const char *)later + 4 * TILE * i, _MM_HINT_T0);
            add_products(&c[0][i], a0, b);
            add_products(&c[1][i], a1, b);
        }
    }
    __m512 low = _mm512_set1_ps(result == TO_SQUARE ? 0.0f : -limit), high = _mm512_set1_ps(limit);
#pragma GCC unroll 5
    for (int i = 0; i < STRIPS; i++) {
        __m512 scale0 = _mm512_loadu_ps(w->scale + n + STRIP * i), scale1 = _mm512_loadu_ps(w->scale + n + STRIP * i + TILE);
        finish(c[0][2 * i], c[0][2 * i + 1], scale0, scale1, result, low, high, row0, n + STRIP * i);
        if (row1 != row0)
            finish(c[1][2 * i], c[1][2 * i + 1], scale0, scale1, result, low, high, row1, n + STRIP * i);
    }
}

/* Weights that meet nothing but 0 are not even read. Two rows at a time: a load for each two products, and more rows have less
 * in common. */
WIDE static void sparse_product(const Matrix *w, int begin, int end, const uint8_t *x, int n, Result result, float limit,
                                void *const *out)
{
    uint16_t list[MAX_IN / 4 + 16 + AHEAD];
    if (result != TO_INT16)
        limit = result == TO_SQUARE ? 255.0f : 32767.0f;
    for (int m = 0; m < n; m += 2) {
        int other = m + 1 < n ? m + 1 : m;
        const uint8_t *x0 = x + (size_t)m * w->n_in, *x1 = x + (size_t)other * w->n_in;
        int count = list_inputs(x0, x1, w->n_in, list);
        for (int column = begin, strips; column < end; column += strips * STRIP) {
            strips = even_share((end - column) / STRIP, 5);
            switch (strips) {
            case 1: sparse_block(1, w, column, x0, x1, list, count, result, limit, out[m], out[other]); break;
            case 2: sparse_block(2, w, column, x0, x1, list, count, result, limit, out[m], out[other]); break;
            case 3: sparse_block(3, w, column, x0, x1, list, count, result, limit, out[m], out[other]); break;
            case 4: sparse_block(4, w, column, x0, x1, list, count, result, limit, out[m], out[other]); break;
            default: sparse_block(5, w, column, x0, x1, list, count, result, limit, out[m], out[other]);
            }
        }
    }
}

/* The sum of squares of 32 int16 at a time: pairs stay within 2 * 32767^2 < 2^31. */
INLINE WIDE int64_t energy(const int16_t *x, int n)
{
    __m512i sum = _mm512_setzero_si512();
    for (int i = 0; i < n; i += 32) {
        __m512i v = _mm512_loadu_si512(x + i), s = _mm512_madd_epi16(v, v);
        sum = _mm512_add_epi64(sum, _mm512_add_epi64(_mm512_srli_epi64(s, 32),
                                                     _mm512_and_si512(s, _mm512_set1_epi64(0xFFFFFFFF))));
    }
    return _mm512_reduce_add_epi64(sum);
}

WIDE void lmc_avx512_normalize(const int16_t *x, const float *gain, int d, uint8_t *out)
{
    __m512 r = _mm512_set1_ps(inverse_rms(energy(x, d), d));
    for (int i = 0; i < d; i += 16) {
        __m512i v = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(x + i)));
        __m512 factor = _mm512_mul_ps(r, _mm512_loadu_ps(gain + i)); /* exact: gains are powers of two */
        put_offset(v, factor, out + i);
    }
}

WIDE void lmc_avx512_turn(const int16_t *t, int n, const int16_t *cosine, const int16_t *sine, int8_t *out)
{
    __m512i cos = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)cosine));
    __m512i sin = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)sine));
    for (; n > 0; n--, t += HEAD, out += HEAD) {
        float r = inverse_rms(energy(t, HEAD), HEAD);
        __m512 rest = _mm512_set1_ps(r), turned = _mm512_set1_ps(r * 0x1p-14f);
        __m512i v[4];
        for (int i = 0; i < 4; i++)
            v[i] = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(t + 16 * i)));
        __m512i a = _mm512_sub_epi32(_mm512_mullo_epi32(v[0], cos), _mm512_mullo_epi32(v[1], sin));
        __m512i b = _mm512_add_epi32(_mm512_mullo_epi32(v[1], cos), _mm512_mullo_epi32(v[0], sin));
        _mm_storeu_si128((__m128i *)out, to_bytes(a, turned));
        _mm_storeu_si128((__m128i *)(out + 16), to_bytes(b, turned));
        _mm_storeu_si128((__m128i *)(out + 32), to_bytes(v[2], rest));
        _mm_storeu_si128((__m128i *)(out + 48), to_bytes(v[3], rest));
    }
}

/* A table of 256 numbers, as 16-bit lanes of 8 registers. */
typedef struct {
    __m512i part[8];
} Table;

/* The 16 bits of each number from bit `shift` on. */
INLINE WIDE Table load_table(const int32_t *numbers, int shift)
{
    Table table;
    for (int i = 0; i < 8; i++) {
        __m512i a = _mm512_srli_epi32(_mm512_loadu_si512(numbers + 32 * i), shift);
        __m512i b = _mm512_srli_epi32(_mm512_loadu_si512(numbers + 32 * i + 16), shift);
        table.part[i] =
            _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)), _mm512_cvtepi32_epi16(b), 1);
    }
    return table;
}

/* The entries b & 255 */
INLINE WIDE __m512i entries(const Table *table, __m512i b)
{
    const __m512i *t = table->part;
    __mmask32 bit6 = _mm512_test_epi16_mask(b, _mm512_set1_epi16(64));
    __mmask32 bit7 = _mm512_test_epi16_mask(b, _mm512_set1_epi16(128));
    __m512i low = _mm512_mask_mov_epi16(_mm512_permutex2var_epi16(t[0], b, t[1]), bit6,
                                        _mm512_permutex2var_epi16(t[2], b, t[3]));
    __m512i high = _mm512_mask_mov_epi16(_mm512_permutex2var_epi16(t[4], b, t[5]), bit6,
                                         _mm512_permutex2var_epi16(t[6], b, t[7]));
    return _mm512_mask_mov_epi16(low, bit7, high);
}

/* exp14[b & 255] >> (b >> 8) for b in 0..2^15 - 1; nothing is left after shifts of 15 and more. */
INLINE WIDE __m512i exp14_of(const Table *table, __m512i b)
{
    return _mm512_srlv_epi16(entries(table, b), _mm512_srli_epi16(b, 8));
}

/* Scores of the first `end` slots (a multiple of 16) for HEADS <= 4 queries: s[head][slot]. */
INLINE WIDE void score_slots(const int HEADS, const int8_t *q, const uint8_t *keys, int end, int32_t (*s)[MAX_WINDOW])
{
    for (int slot = 0; slot < end; slot += 16) {
        const uint8_t *key = keys + slot * HEAD;
        __m512i c[4];
#pragma GCC unroll 4
        for (int h = 0; h < HEADS; h++)
            c[h] = _mm512_setzero_si512();
#pragma GCC unroll 16
        for (int i = 0; i < HEAD; i += 4) {
            __m512i k = _mm512_loadu_si512(key + i * 16);
#pragma GCC unroll 4
            for (int h = 0; h < HEADS; h++)
                add_products4(&c[h], k, q + h * HEAD + i);
        }
#pragma GCC unroll 4
        for (int h = 0; h < HEADS; h++)
            _mm512_storeu_si512(s[h] + slot, c[h]);
    }
}

/* Weights of `seen` slots from their scores s, 0 for those to the next 64; their sum. */
WIDE static int32_t weigh(const int32_t *s, int seen, int32_t score, const int32_t *exp14, uint8_t *high, uint8_t *low)
{
    Table table = load_table(exp14, 0);
    __m512i top = top_score(s, seen), sum = _mm512_setzero_si512(), b[2];
    for (int slot = 0; slot < seen; slot += 64) {
        exponents(s, slot, seen, top, score, b);
        sum = put_weights(exp14_of(&table, b[0]), exp14_of(&table, b[1]), high + slot, low + slot, sum);
    }
    return _mm512_reduce_add_epi32(sum);
}

/* The weighted values of one head, times r. */
WIDE static void mix(const uint8_t *high, const uint8_t *low, const int8_t *values, int end, float r, uint8_t *out)
{
    __m512i h0 = _mm512_setzero_si512(), h1 = h0, h2 = h0, h3 = h0, l0 = h0, l1 = h0, l2 = h0, l3 = h0;
    for (int slot = 0; slot < end; slot += 4, values += 4 * HEAD) {
        __m512i a = broadcast4(high + slot), b = broadcast4(low + slot);
        __m512i v0 = _mm512_loadu_si512(values), v1 = _mm512_loadu_si512(values + 64);
        __m512i v2 = _mm512_loadu_si512(values + 128), v3 = _mm512_loadu_si512(values + 192);
        add_products(&h0, a, v0);
        add_products(&h1, a, v1);
        add_products(&h2, a, v2);
        add_products(&h3, a, v3);
        add_products(&l0, b, v0);
        add_products(&l1, b, v1);
        add_products(&l2, b, v2);
        add_products(&l3, b, v3);
    }
    __m512i c[4] = {_mm512_add_epi32(_mm512_slli_epi32(h0, 7), l0), _mm512_add_epi32(_mm512_slli_epi32(h1, 7), l1),
                    _mm512_add_epi32(_mm512_slli_epi32(h2, 7), l2), _mm512_add_epi32(_mm512_slli_epi32(h3, 7), l3)};
    for (int j = 0; j < 4; j++)
        put_offset(c[j], _mm512_set1_ps(r), out + 16 * j);
}

WIDE static void attend(const int8_t *q, int n_head, const uint8_t *keys, const int8_t *values, int seen,
                        const int32_t *score, float scale, const int32_t *exp14, uint8_t *out)
{
    int32_t s[4][MAX_WINDOW];
    uint8_t high[MAX_WINDOW], low[MAX_WINDOW];
    int end = (seen + 15) / 16 * 16;
    for (int h = 0; h < n_head; h++) {
        if (h % 4 == 0) {
            if (n_head - h >= 4)
                score_slots(4, q + h * HEAD, keys, end, s);
            else if (n_head - h == 3)
                score_slots(3, q + h * HEAD, keys, end, s);
            else if (n_head - h == 2)
                score_slots(2, q + h * HEAD, keys, end, s);
            else
                score_slots(1, q + h * HEAD, keys, end, s);
        }
        int32_t sum = weigh(s[h % 4], seen, score[h], exp14, high, low);
        mix(high, low, values, end, (float)((double)scale / (double)sum), out + h * HEAD);
    }
}

/* Inclusive sums along 16 lanes. */
INLINE WIDE __m512i prefix(__m512i w)
{
    __m512i zero = _mm512_setzero_si512();
    w = _mm512_add_epi32(w, _mm512_alignr_epi32(w, zero, 15));
    w = _mm512_add_epi32(w, _mm512_alignr_epi32(w, zero, 14));
    w = _mm512_add_epi32(w, _mm512_alignr_epi32(w, zero, 12));
    return _mm512_add_epi32(w, _mm512_alignr_epi32(w, zero, 8));
}

/* 32 symbols at once, as 16 pairs: sums over whole pairs, from which those that end inside a pair follow. A weight is
 * (exp24[b & 255] >> (b >> 8)) + 1; nothing is left after shifts of 25 and more. */
WIDE void lmc_avx512_cumulate(const int16_t *logits, int V, const int32_t *exp24, uint64_t *base, uint32_t *local)
{
    __m512i top = _mm512_set1_epi16(-32768);
    for (int i = 0; i < V; i += 32)
        top = _mm512_max_epi16(top, _mm512_loadu_si512(logits + i));
    __m256i half = _mm256_max_epi16(_mm512_castsi512_si256(top), _mm512_extracti64x4_epi64(top, 1));
    top = _mm512_set1_epi16((int16_t)_mm512_reduce_max_epi32(_mm512_cvtepi16_epi32(half)));
    __m512i lower = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    __m512i upper = _mm512_add_epi32(lower, _mm512_set1_epi32(8)), one = _mm512_set1_epi32(1);
    Table bits0 = load_table(exp24, 0), bits16 = load_table(exp24, 16);
    uint64_t before = 0;
    for (int i = 0; i < V; i += GROUP) {
        int end = i + GROUP < V ? i + GROUP : V;
        __m512i carry = _mm512_setzero_si512();
        *base++ = before;
        for (int j = i; j < end; j += 32) {
            __m512i b = _mm512_sub_epi16(top, _mm512_loadu_si512(logits + j)); /* 0 to 65535 */
            __m512i low = entries(&bits0, b), high = entries(&bits16, b), shift = _mm512_srli_epi16(b, 8);
            __m512i even = _mm512_mask_mov_epi16(low, 0xAAAAAAAA, _mm512_slli_epi32(high, 16));
            __m512i odd = _mm512_mask_mov_epi16(_mm512_srli_epi32(low, 16), 0xAAAAAAAA, high);
            even = _mm512_srlv_epi32(even, _mm512_and_si512(shift, _mm512_set1_epi32(255)));
            odd = _mm512_add_epi32(_mm512_srlv_epi32(odd, _mm512_srli_epi32(shift, 16)), one);
            __m512i pairs = _mm512_add_epi32(_mm512_add_epi32(even, odd), one);
            __m512i to_odd = _mm512_add_epi32(prefix(pairs), carry);
            __m512i to_even = _mm512_sub_epi32(to_odd, odd);
            carry = _mm512_permutexvar_epi32(_mm512_set1_epi32(15), to_odd);
            _mm512_storeu_si512(local + j, _mm512_permutex2var_epi32(to_even, lower, to_odd));
            _mm512_storeu_si512(local + j + 16, _mm512_permutex2var_epi32(to_even, upper, to_odd));
        }
        before += (uint32_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(carry));
    }
}

const Kernel lmc_avx512vnni = {
    .name = "avx512vnni", .supported = lmc_avx512_supported, .tile = TILE, .product = product,
    .normalize = lmc_avx512_normalize, .turn = lmc_avx512_turn, .attend = attend, .cumulate = lmc_avx512_cumulate,
    .sparse_product = sparse_product,
};
#endif
