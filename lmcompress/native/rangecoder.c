/* Range coder for binary decisions (Martin 1979): the bitstream of coder.py, compiled.
 *
 * Knows: decisions and their probabilities k / 2^24. Does not know: what is decided.
 * Same bytes as coder.py's plain coder, and as constriction's RangeEncoder with Bernoulli(perfect=False). */
#include "native.h"
#include "rangecoder.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t low;   /* the code lies in [low, low + range) below the words written */
    uint64_t range; /* >= 2^32 between decisions */
    uint32_t *word; /* [room], n of them written: the code's leading digits, base 2^32 */
    size_t n, room;
} Encoder;

static void encoder_free(PyObject *capsule)
{
    Encoder *coder = PyCapsule_GetPointer(capsule, "lmcompress.range_encoder");
    if (coder == NULL)
        return;
    free(coder->word);
    free(coder);
}

static void decoder_free(PyObject *capsule)
{
    RangeDecoder *coder = PyCapsule_GetPointer(capsule, RANGE_DECODER);
    if (coder == NULL)
        return;
    Py_DECREF(coder->data);
    free(coder);
}

/* The code passed 2^64: add one to the words written. There is always one that is not all ones. */
static void carry(Encoder *coder)
{
    size_t i = coder->n;
    while (++coder->word[--i] == 0)
        ;
}

PyDoc_STRVAR(encoder_doc, "range_encoder() -> capsule\n\nAn encoder that has coded nothing yet.");
static PyObject *encoder_new(PyObject *self, PyObject *args)
{
    Encoder *coder = calloc(1, sizeof *coder);
    PyObject *capsule = coder ? PyCapsule_New(coder, "lmcompress.range_encoder", encoder_free) : NULL;
    if (capsule == NULL) {
        free(coder);
        return PyErr_NoMemory();
    }
    coder->range = UINT64_MAX;
    return capsule;
}

/* Room for `more` further words; 0 when there is no memory. */
static int reserve(Encoder *coder, size_t more)
{
    if (coder->room - coder->n >= more)
        return 1;
    size_t room = coder->room + coder->room / 2 + more + 64;
    uint32_t *word = realloc(coder->word, room * sizeof *word);
    if (word == NULL)
        return 0;
    coder->word = word;
    coder->room = room;
    return 1;
}

PyDoc_STRVAR(encode_doc,
"range_encode(encoder, bits: uint8 [n], k: uint32 [n])\n\n"
"Code n decisions, P(bit = 1) = k / 2^24, 0 < k < 2^24.");
static PyObject *encode(PyObject *self, PyObject *args)
{
    PyObject *capsule;
    Py_buffer bits, ks;
    if (!PyArg_ParseTuple(args, "Oy*y*", &capsule, &bits, &ks))
        return NULL;
    PyObject *result = NULL;
    Encoder *coder = PyCapsule_GetPointer(capsule, "lmcompress.range_encoder");
    if (coder == NULL)
        goto done;
    size_t n = bits.len;
    if ((size_t)ks.len != n * sizeof(uint32_t)) {
        PyErr_SetString(PyExc_ValueError, "one uint32 k is needed for each uint8 bit");
        goto done;
    }
    const uint8_t *bit = bits.buf;
    const uint32_t *k = ks.buf;
    uint64_t low = coder->low, range = coder->range;
    for (size_t i = 0; i < n; i++) {
        if (k[i] - 1 >= ONE - 1 || bit[i] > 1) {
            PyErr_SetString(PyExc_ValueError, "k must be 1 to 2^24 - 1 and a bit 0 or 1");
            goto done;
        }
        uint64_t scale = range >> 24, split = scale * zeros_of(k[i]);
        if (bit[i]) {
            range = (scale << 24) - split;
            low += split;
            if (low < split)
                carry(coder);
        } else
            range = split;
        if (range >> 32 == 0) {
            if (!reserve(coder, 1)) {
                PyErr_NoMemory();
                goto done;
            }
            coder->word[coder->n++] = (uint32_t)(low >> 32);
            low <<= 32;
            range <<= 32;
        }
        coder->low = low;
        coder->range = range;
    }
    result = Py_NewRef(Py_None);
done:
    PyBuffer_Release(&bits);
    PyBuffer_Release(&ks);
    return result;
}

PyDoc_STRVAR(state_doc,
"range_state(encoder) -> (words: bytes, low: int, range: int)\n\n"
"The big-endian words written so far, and the interval of 64-bit tails that may follow them.");
static PyObject *state(PyObject *self, PyObject *capsule)
{
    Encoder *coder = PyCapsule_GetPointer(capsule, "lmcompress.range_encoder");
    if (coder == NULL)
        return NULL;
    PyObject *words = PyBytes_FromStringAndSize(NULL, coder->n * 4);
    if (words == NULL)
        return NULL;
    uint8_t *out = (uint8_t *)PyBytes_AS_STRING(words);
    for (size_t i = 0; i < coder->n; i++)
        for (int j = 0; j < 4; j++)
            *out++ = (uint8_t)(coder->word[i] >> (24 - 8 * j));
    return Py_BuildValue("NKK", words, (unsigned long long)coder->low, (unsigned long long)coder->range);
}

PyDoc_STRVAR(decoder_doc, "range_decoder(data: bytes) -> capsule\n\nA decoder at the start of `data`.");
static PyObject *decoder_new(PyObject *self, PyObject *args)
{
    PyObject *data;
    if (!PyArg_ParseTuple(args, "S", &data))
        return NULL;
    RangeDecoder *coder = calloc(1, sizeof *coder);
    PyObject *capsule = coder ? PyCapsule_New(coder, RANGE_DECODER, decoder_free) : NULL;
    if (capsule == NULL) {
        free(coder);
        return PyErr_NoMemory();
    }
    coder->data = Py_NewRef(data);
    coder->range = UINT64_MAX;
    coder->offset = (uint64_t)range_word(coder) << 32;
    coder->offset |= range_word(coder);
    return capsule;
}

PyDoc_STRVAR(decode_doc,
"range_decode(decoder, k: uint32 [n], bits: writable uint8 [n]) -> bool\n\n"
"Decode n decisions into `bits`; False when no encoder writes such data.");
static PyObject *decode(PyObject *self, PyObject *args)
{
    PyObject *capsule;
    Py_buffer bits, ks;
    if (!PyArg_ParseTuple(args, "Oy*w*", &capsule, &ks, &bits))
        return NULL;
    PyObject *result = NULL;
    RangeDecoder *coder = PyCapsule_GetPointer(capsule, RANGE_DECODER);
    if (coder == NULL)
        goto done;
    size_t n = bits.len;
    if ((size_t)ks.len != n * sizeof(uint32_t)) {
        PyErr_SetString(PyExc_ValueError, "one uint32 k is needed for each uint8 bit");
        goto done;
    }
    uint8_t *bit = bits.buf;
    const uint32_t *k = ks.buf;
    for (size_t i = 0; i < n; i++) {
        if (k[i] - 1 >= ONE - 1) {
            PyErr_SetString(PyExc_ValueError, "k must be 1 to 2^24 - 1");
            goto done;
        }
        int came = range_bit(coder, k[i]);
        if (came < 0) {
            result = Py_NewRef(Py_False);
            goto done;
        }
        bit[i] = (uint8_t)came;
    }
    result = Py_NewRef(Py_True);
done:
    PyBuffer_Release(&bits);
    PyBuffer_Release(&ks);
    return result;
}

PyDoc_STRVAR(timed_doc,
"range_timed(decoder, on: bool) -> float\n\n"
"Seconds that reading decisions took the mixer since this was called last; they are counted from now on if `on`.");
static PyObject *timed(PyObject *self, PyObject *args)
{
    PyObject *capsule;
    int on;
    if (!PyArg_ParseTuple(args, "Op", &capsule, &on))
        return NULL;
    RangeDecoder *coder = PyCapsule_GetPointer(capsule, RANGE_DECODER);
    if (coder == NULL)
        return NULL;
    double spent = 1e-9 * (double)coder->spent;
    coder->timed = on;
    coder->spent = 0;
    return PyFloat_FromDouble(spent);
}

static PyMethodDef methods[] = {
    {"range_encoder", encoder_new, METH_NOARGS, encoder_doc},
    {"range_encode", encode, METH_VARARGS, encode_doc},
    {"range_state", state, METH_O, state_doc},
    {"range_decoder", decoder_new, METH_VARARGS, decoder_doc},
    {"range_decode", decode, METH_VARARGS, decode_doc},
    {"range_timed", timed, METH_VARARGS, timed_doc},
    {NULL, NULL, 0, NULL},
};

int lmc_add_rangecoder(PyObject *module) { return PyModule_AddFunctions(module, methods); }
