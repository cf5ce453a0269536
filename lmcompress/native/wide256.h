/* 256-bit registers, for the two sets that differ in how they multiply bytes. The including file defines
 * WIDE (the target attribute), PRODUCT_ROWS, dot(c, u, s) = c + sums of four products of uint8 u and int8 s,
 * score_dot(c, key, q): the same of keys (128 added) and queries, up to a constant, and KERNEL, the set's definition. */

INLINE WIDE __m256i broadcast4(const void *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}

INLINE WIDE __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* cvtps2dq rounds half to even; min and max keep it in range. */
INLINE WIDE __m256i rescale(__m256i c, __m256 scale, __m256 low, __m256 high)
{
    __m256 y = _mm256_mul_ps(_mm256_cvtepi32_ps(c), scale);
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(y, low), high));
}

/* 16 int32 in int16 range as int16, in order. */
INLINE WIDE __m256i to_int16(__m256i a, __m256i b)
{
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
}

/* 16 int32 in 0..255 as uint8, in order. */
INLINE WIDE void store_bytes(void *out, __m256i a, __m256i b)
{
    __m256i c = to_int16(a, b);
    _mm_storeu_si128((__m128i *)out, _mm_packus_epi16(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1)));
}

INLINE WIDE void finish(__m256i a, __m256i b, const float *scale, Result result, float limit, void *row, int n)
{
    __m256 low = _mm256_set1_ps(result == TO_SQUARE ? 0.0f : -limit), high = _mm256_set1_ps(limit);
    a = rescale(a, _mm256_loadu_ps(scale), low, high);
    b = rescale(b, _mm256_loadu_ps(scale + 8), low, high);
    if (result == TO_SQUARE) { /* u * u + 128 < 2^16 */
        __m256i half = _mm256_set1_epi32(128);
        a = _mm256_srli_epi32(_mm256_add_epi32(_mm256_mullo_epi16(a, a), half), 8);
        b = _mm256_srli_epi32(_mm256_add_epi32(_mm256_mullo_epi16(b, b), half), 8);
        store_bytes((uint8_t *)row + n, a, b);
        return;
    }
    __m256i *out = (__m256i *)((int16_t *)row + n), y = to_int16(a, b);
    if (result == TO_RESIDUAL) /* saturation leaves only -32768 out of bounds */
        y = _mm256_max_epi16(_mm256_adds_epi16(y, load(out)), _mm256_set1_epi16(-32767));
    _mm256_storeu_si256(out, y);
}

/* COUNT <= PRODUCT_ROWS rows from m by the tile from column n. The first of several fetch the next tile's weights into the
 * second-level cache. */
INLINE WIDE void block(const int COUNT, const Matrix *w, int n, const uint8_t *x, int m, Result result, float limit,
                       void *const *out)
{
    size_t K = w->n_in;
    const int8_t *weight = w->packed + n * K;
    const uint8_t *input = x + m * K;
    __m256i c[PRODUCT_ROWS][2];
#pragma GCC unroll 8
    for (int i = 0; i < COUNT; i++) {
        c[i][0] = load(w->start + n);
        c[i][1] = load(w->start + n + 8);
    }
    for (size_t k = 0; k < K; k += 4) {
        __m256i b0 = load(weight + k * TILE), b1 = load(weight + k * TILE + 32);
        if (m == 0 && COUNT > 1)
            _mm_prefetch((const char *)weight + (K + k) * TILE, _MM_HINT_T1);
#pragma GCC unroll 8
        for (int i = 0; i < COUNT; i++) {
            __m256i a = broadcast4(input + i * K + k);
            c[i][0] = dot(c[i][0], a, b0);
            c[i][1] = dot(c[i][1], a, b1);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < COUNT; i++)
        finish(c[i][0], c[i][1], w->scale + n, result, limit, out[m + i], n);
}

WIDE static void product(const Matrix *w, int begin, int end, const uint8_t *x, int n, Result result, float limit,
                         void *const *out)
{
    if (result != TO_INT16)
        limit = result == TO_SQUARE ? 255.0f : 32767.0f;
    for (int column = begin; column < end; column += TILE) {
        int m = 0;
        for (; m + PRODUCT_ROWS <= n; m += PRODUCT_ROWS)
            block(PRODUCT_ROWS, w, column, x, m, result, limit, out);
        for (; m + 2 <= n; m += 2)
            block(2, w, column, x, m, result, limit, out);
        if (m < n)
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

INLINE WIDE int32_t largest(__m256i v)
{
    __m128i a = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    a = _mm_max_epi32(a, _mm_shuffle_epi32(a, 0x4E));
    a = _mm_max_epi32(a, _mm_shuffle_epi32(a, 0xB1));
    return _mm_cvtsi128_si32(a);
}

INLINE WIDE int32_t total(__m256i v)
{
    __m128i a = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    a = _mm_add_epi32(a, _mm_shuffle_epi32(a, 0x4E));
    a = _mm_add_epi32(a, _mm_shuffle_epi32(a, 0xB1));
    return _mm_cvtsi128_si32(a);
}

/* A weight of at most 2^14 goes into the products as two bytes: at most 128, and 7 bits. */
WIDE static void attend(const int8_t *q, int n_head, const uint8_t *keys, const int8_t *values, int seen,
                        const int32_t *score, float scale, const int32_t *exp14, uint8_t *out)
{
    int32_t s[MAX_WINDOW];
    uint8_t high[MAX_WINDOW], low[MAX_WINDOW];
    int end = (seen + 15) / 16 * 16;
    __m256i order = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (; n_head > 0; n_head--, q += HEAD, out += HEAD, score++) {
        for (int slot = 0; slot < end; slot += 16) {
            const uint8_t *key = keys + slot * HEAD;
            __m256i c0 = _mm256_setzero_si256(), c1 = c0;
#pragma GCC unroll 4
            for (int i = 0; i < HEAD; i += 4) {
                __m256i a = broadcast4(q + i);
                c0 = score_dot(c0, load(key + i * 16), a);
                c1 = score_dot(c1, load(key + i * 16 + 32), a);
            }
            _mm256_storeu_si256((__m256i *)(s + slot), c0);
            _mm256_storeu_si256((__m256i *)(s + slot + 8), c1);
        }
        for (int slot = seen; slot < end; slot++)
            s[slot] = s[0];
        __m256i top = load(s), sum = _mm256_setzero_si256();
        for (int slot = 8; slot < end; slot += 8)
            top = _mm256_max_epi32(top, load(s + slot));
        top = _mm256_set1_epi32(largest(top));
        for (int slot = 0; slot < end; slot += 16) {
            __m256i e[2];
            for (int j = 0; j < 2; j++) {
                __m256i below = _mm256_sub_epi32(top, load(s + slot + 8 * j));
                __m256i there = _mm256_cmpgt_epi32(_mm256_set1_epi32(seen - slot - 8 * j), order);
                below = _mm256_srli_epi32(_mm256_mullo_epi32(below, _mm256_set1_epi32(*score)), 10);
                e[j] = _mm256_i32gather_epi32((const int *)exp14, _mm256_and_si256(below, _mm256_set1_epi32(255)), 4);
                e[j] = _mm256_srlv_epi32(e[j], _mm256_srli_epi32(below, 8)); /* nothing is left after 15 or more */
                e[j] = _mm256_and_si256(e[j], there);
                sum = _mm256_add_epi32(sum, e[j]);
            }
            store_bytes(high + slot, _mm256_srli_epi32(e[0], 7), _mm256_srli_epi32(e[1], 7));
            __m256i seven = _mm256_set1_epi32(127);
            store_bytes(low + slot, _mm256_and_si256(e[0], seven), _mm256_and_si256(e[1], seven));
        }
        __m256 r = _mm256_set1_ps((float)((double)scale / (double)total(sum)));
        for (int half = 0; half < HEAD; half += HEAD / 2) {
            __m256i c[2][4];
            for (int j = 0; j < 4; j++)
                c[0][j] = c[1][j] = _mm256_setzero_si256();
            for (int slot = 0; slot < end; slot += 4) {
                __m256i a = broadcast4(high + slot), b = broadcast4(low + slot);
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) {
                    __m256i v = load(values + slot * HEAD + half * 4 + 32 * j);
                    c[0][j] = dot(c[0][j], a, v);
                    c[1][j] = dot(c[1][j], b, v);
                }
            }
            for (int j = 0; j < 4; j++) {
                c[0][j] = _mm256_add_epi32(_mm256_slli_epi32(c[0][j], 7), c[1][j]);
                c[0][j] = rescale(c[0][j], r, _mm256_set1_ps(-127), _mm256_set1_ps(127));
                c[0][j] = _mm256_add_epi32(c[0][j], _mm256_set1_epi32(128));
            }
            store_bytes(out + half, c[0][0], c[0][1]);
            store_bytes(out + half + 16, c[0][2], c[0][3]);
        }
    }
}

/* Inclusive sums along 8 lanes. */
INLINE WIDE __m256i prefix(__m256i w)
{
    w = _mm256_add_epi32(w, _mm256_slli_si256(w, 4));
    w = _mm256_add_epi32(w, _mm256_slli_si256(w, 8));
    __m256i lower = _mm256_permute2x128_si256(w, w, 0x08); /* zero, lower half */
    return _mm256_add_epi32(w, _mm256_shuffle_epi32(lower, 0xFF));
}

WIDE static void cumulate(const int16_t *logits, int V, const int32_t *exp24, uint64_t *base, uint32_t *local)
{
    __m256i most = _mm256_set1_epi16(-32768);
    for (int i = 0; i < V; i += 16)
        most = _mm256_max_epi16(most, load(logits + i));
    __m128i half = _mm_max_epi16(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    __m256i top = _mm256_set1_epi32(largest(_mm256_cvtepi16_epi32(half)));
    uint64_t before = 0;
    for (int i = 0; i < V; i += GROUP) {
        int end = i + GROUP < V ? i + GROUP : V;
        __m256i carry = _mm256_setzero_si256();
        *base++ = before;
        for (int j = i; j < end; j += 8) {
            __m256i y = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(logits + j)));
            __m256i below = _mm256_sub_epi32(top, y);
            __m256i e = _mm256_i32gather_epi32((const int *)exp24, _mm256_and_si256(below, _mm256_set1_epi32(255)), 4);
            e = _mm256_add_epi32(_mm256_srlv_epi32(e, _mm256_srli_epi32(below, 8)), _mm256_set1_epi32(1));
            e = _mm256_add_epi32(prefix(e), carry);
            carry = _mm256_permutevar8x32_epi32(e, _mm256_set1_epi32(7));
            _mm256_storeu_si256((__m256i *)(local + j), e);
        }
        before += (uint32_t)_mm_cvtsi128_si32(_mm256_castsi256_si128(carry));
    }
}
