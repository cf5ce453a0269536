/* lmcompress._native: the parts of the package that need a compiled loop.
 * Each file adds its own functions; this one only assembles them. */
#include "native.h"

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "lmcompress._native", "Compiled kernels of lmcompress.", -1, NULL,
};

PyMODINIT_FUNC PyInit__native(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL)
        return NULL;
    if (lmc_add_segment(module) < 0 || lmc_add_mixer(module) < 0 || lmc_add_rangecoder(module) < 0 ||
        lmc_add_transformer(module) < 0 || lmc_add_decode(module) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
