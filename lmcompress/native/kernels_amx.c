/* AMX: tdpbusd multiplies a tile of 16 rows of 64 inputs by a tile of 16 columns, where there are rows enough; all else
 * as in avx512vnni. The packed weights of 16 columns are tiles as they stand. */
#include "wide512.h"
#ifdef LMC_AMX
#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TILED __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8")))
#define FEW 4 /* rows that are faster without tiles */

/* Linux lets a process use tiles that asks for them. */
static int supported(void)
{
    unsigned a, b, c, d;
    return lmc_avx512_supported() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 3) == 3 &&
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
    if (n <= FEW) {
        lmc_avx512_product(w, begin, end, x, n, result, limit, out);
        return;
    }
    if (result != TO_INT16)
        limit = result == TO_SQUARE ? 255.0f : 32767.0f;
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
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

const Kernel lmc_amx = {
    "amx",             supported, TILE, 0, product, lmc_avx512_normalize, lmc_avx512_turn,
    lmc_avx512_attend, lmc_avx512_cumulate,
};
#endif
