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

#endif
