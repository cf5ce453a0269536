/* AMX: a tile of 16 rows of 64 inputs times a tile of 16 columns; all else, and what has few rows, as in avx512vnni. The
 * packed weights of 16 columns are tiles as they stand, and so are the keys of 16 slots and the values of 64. */
#include "wide512.h"
#ifdef LMC_AMX
#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TILED __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,amx-tile,amx-int8")))
#define HEADS 8 /* that attend together: two rows of weights each */

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} Config;

/* Linux lets a process use tiles that asks for them. */
static int supported(void)
{
    unsigned a, b, c, d;
    return lmc_avx512_supported() && __builtin_cpu_supports("avx512vbmi") && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 3) == 3 &&
           syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
}

/* Sums of rows m.. by the strip from column n that wait to be finished: while they are, the tiles work on the next. */
typedef struct {
    int32_t sums[32][STRIP];
    int m, rows, n;
} Block;

INLINE TILED void finish_rows(const Block *block, int from, int to, const Matrix *w, Result result, float limit, void *const *out)
{
    int n = block->n;
    __m512 low = _mm512_set1_ps(result == TO_SQUARE ? 0.0f : -limit), high = _mm512_set1_ps(limit);
    __m512 scale0 = _mm512_loadu_ps(w->scale + n), scale1 = _mm512_loadu_ps(w->scale + n + TILE);
    __m512i start0 = _mm512_loadu_si512(w->start + n), start1 = _mm512_loadu_si512(w->start + n + TILE);
    for (int i = from; i < to; i++) {
        __m512i c0 = _mm512_add_epi32(start0, _mm512_loadu_si512(block->sums[i]));
        __m512i c1 = _mm512_add_epi32(start1, _mm512_loadu_si512(block->sums[i] + TILE));
        finish(c0, c1, scale0, scale1, result, low, high, out[block->m + i], n);
    }
}

TILED static void product(const Matrix *w, int begin, int end, const uint8_t *x, int n, Result result, float limit,
                          void *const *out)
{
    if (result != TO_INT16)
        limit = result == TO_SQUARE ? 255.0f : 32767.0f;
    Config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = 64;
        config.rows[i] = 16;
    }
    _tile_loadconfig(&config);
    Block blocks[2];
    int turn = 0;
    blocks[1].rows = blocks[1].n = 0;
    size_t K = w->n_in;
    __asm__ volatile("" ::: "memory"); /* what tiles read is in memory */
    for (int column = begin; column < end; column += STRIP) {
        const int8_t *w0 = w->packed + column * K, *w1 = w0 + TILE * K;
        for (int m = 0; m < n; m += 32, turn ^= 1) {
            Block *block = &blocks[turn];
            const uint8_t *x0 = x + m * K, *x1 = x0 + 16 * K;
            block->m = m;
            block->n = column;
            block->rows = n - m < 32 ? n - m : 32;
            int both = block->rows > 16;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            const Block *before = &blocks[turn ^ 1];
            int done = 0, step = (int)((before->rows * 64 + K - 1) / K);
            for (size_t k = 0; k < K; k += 64) {
                _tile_loadd(4, x0 + k, K);
                _tile_loadd(6, w0 + k * TILE, 64);
                _tile_loadd(7, w1 + k * TILE, 64);
                _tile_dpbusd(0, 4, 6);
                _tile_dpbusd(1, 4, 7);
                if (both) {
                    _tile_loadd(5, x1 + k, K);
                    _tile_dpbusd(2, 5, 6);
                    _tile_dpbusd(3, 5, 7);
                }
                int to = done + step < before->rows ? done + step : before->rows;
                finish_rows(before, done, to, w, result, limit, out);
                done = to;
            }
            _tile_stored(0, block->sums[0], sizeof block->sums[0]);
            _tile_stored(1, block->sums[0] + TILE, sizeof block->sums[0]);
            if (both) {
                _tile_stored(2, block->sums[16], sizeof block->sums[0]);
                _tile_stored(3, block->sums[16] + TILE, sizeof block->sums[0]);
            }
            __asm__ volatile("" ::: "memory");
        }
    }
    finish_rows(&blocks[turn ^ 1], 0, blocks[turn ^ 1].rows, w, result, limit, out);
    _tile_release();
}

/* Weights of n heads from their scores: of head h, upper bits in weights[h], lower ones in weights[n + h], 0 for slots
 * from `seen` to the next 64; r [n]: scale over their sums. */
TILED static void weigh(int n, int32_t (*s)[MAX_WINDOW], int seen, const int32_t *score, float scale, const int32_t *exp14,
                        uint8_t (*weights)[MAX_WINDOW], float *r)
{
    uint8_t table[2][256]; /* lower and upper bytes of exp14 */
    for (int i = 0; i < 256; i += 16) {
        __m512i e = _mm512_loadu_si512(exp14 + i);
        _mm_storeu_si128((__m128i *)(table[0] + i), _mm512_cvtepi32_epi8(e));
        _mm_storeu_si128((__m128i *)(table[1] + i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(e, 8)));
    }
    __m512i byte = _mm512_set1_epi16(255), l[4], u[4];
    for (int i = 0; i < 4; i++) {
        l[i] = _mm512_loadu_si512(table[0] + 64 * i);
        u[i] = _mm512_loadu_si512(table[1] + 64 * i);
    }
    for (int h = 0; h < n; h++) {
        __m512i top = top_score(s[h], seen), sum = _mm512_setzero_si512(), b[2];
        for (int slot = 0; slot < seen; slot += 64) {
            exponents(s[h], slot, seen, top, score[h], b);
            __m512i f = _mm512_packus_epi16(_mm512_and_si512(b[0], byte), _mm512_and_si512(b[1], byte));
            __mmask64 second = _mm512_movepi8_mask(f); /* half of the table */
            __m512i lower = _mm512_mask_mov_epi8(_mm512_permutex2var_epi8(l[0], f, l[1]), second,
                                                 _mm512_permutex2var_epi8(l[2], f, l[3]));
            __m512i upper = _mm512_mask_mov_epi8(_mm512_permutex2var_epi8(u[0], f, u[1]), second,
                                                 _mm512_permutex2var_epi8(u[2], f, u[3]));
            __m512i e0 = _mm512_srlv_epi16(_mm512_unpacklo_epi8(lower, upper), _mm512_srli_epi16(b[0], 8));
            __m512i e1 = _mm512_srlv_epi16(_mm512_unpackhi_epi8(lower, upper), _mm512_srli_epi16(b[1], 8));
            sum = put_weights(e0, e1, weights[h] + slot, weights[n + h] + slot, sum);
        }
        r[h] = (float)((double)scale / (double)_mm512_reduce_add_epi32(sum));
    }
}

/* n <= HEADS heads: scores of all at once, weights of one after the other, sums of all again. */
TILED static void attend_heads(const int8_t *q, int n, const uint8_t *keys, const int8_t *values, int seen,
                               const int32_t *score, float scale, const int32_t *exp14, uint8_t *out)
{
    int32_t s[HEADS][MAX_WINDOW], sums[2 * HEADS][HEAD];
    uint8_t weights[2 * HEADS][MAX_WINDOW]; /* their upper bits of all heads, then their lower ones */
    float r[HEADS];
    Config config = {.palette = 1}; /* 0..3: sums, 4: weights, 5: keys or values, 6: queries, 7: scores */
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = 64;
        config.rows[i] = (uint8_t)(i < 5 ? 2 * n : i == 5 ? 16 : n);
    }
    _tile_loadconfig(&config);
    __asm__ volatile("" ::: "memory"); /* what tiles read is in memory */
    _tile_loadd(6, q, HEAD);
    for (int slot = 0; slot < seen; slot += 16) {
        _tile_zero(7);
        _tile_loadd(5, keys + slot * HEAD, 64);
        _tile_dpbsud(7, 6, 5);
        _tile_stored(7, s[0] + slot, sizeof s[0]);
    }
    __asm__ volatile("" ::: "memory");
    weigh(n, s, seen, score, scale, exp14, weights, r);
    __asm__ volatile("" ::: "memory");
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int slot = 0; slot < seen; slot += RING) {
        const int8_t *v = values + slot * HEAD;
        _tile_loadd(4, weights[0] + slot, sizeof weights[0]);
        _tile_loadd(5, v, 4 * HEAD);
        _tile_dpbusd(0, 4, 5);
        _tile_loadd(5, v + 64, 4 * HEAD);
        _tile_dpbusd(1, 4, 5);
        _tile_loadd(5, v + 128, 4 * HEAD);
        _tile_dpbusd(2, 4, 5);
        _tile_loadd(5, v + 192, 4 * HEAD);
        _tile_dpbusd(3, 4, 5);
    }
    _tile_stored(0, sums[0], sizeof sums[0]);
    _tile_stored(1, sums[0] + 16, sizeof sums[0]);
    _tile_stored(2, sums[0] + 32, sizeof sums[0]);
    _tile_stored(3, sums[0] + 48, sizeof sums[0]);
    _tile_release();
    __asm__ volatile("" ::: "memory");
    for (int h = 0; h < n; h++)
        for (int j = 0; j < HEAD; j += 16) {
            __m512i upper = _mm512_slli_epi32(_mm512_loadu_si512(sums[h] + j), 7);
            put_offset(_mm512_add_epi32(upper, _mm512_loadu_si512(sums[n + h] + j)), _mm512_set1_ps(r[h]), out + h * HEAD + j);
        }
}

TILED static void attend(const int8_t *q, int n_head, const uint8_t *keys, const int8_t *values, int seen,
                         const int32_t *score, float scale, const int32_t *exp14, uint8_t *out)
{
    for (int h = 0; h < n_head; h += HEADS)
        attend_heads(q + h * HEAD, n_head - h < HEADS ? n_head - h : HEADS, keys, values, seen, score + h, scale, exp14,
                     out + h * HEAD);
}

const Kernel lmc_amx = {
    .name = "amx", .supported = supported, .tile = TILE, .product = product, .normalize = lmc_avx512_normalize,
    .turn = lmc_avx512_turn, .attend = attend, .cumulate = lmc_avx512_cumulate, .few = 4, .of_few = &lmc_avx512vnni,
};
#endif
