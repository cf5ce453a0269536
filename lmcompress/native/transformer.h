/* What Python's capsules of engines and of lanes' memory hold, for whoever runs them in C. */
#ifndef LMC_TRANSFORMER_H
#define LMC_TRANSFORMER_H
#include "engine.h"
#include "native.h"

#define ENGINE "lmcompress.engine" /* of capsules */
#define STATE "lmcompress.engine.state"

typedef struct {
    Engine *engine;
    Shape shape;
    const Kernel *kernel;
} Handle;

typedef struct {
    State *state;
    PyThread_type_lock lock; /* one call at a time */
} Lanes;

#endif
