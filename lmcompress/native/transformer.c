/* Python's view of the engine: checks what comes in, releases the GIL, calls engine.c. */
#include "transformer.h"
#include <stdlib.h>
#include <string.h>

static void engine_free(PyObject *capsule)
{
    Handle *handle = PyCapsule_GetPointer(capsule, ENGINE);
    lmc_engine_free(handle->engine);
    free(handle);
}

static void lanes_free(Lanes *lanes)
{
    if (lanes == NULL)
        return;
    if (lanes->lock)
        PyThread_free_lock(lanes->lock);
    lmc_state_free(lanes->state);
    free(lanes);
}

static void state_free(PyObject *capsule) { lanes_free(PyCapsule_GetPointer(capsule, STATE)); }

/* A contiguous buffer of exactly `count` items of `size` bytes; 0, or -1 with an exception set. */
static int take(PyObject *object, Py_buffer *view, int writable, int64_t count, size_t size, const char *what)
{
    if (PyObject_GetBuffer(object, view, writable ? PyBUF_CONTIG : PyBUF_CONTIG_RO) < 0)
        return -1; /* view->obj is NULL then, and after a release: releasing it again does nothing */
    if (count < 0 || (uint64_t)view->len != (uint64_t)count * size) {
        PyErr_Format(PyExc_ValueError, "%s has %zd bytes, not %lld times %zu", what, view->len, (long long)count, size);
        PyBuffer_Release(view);
        return -1;
    }
    return 0;
}

static const Kernel *find_kernel(const char *name)
{
    const Kernel *kernel = lmc_kernel_find(name);
    if (kernel == NULL)
        PyErr_Format(PyExc_ValueError, "no kernel %s on this machine", name);
    return kernel;
}

PyDoc_STRVAR(kernels_doc, "kernels() -> list[str]\n\nThe instruction sets that this machine supports, best first.");
static PyObject *kernels(PyObject *self, PyObject *args)
{
    PyObject *names = PyList_New(0);
    for (const Kernel *const *k = lmc_kernels; names != NULL && *k != NULL; k++) {
        if (!(*k)->supported())
            continue;
        PyObject *name = PyUnicode_FromString((*k)->name);
        if (name == NULL || PyList_Append(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

#define PER_LAYER 12
#define MAX_LAYER 64
#define N_TABLE 5

static int weights_bad(const int8_t *w, size_t n)
{
    int most = 0;
    for (size_t i = 0; i < n; i++) {
        int size = w[i] < 0 ? -w[i] : w[i];
        most = size > most ? size : most;
    }
    return most > 63;
}

static int scales_bad(const float *scale, size_t n)
{
    int bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= !(scale[i] >= 0x1p-40f && scale[i] <= 0x1p10f);
    return bad;
}

/* Powers of two from 2^-7 to 1. */
static int gains_bad(const float *gain, size_t n)
{
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        float g = gain[i];
        for (int j = 0; j < 7 && g < 1; j++)
            g *= 2;
        bad |= g != 1;
    }
    return bad;
}

PyDoc_STRVAR(engine_doc,
"engine(kernel: str | None, shape: tuple, tables: tuple, arrays: list) -> capsule\n\n"
"shape: vocab_size, d_model, and n_head, d_ff, window of each layer as int32 [n_layer, 3]. tables: cosine and sine int16 [period], turns int32 [16],\n"
"exp14 and exp24 int32 [256]. arrays: embed, twelve of each layer in modelfile's order, head,\n"
"head_scale, head_gain.\n"
"ValueError where they do not fit together or break the bounds of docs/MODEL.md.");
static PyObject *engine_new(PyObject *self, PyObject *args)
{
    const char *name;
    Shape s;
    PyObject *tables, *arrays;
    Py_buffer shapes;
    if (!PyArg_ParseTuple(args, "z(iiy*)O!O!", &name, &s.vocab_size, &s.d_model, &shapes, &PyTuple_Type, &tables,
                          &PyList_Type, &arrays))
        return NULL;
    LayerShape shape[MAX_LAYER] = {0};
    s.n_layer = (int)(shapes.len / (Py_ssize_t)sizeof *shape);
    int fits = shapes.len % (Py_ssize_t)sizeof *shape == 0 && s.n_layer >= 1 && shapes.len <= (Py_ssize_t)sizeof shape;
    if (fits)
        memcpy(shape, shapes.buf, shapes.len);
    PyBuffer_Release(&shapes);
    for (int i = 0; fits && i < s.n_layer; i++)
        fits = shape[i].n_head >= 0 && shape[i].n_head <= MAX_HEADS && shape[i].d_ff >= 0 && shape[i].d_ff <= 8192 &&
               shape[i].d_ff % 64 == 0 && shape[i].window >= 1 && shape[i].window <= MAX_WINDOW;
    const Kernel *kernel = find_kernel(name);
    if (kernel == NULL)
        return NULL;
    if (!fits || s.vocab_size < STRIP || s.vocab_size > 32768 || s.vocab_size % STRIP || s.d_model < 64 ||
        s.d_model > 2048 || s.d_model % 64 || PyTuple_GET_SIZE(tables) != N_TABLE ||
        PyList_GET_SIZE(arrays) != PER_LAYER * s.n_layer + 4) {
        PyErr_SetString(PyExc_ValueError, "the model's shape is out of bounds");
        return NULL;
    }
    int64_t d = s.d_model, V = s.vocab_size;
    int n_array = PER_LAYER * s.n_layer + 4, taken = 0, tables_taken = 0;
    Py_buffer *view = calloc(n_array, sizeof *view), table[N_TABLE];
    LayerArrays *layers = calloc(s.n_layer, sizeof *layers);
    Handle *handle = calloc(1, sizeof *handle);
    PyObject *capsule = NULL;
    if (!view || !layers || !handle) {
        PyErr_NoMemory();
        goto end;
    }
    for (; taken < n_array; taken++) {
        int64_t count = taken == n_array - 1 ? d : taken == n_array - 2 ? V : V * d;
        /* b: embedding, w: weights within 63, f: scales, s: scores, g: gains */
        char kind = taken == 0 ? 'b' : taken == n_array - 1 ? 'g' : taken == n_array - 2 ? 'f' : 'w';
        if (taken > 0 && taken < n_array - 3) {
            LayerShape of = shape[(taken - 1) / PER_LAYER];
            int64_t heads = of.n_head * HEAD, qkv = heads ? heads + 2 * HEAD : 0, d_ff = of.d_ff;
            const int64_t counts[PER_LAYER] = {qkv * d, qkv, of.n_head, 1, d * heads, heads ? d : 0, d_ff * d, d_ff,
                                              d * d_ff, d_ff ? d : 0, d, d};
            count = counts[(taken - 1) % PER_LAYER];
            kind = "wfsfwfwfwfgg"[(taken - 1) % PER_LAYER];
        }
        Py_buffer *v = &view[taken];
        if (take(PyList_GET_ITEM(arrays, taken), v, 0, count, kind == 'b' || kind == 'w' ? 1 : 4, "an array of the model"))
            goto end;
        int bad = kind == 'w' ? weights_bad(v->buf, count) : kind == 'f' ? scales_bad(v->buf, count) : 0;
        bad |= kind == 'g' && gains_bad(v->buf, count);
        for (int64_t i = 0; kind == 's' && i < count; i++)
            bad |= ((const int32_t *)v->buf)[i] < 1 || ((const int32_t *)v->buf)[i] > 511;
        if (bad) {
            taken++;
            PyErr_SetString(PyExc_ValueError, "a weight, scale or score of the model is out of bounds");
            goto end;
        }
    }
    Py_ssize_t period_bytes = PyObject_Size(PyTuple_GET_ITEM(tables, 0));
    if (period_bytes < 1 || period_bytes > 65536) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "the table of cosines is empty or too long");
        goto end;
    }
    s.period = (int)period_bytes;
    int64_t table_count[N_TABLE] = {s.period, s.period, ROTARY / 2, 256, 256};
    for (; tables_taken < N_TABLE; tables_taken++)
        if (take(PyTuple_GET_ITEM(tables, tables_taken), &table[tables_taken], 0, table_count[tables_taken],
                 tables_taken < 2 ? 2 : 4, "a table"))
            goto end;
    for (int i = 0; i < s.n_layer; i++) {
        const Py_buffer *v = &view[1 + PER_LAYER * i];
        layers[i] = (LayerArrays){.shape = shape[i], .qkv = v[0].buf, .qkv_scale = v[1].buf, .score = v[2].buf, .o = v[4].buf,
                                  .o_scale = v[5].buf, .up = v[6].buf, .up_scale = v[7].buf, .down = v[8].buf,
                                  .down_scale = v[9].buf, .qkv_gain = v[10].buf, .up_gain = v[11].buf};
        memcpy(&layers[i].attn_scale, v[3].buf, sizeof(float));
    }
    Arrays all = {.embed = view[0].buf, .head = view[n_array - 3].buf, .head_scale = view[n_array - 2].buf,
                  .head_gain = view[n_array - 1].buf, .layers = layers, .cosine = table[0].buf, .sine = table[1].buf, .turns = table[2].buf,
                  .exp14 = table[3].buf, .exp24 = table[4].buf};
    handle->shape = s;
    handle->kernel = kernel;
    Py_BEGIN_ALLOW_THREADS
    handle->engine = lmc_engine_new(kernel, &s, &all);
    Py_END_ALLOW_THREADS
    if (!handle->engine)
        PyErr_NoMemory();
    else
        capsule = PyCapsule_New(handle, ENGINE, engine_free);
end:
    if (capsule == NULL && handle != NULL) {
        lmc_engine_free(handle->engine);
        free(handle);
    }
    for (int i = 0; i < taken; i++)
        PyBuffer_Release(&view[i]);
    for (int i = 0; i < tables_taken; i++)
        PyBuffer_Release(&table[i]);
    free(view);
    free(layers);
    return capsule;
}

PyDoc_STRVAR(engine_kernel_doc, "engine_kernel(engine) -> str\n\nThe instruction set that an engine uses.");
static PyObject *engine_kernel(PyObject *self, PyObject *capsule)
{
    Handle *handle = PyCapsule_GetPointer(capsule, ENGINE);
    return handle == NULL ? NULL : PyUnicode_FromString(handle->kernel->name);
}

PyDoc_STRVAR(engine_start_doc,
"engine_start(engine, n_lanes: int, threads: int) -> capsule\n\n"
"What lanes remember before their first token, and how many threads share their steps. The states of one engine may run\n"
"at the same time.");
static PyObject *engine_start(PyObject *self, PyObject *args)
{
    PyObject *capsule;
    int n_lanes, threads;
    if (!PyArg_ParseTuple(args, "Oii", &capsule, &n_lanes, &threads))
        return NULL;
    Handle *handle = PyCapsule_GetPointer(capsule, ENGINE);
    if (handle == NULL)
        return NULL;
    if (n_lanes < 0 || n_lanes > 65536) {
        PyErr_SetString(PyExc_ValueError, "0 to 65536 lanes");
        return NULL;
    }
    if (threads < 1 || threads > MAX_THREADS)
        return PyErr_Format(PyExc_ValueError, "1 to %d threads", MAX_THREADS);
    PyObject *result = NULL;
    Lanes *lanes = calloc(1, sizeof *lanes);
    if (lanes != NULL) {
        lanes->state = lmc_state_new(handle->engine, n_lanes, threads);
        lanes->lock = PyThread_allocate_lock();
    }
    if (lanes == NULL || lanes->state == NULL || lanes->lock == NULL)
        PyErr_NoMemory();
    else
        result = PyCapsule_New(lanes, STATE, state_free);
    if (result == NULL)
        lanes_free(lanes);
    return result;
}

PyDoc_STRVAR(engine_run_doc,
"engine_run(engine, state, tokens, n: int, T: int, logits, said) -> None\n\n"
"tokens int32 [n, T] of lanes 0..n-1 in; out, of what follows, either logits int16 [n, T, V] or, where logits is None,\n"
"said: a distribution.Distribution of base uint64 [n, T, ceil(V / 64)], local uint32 [n, T, V], features int8 [n, T, d_model]. Releases the GIL.\n"
"ValueError for a token outside the vocabulary and for more lanes than were still running.");
static PyObject *engine_run(PyObject *self, PyObject *args)
{
    PyObject *engine, *state_capsule, *tokens_object, *logits_object, *said;
    PyObject *base_object = NULL, *local_object = NULL, *features_object = NULL;
    int n;
    long long T;
    if (!PyArg_ParseTuple(args, "OOOiLOO", &engine, &state_capsule, &tokens_object, &n, &T, &logits_object, &said) ||
        (logits_object == Py_None && !lmc_distribution(said, &base_object, &local_object, &features_object)))
        return NULL;
    Handle *handle = PyCapsule_GetPointer(engine, ENGINE);
    Lanes *lanes = handle == NULL ? NULL : PyCapsule_GetPointer(state_capsule, STATE);
    if (lanes == NULL)
        return NULL;
    int active = lmc_state_active(lanes->state);
    if (n < 0 || n > active || T < 0 || T > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%d lanes are still running, not %d", active, n);
        return NULL;
    }
    Py_buffer tokens = {0}, logits = {0}, base = {0}, local = {0}, features = {0};
    PyObject *result = NULL;
    int64_t V = handle->shape.vocab_size, groups = (V + GROUP - 1) / GROUP;
    if (take(tokens_object, &tokens, 0, n * T, 4, "tokens"))
        goto end;
    if (logits_object != Py_None ? take(logits_object, &logits, 1, n * T * V, 2, "logits")
                                 : take(base_object, &base, 1, n * T * groups, 8, "base") ||
                                       take(local_object, &local, 1, n * T * V, 4, "local") ||
                                       take(features_object, &features, 1, n * T * handle->shape.d_model, 1, "features"))
        goto end;
    const int32_t *ids = tokens.buf;
    int bad = 0;
    for (int64_t i = 0; i < n * T; i++)
        bad |= ids[i] < 0 || ids[i] >= V;
    if (bad) {
        PyErr_SetString(PyExc_ValueError, "a token is not in the vocabulary");
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock(lanes->lock, WAIT_LOCK);
    lmc_engine_run(handle->engine, lanes->state, ids, n, T, logits.buf, base.buf, local.buf, features.buf);
    PyThread_release_lock(lanes->lock);
    Py_END_ALLOW_THREADS
    Py_INCREF(Py_None);
    result = Py_None;
end:
    PyBuffer_Release(&tokens);
    PyBuffer_Release(&logits);
    PyBuffer_Release(&base);
    PyBuffer_Release(&local);
    PyBuffer_Release(&features);
    return result;
}

PyDoc_STRVAR(engine_cumulate_doc,
"engine_cumulate(engine, logits, rows: int, base, local) -> None\n\n"
"logits int16 [rows, V] in; base uint64 [rows, ceil(V / 64)] and local uint32 [rows, V] out. Releases the GIL.");
static PyObject *engine_cumulate(PyObject *self, PyObject *args)
{
    PyObject *engine, *logits_object, *base_object, *local_object;
    long long rows;
    if (!PyArg_ParseTuple(args, "OOLOO", &engine, &logits_object, &rows, &base_object, &local_object))
        return NULL;
    Handle *handle = PyCapsule_GetPointer(engine, ENGINE);
    if (handle == NULL)
        return NULL;
    if (rows < 0 || rows > INT64_MAX >> 20) {
        PyErr_SetString(PyExc_ValueError, "rows out of bounds");
        return NULL;
    }
    int64_t V = handle->shape.vocab_size, groups = (V + GROUP - 1) / GROUP;
    Py_buffer logits = {0}, base = {0}, local = {0};
    PyObject *result = NULL;
    if (take(logits_object, &logits, 0, rows * V, 2, "logits") || take(base_object, &base, 1, rows * groups, 8, "base") ||
        take(local_object, &local, 1, rows * V, 4, "local"))
        goto end;
    Py_BEGIN_ALLOW_THREADS
    lmc_engine_cumulate(handle->engine, logits.buf, rows, base.buf, local.buf);
    Py_END_ALLOW_THREADS
    Py_INCREF(Py_None);
    result = Py_None;
end:
    PyBuffer_Release(&logits);
    PyBuffer_Release(&base);
    PyBuffer_Release(&local);
    return result;
}

PyDoc_STRVAR(engine_timed_doc,
"engine_timed(state, on: bool) -> tuple[float, float, float]\n\n"
"Seconds that products of matrices, attention and output distributions of a state have taken since this was called\n"
"last; they are counted from now on if `on`.");
static PyObject *engine_timed(PyObject *self, PyObject *args)
{
    PyObject *capsule;
    int on;
    if (!PyArg_ParseTuple(args, "Op", &capsule, &on))
        return NULL;
    Lanes *lanes = PyCapsule_GetPointer(capsule, STATE);
    if (lanes == NULL)
        return NULL;
    int64_t spent[LMC_TIMED];
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock(lanes->lock, WAIT_LOCK);
    lmc_state_timed(lanes->state, on, spent);
    PyThread_release_lock(lanes->lock);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("(ddd)", 1e-9 * (double)spent[LMC_MATRICES], 1e-9 * (double)spent[LMC_ATTENTION],
                         1e-9 * (double)spent[LMC_DISTRIBUTION]);
}

PyDoc_STRVAR(bench_gemm_doc,
"bench_gemm(kernel: str | None, M: int, N: int, K: int, seconds: float) -> float\n\n"
"Multiply-adds per second of one thread in products of M rows, K inputs and N outputs, N a multiple of 32, K of 64.");
static PyObject *bench_gemm(PyObject *self, PyObject *args)
{
    const char *name;
    int M, N, K;
    double seconds, rate;
    if (!PyArg_ParseTuple(args, "ziiid", &name, &M, &N, &K, &seconds))
        return NULL;
    const Kernel *kernel = find_kernel(name);
    if (kernel == NULL)
        return NULL;
    if (M < 1 || M > 65536 || N < STRIP || N > 65536 || N % STRIP || K < 64 || K > 8192 || K % 64) {
        PyErr_SetString(PyExc_ValueError, "M, N or K out of bounds");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    rate = lmc_bench_product(kernel, M, N, K, seconds);
    Py_END_ALLOW_THREADS
    return rate > 0 ? PyFloat_FromDouble(rate) : PyErr_NoMemory();
}

static PyMethodDef methods[] = {
    {"kernels", kernels, METH_NOARGS, kernels_doc},
    {"engine", engine_new, METH_VARARGS, engine_doc},
    {"engine_kernel", engine_kernel, METH_O, engine_kernel_doc},
    {"engine_start", engine_start, METH_VARARGS, engine_start_doc},
    {"engine_run", engine_run, METH_VARARGS, engine_run_doc},
    {"engine_cumulate", engine_cumulate, METH_VARARGS, engine_cumulate_doc},
    {"engine_timed", engine_timed, METH_VARARGS, engine_timed_doc},
    {"bench_gemm", bench_gemm, METH_VARARGS, bench_gemm_doc},
    {NULL, NULL, 0, NULL},
};

int lmc_add_transformer(PyObject *module) { return PyModule_AddFunctions(module, methods); }
