/* The forward pass of docs/MODEL.md; see engine.h.
 *
 * Rows of the matrices are (lane, position) pairs: a step has one position of many lanes, a run many positions of a few.
 * A position's key and value enter its lane's ring just before it attends, so that no order of rows changes an integer. */
#include "engine.h"
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#define ROWS 256     /* rows that go through the layers together: their activations stay in the second-level cache */
#define POSITIONS 64 /* of one lane among them, at most */
#define HUGE_PAGE (1 << 21)
#define NORMALIZED 16 /* rows that a thread normalizes at once */
#define PARTS 2      /* of a product for each thread, so that one that is late leaves some to others */

typedef struct {
    LayerShape shape;
    int slots;   /* of a lane: the window, rounded up to RING; 0 without attention */
    size_t ring; /* those of the layers before, in a lane */
    Matrix qkv, o, up, down;
    int32_t *score;
    float attn_scale, *qkv_gain, *up_gain; /* [d_model] */
} Layer;

/* Activations of the rows that go through the layers together. */
typedef struct {
    int16_t *x;      /* [ROWS][d_model]: the residual stream */
    uint8_t *a;      /* [ROWS][d_model], normalized */
    int16_t *qkv;    /* [ROWS][(n_head + 2) * HEAD], of the layer with the most heads */
    uint8_t *attended; /* [ROWS][n_head * HEAD], side by side */
    uint8_t *hidden; /* [ROWS][d_ff], likewise */
    int16_t *cosine, *sine; /* [POSITIONS][ROTARY / 2] */
    int16_t *logits; /* [ROWS][vocab_size], where the caller wants none */
    void *rows_x[ROWS], *rows_qkv[ROWS], *rows_hidden[ROWS], *rows_logits[ROWS];
    uint64_t *rows_base[ROWS];
    uint32_t *rows_local[ROWS];
    int8_t *rows_features[ROWS];
} Work;

struct Engine {
    Shape shape;
    LayerShape most; /* of any layer */
    const Kernel *kernel;
    int8_t *embed; /* [vocab_size, d_model] */
    Layer *layers;
    Matrix head;
    int8_t *packed; /* all weights of the matrices */
    float *head_gain; /* [d_model] */
    int16_t *cosine, *sine; /* [period] */
    int32_t *exp14, *exp24; /* [256] */
    int32_t turns[ROTARY / 2];
};

struct State {
    uint64_t position; /* of all lanes */
    int n_lanes, active; /* lanes 0..active-1 are still running */
    uint8_t *keys;       /* of each layer [n_lanes][slots / 16][HEAD / 4][16][4], 128 added; slot = position % window */
    int8_t *values;      /* of each layer [n_lanes][slots / 4][HEAD][4] */
    int8_t *still;       /* [n_layer][n_lanes][HEAD - ROTARY]: the unturned part of the key before */
    Work work;
    Pool *pool;
    int timed;                /* whether jobs are */
    int64_t spent[LMC_TIMED]; /* nanoseconds that those of each kind took the caller */
};

/* Large blocks in large pages, where the system has them: fewer entries of the page table to look up. */
void *lmc_alloc(size_t size)
{
    size_t align = 64;
#ifdef MADV_HUGEPAGE
    if (size > HUGE_PAGE / 2) {
        align = HUGE_PAGE;
        size = (size + align - 1) / align * align;
    }
#endif
    char *memory = calloc(1, size + align + sizeof(void *));
    if (memory == NULL)
        return NULL;
    char *aligned = memory + sizeof(void *);
    aligned += align - 1 - ((uintptr_t)aligned + align - 1) % align;
#ifdef MADV_HUGEPAGE
    if (align == HUGE_PAGE)
        (void)madvise(aligned, size, MADV_HUGEPAGE); /* only a wish */
#endif
    memcpy(aligned - sizeof(void *), &memory, sizeof memory);
    return aligned;
}

void lmc_free(void *aligned)
{
    if (aligned != NULL) {
        void *memory;
        memcpy(&memory, (char *)aligned - sizeof(void *), sizeof memory);
        free(memory);
    }
}

static void *copy(const void *source, size_t size)
{
    void *memory = lmc_alloc(size);
    if (memory != NULL)
        memcpy(memory, source, size);
    return memory;
}

const Kernel *lmc_kernel_find(const char *name)
{
    for (const Kernel *const *k = lmc_kernels; *k != NULL; k++)
        if ((name == NULL || strcmp(name, (*k)->name) == 0) && (*k)->supported())
            return *k;
    return NULL;
}

int lmc_pack(Matrix *m, int8_t *packed, const Kernel *kernel, const int8_t *weights, const float *scale, int n_out,
             int n_in, int offset, int sparse)
{
    int tile = sparse && kernel->sparse_product ? n_out : kernel->tile;
    m->n_out = n_out;
    m->n_in = n_in;
    m->tile = tile;
    m->packed = packed;
    m->start = lmc_alloc(n_out * sizeof *m->start);
    m->scale = copy(scale, n_out * sizeof *m->scale);
    if (!m->start || !m->scale)
        return -1;
    for (int n = 0; n < n_out; n++) {
        const int8_t *row = weights + (size_t)n * n_in;
        int8_t *to = m->packed + (size_t)(n - n % tile) * n_in + n % tile * 4;
        int32_t sum = 0; /* |sum| <= 63 * 8192 */
        for (int k = 0; k < n_in; k++)
            sum += row[k];
        for (int k = 0; k < n_in; k += 4)
            memcpy(to + (size_t)k * tile, row + k, 4);
        m->start[n] = sum * (kernel->bias - offset);
    }
    return 0;
}

void lmc_unpack(Matrix *m)
{
    lmc_free(m->start);
    lmc_free(m->scale);
}

static int work_new(Work *w, const Shape *s, const LayerShape *most)
{
    int qkv = (most->n_head + 2) * HEAD;
    w->x = lmc_alloc((size_t)ROWS * s->d_model * sizeof *w->x);
    w->a = lmc_alloc((size_t)ROWS * s->d_model);
    w->qkv = lmc_alloc((size_t)ROWS * qkv * sizeof *w->qkv);
    w->attended = lmc_alloc((size_t)ROWS * most->n_head * HEAD);
    w->hidden = lmc_alloc((size_t)ROWS * most->d_ff);
    w->cosine = lmc_alloc(POSITIONS * ROTARY / 2 * sizeof *w->cosine);
    w->sine = lmc_alloc(POSITIONS * ROTARY / 2 * sizeof *w->sine);
    w->logits = lmc_alloc((size_t)ROWS * s->vocab_size * sizeof *w->logits);
    if (!w->x || !w->a || !w->qkv || !w->attended || !w->hidden || !w->cosine || !w->sine || !w->logits)
        return -1;
    for (int r = 0; r < ROWS; r++) {
        w->rows_x[r] = w->x + (size_t)r * s->d_model;
        w->rows_qkv[r] = w->qkv + (size_t)r * qkv;
    }
    return 0;
}

static void work_free(Work *w)
{
    lmc_free(w->x);
    lmc_free(w->a);
    lmc_free(w->qkv);
    lmc_free(w->attended);
    lmc_free(w->hidden);
    lmc_free(w->cosine);
    lmc_free(w->sine);
    lmc_free(w->logits);
}

Engine *lmc_engine_new(const Kernel *kernel, const Shape *shape, const Arrays *arrays)
{
    const Shape *s = shape;
    Engine *e = calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    int d = s->d_model, bad = 0;
    e->shape = *s;
    e->kernel = kernel;
    e->layers = calloc(s->n_layer, sizeof *e->layers);
    e->embed = copy(arrays->embed, (size_t)s->vocab_size * d);
    e->cosine = copy(arrays->cosine, s->period * sizeof *e->cosine);
    e->sine = copy(arrays->sine, s->period * sizeof *e->sine);
    e->exp14 = copy(arrays->exp14, 256 * sizeof *e->exp14);
    e->exp24 = copy(arrays->exp24, 256 * sizeof *e->exp24);
    e->head_gain = copy(arrays->head_gain, d * sizeof *e->head_gain);
    memcpy(e->turns, arrays->turns, sizeof e->turns);
    size_t outputs = s->vocab_size, ring = 0;
    for (int i = 0; i < s->n_layer; i++) {
        LayerShape of = arrays->layers[i].shape;
        outputs += 2 * (size_t)((of.n_head + (of.n_head > 0)) * HEAD + of.d_ff);
        e->most.n_head = of.n_head > e->most.n_head ? of.n_head : e->most.n_head;
        e->most.d_ff = of.d_ff > e->most.d_ff ? of.d_ff : e->most.d_ff;
    }
    int8_t *packed = e->packed = lmc_alloc(outputs * d);
    bad |= !packed || !e->head_gain || !e->layers || !e->embed || !e->cosine || !e->sine || !e->exp14 || !e->exp24;
    for (int i = 0; i < s->n_layer && !bad; i++) {
        const LayerArrays *from = &arrays->layers[i];
        Layer *layer = &e->layers[i];
        int heads = from->shape.n_head * HEAD, d_ff = from->shape.d_ff;
        layer->shape = from->shape;
        layer->slots = heads ? (from->shape.window + RING - 1) / RING * RING : 0;
        layer->ring = ring;
        ring += layer->slots;
        if (heads) {
            bad |= lmc_pack(&layer->qkv, packed, kernel, from->qkv, from->qkv_scale, heads + 2 * HEAD, d, 128, 0);
            packed += (heads + 2 * HEAD) * d;
            bad |= lmc_pack(&layer->o, packed, kernel, from->o, from->o_scale, d, heads, 128, 0);
            packed += d * heads;
            layer->score = copy(from->score, from->shape.n_head * sizeof *layer->score);
            layer->attn_scale = from->attn_scale;
            layer->qkv_gain = copy(from->qkv_gain, d * sizeof(float));
            bad |= !layer->score || !layer->qkv_gain;
        }
        if (d_ff) {
            bad |= lmc_pack(&layer->up, packed, kernel, from->up, from->up_scale, d_ff, d, 128, 0);
            packed += d_ff * d;
            bad |= lmc_pack(&layer->down, packed, kernel, from->down, from->down_scale, d, d_ff, 0, 1);
            packed += d * d_ff;
            layer->up_gain = copy(from->up_gain, d * sizeof(float));
            bad |= !layer->up_gain;
        }
    }
    if (bad || lmc_pack(&e->head, packed, kernel, arrays->head, arrays->head_scale, s->vocab_size, d, 128, 0)) {
        lmc_engine_free(e);
        return NULL;
    }
    return e;
}

void lmc_engine_free(Engine *e)
{
    if (e == NULL)
        return;
    for (int i = 0; i < e->shape.n_layer && e->layers; i++) {
        lmc_unpack(&e->layers[i].qkv);
        lmc_unpack(&e->layers[i].o);
        lmc_unpack(&e->layers[i].up);
        lmc_unpack(&e->layers[i].down);
        lmc_free(e->layers[i].score);
        lmc_free(e->layers[i].qkv_gain);
        lmc_free(e->layers[i].up_gain);
    }
    lmc_unpack(&e->head);
    lmc_free(e->packed);
    lmc_free(e->head_gain);
    lmc_free(e->embed);
    lmc_free(e->cosine);
    lmc_free(e->sine);
    lmc_free(e->exp14);
    lmc_free(e->exp24);
    free(e->layers);
    free(e);
}

State *lmc_state_new(const Engine *e, int n_lanes, int threads)
{
    State *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    const Layer *last = &e->layers[e->shape.n_layer - 1];
    size_t rings = (last->ring + last->slots) * n_lanes * HEAD;
    state->n_lanes = state->active = n_lanes;
    state->keys = lmc_alloc(rings);
    state->values = lmc_alloc(rings);
    state->still = lmc_alloc((size_t)e->shape.n_layer * n_lanes * (HEAD - ROTARY));
    state->pool = lmc_pool_new(threads);
    if (work_new(&state->work, &e->shape, &e->most) || !state->keys || !state->values || !state->still || !state->pool) {
        lmc_state_free(state);
        return NULL;
    }
    return state;
}

void lmc_state_free(State *state)
{
    if (state == NULL)
        return;
    lmc_pool_free(state->pool);
    work_free(&state->work);
    lmc_free(state->keys);
    lmc_free(state->values);
    lmc_free(state->still);
    free(state);
}

int lmc_state_active(const State *state) { return state->active; }

void lmc_state_timed(State *state, int on, int64_t *spent)
{
    memcpy(spent, state->spent, sizeof state->spent);
    memset(state->spent, 0, sizeof state->spent);
    state->timed = on;
}

static void run_timed(State *state, Timed kind, void (*job)(const void *, int), const void *context, int n)
{
    int64_t start = state->timed ? lmc_now() : 0;
    lmc_pool_run(state->pool, job, context, n);
    if (state->timed)
        state->spent[kind] += lmc_now() - start;
}

/* Key and value of one position of a lane, into their ring. The unturned part of a key is that of the position before. */
static void remember(const int8_t *key, const int16_t *value, int slot, uint8_t *keys, int8_t *values, int8_t *still)
{
    uint8_t whole[HEAD], *to = keys + slot / 16 * (16 * HEAD) + slot % 16 * 4;
    for (int i = 0; i < ROTARY; i++) {
        whole[i] = (uint8_t)(key[i] + 128);
        whole[i + ROTARY] = (uint8_t)(still[i] + 128);
    }
    for (int i = 0; i < HEAD; i += 4)
        memcpy(to + i * 16, whole + i, 4);
    memcpy(still, key + ROTARY, HEAD - ROTARY);
    values += slot / 4 * (4 * HEAD) + slot % 4;
    for (int i = 0; i < HEAD; i++)
        values[4 * i] = (int8_t)value[i];
}

/* What the threads are told of the rows that go through the layers: C positions each of lanes first..first+n-1. */
typedef struct {
    const Engine *engine;
    const Kernel *kernel; /* for so many rows */
    State *state;
    uint64_t position; /* of the first column */
    int first, n, C, rows, threads;
    int i;               /* the layer that attends */
    const float *gain;   /* of what is normalized */
    const Matrix *w;     /* what is multiplied, in so many parts */
    int parts;
    const uint8_t *x;
    Result result;
    int narrow;          /* output from which on int16 results are within 127 */
    void *const *out;
} Pass;

/* One lane's rows. */
static void attend_part(const void *context, int lane)
{
    const Pass *pass = context;
    const Engine *e = pass->engine;
    const State *state = pass->state;
    const Work *w = &state->work;
    const Layer *layer = &e->layers[pass->i];
    int n_head = layer->shape.n_head, heads = n_head * HEAD, window = layer->shape.window, at = pass->first + lane;
    size_t ring = (layer->ring * state->n_lanes + (size_t)layer->slots * at) * HEAD;
    uint8_t *keys = state->keys + ring;
    int8_t *values = state->values + ring;
    int8_t *still = state->still + ((size_t)pass->i * state->n_lanes + at) * (HEAD - ROTARY);
    int8_t turned[(MAX_HEADS + 1) * HEAD]; /* queries and key of one row */
    for (int c = 0; c < pass->C; c++) {
        size_t row = (size_t)lane * pass->C + c;
        const int16_t *qkv = w->rows_qkv[row];
        uint64_t p = pass->position + c;
        int seen = p + 1 < (uint64_t)window ? (int)(p + 1) : window;
        pass->kernel->turn(qkv, n_head + 1, w->cosine + c * (ROTARY / 2), w->sine + c * (ROTARY / 2), turned);
        remember(turned + heads, qkv + heads + HEAD, (int)(p % window), keys, values, still);
        pass->kernel->attend(turned, n_head, keys, values, seen, layer->score, layer->attn_scale, e->exp14,
                             w->attended + row * heads);
    }
}

static void attend(Pass *pass, int i)
{
    pass->i = i;
    run_timed(pass->state, LMC_ATTENTION, attend_part, pass, pass->n);
}

static void normalize_part(const void *context, int part)
{
    const Pass *pass = context;
    const Engine *e = pass->engine;
    const Work *w = &pass->state->work;
    int d = e->shape.d_model, end = (part + 1) * NORMALIZED < pass->rows ? (part + 1) * NORMALIZED : pass->rows;
    for (int r = part * NORMALIZED; r < end; r++)
        pass->kernel->normalize(w->rows_x[r], pass->gain, d, w->a + (size_t)r * d);
}

static void normalize(Pass *pass, const float *gain)
{
    pass->gain = gain;
    lmc_pool_run(pass->state->pool, normalize_part, pass, (pass->rows + NORMALIZED - 1) / NORMALIZED);
}

static void product_part(const void *context, int part)
{
    const Pass *pass = context;
    const Kernel *kernel = pass->kernel;
    Product *of = pass->w->tile == pass->w->n_out ? kernel->sparse_product : kernel->product;
    int strips = pass->w->n_out / STRIP;
    int begin = strips * part / pass->parts * STRIP, end = strips * (part + 1) / pass->parts * STRIP;
    int middle = pass->narrow < begin ? begin : pass->narrow < end ? pass->narrow : end;
    if (begin < middle)
        of(pass->w, begin, middle, pass->x, pass->rows, pass->result, 32767, pass->out);
    if (middle < end)
        of(pass->w, middle, end, pass->x, pass->rows, pass->result, 127, pass->out);
}

/* Threads share the outputs, not the rows: each reads the same part of the weights again and again, and a second-level
 * cache holds more of a part than of the whole. */
static void product(Pass *pass, const Matrix *w, const uint8_t *x, Result result, int narrow, void *const *out)
{
    int strips = w->n_out / STRIP, parts = PARTS * pass->threads;
    pass->w = w;
    pass->x = x;
    pass->result = result;
    pass->narrow = narrow;
    pass->out = out;
    pass->parts = parts < strips ? parts : strips;
    run_timed(pass->state, LMC_MATRICES, product_part, pass, pass->parts);
}

static void distribute_part(const void *context, int row)
{
    const Pass *pass = context;
    const Engine *e = pass->engine;
    const Work *w = &pass->state->work;
    pass->kernel->cumulate(w->rows_logits[row], e->shape.vocab_size, e->exp24, w->rows_base[row], w->rows_local[row]);
    int d = e->shape.d_model;
    const uint8_t *restrict a = w->a + (size_t)row * d;
    int8_t *restrict features = w->rows_features[row];
    for (int i = 0; i < d; i++)
        features[i] = (int8_t)(a[i] - 128);
}

/* What a call is asked for. */
typedef struct {
    const int32_t *tokens; /* [n, T] */
    int64_t T;
    int16_t *logits; /* [n, T, vocab_size], or NULL for: */
    uint64_t *base;  /* [n, T, groups] */
    uint32_t *local; /* [n, T, vocab_size] */
    int8_t *features; /* [n, T, d_model] */
} Run;

/* C positions, from tokens[lane][t] on, of lanes first..first+n-1; n * C <= ROWS. The state's position stays. */
static void forward(const Engine *e, State *state, const Run *run, int first, int n, int64_t t, int C)
{
    const Shape *s = &e->shape;
    Work *w = &state->work;
    int d = s->d_model, rows = n * C;
    size_t V = s->vocab_size, groups = (V + GROUP - 1) / GROUP;
    uint64_t position = state->position + (uint64_t)t;
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)(first + r / C) * run->T + t + r % C;
        const int8_t *embedding = e->embed + (size_t)run->tokens[at] * d;
        int16_t *x = w->rows_x[r];
        for (int j = 0; j < d; j++)
            x[j] = (int16_t)(embedding[j] * 8);
        w->rows_logits[r] = run->logits ? run->logits + at * V : w->logits + r * V;
        w->rows_base[r] = run->logits ? NULL : run->base + at * groups;
        w->rows_local[r] = run->logits ? NULL : run->local + at * V;
        w->rows_features[r] = run->logits ? NULL : run->features + at * d;
    }
    for (int c = 0; c < C; c++)
        for (int j = 0; j < ROTARY / 2; j++) {
            int angle = (int)((position + c) % s->period * e->turns[j] % s->period);
            w->cosine[c * (ROTARY / 2) + j] = e->cosine[angle];
            w->sine[c * (ROTARY / 2) + j] = e->sine[angle];
        }
    Pass pass = {.engine = e, .kernel = kernel_for(e->kernel, rows), .state = state, .position = position,
                 .first = first, .n = n, .C = C, .rows = rows};
    pass.threads = lmc_pool_ready(state->pool);
    for (int i = 0; i < s->n_layer; i++) {
        const Layer *layer = &e->layers[i];
        if (layer->shape.n_head) {
            normalize(&pass, layer->qkv_gain);
            product(&pass, &layer->qkv, w->a, TO_INT16, (layer->shape.n_head + 1) * HEAD, w->rows_qkv);
            attend(&pass, i);
            product(&pass, &layer->o, w->attended, TO_RESIDUAL, d, w->rows_x);
        }
        if (layer->shape.d_ff) {
            for (int r = 0; r < rows; r++)
                w->rows_hidden[r] = w->hidden + (size_t)r * layer->shape.d_ff;
            normalize(&pass, layer->up_gain);
            product(&pass, &layer->up, w->a, TO_SQUARE, layer->shape.d_ff, w->rows_hidden);
            product(&pass, &layer->down, w->hidden, TO_RESIDUAL, d, w->rows_x);
        }
    }
    normalize(&pass, e->head_gain);
    product(&pass, &e->head, w->a, TO_INT16, s->vocab_size, w->rows_logits);
    if (run->logits == NULL)
        run_timed(state, LMC_DISTRIBUTION, distribute_part, &pass, rows);
}

void lmc_engine_run(const Engine *e, State *state, const int32_t *tokens, int n, int64_t T, int16_t *logits, uint64_t *base,
                    uint32_t *local, int8_t *features)
{
    Run run = {tokens, T, logits, base, local, features};
    state->active = n;
    if (n == 0 || T == 0)
        return;
    int64_t chunks = (T + POSITIONS - 1) / POSITIONS;
    int64_t most = (T + chunks - 1) / chunks; /* positions in a chunk */
    int lanes = ROWS / (int)most;
    for (int first = 0; first < n; first += lanes)
        for (int64_t t = 0; t < T; t += most)
            forward(e, state, &run, first, first + lanes < n ? lanes : n - first, t, (int)(t + most < T ? most : T - t));
    state->position += (uint64_t)T;
}

void lmc_engine_cumulate(const Engine *e, const int16_t *logits, int64_t rows, uint64_t *base, uint32_t *local)
{
    size_t V = e->shape.vocab_size, groups = (V + GROUP - 1) / GROUP;
    for (int64_t r = 0; r < rows; r++)
        e->kernel->cumulate(logits + r * V, (int)V, e->exp24, base + r * groups, local + r * V);
}

double lmc_bench_product(const Kernel *kernel, int n, int n_out, int n_in, double seconds)
{
    Matrix w = {0};
    int8_t *weights = lmc_alloc((size_t)n_out * n_in), *packed = lmc_alloc((size_t)n_out * n_in);
    float *scale = lmc_alloc(n_out * sizeof *scale);
    uint8_t *x = lmc_alloc((size_t)(n + 15) / 16 * 16 * n_in);
    int16_t *y = lmc_alloc((size_t)n * n_out * sizeof *y);
    void **rows = lmc_alloc(n * sizeof *rows);
    double rate = 0;
    if (weights && packed && scale && x && y && rows) {
        uint32_t random = 1;
        for (size_t i = 0; i < (size_t)n_out * n_in; i++)
            weights[i] = (int8_t)((random = random * 1664525 + 1013904223) % 127) - 63;
        for (size_t i = 0; i < (size_t)n * n_in; i++)
            x[i] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
        for (int i = 0; i < n_out; i++)
            scale[i] = 0.01f;
        for (int i = 0; i < n; i++)
            rows[i] = y + (size_t)i * n_out;
        if (lmc_pack(&w, packed, kernel, weights, scale, n_out, n_in, 128, 0) == 0) {
            int64_t count = 0, start = lmc_now();
            double spent = 0;
            while (spent < seconds) {
                kernel_for(kernel, n)->product(&w, 0, n_out, x, n, TO_INT16, 32767, rows);
                count++;
                spent = 1e-9 * (double)(lmc_now() - start);
            }
            rate = (double)count * n * n_out * n_in / spent;
        }
    }
    lmc_unpack(&w);
    lmc_free(weights);
    lmc_free(packed);
    lmc_free(scale);
    lmc_free(x);
    lmc_free(y);
    lmc_free(rows);
    return rate;
}
