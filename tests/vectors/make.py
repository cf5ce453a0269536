"""Golden digests of the integer arithmetic: python -m tests.vectors.make > tests/vectors/logits.json

They change only with modelfile.ARITHMETIC: an archive made today decodes as long as they stay. Each case says how its
model and tokens come about; `weights` tells a change of numpy's random streams from one of the arithmetic.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import numpy as np

from lmcompress.config import ModelConfig
from lmcompress.engine import reference
from lmcompress.modelfile import ARITHMETIC, Model
from tests.models import TINY, random_model

CASES: list[dict[str, Any]] = [
    {"config": asdict(config), "seed": seed, "lanes": lanes, "steps": steps}
    for seed, (config, lanes, steps) in enumerate(
        [
            (TINY, 3, 60),
            (ModelConfig(vocab_size=288, d_model=128, n_layer=1, n_head=3, d_ff=64, window=20), 2, 50),
            (ModelConfig(vocab_size=512, d_model=192, n_layer=3, n_head=1, d_ff=320, window=16), 2, 40),
            (
                ModelConfig(
                    vocab_size=256,
                    d_model=64,
                    n_layer=4,
                    n_head=(2, 0, 3, 1),
                    d_ff=(0, 192, 64, 0),
                    window=(24, 1, 70, 5),
                ),
                2,
                80,
            ),
        ]
    )
]


def sha256(*arrays: np.ndarray) -> str:
    """Of the arrays' little-endian bytes, one after the other."""
    return hashlib.sha256(b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)).hexdigest()


def model_and_tokens(case: dict[str, Any]) -> tuple[Model, np.ndarray]:
    """The model and tokens int32 [lanes, steps] of a case."""
    model = random_model(ModelConfig(**case["config"]), case["seed"])
    tokens = np.random.default_rng(case["seed"]).integers(0, model.config.vocab_size, (case["lanes"], case["steps"]))
    return model, tokens.astype(np.int32)


def digests(engine: Any, tokens: np.ndarray) -> dict[str, str]:
    """What an engine makes of the tokens."""
    logits = engine.run(engine.start(len(tokens)), tokens)
    said = engine.distribution(engine.start(len(tokens)), tokens)
    return {"logits": sha256(logits), "cumulated": sha256(said.base, said.local), "features": sha256(said.features)}


def weights(model: Model) -> str:
    """Digest of everything in a model that the logits depend on."""
    layers = [np.asarray(a) for layer in model.layers for a in vars(layer).values()]
    return sha256(model.embed, *layers, model.head, model.head_scale)


def tables() -> str:
    """Digest of the arithmetic's constants."""
    return sha256(reference.COS, reference.SIN, reference.EXP14, reference.EXP24)


def main() -> None:
    cases = []
    for case in CASES:
        model, tokens = model_and_tokens(case)
        cases.append({**case, "weights": weights(model), **digests(reference.Engine(model), tokens)})
    print(json.dumps({"arithmetic": ARITHMETIC, "tables": tables(), "cases": cases}, indent=1))


if __name__ == "__main__":
    main()
