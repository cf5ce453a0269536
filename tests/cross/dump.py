"""Test vectors for driver.c: python -m tests.cross.dump FILE

The golden cases of tests/vectors with everything that goes in and everything that comes out, little-endian, in the order
in which driver.c reads it. The digests of what comes out are checked against the golden ones first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from lmcompress.config import PERIOD, TURNS
from lmcompress.engine import reference
from tests.vectors import make

GOLDEN = Path(make.__file__).parent / "logits.json"


def main(path: str) -> None:
    parts = [np.array([len(make.CASES)], "<i4")]
    for case, golden in zip(make.CASES, json.loads(GOLDEN.read_text())["cases"], strict=True):
        model, tokens = make.model_and_tokens(case)
        engine = reference.Engine(model)
        found = make.digests(engine, tokens)
        if found != {name: golden[name] for name in found}:
            raise SystemExit("the reference engine does not give the golden integers")
        logits = engine.run(engine.start(len(tokens)), tokens)
        said = engine.distribution(engine.start(len(tokens)), tokens)
        c = model.config
        parts.append(np.array([c.vocab_size, c.d_model, c.n_layer, PERIOD, *tokens.shape], "<i4"))
        parts.append(np.array(c.layers, "<i4"))
        parts += [reference.COS.astype("<i2"), reference.SIN.astype("<i2"), np.array(TURNS, "<i4")]
        parts += [reference.EXP14.astype("<i4"), reference.EXP24.astype("<i4"), model.embed]
        for layer in model.layers:
            parts += [np.asarray(a) for a in vars(layer).values()]
        parts += [model.head, model.head_scale, model.head_gain, tokens, logits, *said]
    Path(path).write_bytes(b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in parts))


if __name__ == "__main__":
    main(sys.argv[1])
