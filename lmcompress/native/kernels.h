/* The arithmetic of docs/MODEL.md, one set of functions for each instruction set.
 *
 * Knows: packed matrices, rows of activations, one lane's keys and values. Does not know: layers, lanes, threads, Python.
 * Every set gives the same integers: sums are of integers, and every other step is one correctly rounded IEEE operation. */
#ifndef LMC_KERNELS_H
#define LMC_KERNELS_H
#include <stddef.h>
#include <stdint.h>

#define HEAD 64       /* components of a head */
#define ROTARY 32     /* leading components that turn with the position */
#define TILE 16       /* output columns that a set works on together */
#define STRIP 32      /* output columns that a product is asked for at least; every matrix has a multiple */
#define RING 64       /* slots of a lane's keys and values come in such numbers */
#define GROUP 64      /* symbols in a group of the cumulated distribution */
#define MAX_WINDOW 1024
#define MAX_HEADS 32
#define MAX_IN 8192   /* inputs of a matrix */
#define NORM 32.0     /* a normalized activation of 1.0 */

/* Weights within +-63, of n_in inputs (a multiple of 4) to n_out outputs (a multiple of STRIP). */
typedef struct {
    int n_out, n_in;
    int tile;        /* columns whose weights are packed together: the set's, or n_out, if it is made for sparse inputs */
    int8_t *packed;  /* [n_out / tile][n_in / 4][tile][4], 64-byte aligned */
    int32_t *start;  /* [n_out]: the accumulators' first values, which undo the offset of the inputs */
    float *scale;    /* [n_out] */
} Matrix;

typedef enum {
    TO_INT16,    /* int16: rounded, within +-limit */
    TO_RESIDUAL, /* int16: rounded, within +-32767, added to what is there, within +-32767 */
    TO_SQUARE,   /* uint8: u rounded and within 0..255, then (u * u + 128) >> 8 */
} Result;

/* Rows x [n][w->n_in] times the weights of outputs begin..end-1 (multiples of STRIP); out[row] + column is written.
 * Signed inputs come with 128 added. x is readable, though not used, to a number of rows that is a multiple of 16. */
typedef void Product(const Matrix *w, int begin, int end, const uint8_t *x, int n, Result result, float limit,
                     void *const *out);

typedef struct Kernel Kernel;
struct Kernel {
    const char *name;
    int (*supported)(void);
    int tile; /* columns whose weights are packed together */
    int bias; /* what product() takes from the uint8 inputs before it multiplies; packing allows for it in `start` */
    Product *product;
    /* x [d] over its root mean square, times the channels' gains: within +-127, 128 added. */
    void (*normalize)(const int16_t *x, const float *gain, int d, uint8_t *out);
    /* Heads t [n][HEAD] normalized, leading components turned by the angles whose cosines and sines these are. */
    void (*turn)(const int16_t *t, int n, const int16_t *cosine, const int16_t *sine, int8_t *out);
    /* Queries q [n_head][HEAD] of one position over the first `seen` slots of one lane: out [n_head][HEAD], 128 added.
     * keys: [slot / 16][HEAD / 4][16][4] with 128 added; values: [slot / 4][HEAD][4]; both readable to the next RING. */
    void (*attend)(const int8_t *q, int n_head, const uint8_t *keys, const int8_t *values, int seen,
                   const int32_t *score, float scale, const int32_t *exp14, uint8_t *out);
    /* Weights of logits [V] summed: base [ceil(V / GROUP)] before each group, local [V] inside it, inclusive. */
    void (*cumulate)(const int16_t *logits, int V, const int32_t *exp24, uint64_t *base, uint32_t *local);
    /* Of a matrix whose tile is n_out, for inputs of which most are 0, a multiple of 64; NULL: product() does as well. */
    Product *sparse_product;
    int few;                 /* for up to so many rows, */
    const Kernel *of_few;    /* this set is faster; it packs weights alike */
};

/* The set for so many rows at once. */
static inline const Kernel *kernel_for(const Kernel *kernel, int rows)
{
    return rows <= kernel->few ? kernel->of_few : kernel;
}

extern const Kernel *const lmc_kernels[]; /* best first, NULL at the end; the last is always supported */

extern const Kernel lmc_portable;
#if defined(__x86_64__) && defined(__GNUC__)
#define LMC_X86 1
extern const Kernel lmc_avx512vnni, lmc_avx2;
#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
#define LMC_AVXVNNI 1
extern const Kernel lmc_avxvnni;
#ifdef __linux__
#define LMC_AMX 1
extern const Kernel lmc_amx;
#endif
#endif
#elif defined(__AARCH64EL__) && defined(__GNUC__)
#if defined(__ARM_FEATURE_DOTPROD) || (defined(__clang__) ? __clang_major__ >= 16 : __GNUC__ >= 8)
#define LMC_NEON 1
extern const Kernel lmc_neon;
#endif
#endif

#endif
