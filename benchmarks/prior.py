"""What mixers know at first: lmcompress/mixer/prior.json made again from text.

    python -m benchmarks prior FOLDER

FOLDER is training text as `lmcompress train` takes it (3 MB of its documents that are set aside, a minute). Mixers of each kind, with a network and without, go through documents
of 2 to 64 KB; each begins with what the one before had learned. Only the summary is kept (mixer/prior.py).

Knows: models, the mixer's interface. Does not know: archives.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmcompress.codec import layout
from lmcompress.engine import native as engine
from lmcompress.mixer import native, prior
from lmcompress.mixer.reference import squash
from lmcompress.mixer.tables import CELL_ROW, QUANTIZED, SETTLED
from lmcompress.modelfile import Model
from lmcompress.predictor import Vocabulary

TABLES = 24  # log2 of the bytes of each mixer's tables
COUNT = 255  # that a statistic has at most when the next document begins


def ignorant(parts: prior.Parts, vocab_size: int) -> prior.Learned:
    """Statistics that believe the slots they are for, equal trust in all inputs but the network's, which has ten times as much, of which the
    correction has a third."""
    slots = np.tile(np.array([squash((q * 192 + 96 - 3072) * 256) >> 2 for q in range(32)], np.uint32), 16)
    slots[CELL_ROW] = slots[QUANTIZED[(SETTLED >> 4) + 2048]]
    lengths = [256 + c // 4 * 100 for c in range(prior.CONFIDENCES)]
    odds = np.array([lengths, lengths, *[[512] * prior.CONFIDENCES] * (parts.guesses - 2)])
    guesses = np.vectorize(lambda z: squash(z * 256) >> 2)(odds).astype(np.uint32)
    row = np.zeros(prior.WIDTH, np.int16)
    row[: parts.contexts] = row[2 * parts.contexts :][: parts.guesses] = 800
    row[parts.model], row[parts.model + 2] = 5500, 2700
    return prior.Learned(
        np.tile(slots << 10, (parts.contexts, 1)),
        np.repeat(guesses[:, :, None] << 10, prior.LEVELS, axis=2),
        np.tile(row, (sum(parts.rows(vocab_size)), 1)),
        np.full((prior.ORDERS, prior.MOST_SETS), (1 << 18) // parts.sets, np.int32),
    )


def learn(model: Model, documents: Sequence[bytes], light: bool, network: bool) -> dict[str, Any]:
    """An entry of prior.json."""
    vocabulary = Vocabulary(model)
    parts = prior.LIGHT if light else prior.FULL
    first = known = ignorant(parts, model.config.vocab_size)
    runner, n_features = engine.Engine(model, 1), model.config.d_model if network else 0
    for document in documents:
        tokens = layout(vocabulary.tokenizer.encode(document).astype(np.int32), 1)[0]
        start = prior.Learned(
            *(_younger(known.slot_map), _younger(known.guess_map), known.weights, known.final_weights)
        )
        pieces = vocabulary.tokenizer.pieces
        tree = vocabulary.tree(vocabulary.nearest(tokens[0]))
        mixer = native.Mixer(tree, pieces, TABLES, 1, tokens.size, light, n_features, model.ngrams, start)
        if network:
            previous = np.concatenate([[[vocabulary.start]], tokens[:, :-1]], axis=1).astype(np.int32)
            mixer.encode(runner.distribution(runner.start(1), previous), tokens)
        else:
            mixer.encode(None, tokens)
        known = mixer.learned()
    return prior.summary(known, light, first, model.config.vocab_size)


def _younger(statistics: np.ndarray) -> np.ndarray:
    return statistics & ~np.uint32(1023) | np.minimum(statistics & 1023, COUNT)


def make(folder: Path, model: Model, total: int) -> str:
    """The text of prior.json from about `total` bytes of a folder's training documents."""
    from lmcompress.training import data

    rng = np.random.default_rng(0)
    documents = data.sample(folder, total, seed=1, set_aside=True)
    documents = [documents[i][: int(2 ** rng.uniform(11, 16))] for i in rng.permutation(len(documents))]
    documents = [d for d in documents if len(d) >= 512]
    entries = {
        f"{'light' if light else 'full'}, {'network' if network else 'alone'}": learn(model, documents, light, network)
        for light in (False, True)
        for network in (False, True)
    }
    lines = (f" {json.dumps(kind)}: {json.dumps(entry, separators=(',', ':'))}" for kind, entry in entries.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"
