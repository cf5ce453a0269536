/* Shared by the files of lmcompress._native. */
#ifndef LMC_NATIVE_H
#define LMC_NATIVE_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

int lmc_add_decode(PyObject *module);
int lmc_add_segment(PyObject *module);
int lmc_add_mixer(PyObject *module);
int lmc_add_rangecoder(PyObject *module);
int lmc_add_transformer(PyObject *module);

/* The arrays of a distribution.Distribution, borrowed; 0 with TypeError set for anything else. */
static inline int lmc_distribution(PyObject *said, PyObject **base, PyObject **local, PyObject **features)
{
    if (!PyTuple_Check(said) || PyTuple_GET_SIZE(said) != 3) {
        PyErr_SetString(PyExc_TypeError, "a distribution is three arrays");
        return 0;
    }
    *base = PyTuple_GET_ITEM(said, 0);
    *local = PyTuple_GET_ITEM(said, 1);
    *features = PyTuple_GET_ITEM(said, 2);
    return 1;
}

#endif
