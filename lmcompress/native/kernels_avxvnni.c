/* AVX-VNNI: vpdpbusd in 256 bits, for processors without AVX-512. */
#include "plain.h"
#ifdef LMC_AVXVNNI
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#define WIDE __attribute__((target("avx2,avxvnni")))
#define PRODUCT_ROWS 6

/* Not the intrinsic, whose sums compilers copy and spill at every use. */
INLINE WIDE __m256i dot(__m256i c, __m256i u, __m256i s)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(c) : "x"(u), "x"(s));
    return c;
}

/* The keys' 128 adds the same to every score of a query. */
INLINE WIDE __m256i score_dot(__m256i c, __m256i key, __m256i q) { return dot(c, key, q); }

#include "wide256.h"

static int supported(void)
{
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

const Kernel lmc_avxvnni = {
    .name = "avxvnni", .supported = supported, .tile = TILE, .product = product, .normalize = normalize,
    .turn = turn, .attend = attend, .cumulate = cumulate,
};
#endif
