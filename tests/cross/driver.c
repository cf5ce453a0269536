/* The engine without Python, on any machine: driver VECTORS (a file from dump.py). Exit code 0 if every integer is right.
 *
 * Every instruction set that the machine has: each function against the portable one on random and extreme inputs, and
 * whole models, in one call and step by step, on one thread and three, against the reference engine's integers. */
#include "engine.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static void check(int good, const char *kernel, const char *what)
{
    if (!good) {
        printf("FAILED: %s: %s\n", kernel, what);
        failures++;
    }
}

static void *need(size_t size)
{
    void *memory = lmc_alloc(size ? size : 1);
    if (memory == NULL) {
        printf("no memory\n");
        exit(2);
    }
    return memory;
}

static uint32_t random_state = 1;

static uint32_t random_bits(void) /* 24 of them */
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

static int random_within(int low, int high) { return low + (int)(random_bits() % (uint32_t)(high - low + 1)); }

/* Random, or at either bound, or one of the two at random. */
static int value(int mode, int low, int high)
{
    switch (mode % 5) {
    case 0: return low;
    case 1: return high;
    case 2: return random_bits() & 1 ? low : high;
    case 3: return random_within(low / 16, high / 16);
    default: return random_within(low, high);
    }
}

static void test_product(const Kernel *kernel)
{
    static const int inputs[] = {64, 192, 512}, outputs[] = {32, 96, 352};
    enum { N = 19, MOST_IN = 512, MOST_OUT = 352 };
    int8_t *weights = need(MOST_OUT * MOST_IN), *packed[2] = {need(MOST_OUT * MOST_IN), need(MOST_OUT * MOST_IN)};
    uint8_t *x = need((N + 15) / 16 * 16 * MOST_IN);
    float *scale = need(MOST_OUT * sizeof *scale);
    int16_t *got = need(N * MOST_OUT * sizeof *got), *want = need(N * MOST_OUT * sizeof *want);
    void *got_rows[N], *want_rows[N];
    for (int i = 0; i < N; i++) {
        got_rows[i] = got + i * MOST_OUT;
        want_rows[i] = want + i * MOST_OUT;
    }
    for (int trial = 0; trial < 900; trial++) {
        int n_in = inputs[trial % 3], n_out = outputs[trial / 3 % 3], n = 1 + trial % N;
        Result result = (Result)(trial / 6 % 3);
        for (int i = 0; i < n_out * n_in; i++)
            weights[i] = (int8_t)value(trial / 18, -63, 63);
        int sparse = trial / 4 % 2 && kernel->sparse_product;
        for (int i = 0; i < n * n_in; i++)
            x[i] = sparse && random_within(0, trial % 16) ? 0 : (uint8_t)value(trial / 90, 0, 255);
        for (int i = 0; i < n_out; i++) /* powers of two make ties, the bounds saturation and zeros */
            scale[i] = (float)random_within(1, trial % 2 ? 1 : 1000) / (float)(1 << random_within(0, 24));
        for (int i = 0; i < N * MOST_OUT; i++)
            got[i] = want[i] = (int16_t)value(trial / 7, -32767, 32767);
        Matrix a = {0}, b = {0};
        int offset = trial & 1 ? 128 : 0;
        if (lmc_pack(&a, packed[0], kernel, weights, scale, n_out, n_in, offset, sparse) ||
            lmc_pack(&b, packed[1], &lmc_portable, weights, scale, n_out, n_in, offset, sparse))
            exit(2);
        int begin = trial % 4 == 3 && n_out > STRIP ? STRIP : 0, end = trial % 4 == 2 ? STRIP : n_out;
        float limit = trial % 5 ? 32767 : 127;
        (sparse ? kernel->sparse_product : kernel->product)(&a, begin, end, x, n, result, limit, got_rows);
        lmc_portable.product(&b, begin, end, x, n, result, limit, want_rows);
        check(memcmp(got, want, N * MOST_OUT * sizeof *got) == 0, kernel->name, "product");
        lmc_unpack(&a);
        lmc_unpack(&b);
    }
    lmc_free(weights);
    lmc_free(packed[0]);
    lmc_free(packed[1]);
    lmc_free(x);
    lmc_free(scale);
    lmc_free(got);
    lmc_free(want);
}

static void test_normalize(const Kernel *kernel)
{
    enum { D = 320 };
    int16_t x[D];
    float gain[D];
    uint8_t got[D], want[D];
    for (int trial = 0; trial < 400; trial++) {
        int d = 64 * (1 + trial % 5), most = 1 << random_within(0, 15);
        for (int i = 0; i < d; i++)
            gain[i] = 1.0f / (float)(1 << random_within(0, 7));
        for (int i = 0; i < d; i++) /* rows of zeros among them */
            x[i] = (int16_t)(trial % 50 == 0 ? 0 : value(trial, 1 - most, most - 1));
        kernel->normalize(x, gain, d, got);
        lmc_portable.normalize(x, gain, d, want);
        check(memcmp(got, want, (size_t)d) == 0, kernel->name, "normalize");
    }
}

static void test_turn(const Kernel *kernel, const int16_t *cosine, const int16_t *sine, int period)
{
    enum { HEADS = 5 };
    int16_t t[HEADS * HEAD], c[ROTARY / 2], s[ROTARY / 2];
    int8_t got[HEADS * HEAD], want[HEADS * HEAD];
    for (int trial = 0; trial < 400; trial++) {
        int n = 1 + trial % HEADS, most = 1 << random_within(0, 15);
        for (int i = 0; i < n * HEAD; i++)
            t[i] = (int16_t)(trial % 50 == 0 ? 0 : value(trial, 1 - most, most - 1));
        for (int i = 0; i < ROTARY / 2; i++) {
            int angle = random_within(0, period - 1);
            c[i] = cosine[angle];
            s[i] = sine[angle];
        }
        kernel->turn(t, n, c, s, got);
        lmc_portable.turn(t, n, c, s, want);
        check(memcmp(got, want, (size_t)n * HEAD) == 0, kernel->name, "turn");
    }
}

static void test_attend(const Kernel *kernel, const int32_t *exp14)
{
    enum { HEADS = 20 };
    int8_t *q = need(HEADS * HEAD), *values = need(MAX_WINDOW * HEAD);
    uint8_t *keys = need(MAX_WINDOW * HEAD), got[HEADS * HEAD], want[HEADS * HEAD];
    int32_t score[HEADS];
    for (int trial = 0; trial < 300; trial++) {
        int n_head = 1 + trial % HEADS, seen = trial % 30 == 0 ? MAX_WINDOW : random_within(1, trial % 10 ? 80 : 1024);
        for (int i = 0; i < HEADS * HEAD; i++)
            q[i] = (int8_t)value(trial / 3, -127, 127);
        for (int i = 0; i < MAX_WINDOW * HEAD; i++) { /* slots that nothing was written to hold zeros */
            int slot = i / (16 * HEAD) * 16 + i / 4 % 16;
            keys[i] = (uint8_t)(slot < seen ? value(trial, -127, 127) + 128 : 0);
            slot = i / (4 * HEAD) * 4 + i % 4;
            values[i] = (int8_t)(slot < seen ? value(trial / 2, -127, 127) : 0);
        }
        for (int i = 0; i < HEADS; i++)
            score[i] = value(trial / 5, 1, 511) + (trial / 5 % 5 == 3);
        float scale = (float)random_within(1, 1000) / 256;
        kernel->attend(q, n_head, keys, values, seen, score, scale, exp14, got);
        lmc_portable.attend(q, n_head, keys, values, seen, score, scale, exp14, want);
        check(memcmp(got, want, (size_t)n_head * HEAD) == 0, kernel->name, "attend");
    }
    lmc_free(q);
    lmc_free(values);
    lmc_free(keys);
}

static void test_cumulate(const Kernel *kernel, const int32_t *exp24)
{
    enum { V = 1024 };
    int16_t logits[V];
    uint64_t got_base[V / GROUP], want_base[V / GROUP];
    uint32_t got[V], want[V];
    for (int trial = 0; trial < 300; trial++) {
        int size = 32 * random_within(1, V / 32), most = 1 << random_within(0, 15);
        for (int i = 0; i < size; i++)
            logits[i] = (int16_t)value(trial, 1 - most, most - 1);
        kernel->cumulate(logits, size, exp24, got_base, got);
        lmc_portable.cumulate(logits, size, exp24, want_base, want);
        size_t groups = (size_t)(size + GROUP - 1) / GROUP;
        check(memcmp(got, want, (size_t)size * sizeof *got) == 0, kernel->name, "cumulate: local");
        check(memcmp(got_base, want_base, groups * sizeof *got_base) == 0, kernel->name, "cumulate: base");
    }
}

/* Items of `size` bytes, little-endian in the file. */
static void *take(FILE *file, size_t count, size_t size)
{
    uint8_t *items = need(count * size);
    if (fread(items, size, count, file) != count) {
        printf("the vectors end too early\n");
        exit(2);
    }
    uint16_t one = 1;
    if (*(uint8_t *)&one == 0)
        for (size_t i = 0; i < count; i++)
            for (size_t a = i * size, b = a + size - 1; a < b; a++, b--) {
                uint8_t swap = items[a];
                items[a] = items[b];
                items[b] = swap;
            }
    return items;
}

static void test_model(const Kernel *kernel, const Shape *s, const Arrays *arrays, int threads, const int32_t *tokens,
                       int lanes, int steps, const int16_t *logits, const uint64_t *base, const uint32_t *local, const int8_t *features)
{
    size_t V = s->vocab_size, rows = (size_t)lanes * steps, groups = (V + GROUP - 1) / GROUP;
    Engine *engine = lmc_engine_new(kernel, s, arrays);
    State *state = engine ? lmc_state_new(engine, lanes, threads) : NULL;
    if (state == NULL)
        exit(2);
    int16_t *got = need(rows * V * sizeof *got);
    uint64_t *got_base = need(rows * groups * sizeof *got_base);
    uint32_t *got_local = need(rows * V * sizeof *got_local);
    int8_t *got_features = need(rows * s->d_model);
    lmc_engine_run(engine, state, tokens, lanes, steps, got, NULL, NULL, NULL);
    check(memcmp(got, logits, rows * V * sizeof *got) == 0, kernel->name, "whole run");
    lmc_engine_cumulate(engine, got, (int64_t)rows, got_base, got_local);
    check(memcmp(got_base, base, rows * groups * sizeof *base) == 0, kernel->name, "base");
    check(memcmp(got_local, local, rows * V * sizeof *local) == 0, kernel->name, "local");
    lmc_state_free(state);
    state = lmc_state_new(engine, lanes, threads);
    memset(got_base, 0, rows * groups * sizeof *got_base);
    memset(got_local, 0, rows * V * sizeof *got_local);
    lmc_engine_run(engine, state, tokens, lanes, steps, NULL, got_base, got_local, got_features);
    check(memcmp(got_base, base, rows * groups * sizeof *base) == 0, kernel->name, "base at once");
    check(memcmp(got_local, local, rows * V * sizeof *local) == 0, kernel->name, "local at once");
    check(memcmp(got_features, features, rows * s->d_model) == 0, kernel->name, "features");
    lmc_state_free(state);
    state = lmc_state_new(engine, lanes, threads);
    int32_t *column = need(lanes * sizeof *column);
    for (int t = 0; t < steps; t++) {
        int n = t < steps / 2 ? lanes : lanes - 1; /* the last lane ends early */
        for (int l = 0; l < n; l++)
            column[l] = tokens[l * steps + t];
        lmc_engine_run(engine, state, column, n, 1, got, NULL, NULL, NULL);
        for (int l = 0; l < n; l++)
            check(memcmp(got + l * V, logits + ((size_t)l * steps + t) * V, V * sizeof *got) == 0, kernel->name, "step");
    }
    lmc_free(column);
    lmc_free(got_features);
    lmc_free(got);
    lmc_free(got_base);
    lmc_free(got_local);
    lmc_state_free(state);
    lmc_engine_free(engine);
}

int main(int argc, char **argv)
{
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL) {
        printf("usage: %s VECTORS\n", argv[0]);
        return 2;
    }
    int32_t *n_case = take(file, 1, 4);
    for (int c = 0; c < *n_case; c++) {
        int32_t *h = take(file, 6, 4);
        Shape s = {h[0], h[1], h[2], h[3]};
        size_t d = s.d_model, V = s.vocab_size, rows = (size_t)h[4] * h[5];
        LayerShape *shapes = take(file, (size_t)s.n_layer * 3, 4);
        void *kept[18 + 12 * 64];
        int n = 0;
        Arrays a = {0};
        a.cosine = kept[n++] = take(file, s.period, 2);
        a.sine = kept[n++] = take(file, s.period, 2);
        a.turns = kept[n++] = take(file, ROTARY / 2, 4);
        a.exp14 = kept[n++] = take(file, 256, 4);
        a.exp24 = kept[n++] = take(file, 256, 4);
        a.embed = kept[n++] = take(file, V * d, 1);
        LayerArrays *layers = kept[n++] = need(s.n_layer * sizeof *layers);
        for (int i = 0; i < s.n_layer; i++) {
            LayerShape of = layers[i].shape = shapes[i];
            size_t heads = (size_t)of.n_head * HEAD, qkv = heads ? heads + 2 * HEAD : 0;
            layers[i].qkv = kept[n++] = take(file, qkv * d, 1);
            layers[i].qkv_scale = kept[n++] = take(file, qkv, 4);
            layers[i].score = kept[n++] = take(file, of.n_head, 4);
            float *attn_scale = kept[n++] = take(file, 1, 4);
            layers[i].attn_scale = *attn_scale;
            layers[i].o = kept[n++] = take(file, d * heads, 1);
            layers[i].o_scale = kept[n++] = take(file, heads ? d : 0, 4);
            layers[i].up = kept[n++] = take(file, of.d_ff * d, 1);
            layers[i].up_scale = kept[n++] = take(file, of.d_ff, 4);
            layers[i].down = kept[n++] = take(file, d * of.d_ff, 1);
            layers[i].down_scale = kept[n++] = take(file, of.d_ff ? d : 0, 4);
            layers[i].qkv_gain = kept[n++] = take(file, d, 4);
            layers[i].up_gain = kept[n++] = take(file, d, 4);
        }
        a.layers = layers;
        a.head = kept[n++] = take(file, V * d, 1);
        a.head_scale = kept[n++] = take(file, V, 4);
        a.head_gain = kept[n++] = take(file, d, 4);
        int32_t *tokens = kept[n++] = take(file, rows, 4);
        int16_t *logits = kept[n++] = take(file, rows * V, 2);
        uint64_t *base = kept[n++] = take(file, rows * ((V + GROUP - 1) / GROUP), 8);
        uint32_t *local = kept[n++] = take(file, rows * V, 4);
        int8_t *features = kept[n++] = take(file, rows * d, 1);
        for (const Kernel *const *k = lmc_kernels; *k != NULL; k++) {
            if (!(*k)->supported()) {
                if (c == 0)
                    printf("%s: not on this machine\n", (*k)->name);
                continue;
            }
            if (c == 0) {
                printf("%s\n", (*k)->name);
                test_product(*k);
                test_normalize(*k);
                test_turn(*k, a.cosine, a.sine, s.period);
                test_attend(*k, a.exp14);
                test_cumulate(*k, a.exp24);
            }
            for (int threads = 1; threads <= 3; threads += 2)
                test_model(*k, &s, &a, threads, tokens, h[4], h[5], logits, base, local, features);
        }
        while (n > 0)
            lmc_free(kept[--n]);
        lmc_free(shapes);
        lmc_free(h);
    }
    lmc_free(n_case);
    fclose(file);
    printf(failures ? "%d failures\n" : "every integer is right\n", failures);
    return failures != 0;
}
