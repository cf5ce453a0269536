/* Cheapest segmentation of bytes into vocabulary pieces (Viterbi over a byte trie).
 *
 * Knows: pieces and their integer costs. Does not know: what the costs mean, UTF-8, models.
 * Same result as tokenizer.segment_reference: among the paths of least total cost (that leave alone what is told to
 * stay alone), the one whose last piece is shortest, then its last but one, and so on. */
#include "native.h"
#include <stdlib.h>
#include <string.h>

#define WINDOW 65536      /* bytes segmented together; pieces never cross a window's end */
#define MAX_PIECE 64      /* longest piece, bytes */
#define NO_PIECE 0xFFFF
#define CODE_CHANGES 3    /* a word with so many changes between letters and digits is a code */
#define CODE_HEX 4        /* so is one of so many hexadecimal digits */

typedef struct {
    int n_node;
    uint16_t (*child)[256]; /* [n_node][256]: next node, 0 where there is none */
    uint16_t *piece;        /* [n_node]: id of the piece that ends here, or NO_PIECE */
    uint16_t *cost;         /* [vocab_size] */
    uint8_t *length;        /* [vocab_size], bytes */
} Trie;

static void trie_free(PyObject *capsule)
{
    Trie *trie = PyCapsule_GetPointer(capsule, "lmcompress.trie");
    if (trie == NULL)
        return;
    free(trie->child);
    free(trie->piece);
    free(trie->cost);
    free(trie->length);
    free(trie);
}

PyDoc_STRVAR(trie_doc,
"trie(pieces: list[bytes], costs: list[int]) -> capsule\n\n"
"A byte trie of the vocabulary for segment(). Every single byte must be a piece.");
static PyObject *trie_new(PyObject *self, PyObject *args)
{
    PyObject *pieces, *costs;
    if (!PyArg_ParseTuple(args, "O!O!", &PyList_Type, &pieces, &PyList_Type, &costs))
        return NULL;
    Py_ssize_t n = PyList_GET_SIZE(pieces), total = 1;
    if (n >= NO_PIECE || PyList_GET_SIZE(costs) != n) {
        PyErr_SetString(PyExc_ValueError, "as many costs as pieces are needed, fewer than 65535");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *piece = PyList_GET_ITEM(pieces, i);
        if (!PyBytes_Check(piece) || PyBytes_GET_SIZE(piece) < 1 || PyBytes_GET_SIZE(piece) > MAX_PIECE) {
            PyErr_SetString(PyExc_ValueError, "a piece is 1 to 64 bytes");
            return NULL;
        }
        total += PyBytes_GET_SIZE(piece);
    }
    if (total > 65535)
        total = 65535;
    Trie *trie = calloc(1, sizeof *trie);
    PyObject *capsule = trie ? PyCapsule_New(trie, "lmcompress.trie", trie_free) : NULL;
    if (capsule == NULL) {
        free(trie);
        return PyErr_NoMemory();
    }
    trie->child = calloc(total, sizeof *trie->child);
    trie->piece = malloc(total * sizeof *trie->piece);
    trie->cost = malloc((n ? n : 1) * sizeof *trie->cost);
    trie->length = malloc(n ? n : 1);
    if (!trie->child || !trie->piece || !trie->cost || !trie->length) {
        Py_DECREF(capsule);
        return PyErr_NoMemory();
    }
    memset(trie->piece, 0xFF, total * sizeof *trie->piece);
    trie->n_node = 1;
    for (Py_ssize_t i = 0; i < n; i++) {
        const uint8_t *text = (const uint8_t *)PyBytes_AS_STRING(PyList_GET_ITEM(pieces, i));
        Py_ssize_t length = PyBytes_GET_SIZE(PyList_GET_ITEM(pieces, i));
        long cost = PyLong_AsLong(PyList_GET_ITEM(costs, i));
        if (cost < 1 || cost > 0xFFFF) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "a cost is 1 to 65535");
            Py_DECREF(capsule);
            return NULL;
        }
        int node = 0;
        for (Py_ssize_t j = 0; j < length; j++) {
            if (trie->child[node][text[j]] == 0) {
                if (trie->n_node >= total) {
                    PyErr_SetString(PyExc_ValueError, "the pieces need more than 65535 trie nodes");
                    Py_DECREF(capsule);
                    return NULL;
                }
                trie->child[node][text[j]] = (uint16_t)trie->n_node++;
            }
            node = trie->child[node][text[j]];
        }
        trie->piece[node] = (uint16_t)i;
        trie->cost[i] = (uint16_t)cost;
        trie->length[i] = (uint8_t)length;
    }
    for (int byte = 0; byte < 256; byte++)
        if (trie->child[0][byte] == 0 || trie->piece[trie->child[0][byte]] == NO_PIECE) {
            PyErr_SetString(PyExc_ValueError, "every single byte must be a piece");
            Py_DECREF(capsule);
            return NULL;
        }
    return capsule;
}

static int is_digit(uint8_t c) { return c >= '0' && c <= '9'; }
static int is_letter(uint8_t c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }

/* alone[i] = 1 where text[i] stays a piece by itself: digits, and letters of words that are codes (tokenizer.ALONE). */
static void mark_alone(const uint8_t *text, size_t n, uint8_t *alone)
{
    for (size_t start = 0, end; start < n; start = end + 1) {
        int changes = 0, lower = 1, upper = 1;
        for (end = start; end < n && (is_digit(text[end]) || is_letter(text[end])); end++) {
            uint8_t c = text[end];
            alone[end] = (uint8_t)is_digit(c);
            changes += end > start && is_digit(c) != is_digit(text[end - 1]);
            lower &= is_digit(c) || (c >= 'a' && c <= 'f');
            upper &= is_digit(c) || (c >= 'A' && c <= 'F');
        }
        if (changes && (changes >= CODE_CHANGES || (end - start >= CODE_HEX && (lower || upper))))
            memset(alone + start, 1, end - start);
        if (end < n)
            alone[end] = 0;
    }
}

/* ids of the cheapest path over text[0..n), n <= WINDOW; returns how many.
 * best[i] <= 65535 * 65536 < 2^32: cost of the cheapest path that ends at i. */
static size_t segment_window(const Trie *trie, const uint8_t *text, size_t n, uint32_t *best, uint16_t *last,
                             uint8_t *alone, int leave, uint16_t *ids)
{
    if (leave)
        mark_alone(text, n, alone);
    else
        memset(alone, 0, n);
    memset(best, 0xFF, (n + 1) * sizeof *best);
    best[0] = 0;
    for (size_t i = 0; i < n; i++) {
        int node = 0;
        for (size_t j = i; j < n; j++) {
            if (j > i && (alone[i] || alone[j]))
                break;
            node = trie->child[node][text[j]];
            if (node == 0)
                break;
            uint16_t piece = trie->piece[node];
            if (piece != NO_PIECE && best[i] + trie->cost[piece] <= best[j + 1]) {
                best[j + 1] = best[i] + trie->cost[piece];
                last[j + 1] = piece;
            }
        }
    }
    size_t count = 0;
    for (size_t i = n; i > 0; i -= trie->length[last[i]])
        ids[count++] = last[i];
    for (size_t i = 0; i < count / 2; i++) {
        uint16_t swap = ids[i];
        ids[i] = ids[count - 1 - i];
        ids[count - 1 - i] = swap;
    }
    return count;
}

PyDoc_STRVAR(segment_doc,
"segment(trie, data: bytes, alone: bool) -> bytes\n\n"
"Ids of the cheapest segmentation, as native-endian uint16; alone: of those that leave digits and codes alone.\n"
"Releases the GIL.");
static PyObject *segment(PyObject *self, PyObject *args)
{
    PyObject *capsule;
    Py_buffer data;
    int leave;
    if (!PyArg_ParseTuple(args, "Oy*p", &capsule, &data, &leave))
        return NULL;
    Trie *trie = PyCapsule_GetPointer(capsule, "lmcompress.trie");
    uint32_t *best = malloc((WINDOW + 1) * sizeof *best);
    uint16_t *last = malloc((WINDOW + 1) * sizeof *last);
    uint8_t *alone = malloc(WINDOW);
    uint16_t *ids = malloc((data.len ? data.len : 1) * sizeof *ids);
    PyObject *result = NULL;
    if (trie != NULL && best && last && alone && ids) {
        size_t count = 0;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t start = 0; start < data.len; start += WINDOW) {
            size_t n = data.len - start < WINDOW ? data.len - start : WINDOW;
            count += segment_window(trie, (const uint8_t *)data.buf + start, n, best, last, alone, leave,
                                    ids + count);
        }
        Py_END_ALLOW_THREADS
        result = PyBytes_FromStringAndSize((const char *)ids, count * sizeof *ids);
    } else if (trie != NULL)
        PyErr_NoMemory();
    free(best);
    free(last);
    free(alone);
    free(ids);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef methods[] = {
    {"trie", trie_new, METH_VARARGS, trie_doc},
    {"segment", segment, METH_VARARGS, segment_doc},
    {NULL, NULL, 0, NULL},
};

int lmc_add_segment(PyObject *module) { return PyModule_AddFunctions(module, methods); }
