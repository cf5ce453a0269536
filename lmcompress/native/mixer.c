/* The online context mixer: the probability of each branch on the way down the tree, learned while coding.
 *
 * Knows: tokens and the bytes of their pieces, the tree, lanes, a network's distribution and features where there is one.
 * Does not know: models, blocks; of the coder, how a decision is read. Integers only; docs/MIXER.md specifies every operation,
 * and mixer/reference.py is the same in Python, bit for bit. */
#include "mixer.h"
#include "clock.h"
#include "native.h"
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

#define N_CTX 16            /* contexts with a statistic for each node */
#define N_EXPECTED 5        /* expected tokens: long match, short match, the line above by field and by column, the n-grams */
#define N_RUN 4             /* contexts that also remember the token that came last */
#define N_GUESS (N_EXPECTED + N_RUN)
#define NGRAMS 4            /* g: the guess of the n-grams */
#define NGRAM_ORDERS 4      /* lengths of their contexts */
#define NGRAM_WAYS 16       /* n-grams of a line */
#define NGRAM_CLASSES 8     /* of how likely the token is, the lowest bits of a key */
#define MAX_NGRAMS (1 << 22) /* lines */
#define NGRAM_CHECK 0x1FFF  /* the bits above: of the context's hash */
#define N_SET 5             /* weight sets that predict side by side */
#define N_APM 2
#define N_INPUT 64          /* of which 4 + 2 * (N_GUESS + N_CTX) are used */
#define HISTORY 6           /* tokens that contexts look back */
#define FIELDS 128
#define LINE 256            /* bytes of a line that the next one can see */
#define GROUP 3             /* levels of the tree whose nodes share a bucket */
#define SLOTS 7             /* of a bucket: one for each node of GROUP levels */
#define WAYS 4              /* buckets of a line */
#define CELLS 8             /* of a line */
#define SECOND_BITS 4       /* of a cell's count: how often its second token came; six bits above, how often the first */
#define SECOND_MAX 15
#define FIRST_MAX 63
#define COUNT_BITS 10
#define MANY (1 << 15)      /* of a cell's count: a third token has followed, and the context has buckets */
#define APM_BITS 12
#define APM_SHARE 10         /* of 32 */
#define APM_ROW 32          /* 25 used: a row is one cache line */
#define RUN_LENGTHS 16
#define LEVELS 32
#define CONFIDENCES 80
#define ORDERS 4
#define MATCH_LONG 6        /* tokens hashed to find a match */
#define MATCH_SHORT 2
#define MATCH_MAX 40
#define RIGHT ((1 << 22) - 1)
#define WRONG 127           /* not 0: what is left of a step that rounds down */
#define LEARN_FLOOR 16
#define LEARN_EXTRA 100
#define CORRECTION_FLOOR 512 /* of its rate */
#define CORRECTION_EXTRA 512000
#define CORRECTION_SHIFT 3
#define CORRECTION_MAX 8192 /* of a weight */
#define CORRECTION_SEEN 65535
#define MAX_FEATURES 2048
#define FIRST_DECISIONS 4096 /* as many as if they were made: the rate of learning starts lower */
#define WEIGHT_MAX 15800     /* |x| add up to 135413 at most, see docs/MIXER.md */
#define SURE (1 << 11)       /* of 2^24: a decision that had less against it teaches nothing */
#define UNIT 65536          /* of the stretched domain, outside the inputs: one bit of log2 odds */
#define HUGE_PAGE (1 << 21)

#ifdef __GNUC__
#define PREFETCH(p) __builtin_prefetch(p)
#define INLINE static inline __attribute__((always_inline))
#else
#define PREFETCH(p) ((void)(p))
#define INLINE static inline
#endif
#if defined(__GNUC__) && defined(__x86_64__) && defined(__linux__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif
#if defined(__GNUC__) && !defined(__clang__)
#define VECTOR _Pragma("GCC unroll 1") /* the loop that follows becomes vectors; unrolled early it would not */
#else
#define VECTOR
#endif
#define WHOLE(n) (((n) + 3) / 4 * 4) /* whole vectors */

_Static_assert(127LL * MAX_FEATURES * CORRECTION_MAX <= INT32_MAX, "sums of products fit");
_Static_assert((4095LL * (N_GUESS + 2) + (3328 + 1664) * N_CTX + 1024 * (N_GUESS + 1) + 256) * WEIGHT_MAX <= INT32_MAX, "these, too");
_Static_assert((-3 >> 1) == -2, "right shifts of negative numbers round down");

typedef int16_t Slot;       /* (p - 2048) << 4 | count: 12 bits of probability, how often seen */
typedef uint32_t Statistic; /* p << 10 | count: 22 bits of probability */

/* An inner node of the tree: its children (~id for a leaf); ids from lo to mid - 1 lie on the left, from mid to hi - 1 on the right */
typedef struct {
    int32_t left, right, lo, mid, hi;
} Node;

/* How many there are of each kind; those that a lesser mixer has come first. */
typedef struct {
    int contexts, guesses, sets, apms;
} Parts;

static const Parts FULL = {N_CTX, N_GUESS, N_SET, N_APM}, LIGHT = {8, 6, 2, 1};

/* A line of buckets. A check tells contexts and nodes apart. */
typedef struct {
    uint16_t check[WAYS];
    Slot slot[WAYS][SLOTS];
} Buckets;

/* What has followed contexts: two tokens, and how often each; a line of CELLS. A check tells contexts apart, 0 where there is none. */
typedef struct {
    uint16_t check[CELLS], count[CELLS], first[CELLS], second[CELLS];
} Cells;

typedef struct {
    uint16_t check, token, count, unused;
} Run;

/* What other texts have had after contexts: a line of n-grams. A key is 0 where there is none. */
typedef struct {
    uint16_t key[NGRAM_WAYS], token[NGRAM_WAYS];
} Ngrams;

typedef struct {
    int64_t at; /* index in history of the token expected next, or -1 */
    int length, misses;
} Match;

/* What the bytes of a lane say about where in the text it is. Hashes are 0 where nothing was hashed. */
typedef struct {
    uint64_t word, word1;        /* letters since the last other byte; the word before */
    uint64_t first;              /* the line's first word */
    uint64_t column_shape;       /* the column so far, digits as 0 */
    uint32_t latest;             /* three bytes */
    int lines, width, indent, in_first, quoted;
    int field, field_tokens, column, column_tokens, misses; /* number in line, tokens since its start */
    int which;                   /* of the two entries below the line that is being written */
    int n_field[2], n_column[2];
    int length[2];               /* bytes kept of the line */
    int64_t line_start;          /* index in history */
    int64_t field_start[2][FIELDS], column_start[2][FIELDS];
    uint8_t bytes[2][LINE];
} Text;

typedef struct {
    int32_t node, level, position; /* node < 0: ~token; position among the slots of a bucket */
    uint32_t alive;                /* guesses whose token the node covers, as bits */
    int32_t guess[WHOLE(N_GUESS)]; /* tokens: N_EXPECTED expected ones, then those of the runs; -1 for none */
    int32_t row[WHOLE(N_GUESS)];   /* their statistics, less the level */
    int32_t confidence;            /* of the long match, 1 to 5 */
    int32_t likely;                /* the n-gram's class, halved, 6 to 9: its place behind these */
    uint64_t ngram_hash[NGRAM_ORDERS];
    int32_t order;                 /* of the longest context that is known, 0 to 3 */
    uint64_t sum_lo, sum_mid, sum_hi; /* the network's weights below the node's ids, its middle, behind its ids */
    uint64_t context[N_CTX], apm_hash;
    uint16_t first[N_CTX], second[N_CTX], count[N_CTX]; /* what these say; a token that the node does not cover counts 0 */
    uint32_t with_buckets;         /* contexts that have some, as bits */
    uint16_t many[N_CTX];          /* likewise, all bits set */
    Slot settled[N_CTX];           /* slots as the cells have them */
    uint64_t found[N_CTX];         /* hashes of the next buckets */
    Slot *bucket[N_CTX];
    const uint64_t *base;
    const uint32_t *local;
    int16_t *features;             /* [n_features] */
    int16_t *correction;           /* the node's weights of them */
    uint16_t used[N_CTX];          /* statistics of the slots */
    int16_t input[N_INPUT];        /* contexts, contexts again, guesses, guesses again, the model's three, 256 */
    int16_t *weights[N_SET];
    int32_t *final_weights;
    int32_t stretched[N_SET];
    uint32_t p_set[N_SET], p_mixed, p_corrected;
    uint16_t *apm[N_APM];
    uint32_t follower;             /* the entry that learns the next token */
    Run *run[N_RUN];
    uint16_t run_check[N_RUN];
    int32_t recent[HISTORY];
    int hits[2];                   /* of the last 4 expectations from the line above, which were right */
    Match match[2];
    uint64_t match_hash[2];
    Text text;
} Lane;

struct Mixer {
    int light, n_features, n_node, vocab_size, n_lanes, n_active_lanes, predicted, table_bits, run_bits, match_bits, follower_bits;
    void *memory[32]; /* of everything below */
    char *next;       /* so much room is left there */
    size_t room;
    int n_memory, lacking;
    Node *nodes;
    uint8_t *text;
    int32_t *start;
    uint16_t log2_table[1024];
    int16_t stretch_table[4096];
    uint32_t squash_table[2562];
    uint8_t quantized[4096];       /* [p ^ 2048 of a slot]: part of its statistic's number */
    Buckets *buckets;
    Slot none[SLOTS];              /* for contexts without a bucket: all 0 */
    uint32_t known[4 << COUNT_BITS]; /* [side of a cell's first token][of its second][count]: a slot and its statistic << 16 */
    Cells *cells;
    Run *runs;
    Py_buffer ngram_lines; /* obj NULL where there are none */
    const Ngrams *ngrams;
    uint64_t n_ngrams; /* lines */
    Statistic *slot_map, *guess_map;
    int16_t *weights;
    int32_t *final_weights;
    int32_t set_start[N_SET];
    int16_t *correction;       /* [n_node, n_features]: the network's last layer, as far as the text has changed it */
    uint16_t *correction_seen; /* [n_node] decisions that each row has learned from */
    int16_t *lane_features; /* [n_lanes, n_features] */
    uint16_t *apm[N_APM];
    int64_t *match_table[2];
    uint32_t *followers;
    uint32_t *k; /* [n_lanes], of one level */
    uint8_t *bit;
    uint16_t *history; /* [step * n_lanes + lane] */
    int64_t capacity, step, decisions;
    int32_t learning; /* the weights' rate */
    Lane *lanes, **open; /* open: those whose token has not ended, in order */
    int n_open;
    Py_buffer base, local, features; /* of the steps under way; obj NULL where there is no model, or they are C's */
    struct {
        const char *base, *local; /* what the network says, NULL where there is none */
        const int8_t *features;
        Py_ssize_t base_lane, base_step, local_lane, local_step, features_lane, features_step; /* bytes from one to the next */
    } given;
};

static uint64_t hash(uint64_t h, uint64_t v)
{
    h = (h + v + 1) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 29);
}

INLINE int32_t clamp(int32_t v, int32_t bound) { return v > bound ? bound : v < -bound ? -bound : v; }

/* log2 of v > 0 in units of 1/256 */
INLINE int32_t log2_of(const Mixer *m, uint64_t v)
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

/* 24-bit probability of z log2 odds, z in 1/UNIT; neighbours in the table differ by less than 2^16 */
INLINE uint32_t squash(const Mixer *m, int32_t z)
{
    uint32_t u = (uint32_t)(clamp(z, 20 * UNIT - 1) + 20 * UNIT), i = u >> 10;
    uint32_t a = m->squash_table[i], b = m->squash_table[i + 1];
    return a + ((b - a) * (u & 1023) >> 10);
}

INLINE int32_t linear22(uint32_t p) { return ((int32_t)(p >> 6) - 32768) >> 5; }

/* scale / (2n + 3) rounded down, for scale <= 2^17 and n < 2^10: exact, since both are small; unlike integer division, it has
 * vectors */
INLINE int32_t rate_of(int32_t n, float scale) { return (int32_t)(scale / (float)(2 * n + 3)); }

/* A statistic that has seen a bit, whose target is RIGHT or WRONG; it stays within [0, 2^22) */
INLINE Statistic learned(Statistic s, int32_t target)
{
    int32_t p = (int32_t)(s >> 10), n = (int32_t)(s & 1023);
    p += (((target - p) >> 7) * rate_of(n, 131072)) >> 9;
    return (uint32_t)p << 10 | (uint32_t)(n + (n < 1023));
}

/* A slot that has seen a bit, whose target is 2047 or -2048; up is 7 or 0, so that it moves by one at least */
INLINE Slot moved(Slot s, int16_t target, int16_t up)
{
    int16_t n = s & 15, p = s >> 4, far = (int16_t)((target - p) * 8), rate = (int16_t)rate_of(n, 65536);
    int16_t step = (int16_t)(((far * rate >> 14) + 1) >> 1);
    p = (int16_t)(p + ((int16_t)(step + up) >> 3));
    return (Slot)(p * 16 | (n + (n < 12)));
}

static int is_digit(int c) { return c >= '0' && c <= '9'; }

static void read_byte(Text *t, int c, int64_t next)
{
    t->latest = (t->latest << 8 | (uint32_t)c) & 0xFFFFFF;
    int letter = ((c | 32) >= 'a' && (c | 32) <= 'z') || c >= 0x80, shown = is_digit(c) ? '0' : c;
    if (letter)
        t->word = hash(t->word, c | 32);
    else if (t->word) {
        t->word1 = t->word;
        t->word = 0;
    }
    if (c == '\n') {
        t->which ^= 1;
        t->lines += t->lines < 2;
        t->width = t->indent = t->quoted = t->field = t->field_tokens = t->column = t->column_tokens = 0;
        t->misses = 0;
        t->first = t->column_shape = 0;
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
    if (separates || c == ' ') { /* a field ends */
        t->field_tokens = 0;
        t->misses = 0;
        t->field += t->field < 65535;
        if (t->field < FIELDS) {
            t->field_start[t->which][t->field] = next;
            t->n_field[t->which] = t->field + 1;
        }
    }
    if (separates && !t->quoted) { /* a column ends */
        t->column_shape = 0;
        t->column_tokens = 0;
        t->column += t->column < 65535;
        if (t->column < FIELDS) {
            t->column_start[t->which][t->column] = next;
            t->n_column[t->which] = t->column + 1;
        }
    } else
        t->column_shape = hash(t->column_shape, shown);
}


/* The entry that will know the token after next is on its way. */
INLINE void approach_follower(Mixer *m, Lane *s, int lane)
{
    s->follower = (uint32_t)(hash(hash(lane, s->recent[0]), s->recent[1]) >> (64 - m->follower_bits));
    PREFETCH(m->followers + s->follower);
}

/* What was predicted of a lane's token is compared with it, and the token becomes history. */
INLINE void end_token(Mixer *m, Lane *s, int lane, const Parts *parts)
{
    int32_t token = ~s->node;
    int64_t stride = m->n_lanes, here = m->step * stride + lane, next = here + stride;
    m->history[here] = (uint16_t)token;
    memmove(s->recent + 1, s->recent, sizeof s->recent - sizeof s->recent[0]);
    s->recent[0] = token;
    for (int e = 0; e < 2 && e < parts->guesses; e++) {
        int need = e == 0 ? MATCH_LONG : MATCH_SHORT;
        uint64_t h = e == 0 ? 0 : (uint64_t)lane; /* short matches stay in their lane */
        for (int i = 0; i < need; i++)
            h = hash(h, s->recent[i]);
        s->match_hash[e] = h >> (64 - m->match_bits);
        PREFETCH(m->match_table[e] + s->match_hash[e]);
    }
    for (int e = 0; e < 2 && e < parts->guesses; e++) {
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
    for (int e = 0; e < 2 && 2 + e < parts->guesses; e++)
        if (s->guess[2 + e] >= 0) {
            s->hits[e] = (s->hits[e] * 2 + (s->guess[2 + e] == token)) & 15;
            if (e == 0)
                s->text.misses += s->guess[2] != token && s->text.misses < 3;
        }
    for (int i = 0; N_EXPECTED + i < parts->guesses; i++) {
        Run *r = s->run[i];
        if (r->count && r->token == token)
            r->count += r->count < 255;
        else {
            r->token = (uint16_t)token;
            r->count = 1;
        }
    }
    m->followers[s->follower] = m->followers[s->follower] << 16 | (uint32_t)token;
    approach_follower(m, s, lane);
    s->text.field_tokens++;
    s->text.column_tokens++;
    for (int32_t i = m->start[token]; i < m->start[token + 1]; i++)
        read_byte(&s->text, m->text[i], next);
}

/* The last places where the lane's latest tokens stood become its matches, if it has none as good. */
INLINE void find_matches(Mixer *m, Lane *s, int lane, const Parts *parts)
{
    int64_t stride = m->n_lanes, next = (m->step + 1) * stride + lane;
    for (int e = 0; e < 2 && e < parts->guesses; e++) {
        int need = e == 0 ? MATCH_LONG : MATCH_SHORT, length = 0;
        if (m->step + 1 < need)
            continue;
        int64_t *entry = &m->match_table[e][s->match_hash[e]], candidate = *entry;
        Match *q = &s->match[e];
        *entry = next;
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
        if (q->at >= 0)
            PREFETCH(m->history + q->at);
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

/* A weight set for a place in a line. */
static int32_t place_in(int field, int tokens, int most)
{
    return (field < FIELDS ? field : FIELDS - 1) * most + (tokens < most ? tokens : most - 1);
}

static int16_t *weights_of(Mixer *m, int set, int chosen)
{
    return m->weights + (int64_t)(m->set_start[set] + chosen) * N_INPUT;
}

/* The lowest of the bits that are set, of which there is one */
INLINE int lowest(uint32_t bits)
{
#ifdef __GNUC__
    return __builtin_ctz(bits);
#else
    int i = 0;
    while (!(bits >> i & 1))
        i++;
    return i;
#endif
}

/* The first place of a value among the first n of eight, or -1; these are aligned. */
INLINE int place_of(const uint16_t *values, int n, uint16_t value)
{
#ifdef __SSE2__
    __m128i same = _mm_cmpeq_epi16(_mm_load_si128((const __m128i *)(const void *)values), _mm_set1_epi16((short)value));
    uint32_t mask = (uint32_t)_mm_movemask_epi8(same) & ((1u << 2 * n) - 1);
    return mask ? lowest(mask) / 2 : -1;
#else
    for (int w = 0; w < n; w++)
        if (values[w] == value)
            return w;
    return -1;
#endif
}

INLINE Buckets *buckets_of(Mixer *m, uint64_t h) { return m->buckets + (h >> (64 - m->table_bits)); }

/* The buckets of a new group of levels are on their way. */
INLINE void approach_group(Mixer *m, Lane *s, const Parts *parts)
{
    for (uint32_t left = s->with_buckets; left; left &= left - 1) {
        int i = lowest(left);
        s->found[i] = hash(s->context[i], s->node);
        PREFETCH(buckets_of(m, s->found[i]));
    }
}

/* Inputs of a mixer with such parts, filled up to whole vectors */
INLINE int n_input(const Parts *parts) { return (4 + 2 * (parts->guesses + parts->contexts) + 15) / 16 * 16; }

/* The row of a weight set that predicts next, if a mixer with such parts has the set, is on its way. */
INLINE void approach_weights(Mixer *m, Lane *s, int set, int chosen, const Parts *parts)
{
    if (set >= parts->sets)
        return;
    s->weights[set] = weights_of(m, set, chosen);
    for (int i = 0; i < n_input(parts); i += 32)
        PREFETCH(s->weights[set] + i);
}

/* What belongs to the node is on its way. */
INLINE void approach_node(Mixer *m, Lane *s, const Parts *parts)
{
    const Node *node = m->nodes + s->node;
    s->apm[0] = m->apm[0] + (int64_t)s->node * APM_ROW;
    PREFETCH(s->apm[0]);
    if (parts->apms > 1) {
        s->apm[1] = m->apm[1] + (hash(s->apm_hash, s->node) >> (64 - APM_BITS)) * APM_ROW;
        PREFETCH(s->apm[1]);
    }
    approach_weights(m, s, 1, s->node, parts);
    if (s->base) {
        PREFETCH(s->base + (node->mid >> 6));
        PREFETCH(s->local + node->mid - 1);
        s->correction = m->correction + (int64_t)s->node * m->n_features;
        for (int i = 0; i < m->n_features; i += 32)
            PREFETCH(s->correction + i);
    }
}

INLINE Cells *cells_of(Mixer *m, uint64_t h) { return m->cells + (h >> (64 - m->table_bits)); }

/* Of a context's cell */
INLINE uint16_t check_of(uint64_t h) { return (uint16_t)h ? (uint16_t)h : 1; }

INLINE const Ngrams *ngrams_of(const Mixer *m, uint64_t h) { return m->ngrams + ((h >> 32) * m->n_ngrams >> 32); }

INLINE void begin_token(Mixer *m, Lane *s, int lane, const Parts *parts)
{
    int64_t now = m->step * m->n_lanes;
    Text *t = &s->text;
    int other = t->which ^ 1;
    const int32_t *r = s->recent;
    int32_t *guess = s->guess;
    for (int e = 0; e < 2; e++) {
        Match *q = &s->match[e];
        if (q->at >= now)
            q->at = -1;
        guess[e] = q->at >= 0 ? m->history[q->at] : -1;
        int length = q->length;
        int class = length < 16 ? length : length < 24 ? 16 : length < 32 ? 17 : length < 50 ? 18 : 19;
        s->row[e] = (e * CONFIDENCES + class * 4 + (q->misses < 3 ? q->misses : 3)) * LEVELS;
        if (e == 0)
            s->confidence = 1 + (length > 2) + (length > 7) + (length > 15) + (length > 31);
    }
    if (guess[1] == guess[0])
        guess[1] = -1;
    int32_t up = above(m, t, t->field_start[other], t->n_field[other], t->field, t->field_tokens, 0);
    int32_t upc = above(m, t, t->column_start[other], t->n_column[other], t->column, t->column_tokens, 0);
    guess[2] = up;
    guess[3] = upc == up ? -1 : upc;
    for (int e = 0; e < 2; e++)
        s->row[2 + e] = ((2 + e) * CONFIDENCES + s->hits[e]) * LEVELS;
    uint32_t over = 0; /* bytes above the next four */
    for (int i = 0; i < 4; i++)
        over = over << 8 | (t->lines && t->width + i < t->length[other] ? t->bytes[other][t->width + i] : 0);
    uint64_t *c = s->context;
    c[0] = 0;
    c[1] = hash(1, r[0]);
    c[2] = hash(c[1], r[1]);
    uint64_t *h = s->ngram_hash;
    h[0] = c[2];
    h[1] = hash(h[0], r[2]);
    h[2] = hash(h[1], r[3]);
    c[3] = hash(h[2], r[4]);
    h[3] = hash(c[3], r[5]);
    for (int i = 0; m->n_ngrams && i < NGRAM_ORDERS; i++)
        PREFETCH(ngrams_of(m, h[i]));
    c[4] = hash(2, t->word);
    c[5] = hash(hash(3, over), t->latest & 255);
    c[6] = hash(hash(4, m->followers[s->follower]), r[0]);
    c[7] = hash(hash(5, t->column_shape), t->column);
    if (parts->contexts > 8) { /* the light mixer has none of these */
        int32_t up1 = up < 0 ? -1 : above(m, t, t->field_start[other], t->n_field[other], t->field, t->field_tokens, 1);
        c[8] = hash(hash(6, t->word), t->word1);
        c[9] = hash(hash(7, r[1]), r[2]);
        c[10] = hash(hash(8, t->first), hash(t->field, t->field_tokens));
        c[11] = hash(hash(hash(9, t->indent), hash(t->first, r[0])), lane);
        c[12] = hash(hash(10, (uint64_t)(guess[0] + 1)), hash(s->confidence, r[0]));
        c[13] = hash(hash(hash(11, (uint64_t)(up + 1)), (uint64_t)(up1 + 1)), lane);
        c[14] = hash(hash(12, (uint64_t)(up + 1)), hash(t->misses, t->field));
        c[15] = hash(13, t->latest);
    }
    s->node = s->level = s->position = 0;
    for (int i = 0; i < parts->contexts; i++)
        PREFETCH(cells_of(m, c[i]));
    static const uint8_t remembers[N_RUN] = {1, 2, 4, 6};
    for (int i = 0; N_EXPECTED + i < parts->guesses; i++) {
        uint64_t run = hash(c[remembers[i]], lane);
        s->run_check[i] = (uint16_t)run;
        s->run[i] = m->runs + ((uint64_t)i << m->run_bits) + (run >> (64 - m->run_bits));
        PREFETCH(s->run[i]);
    }
    memset(s->input, 0, sizeof s->input);
    s->input[2 * (parts->contexts + parts->guesses) + 3] = 256;
    s->apm_hash = hash(17, r[0]);
    approach_weights(m, s, 0, r[0], parts);
    approach_weights(m, s, 2, place_in(t->field, t->field_tokens, 4), parts);
    approach_weights(m, s, 3, place_in(t->column, t->column_tokens, 8), parts);
    approach_node(m, s, parts);
}

/* A context has a cell from now on: the newest of its line, whose last one is forgotten. */
INLINE void push_cell(Cells *line, uint16_t check)
{
    uint16_t *of[4] = {line->check, line->count, line->first, line->second};
    for (int j = 0; j < 4; j++) {
#ifdef __SSE2__
        __m128i *p = (__m128i *)(void *)of[j];
        _mm_store_si128(p, _mm_insert_epi16(_mm_slli_si128(_mm_load_si128(p), 2), j == 0 ? check : 0, 0));
#else
        memmove(of[j] + 1, of[j], (CELLS - 1) * sizeof *of[j]);
        of[j][0] = j == 0 ? check : 0;
#endif
    }
}

/* Two cells of a line change places. */
INLINE void trade_cells(Cells *line, int v, int w)
{
    uint16_t *of[4] = {line->check, line->count, line->first, line->second};
    for (int j = 0; j < 4; j++) {
        uint16_t other = of[j][v];
        of[j][v] = of[j][w];
        of[j][w] = other;
    }
}

/* What the cells know, which have come, and the first buckets of contexts that have some are on their way. */
INLINE void recall_cells(Mixer *m, Lane *s, const Parts *parts)
{
    s->with_buckets = 0;
    for (int i = 0; i < parts->contexts; i++) {
        Cells *line = cells_of(m, s->context[i]);
        uint16_t check = check_of(s->context[i]);
        int w = place_of(line->check, CELLS, check);
        if (w < 0) {
            push_cell(line, check);
            w = 0;
        }
        int many = line->count[w] >> 15;
        s->first[i] = line->first[w];
        s->second[i] = line->second[w];
        s->count[i] = line->count[w] & (MANY - 1);
        s->many[i] = (uint16_t)-many;
        s->with_buckets |= (uint32_t)many << i;
        if (w >= CELLS / 2) /* it is forgotten later */
            trade_cells(line, w - CELLS / 2, w);
    }
    approach_group(m, s, parts);
}

/* The places of n-grams with that hash's check in its line, as bits; the lowest one counts */
INLINE uint32_t places_of_ngram(const Ngrams *line, uint64_t h)
{
    uint16_t check = (uint16_t)(h & NGRAM_CHECK ? h & NGRAM_CHECK : 1), key = (uint16_t)(check * NGRAM_CLASSES);
#ifdef __SSE2__
    const __m128i *p = (const __m128i *)(const void *)line->key, mask = _mm_set1_epi16((short)-NGRAM_CLASSES);
    __m128i a = _mm_cmpeq_epi16(_mm_and_si128(_mm_loadu_si128(p), mask), _mm_set1_epi16((short)key));
    __m128i b = _mm_cmpeq_epi16(_mm_and_si128(_mm_loadu_si128(p + 1), mask), _mm_set1_epi16((short)key));
    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(a, b));
#else
    uint32_t places = 0;
    for (int w = 0; w < NGRAM_WAYS; w++)
        places |= (uint32_t)((line->key[w] & -NGRAM_CLASSES) == key) << w;
    return places;
#endif
}

/* What follows the longest context that the n-grams have becomes a guess. */
INLINE void recall_ngrams(const Mixer *m, Lane *s)
{
    uint32_t places = 0;
    int order = 0;
    for (int i = 0; m->n_ngrams && i < NGRAM_ORDERS; i++) {
        uint32_t here = places_of_ngram(ngrams_of(m, s->ngram_hash[i]), s->ngram_hash[i]);
        order = here ? i : order;
        places = here ? here : places;
    }
    s->guess[NGRAMS] = -1;
    s->row[NGRAMS] = s->likely = 0;
    if (places) {
        const Ngrams *line = ngrams_of(m, s->ngram_hash[order]);
        int w = lowest(places), class = line->key[w] % NGRAM_CLASSES;
        s->guess[NGRAMS] = line->token[w];
        s->row[NGRAMS] = (NGRAMS * CONFIDENCES + order * NGRAM_CLASSES + class) * LEVELS;
        s->likely = 6 + class / 2;
    }
}

/* The tokens of n-grams and runs, which have come, become guesses. */
INLINE void recall_guesses(Mixer *m, Lane *s, const Parts *parts)
{
    int32_t *guess = s->guess;
    recall_ngrams(m, s);
    for (int i = 0; N_EXPECTED + i < parts->guesses; i++) {
        Run *run = s->run[i];
        if (run->check != s->run_check[i]) {
            run->check = s->run_check[i];
            run->count = 0;
        }
        int g = N_EXPECTED + i, count = run->count < RUN_LENGTHS ? run->count : RUN_LENGTHS - 1;
        guess[g] = count ? run->token : -1;
        s->row[g] = (g * CONFIDENCES + count) * LEVELS;
    }
    s->alive = 0;
    for (int g = 0; g < parts->guesses; g++)
        s->alive |= (uint32_t)(guess[g] >= 0) << g;
}

/* What is left of a cell's count below a node with that middle, to the left of it (left: all bits set) or to the right (0): a token on
 * the other side says nothing there */
INLINE uint16_t count_below(uint16_t count, uint16_t first, uint16_t second, uint16_t mid, uint16_t left)
{
    uint16_t on_first = (uint16_t)-(first >= mid) ^ left, on_second = (uint16_t)-(second >= mid) ^ left;
    return count & ((on_first & FIRST_MAX << SECOND_BITS) | (on_second & SECOND_MAX));
}

/* The slots of the bucket with that hash, which may have to be made in the place of the one that is used least */
INLINE Slot *find_bucket(Mixer *m, uint64_t h)
{
    Buckets *line = buckets_of(m, h);
    uint16_t check = (uint16_t)h;
    int w = place_of(line->check, WAYS, check);
    if (w < 0) {
        int least = INT32_MAX;
        for (int v = 0; v < WAYS; v++) {
            int used = (line->slot[v][0] & 15) * WAYS + v;
            least = used < least ? used : least;
        }
        if (check / WAYS % 4 == 0) { /* another one ages now and then */
            Slot *first = line->slot[check % WAYS];
            *first -= (*first & 15) > 0;
        }
        w = least % WAYS;
        memset(line->slot[w], 0, sizeof line->slot[w]);
        line->check[w] = check;
    }
    return line->slot[w];
}

/* A lane comes to a new group of levels. */
INLINE void enter_group(Mixer *m, Lane *s, const Parts *parts)
{
    for (int i = 0; i < parts->contexts; i++)
        s->bucket[i] = m->none;
    for (uint32_t left = s->with_buckets; left; left &= left - 1) {
        int i = lowest(left);
        s->bucket[i] = find_bucket(m, s->found[i]);
    }
    s->position = 0;
}

/* The cells of a lane's contexts that had no buckets learn its token. */
INLINE void learn_cells(Mixer *m, Lane *s, const Parts *parts)
{
    uint16_t token = (uint16_t)~s->node;
    for (uint32_t left = ~s->with_buckets & ((1u << parts->contexts) - 1); left; left &= left - 1) {
        uint64_t h = s->context[lowest(left)];
        Cells *line = cells_of(m, h);
        int w = place_of(line->check, CELLS, check_of(h));
        if (w < 0) /* forgotten already */
            continue;
        int count = line->count[w], k = count & SECOND_MAX;
        int again = (count == 0) | (token == line->first[w]), other = (!again) & ((k == 0) | (token == line->second[w]));
        int more = again ? (count < FIRST_MAX << SECOND_BITS) << SECOND_BITS : other ? k < SECOND_MAX : MANY;
        line->first[w] = count ? line->first[w] : token;
        line->second[w] = other ? token : line->second[w];
        line->count[w] = (uint16_t)(count & MANY ? count : count + more); /* another lane may have come first */
    }
}

/* |x| add up to 135413 at most with |w| <= WEIGHT_MAX, or to 2^18 with |w| <= CORRECTION_MAX */
INLINE int32_t dot(const int16_t *restrict x, const int16_t *restrict w, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i] * w[i];
    return sum;
}

INLINE void train(const int16_t *restrict x, int16_t *restrict w, int16_t error, int n)
{
    for (int i = 0; i < n; i++) {
        int16_t v = (int16_t)(w[i] + (int16_t)(((x[i] * error >> 14) + 1) >> 1));
        v = v > WEIGHT_MAX ? WEIGHT_MAX : v;
        w[i] = v < -WEIGHT_MAX ? -WEIGHT_MAX : v;
    }
}

/* A row of the correction learns; |x| <= 127, |error| < 2^13 */
INLINE void train_correction(const int16_t *restrict x, int16_t *restrict w, int16_t error, int n)
{
    for (int i = 0; i < n; i++) {
        int16_t v = (int16_t)(w[i] + (int16_t)((((int16_t)(x[i] * 128) * error >> 14) + 1) >> 1));
        v = v > CORRECTION_MAX ? CORRECTION_MAX : v;
        w[i] = v < -CORRECTION_MAX ? -CORRECTION_MAX : v;
    }
}

/* The network's weights of the ids below this one, which is not 0 */
INLINE uint64_t below(const Lane *s, int32_t id)
{
    return s->base[id >> 6] + (s->local[id - 1] & -(uint32_t)((id & 63) != 0));
}

/* The inputs of the contexts' slots */
INLINE void say_contexts(Mixer *m, Lane *s, const Parts *parts)
{
    const int C = parts->contexts;
    int16_t slot[N_CTX], said[N_CTX], *x = s->input;
    uint16_t index[N_CTX], row[N_CTX], cell_row[N_CTX], mid = (uint16_t)m->nodes[s->node].mid;
    uint32_t known[N_CTX];
    VECTOR for (int i = 0; i < C; i++)
        index[i] = (uint16_t)((s->first[i] >= mid) << (COUNT_BITS + 1) | (s->second[i] >= mid) << COUNT_BITS | s->count[i]);
    for (int i = 0; i < C; i++)
        known[i] = m->known[index[i]];
    for (int i = 0; i < C; i++)
        slot[i] = s->bucket[i][s->position];
    VECTOR for (int i = 0; i < C; i++) {
        s->settled[i] = (Slot)(known[i] & 0xFFFF);
        cell_row[i] = (uint16_t)(known[i] >> 16);
    }
    VECTOR for (int i = 0; i < C; i++)
        slot[i] |= (Slot)(s->settled[i] & -(slot[i] == 0));
    VECTOR for (int i = 0; i < C; i++)
        index[i] = (uint16_t)slot[i] >> 4;
    for (int i = 0; i < C; i++)
        row[i] = m->quantized[index[i]];
    VECTOR for (int i = 0; i < C; i++)
        s->used[i] = row[i] = (uint16_t)(i * 512 + ((((slot[i] & 15) * 32 + row[i]) & s->many[i]) | (cell_row[i] & ~s->many[i])));
    for (int i = 0; i < C; i++)
        said[i] = m->stretch_table[m->slot_map[row[i]] >> 20];
    VECTOR for (int i = 0; i < C; i++)
        x[i] = slot[i] & 15 ? said[i] : 0;
    VECTOR for (int i = 0; i < C; i++)
        x[C + i] = (int16_t)((int16_t)((slot[i] >> 4) * ((slot[i] & 15) + 1)) >> 4);
    s->order = slot[3] & 15 ? 3 : slot[2] & 15 ? 2 : (slot[1] & 15) != 0;
}

/* The inputs of the network: its odds, and these corrected */
INLINE void say_network(Mixer *m, Lane *s, const Parts *parts)
{
    int16_t *x = s->input + 2 * (parts->contexts + parts->guesses);
    s->sum_mid = below(s, m->nodes[s->node].mid);
    int32_t odds = clamp(log2_of(m, s->sum_hi - s->sum_mid) - log2_of(m, s->sum_mid - s->sum_lo), 4095);
    int32_t sum = dot(s->features, s->correction, m->n_features);
    int32_t z = clamp(odds * 256 + (sum >> CORRECTION_SHIFT), 16 * UNIT - 1);
    s->p_corrected = squash(m, z);
    x[0] = (int16_t)odds;
    x[1] = (int16_t)linear22(squash(m, odds * 256) >> 2);
    x[2] = (int16_t)clamp(z >> 8, 4095);
}

/* The inputs of the guesses, 0 for those that are not alive, and the weights that depend on which are */
INLINE void say_guesses(Mixer *m, Lane *s, const Parts *parts)
{
    const int G = parts->guesses;
    int16_t *x = s->input + 2 * parts->contexts;
    if (parts->sets > 4) {
        int confidence = s->alive & 1 ? s->confidence : s->alive >> NGRAMS & 1 ? s->likely : 0;
        s->weights[4] = weights_of(m, 4, (confidence * 4 + (int)(s->alive >> 1 & 3)) * 2 + (s->level > 3));
    }
    if (s->alive == 0) {
        memset(x, 0, 2 * (size_t)G * sizeof *x);
        return;
    }
    int32_t mid = m->nodes[s->node].mid;
    int32_t p[N_GUESS], odds[N_GUESS];
    uint32_t index[2][N_GUESS];
    for (int g = 0; g < G; g++)
        p[g] = (int32_t)(m->guess_map[s->row[g] + s->level] >> 10);
    /* log2_of(), for vectors: a binary32 has numbers below 2^24 exactly, as an exponent and the bits that the table is for */
    VECTOR for (int g = 0; g < G; g++) {
        union { float f; int32_t i; } v = {(float)(p[g] + 1)}, w = {(float)((1 << 22) - p[g])};
        odds[g] = ((v.i >> 23) - (w.i >> 23)) * 256;
        index[0][g] = v.i >> 13 & 1023;
        index[1][g] = w.i >> 13 & 1023;
    }
    for (int g = 0; g < G; g++)
        odds[g] += m->log2_table[index[0][g]] - m->log2_table[index[1][g]];
    VECTOR for (int g = 0; g < G; g++) {
        int32_t sign = s->guess[g] >= mid ? 1 : -1;
        sign &= -(int32_t)(s->alive >> g & 1);
        x[g] = (int16_t)(sign * clamp(odds[g], 4095));
        x[G + g] = (int16_t)(sign * linear22((uint32_t)p[g]));
    }
}

/* What each weight set makes of the inputs */
INLINE void sum_inputs(Mixer *m, Lane *s, const Parts *parts)
{
    for (int j = 0; j < parts->sets; j++) {
        int32_t z = clamp(dot(s->input, s->weights[j], n_input(parts)) >> 5, 16 * UNIT - 1);
        s->p_set[j] = squash(m, z);
        s->stretched[j] = z >> 8;
    }
}

/* One probability of all sets */
INLINE uint32_t mix(Mixer *m, Lane *s, const Parts *parts)
{
    s->final_weights = m->final_weights + (s->order * 6 + (s->alive & 1 ? s->confidence : 0)) * N_SET;
    int32_t z = 0;
    for (int j = 0; j < parts->sets; j++)
        z += (s->stretched[j] * (s->final_weights[j] >> 2)) >> 8;
    uint32_t p = s->p_mixed = squash(m, z);
    uint32_t u = (uint32_t)(clamp(z, 12 * UNIT - 1) + 12 * UNIT), part = u % UNIT, rest = 32, sum = 0;
    for (int j = 0; j < parts->apms; j++) {
        uint16_t *a = s->apm[j] + u / UNIT;
        sum += ((a[0] * (UNIT - part) + a[1] * part) >> 8) * APM_SHARE; /* the products' sum < 2^32 */
        rest -= APM_SHARE;
        s->apm[j] = a + (part >= UNIT / 2);
    }
    p = (sum + p * rest) >> 5;
    return p < 1 ? 1 : p > (1 << 24) - 1 ? (1 << 24) - 1 : p;
}

INLINE int32_t learning_rate(const Mixer *m)
{
    return LEARN_FLOOR + (int32_t)(LEARN_EXTRA * 64 / (64 + m->decisions / 64));
}

/* Which guesses' tokens lie on that side of the middle, as bits */
INLINE uint32_t guesses_on(const Lane *s, int bit, int32_t mid, const Parts *parts)
{
    uint32_t right = 0;
    VECTOR for (int g = 0; g < WHOLE(parts->guesses); g++)
        right |= (uint32_t)(bit == (s->guess[g] >= mid)) << g;
    return right;
}

/* Guesses that were alive learn whether they were right at a node of that level. */
INLINE void learn_guesses(Mixer *m, Lane *s, uint32_t alive, uint32_t right, int32_t level, const Parts *parts)
{
    const int G = WHOLE(parts->guesses);
    Statistic guessed[WHOLE(N_GUESS)];
    for (int g = 0; g < G; g++)
        guessed[g] = m->guess_map[s->row[g] + level];
    VECTOR for (int g = 0; g < G; g++)
        guessed[g] = learned(guessed[g], right >> g & 1 ? RIGHT : WRONG);
    for (int g = 0; g < parts->guesses; g++)
        if (alive >> g & 1)
            m->guess_map[s->row[g] + level] = guessed[g];
}

/* What belongs to a node that a lane has left learns the bit: position and number are the node's. */
INLINE void learn(Mixer *m, Lane *s, int bit, int32_t position, int32_t number, const Parts *parts)
{
    const int C = parts->contexts;
    Slot slot[N_CTX];
    Statistic statistic[N_CTX];
    for (int i = 0; i < C; i++)
        slot[i] = s->bucket[i][position];
    for (int i = 0; i < C; i++)
        statistic[i] = m->slot_map[s->used[i]];
    int16_t near = bit ? 2047 : -2048, up = bit ? 7 : 0;
    VECTOR for (int i = 0; i < C; i++)
        slot[i] |= (Slot)(s->settled[i] & -(slot[i] == 0));
    VECTOR for (int i = 0; i < C; i++)
        slot[i] = (Slot)(moved(slot[i], near, up) & s->many[i]);
    int32_t target = bit ? RIGHT : WRONG;
    VECTOR for (int i = 0; i < C; i++)
        statistic[i] = learned(statistic[i], target);
    for (int i = 0; i < C; i++)
        s->bucket[i][position] = slot[i];
    for (int i = 0; i < C; i++)
        m->slot_map[s->used[i]] = statistic[i];
    for (int j = 0; j < parts->apms; j++)
        *s->apm[j] += ((bit ? 65535 + 31 : 0) - *s->apm[j]) >> 5;
    target = bit ? (1 << 24) - 1 : 0;
    int32_t final_error = ((target - (int32_t)s->p_mixed) >> 6) * 2 >> 6;
    for (int j = 0; j < parts->sets; j++) {
        int32_t error = (((target - (int32_t)s->p_set[j]) >> 6) * m->learning + 512) >> 10;
        if (error > 4 || error < -4) /* less moves no weight, as |x| <= 4095 */
            train(s->input, s->weights[j], (int16_t)error, n_input(parts));
        s->final_weights[j] =
            clamp(s->final_weights[j] + ((s->stretched[j] * final_error + (1 << 11)) >> 12), (1 << 20) - 1);
    }
    if (s->base) {
        int32_t error = ((2 * target - (int32_t)s->p_corrected - (int32_t)s->p_mixed) >> 11) *
                        (CORRECTION_FLOOR + CORRECTION_EXTRA / (100 + m->correction_seen[number])) >> 14;
        if (error > 1 || error < -1) /* less moves no weight */
            train_correction(s->features, s->correction, (int16_t)error, m->n_features);
        m->correction_seen[number] = (uint16_t)(m->correction_seen[number] + (m->correction_seen[number] < CORRECTION_SEEN));
    }
}

/* A lane goes on with the bit. What was sure of it learns nothing. */
INLINE void update_lane(Mixer *m, Lane *s, int bit, const Parts *parts)
{
    const Node *node = m->nodes + s->node;
    const int32_t mid = node->mid, position = s->position, level = s->level, number = s->node;
    const uint32_t alive = s->alive, right = alive ? guesses_on(s, bit, mid, parts) : 0;
    s->position = 2 * position + 1 + bit;
    s->level++;
    s->node = bit ? node->right : node->left;
    s->sum_lo = bit ? s->sum_mid : s->sum_lo;
    s->sum_hi = bit ? s->sum_hi : s->sum_mid;
    s->alive &= right;
    VECTOR for (int i = 0; i < parts->contexts; i++)
        s->count[i] = count_below(s->count[i], s->first[i], s->second[i], (uint16_t)mid, (uint16_t)(bit - 1));
    if (s->level % GROUP == 0 && s->node >= 0)
        approach_group(m, s, parts);
    if (m->decisions % 64 == 0)
        m->learning = learning_rate(m);
    m->decisions++;
    if ((bit ? (1 << 24) - s->p_mixed : s->p_mixed) >= SURE) {
        learn(m, s, bit, position, number, parts);
        if (alive)
            learn_guesses(m, s, alive, right, level, parts);
    }
    if (s->node >= 0)
        approach_node(m, s, parts);
}

INLINE void begin_lanes(Mixer *m, int n, int t, const Parts *parts)
{
    const char *base = m->given.base, *local = m->given.local;
    m->n_active_lanes = m->n_open = n;
    for (int l = 0; l < n; l++) {
        Lane *s = m->open[l] = &m->lanes[l];
        s->base = base ? (const uint64_t *)(base + l * m->given.base_lane + t * m->given.base_step) : NULL;
        s->local = local ? (const uint32_t *)(local + l * m->given.local_lane + t * m->given.local_step) : NULL;
        if (base) {
            const int8_t *features = m->given.features + l * m->given.features_lane + t * m->given.features_step;
            for (int i = 0; i < m->n_features; i++)
                s->features[i] = features[i];
            s->sum_lo = 0;
            s->sum_hi = s->base[(m->vocab_size - 1) >> 6] + s->local[m->vocab_size - 1];
        }
        begin_token(m, s, l, parts);
    }
    for (int l = 0; l < n; l++)
        recall_cells(m, &m->lanes[l], parts);
    for (int l = 0; l < n; l++)
        recall_guesses(m, &m->lanes[l], parts);
}

/* Each stage for all lanes, then the next: one lane's waiting is the others' work. Buckets have until the third to come. */
INLINE void predict_lanes(Mixer *m, uint32_t *k, const Parts *parts)
{
    Lane *const *open = m->open;
    const int n = m->n_open;
    for (int i = 0; i < n; i++) {
        if (open[i]->base)
            say_network(m, open[i], parts);
        say_guesses(m, open[i], parts);
        if (open[i]->level % GROUP == 0)
            enter_group(m, open[i], parts);
    }
    for (int i = 0; i < n; i++)
        say_contexts(m, open[i], parts);
    for (int i = 0; i < n; i++) {
        sum_inputs(m, open[i], parts);
        k[i] = mix(m, open[i], parts);
    }
}

INLINE void update_lanes(Mixer *m, const uint8_t *bit, const Parts *parts)
{
    const int n = m->n_open;
    int left = 0;
    for (int i = 0; i < n; i++) {
        Lane *s = m->open[i];
        update_lane(m, s, bit[i], parts);
        m->open[left] = s;
        left += s->node >= 0;
    }
    m->n_open = left;
}

INLINE void end_lanes(Mixer *m, const Parts *parts)
{
    for (int l = 0; l < m->n_active_lanes; l++)
        learn_cells(m, &m->lanes[l], parts);
    for (int l = 0; l < m->n_active_lanes; l++)
        end_token(m, &m->lanes[l], l, parts);
    for (int l = 0; l < m->n_active_lanes; l++)
        find_matches(m, &m->lanes[l], l, parts);
    m->step++;
}

/* Each for all parts and for few, so that the compiler knows the numbers. */
WIDE static void begin_full(Mixer *m, int n, int t) { begin_lanes(m, n, t, &FULL); }
WIDE static void begin_light(Mixer *m, int n, int t) { begin_lanes(m, n, t, &LIGHT); }
WIDE static void predict_full(Mixer *m, uint32_t *k) { predict_lanes(m, k, &FULL); }
WIDE static void predict_light(Mixer *m, uint32_t *k) { predict_lanes(m, k, &LIGHT); }
WIDE static void update_full(Mixer *m, const uint8_t *bit) { update_lanes(m, bit, &FULL); }
WIDE static void update_light(Mixer *m, const uint8_t *bit) { update_lanes(m, bit, &LIGHT); }
WIDE static void end_full(Mixer *m) { end_lanes(m, &FULL); }
WIDE static void end_light(Mixer *m) { end_lanes(m, &LIGHT); }

/* Step t of those whose weights the mixer holds begins. */
static void begin_step(Mixer *m, int n, int t) { m->light ? begin_light(m, n, t) : begin_full(m, n, t); }

/* The next level's probabilities, of the lanes that are open */
static void predict_level(Mixer *m, uint32_t *k) { m->light ? predict_light(m, k) : predict_full(m, k); }

static void update_level(Mixer *m, const uint8_t *bit) { m->light ? update_light(m, bit) : update_full(m, bit); }

static void end_step(Mixer *m) { m->light ? end_light(m) : end_full(m); }

/* Memory of zeros that goes with the mixer, side by side in large pages where there are such; NULL where there is none. */
static void *zeros(Mixer *m, size_t size)
{
    size = (size + 63) & ~(size_t)63;
    if (size <= m->room) {
        char *start = m->next;
        m->next += size;
        m->room -= size;
        return start;
    }
    size_t pages = (size + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1);
    void *memory = calloc(pages + HUGE_PAGE, 1);
    if (memory == NULL) {
        m->lacking = 1;
        return NULL;
    }
    m->memory[m->n_memory++] = memory;
    char *start = (char *)(((uintptr_t)memory + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
#ifdef MADV_HUGEPAGE
    madvise(start, pages, MADV_HUGEPAGE);
#endif
    if (pages - size > m->room) {
        m->next = start + size;
        m->room = pages - size;
    }
    return start;
}

static void *copy(Mixer *m, const Py_buffer *b)
{
    void *p = zeros(m, (size_t)b->len);
    return p ? memcpy(p, b->buf, b->len) : NULL;
}

static void mixer_free(Mixer *m)
{
    for (int i = 0; i < m->n_memory; i++)
        free(m->memory[i]);
    free(m->history);
    PyBuffer_Release(&m->ngram_lines);
    free(m);
}

static void capsule_free(PyObject *capsule)
{
    Mixer *m = PyCapsule_GetPointer(capsule, MIXER);
    if (m != NULL) {
        PyBuffer_Release(&m->base);
        PyBuffer_Release(&m->local);
        PyBuffer_Release(&m->features);
        mixer_free(m);
    }
}

/* How many rows weight set j has. */
static int set_rows(int n_node, int j)
{
    const int rows[N_SET] = {n_node + 1, n_node, 4 * FIELDS, 8 * FIELDS, 80};
    return rows[j];
}

/* Everything but tree, pieces and tables: returns 0 where memory is lacking. */
static int mixer_set_up(Mixer *m, const Py_buffer *first)
{
    const Parts *parts = m->light ? &LIGHT : &FULL;
    for (int j = 0, n = 0; j < parts->sets; n += set_rows(m->n_node, j++))
        m->set_start[j] = n;
    m->buckets = zeros(m, sizeof *m->buckets << m->table_bits);
    m->cells = zeros(m, sizeof *m->cells << m->table_bits);
    m->runs = zeros(m, sizeof *m->runs * N_RUN << m->run_bits);
    m->slot_map = zeros(m, first[0].len);
    m->guess_map = zeros(m, first[1].len);
    m->weights = zeros(m, first[2].len);
    m->final_weights = zeros(m, first[3].len);
    m->correction = zeros(m, (size_t)m->n_node * m->n_features * sizeof *m->correction);
    m->correction_seen = zeros(m, (size_t)m->n_node * sizeof *m->correction_seen);
    m->lane_features = zeros(m, (size_t)m->n_lanes * m->n_features * sizeof *m->lane_features);
    m->followers = zeros(m, sizeof *m->followers << m->follower_bits);
    m->lanes = zeros(m, (size_t)m->n_lanes * sizeof *m->lanes);
    m->open = zeros(m, (size_t)m->n_lanes * sizeof *m->open);
    m->k = zeros(m, (size_t)m->n_lanes * sizeof *m->k);
    m->bit = zeros(m, (size_t)m->n_lanes);
    for (int e = 0; e < 2; e++)
        m->match_table[e] = zeros(m, sizeof(int64_t) << m->match_bits);
    for (int j = 0; j < N_APM; j++) {
        size_t rows = j == 0 ? (size_t)m->n_node : (size_t)1 << APM_BITS;
        m->apm[j] = zeros(m, rows * APM_ROW * sizeof(uint16_t));
        for (size_t i = 0; m->apm[j] && i < rows * APM_ROW; i++)
            m->apm[j][i] = (uint16_t)(squash(m, ((int32_t)(i % APM_ROW) - 12) * UNIT) >> 8);
    }
    if (m->lacking)
        return 0;
    for (int i = 0; i < 4096; i++) {
        int32_t q = (m->stretch_table[i] + 3072) / 192;
        m->quantized[i ^ 2048] = (uint8_t)(q < 0 ? 0 : q > 31 ? 31 : q);
    }
    memcpy(m->slot_map, first[0].buf, first[0].len);
    memcpy(m->guess_map, first[1].buf, first[1].len);
    memcpy(m->weights, first[2].buf, first[2].len);
    memcpy(m->final_weights, first[3].buf, first[3].len);
    m->decisions = FIRST_DECISIONS;
    m->learning = learning_rate(m);
    for (int l = 0; l < m->n_lanes; l++) {
        Lane *s = &m->lanes[l];
        s->match[0].at = s->match[1].at = -1;
        s->text.in_first = 1;
        s->node = -1;
        s->features = m->lane_features + (int64_t)l * m->n_features;
        for (int w = 0; w < 2; w++) {
            s->text.n_field[w] = s->text.n_column[w] = 1;
            s->text.field_start[w][0] = s->text.column_start[w][0] = l;
        }
        s->text.line_start = l;
        approach_follower(m, s, l);
    }
    return 1;
}

PyDoc_STRVAR(mixer_doc,
"mixer(left, right, lo, mid, hi, text, start, log2, stretch, squash, settled, cell_row, slot_map, guess_map, weights, final_weights, ngrams, light,\n"
"      n_features, n_lanes, table_bits, run_bits, match_bits, follower_bits) -> capsule\n\n"
"A mixer that knows what prior.Learned holds; light: of few parts. Buffers: the tree (int32 [V-1] each), the pieces' bytes one after the other and\n"
"int32 [V+1] where they start, tables uint16 [1024], int16 [4096], uint32 [2562], int16 [4096], uint16 [4096]; n-grams uint16 [N, 2, 16], kept; numbers\n"
"of table entries as log2.");
static PyObject *mixer_new(PyObject *self, PyObject *args)
{
    Py_buffer b[17];
    int light, n_features, n_lanes, table_bits, run_bits, match_bits, follower_bits;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*y*y*y*y*y*y*y*y*y*y*y*y*piiiiii", b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7, b + 8,
                          b + 9, b + 10, b + 11, b + 12, b + 13, b + 14, b + 15, b + 16, &light, &n_features, &n_lanes, &table_bits, &run_bits, &match_bits, &follower_bits))
        return NULL;
    PyObject *capsule = NULL;
    Mixer *m = NULL;
    Py_ssize_t n_node = b[0].len / 4;
    int fits = n_node >= 1 && n_node < 65535 && b[6].len == (n_node + 2) * 4 && b[7].len == 2048 &&
               b[8].len == 8192 && b[9].len == 10248 && b[10].len == 8 << COUNT_BITS && b[11].len == 8 << COUNT_BITS && n_lanes >= 1 && n_lanes <= 65536 && n_features >= 0 && n_features <= MAX_FEATURES &&
               b[16].len % (Py_ssize_t)sizeof(Ngrams) == 0 && b[16].len / (Py_ssize_t)sizeof(Ngrams) <= MAX_NGRAMS;
    for (int i = 1; i < 5; i++)
        fits = fits && b[i].len == n_node * 4;
    const Parts *parts = light ? &LIGHT : &FULL;
    Py_ssize_t rows = 0;
    for (int j = 0; fits && j < parts->sets; j++)
        rows += set_rows((int)n_node, j);
    fits = fits && b[12].len == parts->contexts * 512 * 4 && b[13].len == parts->guesses * CONFIDENCES * LEVELS * 4 &&
           b[14].len == rows * N_INPUT * 2 && b[15].len == ORDERS * 6 * N_SET * 4;
    const int16_t *weight = b[14].buf;
    int most = 0;
    for (Py_ssize_t i = 0; fits && i < rows * N_INPUT; i++)
        most = weight[i] > most ? weight[i] : -weight[i] > most ? -weight[i] : most;
    for (Py_ssize_t i = 0; fits && i < ORDERS * 6 * N_SET; i++)
        fits = ((const int32_t *)b[15].buf)[i] < 1 << 20 && ((const int32_t *)b[15].buf)[i] > -(1 << 20);
    fits = fits && most <= WEIGHT_MAX;
    const uint16_t *cell_row = b[11].buf;
    for (int i = 0; fits && i < 4 << COUNT_BITS; i++)
        fits = cell_row[i] < 512;
    const int bits[] = {table_bits, run_bits, match_bits, follower_bits};
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
        m->light = light;
        m->n_features = n_features;
        m->n_lanes = n_lanes;
        m->table_bits = table_bits;
        m->run_bits = run_bits;
        m->match_bits = match_bits;
        m->follower_bits = follower_bits;
        m->nodes = zeros(m, n_node * sizeof *m->nodes);
        for (Py_ssize_t i = 0; m->nodes && i < n_node; i++)
            m->nodes[i] = (Node){edge[0][i], edge[1][i], edge[2][i], edge[3][i], edge[4][i]};
        m->text = copy(m, b + 5);
        m->start = copy(m, b + 6);
        memcpy(m->log2_table, b[7].buf, sizeof m->log2_table);
        memcpy(m->stretch_table, b[8].buf, sizeof m->stretch_table);
        memcpy(m->squash_table, b[9].buf, sizeof m->squash_table);
        for (int i = 0; i < 4 << COUNT_BITS; i++)
            m->known[i] = (uint32_t)cell_row[i] << 16 | ((const uint16_t *)b[10].buf)[i];
        m->n_ngrams = (uint64_t)b[16].len / sizeof(Ngrams);
        m->ngrams = b[16].buf;
        m->ngram_lines = b[16];
        b[16].obj = NULL;
        if (!m->lacking && mixer_set_up(m, b + 12))
            capsule = PyCapsule_New(m, "lmcompress.mixer", capsule_free);
        else
            PyErr_NoMemory();
    } else
        PyErr_NoMemory();
done:
    for (int i = 0; i < 17; i++)
        PyBuffer_Release(b + i);
    if (m != NULL && capsule == NULL)
        mixer_free(m);
    return capsule;
}

int lmc_mixer_fits(const Mixer *m, int vocab_size, int n_features)
{
    return m->vocab_size == vocab_size && m->n_features == n_features;
}

int lmc_mixer_ready(Mixer *m, Py_ssize_t n, Py_ssize_t T)
{
    if (m->n_open) {
        PyErr_SetString(PyExc_ValueError, "the step before has not ended");
        return 0;
    }
    if (n < 1 || n > m->n_lanes || T < 1) {
        PyErr_SetString(PyExc_ValueError, "a step has 1 to n_lanes lanes");
        return 0;
    }
    if ((m->step + T) * m->n_lanes > m->capacity) {
        int64_t capacity = 2 * (m->step + T) * m->n_lanes + 1024;
        uint16_t *history = realloc(m->history, (size_t)capacity * sizeof *history);
        if (history == NULL) {
            PyErr_NoMemory();
            return 0;
        }
        memset(history + m->capacity, 0, (size_t)(capacity - m->capacity) * sizeof *history);
        m->history = history;
        m->capacity = capacity;
    }
    PyBuffer_Release(&m->base);
    PyBuffer_Release(&m->local);
    PyBuffer_Release(&m->features);
    memset(&m->given, 0, sizeof m->given);
    return 1;
}

/* Whether that is an array of `width` values for each of T steps of n lanes, side by side. */
static int rows_of(const Py_buffer *b, Py_ssize_t n, Py_ssize_t T, Py_ssize_t width, Py_ssize_t itemsize)
{
    return b->ndim == 3 && b->itemsize == itemsize && b->shape[0] == n && b->shape[1] == T && b->shape[2] == width &&
           (width <= 1 || b->strides[2] == itemsize);
}

/* Gets ready for T steps of lanes 0..n-1 with the distribution.Distribution that Python has (None for no model).
 * Returns 0 with an error set, else 1. */
static int prepare(Mixer *m, Py_ssize_t n, Py_ssize_t T, PyObject *said)
{
    if (!lmc_mixer_ready(m, n, T))
        return 0;
    if (said != Py_None) {
        PyObject *base, *local, *features;
        if (!lmc_distribution(said, &base, &local, &features) ||
            PyObject_GetBuffer(base, &m->base, PyBUF_STRIDES) < 0 ||
            PyObject_GetBuffer(local, &m->local, PyBUF_STRIDES) < 0 ||
            PyObject_GetBuffer(features, &m->features, PyBUF_STRIDES) < 0)
            return 0;
        if (!rows_of(&m->base, n, T, (m->vocab_size + 63) / 64, 8) || !rows_of(&m->local, n, T, m->vocab_size, 4) ||
            !rows_of(&m->features, n, T, m->n_features, 1)) {
            PyErr_SetString(PyExc_ValueError, "a distribution is base uint64 [n, T, ceil(V/64)], local uint32 [n, T, V] and "
                                              "features int8 [n, T, n_features] within 127, by rows");
            return 0;
        }
        m->given.base = m->base.buf;
        m->given.local = m->local.buf;
        m->given.base_lane = m->base.strides[0];
        m->given.base_step = m->base.strides[1];
        m->given.local_lane = m->local.strides[0];
        m->given.local_step = m->local.strides[1];
        m->given.features = m->features.buf;
        m->given.features_lane = m->features.strides[0];
        m->given.features_step = m->features.strides[1];
    }
    return 1;
}

static Mixer *mixer_of(PyObject *capsule) { return PyCapsule_GetPointer(capsule, MIXER); }

PyDoc_STRVAR(begin_doc,
"mixer_begin(mixer, said, n)\n\n"
"A step of lanes 0..n-1 begins; said is the network's distribution.Distribution with T = 1, or None.");
static PyObject *mixer_begin(PyObject *self, PyObject *args)
{
    PyObject *capsule, *said;
    Py_ssize_t n;
    if (!PyArg_ParseTuple(args, "OOn", &capsule, &said, &n))
        return NULL;
    Mixer *m = mixer_of(capsule);
    if (m == NULL || !prepare(m, n, 1, said))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    begin_step(m, (int)n, 0);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
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
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)m->n_open * 4);
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
    int active = m ? m->n_open : 0;
    if (m != NULL && (!m->predicted || bits.len != active)) {
        PyErr_SetString(PyExc_ValueError, "as many bits as decisions were predicted are needed");
        m = NULL;
    }
    if (m == NULL) {
        PyBuffer_Release(&bits);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    for (int i = 0; i < active; i++)
        m->bit[i] = ((const uint8_t *)bits.buf)[i] != 0;
    update_level(m, m->bit);
    m->predicted = 0;
    if (m->n_open == 0)
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
    if (m->n_open) {
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

/* A buffer int32 [n, T] of tokens. Returns 0 with an error set where it is none. */
static int take_tokens(PyObject *object, Py_buffer *tokens, int flags)
{
    if (PyObject_GetBuffer(object, tokens, flags | PyBUF_STRIDES) < 0)
        return 0;
    if (tokens->ndim == 2 && tokens->itemsize == 4)
        return 1;
    PyBuffer_Release(tokens);
    PyErr_SetString(PyExc_ValueError, "tokens are int32 [n, T]");
    return 0;
}

PyDoc_STRVAR(encode_doc,
"mixer_encode(mixer, said, tokens: int32 [n, T], k: uint32 [24 n T], bits: uint8 [24 n T]) -> int\n\n"
"Whole steps of known tokens: writes their decisions in coding order, returns how many they are.");
static PyObject *mixer_encode(PyObject *self, PyObject *args)
{
    PyObject *capsule, *said, *known;
    Py_buffer tokens, k, bits;
    if (!PyArg_ParseTuple(args, "OOOw*w*", &capsule, &said, &known, &k, &bits))
        return NULL;
    Mixer *m = mixer_of(capsule);
    Py_ssize_t count = -1;
    if (m == NULL || !take_tokens(known, &tokens, 0))
        goto done;
    Py_ssize_t n = tokens.shape[0], T = tokens.shape[1];
    int valid = k.len / 4 >= n * T * 24 && bits.len >= n * T * 24;
    for (Py_ssize_t l = 0; l < n; l++)
        for (Py_ssize_t t = 0; t < T; t++)
            valid = valid && *token_at(&tokens, l, t) >= 0 && *token_at(&tokens, l, t) < m->vocab_size;
    if (!valid)
        PyErr_SetString(PyExc_ValueError, "tokens outside the vocabulary, or too little room for their decisions");
    if (valid && prepare(m, n, T, said)) {
        uint32_t *out = k.buf;
        uint8_t *bit = bits.buf;
        count = 0;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t t = 0; t < T; t++) {
            begin_step(m, (int)n, (int)t);
            for (int open; (open = m->n_open) > 0; count += open) {
                predict_level(m, out + count);
                for (int i = 0; i < open; i++) {
                    const Lane *s = m->open[i];
                    bit[count + i] = *token_at(&tokens, s - m->lanes, t) >= m->nodes[s->node].mid;
                }
                update_level(m, bit + count);
            }
            end_step(m);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&tokens);
done:
    PyBuffer_Release(&k);
    PyBuffer_Release(&bits);
    return count < 0 ? NULL : PyLong_FromSsize_t(count);
}

/* Step t of lanes 0..n-1, whose decisions the coder reads; 0 when no encoder writes such data. */
static int read_step(Mixer *m, RangeDecoder *coder, int n, int t)
{
    begin_step(m, n, t);
    while (m->n_open) {
        predict_level(m, m->k);
        int64_t start = coder->timed ? lmc_now() : 0;
        for (int i = 0; i < m->n_open; i++) {
            int bit = range_bit(coder, m->k[i]);
            if (bit < 0) { /* the step ends here */
                m->n_open = 0;
                return 0;
            }
            m->bit[i] = (uint8_t)bit;
        }
        if (coder->timed)
            coder->spent += lmc_now() - start;
        update_level(m, m->bit);
    }
    end_step(m);
    return 1;
}

int lmc_mixer_decode(Mixer *m, RangeDecoder *coder, int n, const uint64_t *base, const uint32_t *local,
                     const int8_t *features, int32_t *tokens)
{
    m->given.base = (const char *)base;
    m->given.local = (const char *)local;
    m->given.base_lane = (Py_ssize_t)sizeof *base * ((m->vocab_size + 63) / 64);
    m->given.local_lane = (Py_ssize_t)sizeof *local * m->vocab_size;
    m->given.features = features;
    m->given.features_lane = m->n_features;
    int possible = read_step(m, coder, n, 0);
    for (int l = 0; l < n && possible; l++)
        tokens[l] = ~m->lanes[l].node;
    return possible;
}

PyDoc_STRVAR(decode_doc,
"mixer_decode(mixer, decoder, said, tokens: writable int32 [n, T]) -> bool\n\n"
"Whole steps, their decisions read by a range_decoder; False when no encoder writes such data.");
static PyObject *mixer_decode(PyObject *self, PyObject *args)
{
    PyObject *capsule, *decoder, *said, *wanted;
    Py_buffer tokens;
    if (!PyArg_ParseTuple(args, "OOOO", &capsule, &decoder, &said, &wanted))
        return NULL;
    Mixer *m = mixer_of(capsule);
    RangeDecoder *coder = m ? PyCapsule_GetPointer(decoder, RANGE_DECODER) : NULL;
    if (coder == NULL || !take_tokens(wanted, &tokens, PyBUF_WRITABLE))
        return NULL;
    Py_ssize_t n = tokens.shape[0], T = tokens.shape[1];
    int ready = prepare(m, n, T, said), possible = 1;
    if (ready) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t t = 0; t < T && possible; t++) {
            possible = read_step(m, coder, (int)n, (int)t);
            for (Py_ssize_t l = 0; l < n && possible; l++)
                *token_at(&tokens, l, t) = ~m->lanes[l].node;
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&tokens);
    return ready ? PyBool_FromLong(possible) : NULL;
}

PyDoc_STRVAR(learned_doc,
"mixer_learned(mixer) -> (slot_map, guess_map, weights, final_weights)\n\nThe bytes of what prior.Learned holds, as it is now.");
static PyObject *mixer_learned(PyObject *self, PyObject *capsule)
{
    Mixer *m = mixer_of(capsule);
    if (m == NULL)
        return NULL;
    const Parts *parts = m->light ? &LIGHT : &FULL;
    int last = parts->sets - 1;
    Py_ssize_t rows = m->set_start[last] + set_rows(m->n_node, last);
    return Py_BuildValue("y#y#y#y#", (char *)m->slot_map, (Py_ssize_t)parts->contexts * 512 * 4, (char *)m->guess_map,
                         (Py_ssize_t)parts->guesses * CONFIDENCES * LEVELS * 4, (char *)m->weights, rows * N_INPUT * 2,
                         (char *)m->final_weights, (Py_ssize_t)ORDERS * 6 * N_SET * 4);
}

static PyMethodDef methods[] = {
    {"mixer_learned", mixer_learned, METH_O, learned_doc},
    {"mixer", mixer_new, METH_VARARGS, mixer_doc},
    {"mixer_begin", mixer_begin, METH_VARARGS, begin_doc},
    {"mixer_predict", mixer_predict, METH_O, predict_doc},
    {"mixer_update", mixer_update, METH_VARARGS, update_doc},
    {"mixer_tokens", mixer_tokens, METH_O, tokens_doc},
    {"mixer_encode", mixer_encode, METH_VARARGS, encode_doc},
    {"mixer_decode", mixer_decode, METH_VARARGS, decode_doc},
    {NULL, NULL, 0, NULL},
};

int lmc_add_mixer(PyObject *module) { return PyModule_AddFunctions(module, methods); }
