/* The online context mixer: the probability of each branch on the way down the tree, learned while coding.
 *
 * Knows: tokens and the bytes of their pieces, the tree, lanes, a model's weights of the ids where there is one.
 * Does not know: the coder, models, blocks. Integers only; docs/MIXER.md specifies every operation, and
 * mixer/reference.py is the same in Python, bit for bit. */
#include "native.h"
#include <stdlib.h>
#include <string.h>

#define N_CTX 18            /* contexts with a statistic for each node */
#define N_RUN 4             /* of these, contexts that also remember the token that came last */
#define N_EXPERT 4          /* expected tokens: long match, short match, the line above by field and by column */
#define N_SET 5             /* weight sets that predict side by side */
#define N_APM 3
#define N_USED (2 + 2 * N_CTX + 2 * N_EXPERT + 2 * N_RUN + 1)
#define N_INPUT ((N_USED + 15) / 16 * 16)
#define HISTORY 6           /* tokens that contexts look back */
#define FIELDS 128
#define LINE 256            /* bytes of a line that the next one can see */
#define GROUP 4             /* levels of the tree whose nodes share a bucket */
#define BUCKET (1 << GROUP) /* uint16: a check, then one slot for each node of GROUP levels */
#define APM_BITS 12
#define APM_ROW 32          /* 25 used: a row is one cache line */
#define RUN_LENGTHS 16
#define LEVELS 32
#define CONFIDENCES 80
#define MATCH_LONG 6        /* tokens hashed to find a match */
#define MATCH_SHORT 2
#define MATCH_MAX 40
#define LEARN_FLOOR 16
#define LEARN_EXTRA 100
#define FIRST_WEIGHT 25     /* of every input but the model's, whose is 256 */
#define UNIT 65536          /* of the stretched domain, outside the inputs: one bit of log2 odds */

#ifdef __GNUC__
#define PREFETCH(p) __builtin_prefetch(p)
#else
#define PREFETCH(p) ((void)(p))
#endif
#if defined(__GNUC__) && defined(__x86_64__) && defined(__linux__)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

_Static_assert((-3 >> 1) == -2, "right shifts of negative numbers round down");

typedef uint16_t Slot;      /* (p ^ 2048) << 4 | count: 12 bits of probability, how often seen */
typedef uint32_t Statistic; /* p << 10 | count: 22 bits of probability */

typedef struct {
    uint16_t check, token, count, unused;
} Run;

typedef struct {
    int64_t at; /* index in history of the token expected next, or -1 */
    int length, misses;
} Match;

/* What the bytes of a lane say about where in the text it is. Hashes are 0 where nothing was hashed. */
typedef struct {
    uint64_t word, word1;        /* letters since the last other byte; the word before */
    uint64_t first, shape;       /* the line's first word; the line so far, each row of digits as one 0 */
    uint64_t field_shape;        /* the field so far, likewise; a field ends at any of " ,;|\t" */
    uint64_t column_shape, column_raw, previous_column; /* likewise between ",;|\t" outside quotation marks */
    int lines, width, indent, in_first, in_digits, quoted;
    int field, field_tokens, column, column_tokens, misses; /* number in line, tokens since its start */
    int which;                   /* of the two entries below the line that is being written */
    int n_field[2], n_column[2];
    int length[2];               /* bytes kept of the line */
    int64_t line_start;          /* index in history */
    int64_t field_start[2][FIELDS], column_start[2][FIELDS];
    uint8_t bytes[2][LINE];
} Text;

typedef struct {
    int32_t recent[HISTORY];
    Text text;
    Match match[2];
    int32_t expected[N_EXPERT]; /* tokens, -1 for none */
    int hits[2];                /* of the last 4 expectations from the line above, which were right */
    uint64_t context[N_CTX];
    uint32_t indirect[2];       /* cells that learn the next token */
    Slot *bucket[N_CTX];
    Run *run[N_RUN];
    const uint64_t *base;
    const uint32_t *local;
    int32_t node, level, position; /* node < 0: ~token */
    Statistic *map[N_CTX + N_EXPERT + N_RUN]; /* NULL where there was no input */
    int32_t input[N_INPUT];
    int32_t *weights[N_SET], *final_weights;
    int32_t stretched[N_SET];
    uint32_t p_set[N_SET], p_mixed, p;
    uint16_t *apm[N_APM];
    uint64_t apm_hash[2];
} Lane;

typedef struct {
    int n_node, vocab_size, n_lanes, n_active_lanes, predicted, table_bits, run_bits, match_bits, indirect_bits;
    int32_t *left, *right, *lo, *mid, *hi;
    uint8_t *text;
    int32_t *start;
    uint16_t log2_table[1024];
    int16_t stretch_table[4096];
    uint32_t squash_table[2562];
    uint8_t quantized[4096];
    int32_t rate[1024];
    void *table_memory, *apm_memory[N_APM];
    Slot *table;
    Run *runs;
    Statistic *slot_map, *expert_map, *run_map;
    int32_t *weights, *final_weights;
    int32_t set_start[N_SET];
    uint16_t *apm[N_APM];
    int64_t *match_table[2];
    uint32_t *indirect;
    uint16_t *history; /* [step * n_lanes + lane] */
    int64_t capacity, step, decisions;
    Lane *lanes;
    Py_buffer base, local; /* of the step under way; obj NULL where there is no model */
} Mixer;

static uint64_t hash(uint64_t h, uint64_t v)
{
    h = (h + v + 1) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 29);
}

static int32_t clamp(int32_t v, int32_t bound) { return v > bound ? bound : v < -bound ? -bound : v; }

/* log2 of v > 0 in units of 1/256 */
static int32_t log2_of(const Mixer *m, uint64_t v)
{
    int e = 0;
#ifdef __GNUC__
    e = 63 - __builtin_clzll(v);
#else
    while (v >> e > 1)
        e++;
#endif
    return e * 256 + m->log2_table[(e >= 10 ? v >> (e - 10) : v << (10 - e)) & 1023];
}

/* 24-bit probability of z log2 odds, z in 1/UNIT */
static uint32_t squash(const Mixer *m, int32_t z)
{
    uint32_t u = (uint32_t)(clamp(z, 20 * UNIT - 1) + 20 * UNIT), i = u >> 10;
    uint32_t a = m->squash_table[i], b = m->squash_table[i + 1];
    return a + (uint32_t)((uint64_t)(b - a) * (u & 1023) >> 10);
}

static int32_t stretch22(const Mixer *m, uint32_t p) { return m->stretch_table[p >> 10]; }
static int32_t linear22(uint32_t p) { return ((int32_t)(p >> 6) - 32768) >> 5; }

static void learn(const Mixer *m, Statistic *s, int bit, uint32_t limit)
{
    uint32_t n = *s & 1023;
    int32_t p = (int32_t)(*s >> 10);
    p += (int32_t)(((int64_t)((bit ? (1 << 22) - 1 : 0) - p) * m->rate[n]) >> 16);
    *s = (uint32_t)p << 10 | (n + (n < limit));
}

static int is_digit(int c) { return c >= '0' && c <= '9'; }

static void read_byte(Text *t, int c, int64_t next)
{
    int letter = ((c | 32) >= 'a' && (c | 32) <= 'z') || c >= 0x80, shown = is_digit(c) ? '0' : c;
    int digits = is_digit(c);
    if (letter)
        t->word = hash(t->word, c | 32);
    else if (t->word) {
        t->word1 = t->word;
        t->word = 0;
    }
    if (c == '\n') {
        t->which ^= 1;
        t->lines += t->lines < 2;
        t->width = t->indent = t->in_digits = t->quoted = t->field = t->field_tokens = t->column = t->column_tokens = 0;
        t->misses = 0;
        t->first = t->shape = t->field_shape = t->column_shape = t->column_raw = t->previous_column = 0;
        t->in_first = 1;
        t->n_field[t->which] = t->n_column[t->which] = 1;
        t->length[t->which] = 0;
        t->line_start = t->field_start[t->which][0] = t->column_start[t->which][0] = next;
        return;
    }
    if (t->width < LINE) {
        t->bytes[t->which][t->width] = (uint8_t)c;
        t->length[t->which] = ++t->width;
    }
    if (!(digits && t->in_digits))
        t->shape = hash(t->shape, shown);
    t->in_digits = digits;
    if (t->in_first) {
        if (c == ' ' && t->first == 0)
            t->indent += t->indent < 255;
        else if (c == ' ' || c == ',' || c == '\t')
            t->in_first = 0;
        else
            t->first = hash(t->first, shown);
    }
    if (c == '"')
        t->quoted ^= 1;
    int separates = c == ',' || c == '\t' || c == ';' || c == '|';
    if (separates || c == ' ') {
        t->field_shape = 0;
        t->field_tokens = 0;
        t->misses = 0;
        t->field += t->field < 65535;
        if (t->field < FIELDS) {
            t->field_start[t->which][t->field] = next;
            t->n_field[t->which] = t->field + 1;
        }
    } else
        t->field_shape = hash(t->field_shape, shown);
    if (separates && !t->quoted) {
        t->previous_column = t->column_raw;
        t->column_shape = t->column_raw = 0;
        t->column_tokens = 0;
        t->column += t->column < 65535;
        if (t->column < FIELDS) {
            t->column_start[t->which][t->column] = next;
            t->n_column[t->which] = t->column + 1;
        }
    } else {
        t->column_shape = hash(t->column_shape, shown);
        t->column_raw = hash(t->column_raw, c);
    }
}

/* What was predicted of a lane's token is compared with it, and the token becomes history. */
static void end_token(Mixer *m, Lane *s, int lane)
{
    int32_t token = ~s->node;
    int64_t stride = m->n_lanes, here = m->step * stride + lane, next = here + stride;
    m->history[here] = (uint16_t)token;
    for (int e = 0; e < 2; e++) {
        Match *q = &s->match[e];
        if (q->at < 0)
            continue;
        q->at += stride;
        if (m->history[q->at - stride] == token) {
            q->length += q->length < 60;
            q->misses -= q->misses > 0 && (q->length & 7) == 0;
        } else {
            q->length = 0;
            if (++q->misses > 7)
                q->at = -1;
        }
    }
    for (int e = 0; e < 2; e++)
        if (s->expected[2 + e] >= 0) {
            s->hits[e] = (s->hits[e] * 2 + (s->expected[2 + e] == token)) & 15;
            if (e == 0)
                s->text.misses += s->expected[2] != token && s->text.misses < 3;
        }
    for (int i = 0; i < N_RUN; i++) {
        Run *r = s->run[i];
        if (r->count && r->token == token)
            r->count += r->count < 255;
        else {
            r->token = (uint16_t)token;
            r->count = 1;
        }
    }
    for (int e = 0; e < 2; e++)
        m->indirect[s->indirect[e]] = m->indirect[s->indirect[e]] << 16 | (uint32_t)token;
    memmove(s->recent + 1, s->recent, sizeof s->recent - sizeof s->recent[0]);
    s->recent[0] = token;
    s->text.field_tokens++;
    s->text.column_tokens++;
    for (int32_t i = m->start[token]; i < m->start[token + 1]; i++)
        read_byte(&s->text, m->text[i], next);
    for (int e = 0; e < 2; e++) {
        int need = e == 0 ? MATCH_LONG : MATCH_SHORT, length = 0;
        if (m->step + 1 < need)
            continue;
        uint64_t h = e == 0 ? 0 : (uint64_t)lane; /* short matches stay in their lane */
        for (int i = 0; i < need; i++)
            h = hash(h, s->recent[i]);
        int64_t *cell = &m->match_table[e][h >> (64 - m->match_bits)], candidate = *cell;
        Match *q = &s->match[e];
        *cell = next;
        if (candidate == 0 || (q->at >= 0 && q->length >= 16))
            continue;
        while (length < MATCH_MAX) {
            int64_t back = (length + 1) * stride;
            if (candidate < back || next < back || m->history[candidate - back] != m->history[next - back])
                break;
            length++;
        }
        if (length >= need && length > (q->at < 0 ? 0 : q->length)) {
            q->at = candidate;
            q->length = length;
            q->misses = 0;
        }
    }
}

/* The token at the same place of the same field of the line above, or -1 */
static int32_t above(const Mixer *m, const Text *t, const int64_t *start, int n, int field, int tokens, int further)
{
    if (t->lines == 0 || field >= n)
        return -1;
    int64_t at = start[field] + (int64_t)(tokens + further) * m->n_lanes;
    return at < t->line_start ? m->history[at] : -1;
}

static void begin_token(Mixer *m, Lane *s, int lane)
{
    int64_t now = m->step * m->n_lanes;
    Text *t = &s->text;
    int other = t->which ^ 1;
    for (int e = 0; e < 2; e++) {
        if (s->match[e].at >= now)
            s->match[e].at = -1;
        s->expected[e] = s->match[e].at >= 0 ? m->history[s->match[e].at] : -1;
    }
    if (s->expected[1] == s->expected[0])
        s->expected[1] = -1;
    int32_t up = above(m, t, t->field_start[other], t->n_field[other], t->field, t->field_tokens, 0);
    int32_t up1 = up < 0 ? -1 : above(m, t, t->field_start[other], t->n_field[other], t->field, t->field_tokens, 1);
    int32_t upc = above(m, t, t->column_start[other], t->n_column[other], t->column, t->column_tokens, 0);
    s->expected[2] = up;
    s->expected[3] = upc == up ? -1 : upc;
    uint32_t over = 0; /* bytes above the next four */
    for (int i = 0; i < 4; i++)
        over = over << 8 | (t->lines && t->width + i < t->length[other] ? t->bytes[other][t->width + i] : 0);
    const int32_t *r = s->recent;
    uint64_t last = m->text[m->start[r[0] + 1] - 1], place = hash(t->field, t->field_tokens);
    s->indirect[0] = (uint32_t)(hash(hash(lane, r[0]), r[1]) >> (64 - m->indirect_bits));
    s->indirect[1] = (uint32_t)(hash(lane, t->shape) >> (64 - m->indirect_bits)) + ((uint32_t)1 << m->indirect_bits);
    uint32_t f1 = m->indirect[s->indirect[0]], f2 = m->indirect[s->indirect[1]];
    uint64_t *c = s->context;
    c[0] = 0;
    c[1] = hash(1, r[0]);
    c[2] = hash(c[1], r[1]);
    c[3] = hash(c[2], r[2]);
    c[4] = hash(hash(c[3], r[3]), r[4]);
    c[5] = hash(2, t->word);
    c[6] = hash(hash(3, t->word), t->word1);
    c[7] = hash(hash(4, r[1]), r[2]);
    c[8] = hash(hash(5, f1), r[0]);
    c[9] = hash(hash(6, t->shape), f2 & 0xFFFF);
    c[10] = hash(hash(7, t->first), place);
    c[11] = hash(hash(8, t->indent), hash(t->first, r[0]));
    c[12] = hash(hash(9, t->field_shape), t->field);
    c[13] = hash(hash(10, (uint64_t)(up + 1)), (uint64_t)(up1 + 1));
    c[14] = hash(hash(11, (uint64_t)(up + 1)), hash(t->misses, t->field));
    c[15] = hash(hash(12, over), last);
    c[16] = hash(hash(13, t->column_shape), t->column);
    c[17] = hash(hash(14, t->column_raw), hash(t->previous_column, t->column));
    static const uint8_t remembers[N_RUN] = {1, 2, 5, 8};
    for (int i = 0; i < N_RUN; i++) {
        uint64_t h = hash(c[remembers[i]], lane);
        s->run[i] = m->runs + ((uint64_t)i << m->run_bits) + (h >> (64 - m->run_bits));
        PREFETCH(s->run[i]);
    }
    for (int i = 0; i < N_RUN; i++) {
        uint16_t check = (uint16_t)hash(c[remembers[i]], lane);
        if (s->run[i]->check != check) {
            s->run[i]->check = check;
            s->run[i]->count = 0;
        }
    }
    s->apm_hash[0] = hash(17, r[0]);
    s->apm_hash[1] = hash(c[2], 18);
    s->node = s->level = s->position = 0;
}

/* A lane comes to a new group of levels: its buckets are found, or made in the place of others. */
static void enter_group(Mixer *m, Lane *s)
{
    uint64_t h[N_CTX];
    for (int i = 0; i < N_CTX; i++) {
        h[i] = hash(hash(s->context[i], i), s->node);
        PREFETCH(m->table + (h[i] >> (64 - m->table_bits)) * 32);
    }
    for (int i = 0; i < N_CTX; i++) {
        uint64_t line = h[i] >> (64 - m->table_bits);
        Slot *a = m->table + line * 32, *b = a + BUCKET;
        uint16_t check = (uint16_t)h[i];
        if (*a != check) {
            if (*b == check)
                a = b;
            else {
                if ((a[1] & 15) > (b[1] & 15)) {
                    Slot *swap = a;
                    a = b;
                    b = swap;
                }
                b[1] -= (b[1] & 15) > 0;
                memset(a, 0, BUCKET * sizeof *a);
                *a = check;
            }
        }
        s->bucket[i] = a + 1;
    }
    s->position = 0;
}

WIDE static int32_t dot(const int32_t *restrict x, const int32_t *restrict w)
{
    int32_t sum = 0;
    for (int i = 0; i < N_INPUT; i++)
        sum += (x[i] * (w[i] >> 2)) >> 8;
    return sum;
}

WIDE static void train(const int32_t *restrict x, int32_t *restrict w, int32_t error)
{
    for (int i = 0; i < N_INPUT; i++) {
        int32_t v = w[i] + ((x[i] * error + (1 << 11)) >> 12);
        w[i] = v > (1 << 20) - 1 ? (1 << 20) - 1 : v < -(1 << 20) ? -(1 << 20) : v;
    }
}

/* A weight set for a place in a line. */
static int32_t place_in(int field, int tokens, int most)
{
    return (field < FIELDS ? field : FIELDS - 1) * most + (tokens < most ? tokens : most - 1);
}

static uint64_t below(const Lane *s, int32_t id) { return s->base[id >> 6] + (id & 63 ? s->local[id - 1] : 0); }

static void predict_lane(Mixer *m, Lane *s)
{
    int32_t node = s->node, lo = m->lo[node], mid = m->mid[node], hi = m->hi[node], level = s->level;
    int32_t *x = s->input;
    s->apm[0] = m->apm[0] + (int64_t)node * APM_ROW;
    for (int j = 1; j < N_APM; j++) {
        s->apm[j] = m->apm[j] + (hash(s->apm_hash[j - 1], node) >> (64 - APM_BITS)) * APM_ROW;
        PREFETCH(s->apm[j]);
    }
    x[0] = x[1] = 0;
    if (s->base) {
        uint64_t middle = below(s, mid), right = s->base[(hi - 1) >> 6] + s->local[hi - 1] - middle;
        x[0] = clamp(log2_of(m, right) - log2_of(m, middle - below(s, lo)), 4095);
        x[1] = linear22(squash(m, x[0] * 256) >> 2);
    }
    x += 2;
    int order = 0;
    for (int i = 0; i < N_CTX; i++, x += 2) {
        Slot slot = s->bucket[i][s->position];
        int32_t n = slot & 15, p = (slot >> 4) ^ 2048;
        Statistic *map = m->slot_map + (i * 16 + n) * 32 + m->quantized[p];
        s->map[i] = n ? map : NULL;
        x[0] = n ? stretch22(m, *map >> 10) : 0;
        x[1] = n ? (p - 2048) * (n + 1) >> 4 : 0;
        order = n && i <= 4 ? i : order;
    }
    int confidence = 0;
    for (int e = 0; e < N_EXPERT; e++, x += 2) {
        int32_t expected = s->expected[e], sign = expected >= mid ? 1 : -1, c;
        if (expected < lo || expected >= hi) {
            s->map[N_CTX + e] = NULL;
            x[0] = x[1] = 0;
            continue;
        }
        if (e < 2) {
            int length = s->match[e].length, misses = s->match[e].misses;
            c = (length < 16 ? length : length < 24 ? 16 : length < 32 ? 17 : length < 50 ? 18 : 19) * 4;
            c += misses < 3 ? misses : 3;
            if (e == 0)
                confidence = 1 + (length > 2) + (length > 7) + (length > 15) + (length > 31);
        } else
            c = s->hits[e - 2];
        Statistic *map = m->expert_map + (e * CONFIDENCES + c) * LEVELS + level;
        uint32_t p = *map >> 10;
        s->map[N_CTX + e] = map;
        x[0] = sign * clamp(log2_of(m, p + 1) - log2_of(m, (1 << 22) - p), 4095);
        x[1] = sign * linear22(p);
    }
    for (int i = 0; i < N_RUN; i++, x += 2) {
        const Run *r = s->run[i];
        if (r->count == 0 || r->token < lo || r->token >= hi) {
            s->map[N_CTX + N_EXPERT + i] = NULL;
            x[0] = x[1] = 0;
            continue;
        }
        int n = r->count < RUN_LENGTHS ? r->count : RUN_LENGTHS - 1;
        Statistic *map = m->run_map + (i * RUN_LENGTHS + n) * LEVELS + level;
        s->map[N_CTX + N_EXPERT + i] = map;
        int sign = r->token >= mid ? 1 : -1;
        x[0] = sign * stretch22(m, *map >> 10);
        x[1] = sign * linear22(*map >> 10);
    }
    x[0] = 256;
    int near = (s->expected[2] >= lo && s->expected[2] < hi) * 2 + (s->expected[1] >= lo && s->expected[1] < hi);
    int32_t chosen[N_SET] = {
        (confidence * 4 + near) * 2 + (level > 3),
        place_in(s->text.column, s->text.column_tokens, 8),
        node < 1024 ? node : 1024 + level,
        s->recent[0],
        place_in(s->text.field, s->text.field_tokens, 4),
    };
    s->final_weights = m->final_weights + (order * 6 + confidence) * N_SET;
    int32_t z = 0;
    for (int j = 0; j < N_SET; j++) {
        s->weights[j] = m->weights + (int64_t)(m->set_start[j] + chosen[j]) * N_INPUT;
        int32_t zj = clamp(dot(s->input, s->weights[j]), 16 * UNIT - 1);
        s->p_set[j] = squash(m, zj);
        s->stretched[j] = zj >> 8;
        z += (s->stretched[j] * (s->final_weights[j] >> 2)) >> 8;
    }
    uint32_t p = s->p_mixed = squash(m, z);
    uint32_t u = (uint32_t)(clamp(z, 12 * UNIT - 1) + 12 * UNIT), part = u % UNIT;
    uint64_t sum = (uint64_t)p * 18;
    static const uint8_t share[N_APM] = {4, 6, 4};
    for (int j = 0; j < N_APM; j++) {
        uint16_t *a = s->apm[j] + u / UNIT;
        sum += (((uint64_t)a[0] * (UNIT - part) + (uint64_t)a[1] * part) >> 8) * share[j];
        s->apm[j] = a + (part >= UNIT / 2);
    }
    p = (uint32_t)(sum >> 5);
    s->p = p < 1 ? 1 : p > (1 << 24) - 1 ? (1 << 24) - 1 : p;
}

static void update_lane(Mixer *m, Lane *s, int bit)
{
    for (int i = 0; i < N_CTX; i++) {
        Slot *slot = s->bucket[i] + s->position;
        int32_t n = *slot & 15, p = (*slot >> 4) ^ 2048;
        if (s->map[i])
            learn(m, s->map[i], bit, 255);
        p += (((bit ? 4095 : 0) - p) * m->rate[n] + (bit ? 65535 : 0)) >> 16;
        *slot = (Slot)((p ^ 2048) << 4 | (n + (n < 12)));
    }
    int32_t mid = m->mid[s->node];
    for (int e = 0; e < N_EXPERT; e++)
        if (s->map[N_CTX + e])
            learn(m, s->map[N_CTX + e], bit == (s->expected[e] >= mid), 255);
    for (int i = 0; i < N_RUN; i++)
        if (s->map[N_CTX + N_EXPERT + i])
            learn(m, s->map[N_CTX + N_EXPERT + i], bit == (s->run[i]->token >= mid), 255);
    int32_t target = bit ? (1 << 24) - 1 : 0;
    int32_t rate = LEARN_FLOOR + (int32_t)(LEARN_EXTRA * 64 / (64 + (m->decisions >> 6)));
    int32_t final_error = ((target - (int32_t)s->p_mixed) >> 6) * 2 >> 6;
    for (int j = 0; j < N_SET; j++) {
        int32_t error = ((target - (int32_t)s->p_set[j]) >> 6) * rate >> 8;
        if (error)
            train(s->input, s->weights[j], error);
        s->final_weights[j] =
            clamp(s->final_weights[j] + ((s->stretched[j] * final_error + (1 << 11)) >> 12), (1 << 20) - 1);
    }
    for (int j = 0; j < N_APM; j++)
        *s->apm[j] += ((bit ? 65535 + 31 : 0) - *s->apm[j]) >> 5;
    m->decisions++;
    s->position = 2 * s->position + 1 + bit;
    s->level++;
    s->node = bit ? m->right[s->node] : m->left[s->node];
}

static void begin_step(Mixer *m, int n)
{
    const char *base = m->base.obj ? m->base.buf : NULL, *local = m->local.obj ? m->local.buf : NULL;
    m->n_active_lanes = n;
    for (int l = 0; l < n; l++) {
        m->lanes[l].base = base ? (const uint64_t *)(base + l * m->base.strides[0]) : NULL;
        m->lanes[l].local = local ? (const uint32_t *)(local + l * m->local.strides[0]) : NULL;
        begin_token(m, &m->lanes[l], l);
    }
}

/* The next level's probabilities, of the lanes whose token has not ended; returns how many. */
static int predict_level(Mixer *m, uint32_t *k)
{
    int count = 0;
    for (int l = 0; l < m->n_active_lanes; l++)
        if (m->lanes[l].node >= 0 && m->lanes[l].level % GROUP == 0)
            enter_group(m, &m->lanes[l]);
    for (int l = 0; l < m->n_active_lanes; l++)
        if (m->lanes[l].node >= 0) {
            predict_lane(m, &m->lanes[l]);
            k[count++] = m->lanes[l].p;
        }
    return count;
}

static void end_step(Mixer *m)
{
    for (int l = 0; l < m->n_active_lanes; l++)
        end_token(m, &m->lanes[l], l);
    m->step++;
}

static void mixer_free(Mixer *m)
{
    void *parts[] = {m->left, m->right, m->lo, m->mid, m->hi, m->text, m->start, m->table_memory, m->runs, m->slot_map,
                     m->expert_map, m->run_map, m->weights, m->final_weights, m->apm_memory[0], m->apm_memory[1],
                     m->apm_memory[2], m->match_table[0], m->match_table[1], m->indirect, m->history,
                     m->lanes};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        free(parts[i]);
    free(m);
}

static void capsule_free(PyObject *capsule)
{
    Mixer *m = PyCapsule_GetPointer(capsule, "lmcompress.mixer");
    if (m != NULL) {
        PyBuffer_Release(&m->base);
        PyBuffer_Release(&m->local);
        mixer_free(m);
    }
}

static void *copy(const Py_buffer *b)
{
    void *p = malloc(b->len ? b->len : 1);
    return p ? memcpy(p, b->buf, b->len) : NULL;
}

static void *aligned(void *memory) { return (void *)(((uintptr_t)memory + 63) & ~(uintptr_t)63); }

/* Everything but tree, pieces and tables: returns 0 where memory is lacking. */
static int mixer_set_up(Mixer *m)
{
    static const int sets[N_SET] = {48, 8 * FIELDS, 1024 + LEVELS, 0, 4 * FIELDS};
    int n_sets = 0;
    for (int j = 0; j < N_SET; j++) {
        m->set_start[j] = n_sets;
        n_sets += sets[j] ? sets[j] : m->vocab_size;
    }
    m->table_memory = calloc(((size_t)64 << m->table_bits) + 64, 1);
    m->runs = calloc((size_t)N_RUN << m->run_bits, sizeof *m->runs);
    m->slot_map = malloc(N_CTX * 512 * sizeof *m->slot_map);
    m->expert_map = malloc(N_EXPERT * CONFIDENCES * LEVELS * sizeof *m->expert_map);
    m->run_map = malloc(N_RUN * RUN_LENGTHS * LEVELS * sizeof *m->run_map);
    m->weights = malloc((size_t)n_sets * N_INPUT * sizeof *m->weights);
    m->final_weights = malloc(30 * N_SET * sizeof *m->final_weights);
    for (int e = 0; e < 2; e++)
        m->match_table[e] = calloc((size_t)1 << m->match_bits, sizeof(int64_t));
    m->indirect = calloc((size_t)2 << m->indirect_bits, sizeof *m->indirect);
    m->lanes = calloc(m->n_lanes, sizeof *m->lanes);
    int complete = m->table_memory && m->runs && m->slot_map && m->expert_map && m->run_map && m->weights &&
                   m->final_weights && m->match_table[0] && m->match_table[1] && m->indirect && m->lanes;
    for (int j = 0; j < N_APM; j++) {
        size_t rows = j == 0 ? (size_t)m->n_node : (size_t)1 << APM_BITS;
        m->apm_memory[j] = malloc(rows * APM_ROW * 2 + 64);
        if (m->apm_memory[j] == NULL)
            return 0;
        m->apm[j] = aligned(m->apm_memory[j]);
        for (size_t i = 0; i < rows * APM_ROW; i++) {
            uint32_t p = squash(m, ((int32_t)(i % APM_ROW) - 12) * UNIT) >> 8;
            m->apm[j][i] = (uint16_t)p;
        }
    }
    if (!complete)
        return 0;
    m->table = aligned(m->table_memory);
    for (int i = 0; i < 4096; i++) {
        int32_t q = (m->stretch_table[i] + 3072) / 192;
        m->quantized[i] = (uint8_t)(q < 0 ? 0 : q > 31 ? 31 : q);
    }
    for (int i = 0; i < 1024; i++)
        m->rate[i] = 131072 / (2 * i + 3);
    for (int i = 0; i < N_CTX * 512; i++)
        m->slot_map[i] = squash(m, (i % 32 * 192 + 96 - 3072) * 256) >> 2 << 10;
    for (int i = 0; i < N_EXPERT * CONFIDENCES * LEVELS; i++) {
        int e = i / (CONFIDENCES * LEVELS), c = i / LEVELS % CONFIDENCES;
        m->expert_map[i] = squash(m, (e < 2 ? 256 + c / 4 * 100 : 512) * 256) >> 2 << 10;
    }
    for (int i = 0; i < N_RUN * RUN_LENGTHS * LEVELS; i++)
        m->run_map[i] = squash(m, 512 * 256) >> 2 << 10;
    for (int64_t i = 0; i < (int64_t)n_sets * N_INPUT; i++) {
        int k = i % N_INPUT;
        m->weights[i] = k == 0 ? 1 << 18 : k % 2 == 0 && k < N_USED - 1 ? FIRST_WEIGHT << 10 : 0;
    }
    for (int i = 0; i < 30 * N_SET; i++)
        m->final_weights[i] = (1 << 18) / N_SET;
    for (int l = 0; l < m->n_lanes; l++) {
        Lane *s = &m->lanes[l];
        s->match[0].at = s->match[1].at = -1;
        s->text.in_first = 1;
        s->node = -1;
        for (int w = 0; w < 2; w++) {
            s->text.n_field[w] = s->text.n_column[w] = 1;
            s->text.field_start[w][0] = s->text.column_start[w][0] = l;
        }
        s->text.line_start = l;
    }
    return 1;
}

PyDoc_STRVAR(mixer_doc,
"mixer(left, right, lo, mid, hi, text, start, log2, stretch, squash, n_lanes, table_bits, run_bits, match_bits,\n"
"      indirect_bits) -> capsule\n\n"
"A mixer that has learned nothing. Buffers: the tree (int32 [V-1] each), the pieces' bytes one after the other and\n"
"int32 [V+1] where they start, tables uint16 [1024], int16 [4096], uint32 [2562]; numbers of table entries as log2.");
static PyObject *mixer_new(PyObject *self, PyObject *args)
{
    Py_buffer b[10];
    int n_lanes, table_bits, run_bits, match_bits, indirect_bits;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*y*y*y*iiiii", b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7, b + 8,
                          b + 9, &n_lanes, &table_bits, &run_bits, &match_bits, &indirect_bits))
        return NULL;
    PyObject *capsule = NULL;
    Mixer *m = NULL;
    Py_ssize_t n_node = b[0].len / 4;
    int fits = n_node >= 1 && n_node < 65535 && b[6].len == (n_node + 2) * 4 && b[7].len == 2048 &&
               b[8].len == 8192 && b[9].len == 10248 && n_lanes >= 1 && n_lanes <= 65536;
    for (int i = 1; i < 5; i++)
        fits = fits && b[i].len == n_node * 4;
    const int bits[] = {table_bits, run_bits, match_bits, indirect_bits};
    for (int i = 0; i < 4; i++)
        fits = fits && bits[i] >= 4 && bits[i] <= 30;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "a mixer's parts do not have the sizes that belong together");
        goto done;
    }
    const int32_t *start = b[6].buf, *edge[5] = {b[0].buf, b[1].buf, b[2].buf, b[3].buf, b[4].buf};
    for (Py_ssize_t i = 0; i <= n_node; i++)
        fits = fits && start[i] >= 0 && start[i] < start[i + 1] && start[i + 1] <= b[5].len;
    for (Py_ssize_t i = 0; i < n_node; i++) /* children come after their parent: every path ends */
        fits = fits && edge[0][i] < n_node && edge[1][i] < n_node && edge[0][i] >= ~n_node && edge[1][i] >= ~n_node &&
               (edge[0][i] < 0 || edge[0][i] > i) && (edge[1][i] < 0 || edge[1][i] > i) && edge[2][i] >= 0 &&
               edge[2][i] < edge[3][i] && edge[3][i] < edge[4][i] && edge[4][i] <= n_node + 1;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "a mixer's tree or pieces are impossible");
        goto done;
    }
    m = calloc(1, sizeof *m);
    if (m != NULL) {
        m->n_node = (int)n_node;
        m->vocab_size = m->n_node + 1;
        m->n_lanes = n_lanes;
        m->table_bits = table_bits;
        m->run_bits = run_bits;
        m->match_bits = match_bits;
        m->indirect_bits = indirect_bits;
        m->left = copy(b);
        m->right = copy(b + 1);
        m->lo = copy(b + 2);
        m->mid = copy(b + 3);
        m->hi = copy(b + 4);
        m->text = copy(b + 5);
        m->start = copy(b + 6);
        memcpy(m->log2_table, b[7].buf, sizeof m->log2_table);
        memcpy(m->stretch_table, b[8].buf, sizeof m->stretch_table);
        memcpy(m->squash_table, b[9].buf, sizeof m->squash_table);
        if (m->left && m->right && m->lo && m->mid && m->hi && m->text && m->start && mixer_set_up(m))
            capsule = PyCapsule_New(m, "lmcompress.mixer", capsule_free);
        else
            PyErr_NoMemory();
    } else
        PyErr_NoMemory();
done:
    for (int i = 0; i < 10; i++)
        PyBuffer_Release(b + i);
    if (m != NULL && capsule == NULL)
        mixer_free(m);
    return capsule;
}

/* Takes the weights of ids for a step of lanes 0..n-1 (None for no model) and makes room for its tokens.
 * Returns 0 with an error set, else 1. */
static int prepare_step(Mixer *m, Py_ssize_t n, PyObject *base, PyObject *local)
{
    for (int l = 0; l < m->n_active_lanes; l++)
        if (m->lanes[l].node >= 0) {
            PyErr_SetString(PyExc_ValueError, "the step before has not ended");
            return 0;
        }
    if (n < 1 || n > m->n_lanes) {
        PyErr_SetString(PyExc_ValueError, "a step has 1 to n_lanes lanes");
        return 0;
    }
    PyBuffer_Release(&m->base);
    PyBuffer_Release(&m->local);
    if (base != Py_None || local != Py_None) {
        if (PyObject_GetBuffer(base, &m->base, PyBUF_STRIDES) < 0 ||
            PyObject_GetBuffer(local, &m->local, PyBUF_STRIDES) < 0)
            return 0;
        if (m->base.ndim != 2 || m->local.ndim != 2 || m->base.itemsize != 8 || m->local.itemsize != 4 ||
            m->base.shape[0] != n || m->local.shape[0] != n || m->base.shape[1] != (m->vocab_size + 63) / 64 ||
            m->local.shape[1] != m->vocab_size || (m->base.shape[1] > 1 && m->base.strides[1] != 8) ||
            m->local.strides[1] != 4) {
            PyErr_SetString(PyExc_ValueError, "weights are base uint64 [n, ceil(V/64)] and local uint32 [n, V], by rows");
            return 0;
        }
    }
    if ((m->step + 1) * m->n_lanes > m->capacity) {
        int64_t capacity = 2 * (m->step + 1) * m->n_lanes + 1024;
        uint16_t *history = realloc(m->history, (size_t)capacity * sizeof *history);
        if (history == NULL) {
            PyErr_NoMemory();
            return 0;
        }
        memset(history + m->capacity, 0, (size_t)(capacity - m->capacity) * sizeof *history);
        m->history = history;
        m->capacity = capacity;
    }
    return 1;
}

static Mixer *mixer_of(PyObject *capsule) { return PyCapsule_GetPointer(capsule, "lmcompress.mixer"); }

PyDoc_STRVAR(begin_doc,
"mixer_begin(mixer, base, local, n)\n\n"
"A step of lanes 0..n-1 begins; base uint64 [n, ceil(V/64)] and local uint32 [n, V] are the model's, or both None.");
static PyObject *mixer_begin(PyObject *self, PyObject *args)
{
    PyObject *capsule, *base, *local;
    Py_ssize_t n;
    if (!PyArg_ParseTuple(args, "OOOn", &capsule, &base, &local, &n))
        return NULL;
    Mixer *m = mixer_of(capsule);
    if (m == NULL || !prepare_step(m, n, base, local))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    begin_step(m, (int)n);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static int count_active(const Mixer *m)
{
    int count = 0;
    for (int l = 0; l < m->n_active_lanes; l++)
        count += m->lanes[l].node >= 0;
    return count;
}

PyDoc_STRVAR(predict_doc,
"mixer_predict(mixer) -> bytes\n\n"
"uint32 k of the next level, of the lanes whose token has not ended: P(bit = 1) = k / 2^24.");
static PyObject *mixer_predict(PyObject *self, PyObject *capsule)
{
    Mixer *m = mixer_of(capsule);
    if (m == NULL)
        return NULL;
    if (m->predicted) {
        PyErr_SetString(PyExc_ValueError, "the level before has not been told its bits");
        return NULL;
    }
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)count_active(m) * 4);
    if (result == NULL)
        return NULL;
    if (PyBytes_GET_SIZE(result) > 0) {
        uint32_t *k = (uint32_t *)(void *)PyBytes_AS_STRING(result); /* bytes objects' contents are 4-aligned */
        Py_BEGIN_ALLOW_THREADS
        predict_level(m, k);
        m->predicted = 1;
        Py_END_ALLOW_THREADS
    }
    return result;
}

PyDoc_STRVAR(update_doc, "mixer_update(mixer, bits: uint8 [active])\n\nWhat came of the decisions last predicted.");
static PyObject *mixer_update(PyObject *self, PyObject *args)
{
    PyObject *capsule;
    Py_buffer bits;
    if (!PyArg_ParseTuple(args, "Oy*", &capsule, &bits))
        return NULL;
    Mixer *m = mixer_of(capsule);
    int active = m ? count_active(m) : 0;
    if (m != NULL && (!m->predicted || bits.len != active)) {
        PyErr_SetString(PyExc_ValueError, "as many bits as decisions were predicted are needed");
        m = NULL;
    }
    if (m == NULL) {
        PyBuffer_Release(&bits);
        return NULL;
    }
    const uint8_t *bit = bits.buf;
    Py_BEGIN_ALLOW_THREADS
    for (int l = 0; l < m->n_active_lanes; l++)
        if (m->lanes[l].node >= 0) {
            update_lane(m, &m->lanes[l], *bit++ != 0);
            active -= m->lanes[l].node < 0;
        }
    m->predicted = 0;
    if (active == 0)
        end_step(m);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&bits);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(tokens_doc, "mixer_tokens(mixer) -> bytes\n\nint32 [n] tokens of the step that has ended last.");
static PyObject *mixer_tokens(PyObject *self, PyObject *capsule)
{
    Mixer *m = mixer_of(capsule);
    if (m == NULL)
        return NULL;
    if (count_active(m)) {
        PyErr_SetString(PyExc_ValueError, "the step has not ended");
        return NULL;
    }
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)m->n_active_lanes * 4);
    if (result != NULL)
        for (int l = 0; l < m->n_active_lanes; l++) {
            int32_t token = ~m->lanes[l].node;
            memcpy(PyBytes_AS_STRING(result) + 4 * l, &token, 4);
        }
    return result;
}

PyDoc_STRVAR(encode_doc,
"mixer_encode(mixer, base, local, tokens: int32 [n], k: uint32 [24 n], bits: uint8 [24 n]) -> int\n\n"
"A whole step of known tokens: writes its decisions in coding order, returns how many they are.");
static PyObject *mixer_encode(PyObject *self, PyObject *args)
{
    PyObject *capsule, *base, *local;
    Py_buffer tokens, k, bits;
    if (!PyArg_ParseTuple(args, "OOOy*w*w*", &capsule, &base, &local, &tokens, &k, &bits))
        return NULL;
    Mixer *m = mixer_of(capsule);
    Py_ssize_t n = tokens.len / 4, count = -1;
    const int32_t *token = tokens.buf;
    int valid = m != NULL && k.len >= n * 24 * 4 && bits.len >= n * 24;
    for (Py_ssize_t l = 0; valid && l < n; l++)
        valid = token[l] >= 0 && token[l] < m->vocab_size;
    if (m != NULL && !valid)
        PyErr_SetString(PyExc_ValueError, "tokens outside the vocabulary, or too little room for their decisions");
    if (valid && prepare_step(m, n, base, local)) {
        uint32_t *out = k.buf;
        uint8_t *bit = bits.buf;
        count = 0;
        Py_BEGIN_ALLOW_THREADS
        begin_step(m, (int)n);
        for (int active; (active = predict_level(m, out + count)) > 0;)
            for (int l = 0; l < n; l++)
                if (m->lanes[l].node >= 0) {
                    bit[count] = token[l] >= m->mid[m->lanes[l].node];
                    update_lane(m, &m->lanes[l], bit[count++]);
                }
        end_step(m);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&tokens);
    PyBuffer_Release(&k);
    PyBuffer_Release(&bits);
    return count < 0 ? NULL : PyLong_FromSsize_t(count);
}

static PyMethodDef methods[] = {
    {"mixer", mixer_new, METH_VARARGS, mixer_doc},
    {"mixer_begin", mixer_begin, METH_VARARGS, begin_doc},
    {"mixer_predict", mixer_predict, METH_O, predict_doc},
    {"mixer_update", mixer_update, METH_VARARGS, update_doc},
    {"mixer_tokens", mixer_tokens, METH_O, tokens_doc},
    {"mixer_encode", mixer_encode, METH_VARARGS, encode_doc},
    {NULL, NULL, 0, NULL},
};

int lmc_add_mixer(PyObject *module) { return PyModule_AddFunctions(module, methods); }
