/* AVX2: vpmaddubsw sums two products of uint8 and int8 to an int16, with saturation that no sum here reaches:
 * 2 * 255 * 63 for weights, 2 * 128 * 127 for values, 2 * 127 * 128 for keys, all below 2^15. */
#include "plain.h"
#ifdef LMC_X86
#include <immintrin.h>
#include <string.h>

#define WIDE __attribute__((target("avx2")))
#define PRODUCT_ROWS 4

INLINE WIDE __m256i dot(__m256i c, __m256i u, __m256i s)
{
    return _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)));
}

/* |q| times the key with q's sign: both signed, so that no pair of products saturates. */
INLINE WIDE __m256i score_dot(__m256i c, __m256i key, __m256i q)
{
    key = _mm256_xor_si256(key, _mm256_set1_epi8(-128));
    return dot(c, _mm256_abs_epi8(q), _mm256_sign_epi8(key, q));
}

#include "wide256.h"

static int supported(void) { return __builtin_cpu_supports("avx2"); }

const Kernel lmc_avx2 = {
    .name = "avx2", .supported = supported, .tile = TILE, .product = product, .normalize = normalize, .turn = turn,
    .attend = attend, .cumulate = cumulate,
};
#endif
