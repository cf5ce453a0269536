/* Decoding step after step without Python: the network, then the mixer, which reads what came.
 *
 * Knows: what each does in a step. Does not know: how, blocks. */
#include "clock.h"
#include "mixer.h"
#include "transformer.h"
#include <stdlib.h>

PyDoc_STRVAR(decode_doc,
"decode(engine, state, mixer, decoder, previous: int32 [n], tokens: writable int32 [n, T]) -> tuple[bool, float, float]\n\n"
"T steps of lanes 0..n-1 after the tokens `previous`, their decisions read by a range_decoder. Whether an encoder writes such\n"
"data, and the seconds that the network took, and the mixer with the coder. Releases the GIL.");
static PyObject *decode(PyObject *self, PyObject *args)
{
    PyObject *engine, *state, *mixer_capsule, *decoder, *before, *wanted;
    if (!PyArg_ParseTuple(args, "OOOOOO", &engine, &state, &mixer_capsule, &decoder, &before, &wanted))
        return NULL;
    Handle *handle = PyCapsule_GetPointer(engine, ENGINE);
    Lanes *lanes = handle ? PyCapsule_GetPointer(state, STATE) : NULL;
    Mixer *mixer = lanes ? PyCapsule_GetPointer(mixer_capsule, MIXER) : NULL;
    RangeDecoder *coder = mixer ? PyCapsule_GetPointer(decoder, RANGE_DECODER) : NULL;
    if (coder == NULL)
        return NULL;
    Py_buffer previous = {0}, tokens = {0};
    if (PyObject_GetBuffer(before, &previous, PyBUF_ND) < 0 ||
        PyObject_GetBuffer(wanted, &tokens, PyBUF_WRITABLE | PyBUF_STRIDES) < 0) {
        PyBuffer_Release(&previous);
        return NULL;
    }
    PyObject *result = NULL;
    uint64_t *base = NULL;
    uint32_t *local = NULL;
    int8_t *features = NULL;
    int32_t *column = NULL;
    int d = handle->shape.d_model, V = handle->shape.vocab_size, groups = (V + GROUP - 1) / GROUP;
    Py_ssize_t n = tokens.ndim == 2 ? tokens.shape[0] : 0, T = n ? tokens.shape[1] : 0;
    int valid = n > 0 && previous.ndim == 1 && previous.shape[0] == n && previous.itemsize == 4 && tokens.itemsize == 4 &&
                n <= lmc_state_active(lanes->state) && lmc_mixer_fits(mixer, V, d);
    for (Py_ssize_t l = 0; valid && l < n; l++)
        valid = ((int32_t *)previous.buf)[l] >= 0 && ((int32_t *)previous.buf)[l] < V;
    if (!valid) {
        PyErr_SetString(PyExc_ValueError, "tokens are int32 [n, T] and int32 [n], in the vocabulary, of lanes that still run; the mixer is of the network's shape");
        goto end;
    }
    base = malloc((size_t)n * groups * sizeof *base);
    local = malloc((size_t)n * V * sizeof *local);
    features = malloc((size_t)n * d);
    column = malloc((size_t)n * sizeof *column);
    if (!base || !local || !features || !column) {
        PyErr_NoMemory();
        goto end;
    }
    if (!lmc_mixer_ready(mixer, n, T))
        goto end;
    memcpy(column, previous.buf, (size_t)n * sizeof *column);
    int possible = 1;
    int64_t network = 0, mixing = 0;
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock(lanes->lock, WAIT_LOCK);
    for (Py_ssize_t t = 0; t < T && possible; t++) {
        int64_t start = lmc_now();
        lmc_engine_run(handle->engine, lanes->state, column, (int)n, 1, NULL, base, local, features);
        int64_t middle = lmc_now();
        possible = lmc_mixer_decode(mixer, coder, (int)n, base, local, features, column);
        for (Py_ssize_t l = 0; l < n && possible; l++)
            *token_at(&tokens, l, t) = column[l];
        network += middle - start;
        mixing += lmc_now() - middle;
    }
    PyThread_release_lock(lanes->lock);
    Py_END_ALLOW_THREADS
    result = Py_BuildValue("(Odd)", possible ? Py_True : Py_False, 1e-9 * (double)network, 1e-9 * (double)mixing);
end:
    free(base);
    free(local);
    free(features);
    free(column);
    PyBuffer_Release(&previous);
    PyBuffer_Release(&tokens);
    return result;
}

static PyMethodDef methods[] = {
    {"decode", decode, METH_VARARGS, decode_doc},
    {NULL, NULL, 0, NULL},
};

int lmc_add_decode(PyObject *module) { return PyModule_AddFunctions(module, methods); }
