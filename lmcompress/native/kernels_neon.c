/* AArch64 with the dot product instructions: sdot adds four products of int8 and int8 to an int32.
 * Inputs and keys, which come with 128 added, lose it again by a flip of the top bit. */
#include "plain.h"
#ifdef LMC_NEON
#include <arm_neon.h>
#ifdef __linux__
#include <sys/auxv.h>
#endif

#ifdef __ARM_FEATURE_DOTPROD
#define WIDE
#elif defined(__clang__)
#define WIDE __attribute__((target("dotprod")))
#else
#define WIDE __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

static int supported(void)
{
#ifdef __ARM_FEATURE_DOTPROD
    return 1;
#elif defined(__linux__)
    return getauxval(AT_HWCAP) >> 20 & 1; /* HWCAP_ASIMDDP */
#else
    return 0;
#endif
}

INLINE WIDE int8x16_t flip(const uint8_t *p) { return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(128))); }

/* vcvtn rounds half to even; min and max keep it in range. */
INLINE WIDE int32x4_t rescale(int32x4_t c, float32x4_t scale, float low, float high)
{
    float32x4_t y = vmulq_f32(vcvtq_f32_s32(c), scale);
    return vcvtnq_s32_f32(vminq_f32(vmaxq_f32(y, vdupq_n_f32(low)), vdupq_n_f32(high)));
}

INLINE WIDE void finish(const int32x4_t *c, const float *scale, Result result, float limit, void *row, int n)
{
    for (int j = 0; j < 4; j += 2) {
        float low = result == TO_SQUARE ? 0.0f : -limit;
        int16x4_t a = vmovn_s32(rescale(c[j], vld1q_f32(scale + 4 * j), low, limit));
        int16x4_t b = vmovn_s32(rescale(c[j + 1], vld1q_f32(scale + 4 * j + 4), low, limit));
        int16x8_t y = vcombine_s16(a, b);
        if (result == TO_SQUARE) { /* u * u + 128 < 2^16 */
            uint16x8_t u = vreinterpretq_u16_s16(y);
            u = vaddq_u16(vmulq_u16(u, u), vdupq_n_u16(128));
            vst1_u8((uint8_t *)row + n + 4 * j, vshrn_n_u16(u, 8));
            continue;
        }
        int16_t *out = (int16_t *)row + n + 4 * j;
        if (result == TO_RESIDUAL) /* saturation leaves only -32768 out of bounds */
            y = vmaxq_s16(vqaddq_s16(y, vld1q_s16(out)), vdupq_n_s16(-32767));
        vst1q_s16(out, y);
    }
}

/* Four inputs of each of COUNT rows: lane LANE of the 16 in a[]. */
#define STEP(COUNT, LANE)                                                     \
    do {                                                                      \
        int8x16_t b[4];                                                       \
        for (int j = 0; j < 4; j++)                                           \
            b[j] = vld1q_s8(weight + (k + 4 * LANE) * TILE + 16 * j);         \
        for (int i = 0; i < COUNT; i++)                                       \
            for (int j = 0; j < 4; j++)                                       \
                c[i][j] = vdotq_laneq_s32(c[i][j], b[j], a[i], LANE);         \
    } while (0)

/* COUNT <= 4 rows from m by the tile from column n. */
INLINE WIDE void block(const int COUNT, const Matrix *w, int n, const uint8_t *x, int m, Result result, float limit,
                       void *const *out)
{
    size_t K = w->n_in;
    const int8_t *weight = w->packed + n * K;
    const uint8_t *input = x + m * K;
    int32x4_t c[4][4];
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < 4; j++)
            c[i][j] = vld1q_s32(w->start + n + 4 * j);
    for (size_t k = 0; k < K; k += 16) {
        int8x16_t a[4];
        for (int i = 0; i < COUNT; i++)
            a[i] = flip(input + i * K + k);
        STEP(COUNT, 0);
        STEP(COUNT, 1);
        STEP(COUNT, 2);
        STEP(COUNT, 3);
    }
    for (int i = 0; i < COUNT; i++)
        finish(c[i], w->scale + n, result, limit, out[m + i], n);
}

WIDE static void product(const Matrix *w, int begin, int end, const uint8_t *x, int n, Result result, float limit,
                         void *const *out)
{
    if (result != TO_INT16)
        limit = result == TO_SQUARE ? 255.0f : 32767.0f;
    for (int column = begin; column < end; column += TILE) {
        int m = 0;
        for (; m + 4 <= n; m += 4)
            block(4, w, column, x, m, result, limit, out);
        for (; m < n; m++)
            block(1, w, column, x, m, result, limit, out);
    }
}

WIDE static void normalize(const int16_t *x, const float *gain, int d, uint8_t *out)
{
    plain_normalize(x, gain, d, out);
}

WIDE static void turn(const int16_t *t, int n, const int16_t *cosine, const int16_t *sine, int8_t *out)
{
    plain_turn(t, n, cosine, sine, out);
}

#define SCORE(LANE)                                                                     \
    for (int j = 0; j < 4; j++)                                                         \
    c[j] = vdotq_laneq_s32(c[j], flip(key + (i + 4 * LANE) * 16 + 16 * j), a, LANE)

/* Values of four slots times lane LANE of the 16 weights: 32 components from `half` on. */
#define VALUE(LANE)                                                                     \
    do {                                                                                \
        const int8_t *value = values + (slot + 4 * LANE) * HEAD + half * 4;             \
        for (int j = 0; j < 8; j++) {                                                   \
            int8x16_t v = vld1q_s8(value + 16 * j);                                     \
            c[0][j] = vdotq_laneq_s32(c[0][j], v, a, LANE);                             \
            c[1][j] = vdotq_laneq_s32(c[1][j], v, b, LANE);                             \
        }                                                                               \
    } while (0)

/* A weight of at most 2^14 goes into the products as 256 * high + low, low signed and high at most 64. */
WIDE static void attend(const int8_t *q, int n_head, const uint8_t *keys, const int8_t *values, int seen,
                        const int32_t *score, float scale, const int32_t *exp14, uint8_t *out)
{
    int32_t s[MAX_WINDOW];
    int8_t high[MAX_WINDOW], low[MAX_WINDOW];
    int end = (seen + 15) / 16 * 16;
    for (; n_head > 0; n_head--, q += HEAD, out += HEAD, score++) {
        for (int slot = 0; slot < end; slot += 16) {
            const uint8_t *key = keys + slot * HEAD;
            int32x4_t c[4];
            for (int j = 0; j < 4; j++)
                c[j] = vdupq_n_s32(0);
            for (int i = 0; i < HEAD; i += 16) {
                int8x16_t a = vld1q_s8(q + i);
                SCORE(0);
                SCORE(1);
                SCORE(2);
                SCORE(3);
            }
            for (int j = 0; j < 4; j++)
                vst1q_s32(s + slot + 4 * j, c[j]);
        }
        int32_t top = INT32_MIN, sum = 0;
        for (int slot = 0; slot < seen; slot++)
            top = s[slot] > top ? s[slot] : top;
        for (int slot = 0; slot < seen; slot++) {
            int32_t below = (top - s[slot]) * *score >> 10;
            int32_t e = exp14[below & 255] >> (below >> 8 < 15 ? below >> 8 : 15);
            sum += e;
            high[slot] = (int8_t)((e + 128) >> 8);
            low[slot] = (int8_t)(e - ((e + 128) >> 8) * 256);
        }
        for (int slot = seen; slot < end; slot++)
            high[slot] = low[slot] = 0;
        float32x4_t r = vdupq_n_f32((float)((double)scale / (double)sum));
        for (int half = 0; half < HEAD; half += HEAD / 2) {
            int32x4_t c[2][8];
            for (int j = 0; j < 8; j++)
                c[0][j] = c[1][j] = vdupq_n_s32(0);
            for (int slot = 0; slot < end; slot += 16) {
                int8x16_t a = vld1q_s8(high + slot), b = vld1q_s8(low + slot);
                VALUE(0);
                VALUE(1);
                VALUE(2);
                VALUE(3);
            }
            for (int j = 0; j < 8; j += 2) {
                int32x4_t y0 = rescale(vaddq_s32(vshlq_n_s32(c[0][j], 8), c[1][j]), r, -127, 127);
                int32x4_t y1 = rescale(vaddq_s32(vshlq_n_s32(c[0][j + 1], 8), c[1][j + 1]), r, -127, 127);
                int8x8_t y = vmovn_s16(vcombine_s16(vmovn_s32(y0), vmovn_s32(y1)));
                vst1_u8(out + half + 4 * j, veor_u8(vreinterpret_u8_s8(y), vdup_n_u8(128)));
            }
        }
    }
}

WIDE static void cumulate(const int16_t *logits, int V, const int32_t *exp24, uint64_t *base, uint32_t *local)
{
    plain_cumulate(logits, V, exp24, base, local);
}

const Kernel lmc_neon = {
    .name = "neon", .supported = supported, .tile = TILE, .bias = 128, .product = product, .normalize = normalize,
    .turn = turn, .attend = attend, .cumulate = cumulate,
};
#endif
