/* The set of functions that every machine has, and the list of all sets. */
#include "plain.h"

static int always(void) { return 1; }

static void product(const Matrix *w, int begin, int end, const uint8_t *x, int n, Result result, float limit,
                    void *const *out)
{
    plain_product(w, begin, end, x, n, result, limit, out);
}

static void normalize(const int16_t *x, const float *gain, int d, uint8_t *out)
{
    plain_normalize(x, gain, d, out);
}

static void turn(const int16_t *t, int n, const int16_t *cosine, const int16_t *sine, int8_t *out)
{
    plain_turn(t, n, cosine, sine, out);
}

static void attend(const int8_t *q, int n_head, const uint8_t *keys, const int8_t *values, int seen,
                   const int32_t *score, float scale, const int32_t *exp14, uint8_t *out)
{
    plain_attend(q, n_head, keys, values, seen, score, scale, exp14, out);
}

static void cumulate(const int16_t *logits, int V, const int32_t *exp24, uint64_t *base, uint32_t *local)
{
    plain_cumulate(logits, V, exp24, base, local);
}

const Kernel lmc_portable = {
    .name = "portable", .supported = always, .tile = 1, .product = product, .normalize = normalize, .turn = turn,
    .attend = attend, .cumulate = cumulate,
};

const Kernel *const lmc_kernels[] = {
#ifdef LMC_X86
#ifdef LMC_AMX
    &lmc_amx,
#endif
    &lmc_avx512vnni,
#ifdef LMC_AVXVNNI
    &lmc_avxvnni,
#endif
    &lmc_avx2,
#endif
#ifdef LMC_NEON
    &lmc_neon,
#endif
    &lmc_portable,
    NULL,
};
