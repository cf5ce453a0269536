/* The integer Transformer over lanes, without Python.
 *
 * Knows: the architecture, packed weights, what lanes remember, threads. Does not know: how any sum is made (kernels.h),
 * Python. The caller checks shapes and tokens. */
#ifndef LMC_ENGINE_H
#define LMC_ENGINE_H
#include "clock.h"
#include "kernels.h"

#define MAX_THREADS 64

typedef struct {
    int vocab_size, d_model, n_layer;
    int period; /* positions after which every rotation repeats */
} Shape;

/* n_head 0: no attention; d_ff 0: no MLP; their arrays are not looked at then */
typedef struct {
    int32_t n_head, d_ff, window;
} LayerShape;

/* A model's arrays as modelfile.Model has them, and the tables of engine/reference.py; read only while an engine is made. */
typedef struct {
    LayerShape shape;
    const int8_t *qkv;                     /* [(n_head + 2) * HEAD, d_model] */
    const int8_t *o, *up, *down;           /* [d_model, n_head * HEAD], [d_ff, d_model], [d_model, d_ff] */
    const float *qkv_scale, *o_scale, *up_scale, *down_scale;
    const int32_t *score;                  /* [n_head] */
    float attn_scale;
    const float *qkv_gain, *up_gain;       /* [d_model]: powers of two */
} LayerArrays;

typedef struct {
    const int8_t *embed, *head;            /* [vocab_size, d_model] */
    const float *head_scale, *head_gain;   /* [vocab_size], [d_model] */
    const LayerArrays *layers;             /* [n_layer] */
    const int16_t *cosine, *sine;          /* [period]: 2^14 times */
    const int32_t *turns;                  /* [ROTARY / 2]: turns per period of each pair of components */
    const int32_t *exp14, *exp24;          /* [256] */
} Arrays;

typedef struct Engine Engine; /* weights and tables, which nothing changes: any number of states may run at once */
typedef struct State State;   /* what lanes remember, all at the same position; space to work in, threads */

const Kernel *lmc_kernel_find(const char *name); /* NULL name: the best supported; NULL result: unknown or unsupported */
/* NULL where there is no memory. */
Engine *lmc_engine_new(const Kernel *kernel, const Shape *shape, const Arrays *arrays);
void lmc_engine_free(Engine *engine);
State *lmc_state_new(const Engine *engine, int n_lanes, int threads);
void lmc_state_free(State *state);
int lmc_state_active(const State *state); /* lanes that are still running */
/* Logits [n, T, vocab_size] of what follows tokens [n, T] in lanes 0..n-1, n <= lmc_state_active; or, where logits is NULL,
 * their weights summed as in lmc_engine_cumulate, while the logits are still near the processor, and the features
 * [n, T, d_model] that gave them: what the head was multiplied with. */
void lmc_engine_run(const Engine *engine, State *state, const int32_t *tokens, int n, int64_t T, int16_t *logits,
                    uint64_t *base, uint32_t *local, int8_t *features);
/* base [rows, ceil(V / GROUP)], local [rows, V] of logits [rows, V]. */
void lmc_engine_cumulate(const Engine *engine, const int16_t *logits, int64_t rows, uint64_t *base, uint32_t *local);
/* What lmc_engine_run does beside normalizing rows. */
typedef enum { LMC_MATRICES, LMC_ATTENTION, LMC_DISTRIBUTION, LMC_TIMED } Timed;
/* Nanoseconds [LMC_TIMED] that each has taken since the last call of this; whether they are to be counted from now on. */
void lmc_state_timed(State *state, int on, int64_t *spent);
/* Multiply-adds per second of one thread in products of n rows; 0: no memory. */
double lmc_bench_product(const Kernel *kernel, int n, int n_out, int n_in, double seconds);

/* Weights [n_out, n_in] for a kernel, for inputs that come with `offset` added; packed is as large, and stays the caller's.
 * sparse: most of these are 0. 0, or -1: no memory; unpack() either way. */
int lmc_pack(Matrix *m, int8_t *packed, const Kernel *kernel, const int8_t *weights, const float *scale, int n_out,
             int n_in, int offset, int sparse);
void lmc_unpack(Matrix *m);

/* threads.c: job(context, part) for parts 0..n-1, n < 65536, shared among the threads. ready(), to be called before run()
 * and once again after a fork, says how many threads that is. */
typedef struct Pool Pool;
Pool *lmc_pool_new(int threads);
void lmc_pool_free(Pool *pool);
int lmc_pool_ready(Pool *pool);
void lmc_pool_run(Pool *pool, void (*job)(const void *context, int part), const void *context, int n);

/* 64-byte aligned, zeroed; NULL where there is no memory. */
void *lmc_alloc(size_t size);
void lmc_free(void *memory);

#endif
